"""The pages: for citizens at ``/``, for operators at ``/operator``. Rendered here, readable without JavaScript, which
only keeps them up to date.
"""
