"""The pages for operators at ``/operator``.

May import the service's context and http package.
"""
