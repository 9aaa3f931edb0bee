"""Codecs between the domain's objects and the lines of the Lua scripts, one module for each kind of ledger.

The kind with the most state, the office, has three: commands and answers, terms, and stored state.

Codecs may import domain, admission, waiting_room and draws, and the ports; they import no connection and no script.
"""
