"""Clocks."""

from __future__ import annotations

__all__ = ["ManualClock", "SystemClock"]

import datetime
import time
from typing import Self


class SystemClock:
    """The machine's wall clock."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that goes only when it is told to: for tests and simulations."""

    __slots__ = ("_now_ms",)

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    @classmethod
    def at(cls, moment: str) -> Self:
        """A clock that stands at ``moment``, such as ``2026-12-04T14:00:00+07:00``.

        Raises:
            ValueError: that is no moment, or has no offset from UTC.
        """
        parsed = datetime.datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError(f"{moment} has no offset from UTC; expected one, such as {moment}+07:00")
        return cls(round(parsed.timestamp() * 1000))

    def now_ms(self) -> int:
        """The time it was last set to."""
        return self._now_ms

    def set_ms(self, now_ms: int) -> None:
        """Set the time, forwards or backwards."""
        self._now_ms = now_ms

    def advance_ms(self, duration_ms: int) -> None:
        """Let ``duration_ms`` pass."""
        self._now_ms += duration_ms
