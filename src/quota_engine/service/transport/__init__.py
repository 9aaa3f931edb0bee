"""Connections: HTTP/1.1 parsing, timeouts and size limits on the sockets of uvicorn's server.

May import the service's http package only.
"""
