"""Calls that must end within their time."""

from __future__ import annotations

__all__ = ["SLACK_MS", "error_of"]

from collections.abc import Callable
from typing import Final

import pytest

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown

SLACK_MS: Final = 1_500
"""For a busy machine. A call without the bound takes three seconds and more."""


def error_of(call: Callable[[], object], time_ms: int) -> Exception:
    """Return the error of a call, which ends within its time."""
    began_ms = monotonic_ms()
    with pytest.raises((BackendUnavailable, OutcomeUnknown)) as caught:
        call()
    took_ms = monotonic_ms() - began_ms
    assert took_ms < time_ms + SLACK_MS, caught.value
    return caught.value
