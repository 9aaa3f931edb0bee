"""Stores in a SQL database: ledgers in memory, and their entries in tables.

No statement knows a rule. A batch of commands is one transaction: it locks the ledger's row, reads the entries that
this process has not seen, applies the commands to the ledger in memory, and writes what happened as one entry.
"""
