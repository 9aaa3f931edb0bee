"""Metrics, traces and the audit log of the service.

May import ports and the engine; never handlers.
"""
