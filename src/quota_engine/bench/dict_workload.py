"""The yardstick in memory: a dict behind a lock, which is the least that any store does."""

from __future__ import annotations

__all__ = ["DictWorkload"]

import threading
from collections.abc import Callable, Sequence
from typing import Any

from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.plan import ApiStyle, BenchCase


class DictWorkload:
    """A dict behind a lock, and keys to store in it."""

    def __init__(self, case: BenchCase) -> None:
        """Create an empty dict."""
        self._is_async = case.api_style is ApiStyle.TASKS
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self._wanted = 0

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return a call that stores a key, and ``count`` new keys."""
        seen, lock = self._seen, self._lock

        def call(key: str) -> None:
            with lock:
                if key not in seen:
                    seen[key] = 1

        async def call_async(key: str) -> None:
            call(key)

        keys = [f"k{number:021d}" for number in range(self._wanted, self._wanted + count)]
        self._wanted += count
        return (call_async if self._is_async else call), keys

    def check(self) -> None:
        """Count the keys.

        Raises:
            WrongOutcome: A key is missing.
        """
        if len(self._seen) != self._wanted:
            raise WrongOutcome(f"a dict behind a lock: {len(self._seen)} keys after it; expected {self._wanted}")

    def remove(self) -> None:
        """Drop the keys."""
        self._seen = {}
