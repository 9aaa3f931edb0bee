"""The files that Locust runs: one sends requests over HTTP, one calls the engine directly.

May import the load test; nothing imports them but Locust and the thin copies in ``loadtests/``.
"""
