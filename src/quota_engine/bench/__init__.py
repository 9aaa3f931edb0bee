"""What ``quota-engine bench`` measures with: the plan, the stores, the callers, the result and what is shown of it.

``docs/bench.md`` says what is measured and how to read it. Nothing here is imported before the command runs.
"""
