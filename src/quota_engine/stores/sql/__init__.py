"""Stores in a SQL database: ledgers in memory, and their entries in tables.

No statement knows a rule. A batch of commands is one transaction. It locks the ledger's row, and reads the entries that
this process has not seen. It applies the commands to the ledger in memory, and writes the result as one entry.
"""
