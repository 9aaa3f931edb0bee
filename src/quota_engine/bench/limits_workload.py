"""The yardstick of a library in memory: the rate limiter ``limits``, which counts a hit for an identity.

It has no capacity, no record, no deadline and no event.
"""

from __future__ import annotations

__all__ = ["LimitsWorkload"]

from collections.abc import Callable, Sequence
from typing import Any

from quota_engine.bench.errors import WrongOutcome


class LimitsWorkload:
    """A fixed window of a day, in which each identity may hit once."""

    def __init__(self) -> None:
        """Create an empty storage."""
        from limits import RateLimitItemPerDay
        from limits.storage import MemoryStorage
        from limits.strategies import FixedWindowRateLimiter

        self._storage = MemoryStorage()
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._item = RateLimitItemPerDay(1)
        self._wanted = 0

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return a call that counts a hit, and ``count`` new identities."""
        hit, item = self._limiter.hit, self._item
        identities = [f"{3578_0000_0000_0000 + number}" for number in range(self._wanted, self._wanted + count)]
        self._wanted += count
        return lambda identity: hit(item, identity), identities

    def check(self) -> None:
        """Count the identities that have hit.

        Raises:
            WrongOutcome: One is missing.
        """
        found = len(self._storage.storage)
        if found != self._wanted:
            raise WrongOutcome(f"limits: {found} identities after it; expected {self._wanted}")

    def remove(self) -> None:
        """Drop the hits."""
        self._storage.reset()
