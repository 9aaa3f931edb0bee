"""Web pages: for citizens at ``/`` and for operators at ``/operator``.

The server renders them, and they work without JavaScript. May import the service's context and its ``http`` package.
"""
