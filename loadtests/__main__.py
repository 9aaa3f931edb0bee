"""Run the load test from a checkout: ``python -m loadtests``."""

from quota_engine.loadtest.command import main

if __name__ == "__main__":
    raise SystemExit(main())
