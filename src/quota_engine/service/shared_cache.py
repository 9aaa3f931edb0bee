"""Results that many callers share: each is made once, and kept while it is right or recent enough."""

from __future__ import annotations

__all__ = ["SharedCache"]

import asyncio
import math
import operator
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Entry(NamedTuple, Generic[T]):
    value: T
    sources: tuple[object, ...]
    made_at_ms: int
    until_ms: float

    def follows_from(self, sources: tuple[object, ...]) -> bool:
        """Return True if the value was made from these objects."""
        return len(self.sources) == len(sources) and all(map(operator.is_, self.sources, sources))

    def is_right_at(self, now_ms: Callable[[], int]) -> bool:
        """Return True if the value is right now. A clock that runs backwards makes it wrong."""
        return self.until_ms == math.inf or self.made_at_ms <= now_ms() < self.until_ms


class SharedCache(Generic[T]):
    """Results of one kind by key, at most ``entries_max`` of them.

    A full cache drops its results: the next callers make theirs again.
    """

    def __init__(self, entries_max: int, now_ms: Callable[[], int]) -> None:
        """``now_ms`` returns the time in milliseconds since 1970 (UTC)."""
        self._entries_max = entries_max
        self._now_ms = now_ms
        self._entries: dict[Hashable, _Entry[T]] = {}
        self._locks: dict[Hashable, asyncio.Lock] = {}

    def get(self, key: Hashable, sources: tuple[object, ...], make: Callable[[], tuple[T, float]]) -> T:
        """Return the result of a key, which follows from ``sources`` and, until some moment, not from the time.

        Args:
            key: names the result.
            sources: the objects from which the result is made. Another object in one of their places makes it again.
            make: returns the result and the time in milliseconds since 1970 (UTC) until which it is right;
                ``math.inf`` if the time does not matter.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.follows_from(sources) and entry.is_right_at(self._now_ms):
            return entry.value
        value, until_ms = make()
        if entry is None and len(self._entries) >= self._entries_max:
            self._entries.clear()
        self._entries[key] = _Entry(value, sources, self._now_ms(), until_ms)
        return value

    async def load(
        self, key: Hashable, load: Callable[[], Awaitable[T]], ttl_ms: int, not_before_ms: int = 0
    ) -> tuple[int, T]:
        """Return the time of a result and the result. Concurrent callers of a key wait for one request.

        Args:
            key: names the result.
            load: requests the result. Its error goes to the caller, and the next caller requests again.
            ttl_ms: the result is younger than this, in milliseconds.
            not_before_ms: the result is not older than this time, in milliseconds since 1970 (UTC).
        """
        if len(self._locks) >= self._entries_max and key not in self._locks:
            self._locks = {other: lock for other, lock in self._locks.items() if lock.locked()}
            self._entries = {other: entry for other, entry in self._entries.items() if other in self._locks}
        async with self._locks.setdefault(key, asyncio.Lock()):
            now_ms = self._now_ms()
            entry = self._entries.get(key)
            if entry is None or not 0 <= now_ms - entry.made_at_ms < ttl_ms or entry.made_at_ms < not_before_ms:
                entry = self._entries[key] = _Entry(await load(), (), now_ms, math.inf)
            return entry.made_at_ms, entry.value

    def invalidate(self, key: Hashable) -> None:
        """Remove the result of a key, so that the next caller makes it."""
        self._entries.pop(key, None)
