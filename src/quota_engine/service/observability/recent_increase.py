"""Increases of counters over the last minutes, for pages that say what has just happened."""

from __future__ import annotations

__all__ = ["RecentIncrease"]

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple

_SNAPSHOTS_MAX: Final = 64


class _Snapshot(NamedTuple):
    at_ms: int
    counters: tuple[int, ...]


class RecentIncrease:
    """Snapshots of counters by key. They are taken only on request, so that nothing runs between requests."""

    def __init__(self, window_ms: int, keys_max: int, now_ms: Callable[[], int]) -> None:
        """Start without a snapshot.

        Args:
            window_ms: Milliseconds over which an increase counts.
            keys_max: The most keys. One more drops all snapshots.
            now_ms: Returns the time in milliseconds since 1970 (UTC).
        """
        self._window_ms = window_ms
        self._keys_max = keys_max
        self._now_ms = now_ms
        self._snapshots: dict[Hashable, deque[_Snapshot]] = {}

    def of(self, key: Hashable, counters: Sequence[int]) -> tuple[int, ...]:
        """Return by how much the counters have grown within the window; all 0 for the first call of a key.

        Args:
            key: Names the counters.
            counters: Their present values, as many in each call of a key.
        """
        now_ms, present = self._now_ms(), tuple(counters)
        if key not in self._snapshots and len(self._snapshots) >= self._keys_max:
            self._snapshots.clear()
        snapshots = self._snapshots.setdefault(key, deque())
        # A snapshot from before the window is the start of it, as long as there is no later one.
        while len(snapshots) > 1 and snapshots[1].at_ms <= now_ms - self._window_ms:
            snapshots.popleft()
        if snapshots and snapshots[0].at_ms < now_ms - 2 * self._window_ms:
            snapshots.popleft()
        is_due = not snapshots or now_ms - snapshots[-1].at_ms >= self._window_ms // _SNAPSHOTS_MAX
        if is_due:
            snapshots.append(_Snapshot(now_ms, present))
        start = snapshots[0].counters
        return tuple(max(0, value - before) for value, before in zip(present, start, strict=True))
