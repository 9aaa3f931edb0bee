"""The in-memory backend goes through the suite that ships for all backends."""

from quota_engine.conformance.test_backend import *  # noqa: F403
