"""The files that Locust runs: one sends requests over HTTP, one calls the engine directly.

May import the load test; only Locust and the thin copies in ``loadtests/`` import them. Locust puts this folder on
``sys.path``, so no module here may have the name of a standard module.
"""
