"""The tests of the domain assert conservation after every event."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def assert_conservation(invariant_checks: None) -> None:
    """Turn on the invariant checks of the conformance plugin."""
