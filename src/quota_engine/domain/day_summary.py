"""Summaries of a day for operators: whether it can be booked, and its counters as JSON."""

from __future__ import annotations

__all__ = ["DayState", "day_state", "day_to_builtins"]

import datetime
import enum
from typing import Any

import msgspec

from quota_engine.domain.outcomes import DayView


class DayState(enum.StrEnum):
    """Booking state of a day."""

    CLOSED = "CLOSED"
    """The office closed the day. This state precedes all others."""
    OVER = "OVER"
    """The day has ended."""
    NOT_OPEN = "NOT_OPEN"
    """The day opens for booking later."""
    OPEN = "OPEN"
    """The day can be booked."""


def day_state(view: DayView, now_ms: int) -> DayState:
    """Return the booking state of a day.

    Args:
        view: The day.
        now_ms: The store's time, in milliseconds since 1970 (UTC).
    """
    if view.closed:
        return DayState.CLOSED
    if now_ms >= view.ends_at_ms:
        return DayState.OVER
    return DayState.NOT_OPEN if now_ms < view.opens_at_ms else DayState.OPEN


def day_to_builtins(view: DayView) -> dict[str, Any]:
    """Return a day as a dictionary for JSON.

    The field ``day`` is an ISO date. Moments are in milliseconds since 1970 (UTC).
    """
    fields: dict[str, Any] = msgspec.to_builtins(view)
    return {**fields, "day": datetime.date.fromordinal(view.day).isoformat()}
