"""The pages for citizens at ``/``.

May import the service's context and http package.
"""
