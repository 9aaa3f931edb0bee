"""Draws: the lottery, its ledger, its files, their verification, capacities from a catalog, and a summary.

Pure: no module does I/O or reads a clock. May import ``admission``, ``catalog`` and ``domain``.
"""
