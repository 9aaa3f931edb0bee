"""The history checker: calls and events of a run, held against a model that is written from ``docs/rules.md``.

Nothing here imports the rules' implementation. The simulator and ``quota-engine audit --history`` use it.
"""
