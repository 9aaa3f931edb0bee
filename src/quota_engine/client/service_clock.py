"""The service's clock as a client knows it, and the last moments of requests by it."""

from __future__ import annotations

__all__ = ["LastMoments", "ServiceClock"]

import math
from collections.abc import Callable, Mapping

from quota_engine.api_schema.headers import TIME_HEADER
from quota_engine.clocks import MARGIN_MS, USABLE_MS, ServerClock, monotonic_ms


class ServiceClock:
    """A lower bound of the service's clock, from the responses. Threads may share it.

    A proxy may remove the header with the time. Requests then carry no last moment, and the client asks again
    after a minute.
    """

    def __init__(self, now_ms: Callable[[], float] = monotonic_ms) -> None:
        """Take this process's monotonic clock in milliseconds."""
        self.now_ms = now_ms
        self._clock = ServerClock()
        self._absent_until_ms = -math.inf

    def take_sample(self, headers: Mapping[str, str]) -> None:
        """Take a sample from the headers of a response that just arrived."""
        text = headers.get(TIME_HEADER, "")
        if text.isascii() and text.isdigit() and len(text) <= 15:
            self._clock.record(int(text), self.now_ms())
        else:
            self._clock.forget()
            self._absent_until_ms = self.now_ms() + USABLE_MS

    def is_usable(self) -> bool:
        """Return True if the client need not ask for the time."""
        now_ms = self.now_ms()
        return self._clock.is_usable(now_ms) or now_ms < self._absent_until_ms

    def at(self, at_ms: float) -> float | None:
        """Return a time that the service's clock has reached at a monotonic time; ``None`` if it is not known."""
        return self._clock.at(at_ms) if self._clock.is_usable(at_ms) else None


class LastMoments:
    """The last moments of one call's attempts.

    Attributes:
        clock: The service's clock.
    """

    def __init__(self, clock: ServiceClock, valid_ms: int) -> None:
        """Take the time that the service has for an attempt, in milliseconds."""
        self.clock = clock
        self._valid_ms = valid_ms
        self._passes_at_ms = -math.inf

    def stamp(self) -> str:
        """Return the last moment of an attempt that is sent now, or ``""`` if the service's time is not known."""
        now_ms = self.clock.now_ms()
        service_ms = self.clock.at(now_ms)
        if service_ms is None:
            self._passes_at_ms = -math.inf
            return ""
        self._passes_at_ms = now_ms + self._valid_ms
        return str(math.floor(service_ms + self._valid_ms))

    def settle(self) -> int:
        """Note that the attempt that was stamped last is not in flight. Return the time to wait for it, which is 0."""
        self._passes_at_ms = -math.inf
        return 0

    def wait_ms(self) -> int:
        """Return how long to wait until the attempt that was stamped last cannot be carried out any more."""
        if self._passes_at_ms == -math.inf:
            return 0
        return max(0, math.ceil(self._passes_at_ms + MARGIN_MS - self.clock.now_ms()))
