"""Clocks: the system's, and one that tests and simulations set."""

from __future__ import annotations

__all__ = ["ManualClock", "SystemClock"]

import datetime
import time
from typing import Self


class SystemClock:
    """The wall clock of the operating system."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when it is set, for tests and simulations."""

    __slots__ = ("_now_ms",)

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    @classmethod
    def at(cls, moment: str) -> Self:
        """Return a clock that shows an ISO 8601 time, such as ``2026-12-04T14:00:00+07:00``.

        Raises:
            ValueError: ``moment`` is not such a time, or has no offset from UTC.
        """
        parsed = datetime.datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError(f"{moment} has no offset from UTC; expected one, such as {moment}+07:00")
        return cls(round(parsed.timestamp() * 1000))

    def now_ms(self) -> int:
        """Return the time that it was last set to, in milliseconds since 1970 (UTC)."""
        return self._now_ms

    def set_ms(self, now_ms: int) -> None:
        """Set the time. It may go backwards."""
        self._now_ms = now_ms

    def advance_ms(self, duration_ms: int) -> None:
        """Move the clock by ``duration_ms``, which may be negative."""
        self._now_ms += duration_ms
