"""Metrics, traces and the audit log of the service.

May import the engine, ports and the catalog; never the service's other packages.
"""
