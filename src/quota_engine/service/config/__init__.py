"""The service's configuration file: its schema, its checks and what it sets up.

May import admission and catalog; never handlers.
"""
