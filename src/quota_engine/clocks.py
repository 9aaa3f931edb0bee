"""Clocks: the system's, one for tests and simulations, the monotonic one for lengths of time, and those of servers."""

from __future__ import annotations

__all__ = [
    "MARGIN_MS",
    "REFRESH_MS",
    "USABLE_MS",
    "ManualClock",
    "ServerClock",
    "SteadyClock",
    "SystemClock",
    "monotonic_from",
    "monotonic_ms",
]

import contextlib
import datetime
import functools
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

_monotonic_s: Callable[[], float] = time.monotonic


def monotonic_ms() -> float:
    """Return the time of this process's monotonic clock in milliseconds. Only differences mean anything."""
    return _monotonic_s() * 1000


@contextlib.contextmanager
def monotonic_from(read_s: Callable[[], float]) -> Iterator[None]:
    """Let :func:`monotonic_ms` show another clock for a while, for simulations.

    Args:
        read_s: Returns the time in seconds.
    """
    global _monotonic_s
    before, _monotonic_s = _monotonic_s, read_s
    try:
        yield
    finally:
        _monotonic_s = before


REFRESH_MS: Final = 10_000
"""The age from which a sample of a server's clock should be replaced."""
USABLE_MS: Final = 60_000
"""The age from which a sample of a server's clock is not used."""
MARGIN_MS: Final = 50
"""By so much two clocks may drift apart within ``USABLE_MS`` and one attempt: more than 800 millionths."""


class SystemClock:
    """The wall clock of the operating system."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000


_elapsed_ns: Callable[[], int] = (
    functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time_ns
)
"""The time since a fixed moment in nanoseconds, read for each attempt at a server."""


class SteadyClock:
    """The wall clock at the creation of this object, and the time that has passed since.

    If the system's clock is set meanwhile, this one goes on as before. So it is a second witness of the time, also of
    a store on the same machine. Where no clock counts the time of a sleeping machine, this is the wall clock.
    """

    __slots__ = ("_began_ns",)

    def __init__(self) -> None:
        self._began_ns = time.time_ns() - _elapsed_ns()

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970 (UTC)."""
        return (self._began_ns + _elapsed_ns()) // 1_000_000


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


class ServerClock:
    """A lower bound of one server's clock. Threads may share it.

    A client learns a server's time some time after the server read it. It adds the time that has passed since, by its
    own monotonic clock. The sum is never later than the server's time, unless the server's clock has been set back.
    """

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
        sample = self._sample
        return sample is not None and at_ms - sample[1] < USABLE_MS

    def is_due(self, at_ms: float) -> bool:
        """Return True if the sample should be replaced."""
        sample = self._sample
        return sample is None or at_ms - sample[1] >= REFRESH_MS

    def at(self, at_ms: float) -> float:
        """Return a time that the server's clock has reached at a monotonic time.

        The sample must be there; another thread may have forgotten it, and then the bound is 0.
        """
        sample = self._sample
        return 0 if sample is None else sample[0] + at_ms - sample[1]
