"""Connections: sockets, HTTP parsing, time limits and load shedding.

May import the service's http package.
"""
