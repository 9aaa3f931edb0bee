"""Draws: the lottery, its ledger, its files and their verification.

Pure. May import admission, catalog and domain.
"""
