"""Configuration of the service: its file, the environment and command-line options, checked and put together.

May import the catalog, admission, waiting rooms, and the service's http types; never the context or the handlers.
"""
