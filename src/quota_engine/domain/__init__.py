"""The reservation rules: model, commands, outcomes, events, ledger and state machine. No I/O, clocks or randomness.

Imports the standard library and msgspec only. Time, ids and seeds are arguments. ``state_machine`` names the function
of each command; ``event_handlers`` is the only code that changes the state in ``ledger``.
"""
