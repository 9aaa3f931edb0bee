"""Workflows: what the engine does, written once as generators that yield requests and perform no I/O.

May import the ports and everything below them; never the stores.
"""
