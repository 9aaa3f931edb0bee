"""The clocks of a store's servers, and the last moments of attempts by them. No I/O."""

from __future__ import annotations

__all__ = ["LastMoment", "ServerClocks"]

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Final

from quota_engine.clocks import MARGIN_MS, USABLE_MS, ServerClock, monotonic_ms
from quota_engine.stores.call_end import CallEnd

_CLOCKS_MAX: Final = 10_000
"""More addresses than a cluster has. A client that meets more forgets all of them."""


class ServerClocks:
    """The clocks of all servers of one store.

    Attributes:
        now_ms: This process's monotonic clock, in milliseconds.
    """

    def __init__(self, now_ms: Callable[[], float] = monotonic_ms) -> None:
        self.now_ms = now_ms
        self._clocks: dict[Hashable, ServerClock] = {}

    def of(self, node: Hashable) -> ServerClock:
        """Return the clock of the server at an address."""
        clock = self._clocks.get(node)
        if clock is None:
            if len(self._clocks) >= _CLOCKS_MAX:
                self._clocks.clear()
            clock = self._clocks[node] = ServerClock()
        return clock

    def is_due(self, node: Hashable) -> bool:
        """Return True if the sample of the server at an address should be replaced."""
        clock = self._clocks.get(node)
        return clock is None or clock.is_due(self.now_ms())

    def record(self, node: Hashable, reply: Sequence[int | str]) -> None:
        """Take the reply to ``TIME``, seconds and microseconds, as a sample."""
        seconds, microseconds = reply
        self.of(node).record(int(seconds) * 1000 + int(microseconds) / 1000, self.now_ms())


class LastMoment:
    """The last moments of a call's attempts, by the servers' clocks and by this process's monotonic clock.

    Attributes:
        clocks: The clocks of the store's servers.
        lost_until_ms: The monotonic time from which no attempt whose reply was lost can run any more.
    """

    __slots__ = ("_end", "_passes_at_ms", "_valid_ms", "clocks", "lost_until_ms")

    def __init__(self, clocks: ServerClocks, valid_ms: int) -> None:
        """Take the time that an attempt has from its sending to its start on the server, in milliseconds."""
        self.clocks = clocks
        self.lost_until_ms = -math.inf
        self._valid_ms = valid_ms
        self._passes_at_ms = -math.inf
        self._end: CallEnd | None = None

    def stamp(self, node: Hashable, end: CallEnd | None) -> int:
        """Return the last moment of an attempt that is sent to a server now, by that server's clock.

        Args:
            node: The address of the server.
            end: The end of the calls that the attempt is for. The last moment is earlier by ``MARGIN_MS``, and has
                passed already if no time is left.
        """
        now_ms = self.clocks.now_ms()
        valid_ms: float = self._valid_ms
        self._end = end
        if end is not None:
            end.record_sent()
            left_ms = end.ends_at_ms - now_ms - MARGIN_MS
            if left_ms < valid_ms:
                valid_ms = max(left_ms, -USABLE_MS)
        self._passes_at_ms = now_ms + valid_ms
        return max(0, math.floor(self.clocks.of(node).at(now_ms) + valid_ms))

    def record_lost(self) -> None:
        """Note that the reply to the attempt that was stamped last is lost: it may be in flight."""
        self.lost_until_ms = max(self.lost_until_ms, self._passes_at_ms + MARGIN_MS)

    def record_unknown(self) -> None:
        """Note that the attempt that was stamped last may have been applied."""
        if self._end is not None:
            self._end.record_unknown()

    def record_refused(self) -> None:
        """Note that the server has refused the attempt that was stamped last."""
        if self._end is not None:
            self._end.record_refused()

    def wait_ms(self) -> int:
        """Return how long to wait until no lost attempt can run any more, in milliseconds."""
        if self.lost_until_ms == -math.inf:
            return 0
        return max(0, math.ceil(self.lost_until_ms - self.clocks.now_ms()))
