"""Lower bounds of servers' clocks, and the last moments that are computed from them. No I/O.

A client reads a server's clock with ``TIME``, some time after the server did. It adds the time that has passed since by
its own monotonic clock. The sum is never later than the server's time, unless the server's clock has been set back.
"""

from __future__ import annotations

__all__ = ["MARGIN_MS", "REFRESH_MS", "USABLE_MS", "LastMoment", "ServerClock", "ServerClocks", "monotonic_ms"]

import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Final

REFRESH_MS: Final = 10_000
"""The age from which a sample is replaced: ``TIME`` goes along with the next call that writes."""
USABLE_MS: Final = 60_000
"""The age from which a sample is not used: ``TIME`` precedes the next call that writes."""
MARGIN_MS: Final = 50
"""By so much two clocks may drift apart within ``USABLE_MS`` and one attempt: more than 800 millionths."""
_CLOCKS_MAX: Final = 10_000
"""More addresses than a cluster has. A client that meets more forgets all of them."""


def monotonic_ms() -> float:
    """Return the time of this process's monotonic clock in milliseconds."""
    return time.monotonic() * 1000


class ServerClock:
    """A lower bound of one server's clock. Threads may share it."""

    __slots__ = ("_sample",)

    def __init__(self) -> None:
        self._sample: tuple[float, float] | None = None
        """The server's time, and the monotonic time at which it arrived."""

    def record(self, server_ms: float, received_at_ms: float) -> None:
        """Take a sample. It replaces the one before, so that a clock that was set is followed.

        Args:
            server_ms: The server's time, in milliseconds since 1970.
            received_at_ms: The monotonic time at which it arrived.
        """
        self._sample = server_ms, received_at_ms

    def forget(self) -> None:
        """Forget the sample: another server may answer at this address from now on."""
        self._sample = None

    def is_usable(self, at_ms: float) -> bool:
        """Return True if :meth:`at` has a bound for a monotonic time."""
        return self._age_ms(at_ms) < USABLE_MS

    def is_due(self, at_ms: float) -> bool:
        """Return True if the sample should be replaced."""
        return self._age_ms(at_ms) >= REFRESH_MS

    def at(self, at_ms: float) -> float:
        """Return a time that the server's clock has reached at a monotonic time.

        The sample must be there; another thread may have forgotten it, and then the bound is 0.
        """
        sample = self._sample
        return 0 if sample is None else sample[0] + at_ms - sample[1]

    def _age_ms(self, at_ms: float) -> float:
        sample = self._sample
        return math.inf if sample is None else at_ms - sample[1]


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

    __slots__ = ("_passes_at_ms", "_valid_ms", "clocks", "lost_until_ms")

    def __init__(self, clocks: ServerClocks, valid_ms: int) -> None:
        """Take the time that an attempt has from its sending to its start on the server, in milliseconds."""
        self.clocks = clocks
        self.lost_until_ms = -math.inf
        self._valid_ms = valid_ms
        self._passes_at_ms = -math.inf

    def stamp(self, node: Hashable) -> int:
        """Return the last moment of an attempt that is sent to a server now, by that server's clock."""
        now_ms = self.clocks.now_ms()
        self._passes_at_ms = now_ms + self._valid_ms
        return math.floor(self.clocks.of(node).at(now_ms) + self._valid_ms)

    def record_lost(self) -> None:
        """Note that the reply to the attempt that was stamped last is lost: it may be under way."""
        self.lost_until_ms = max(self.lost_until_ms, self._passes_at_ms + MARGIN_MS)

    def wait_ms(self) -> int:
        """Return how long to wait until no lost attempt can run any more, in milliseconds."""
        if self.lost_until_ms == -math.inf:
            return 0
        return max(0, math.ceil(self.lost_until_ms - self.clocks.now_ms()))
