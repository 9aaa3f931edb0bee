"""An asyncio event loop on a virtual clock: if nothing can run, the clock jumps to the next timer."""

from __future__ import annotations

__all__ = ["VirtualLoop"]

import asyncio
from collections.abc import Sequence
from typing import Any


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines in a fixed order. It has no sockets and no threads, so nothing but its timers can wake it."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = self  # the base class waits here for sockets and for the next timer

    def time(self) -> float:
        """Return the virtual time in seconds, from 0."""
        return self._now_s

    def now_ms(self) -> float:
        """Return the virtual time in milliseconds, from 0."""
        return self._now_s * 1000

    def select(self, timeout_s: float | None) -> Sequence[Any]:
        """Let the virtual time pass until the next timer.

        Raises:
            RuntimeError: No timer is set: every task waits for another one.
        """
        if timeout_s is None:
            raise RuntimeError("every task of the simulation waits, and no timer is set")
        self._now_s += max(timeout_s, 0.0)
        return ()

    def _process_events(self, event_list: Sequence[Any]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads to wake the loop."""
