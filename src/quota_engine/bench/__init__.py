"""The benchmark of ``quota-engine bench``: plan, stores, load, result and report. May import the engine and reporting.

``docs/bench.md`` describes the cases. The command imports this package only when it runs.
"""
