"""Adapters: what the ports are filled with. They carry, and decide nothing."""
