"""Codecs between the domain's objects and the lines that the Lua scripts read and write, one module a kind of ledger.

May import domain, admission, waiting_room and draws; never a connection.
"""
