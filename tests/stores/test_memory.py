"""The in-memory store passes the conformance suite."""

from quota_engine.conformance.test_backend import *  # noqa: F403
