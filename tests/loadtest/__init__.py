"""Tests of :mod:`quota_engine.loadtest`."""
