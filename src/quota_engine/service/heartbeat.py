"""Heartbeats of workers: the supervising process replaces a worker that hangs, as it does one that has ended."""

from __future__ import annotations

__all__ = ["FILE_VARIABLE", "Heartbeat", "HeartbeatMonitor"]

import contextlib
import os
from pathlib import Path
from typing import Final

FILE_VARIABLE: Final = "QUOTA_ENGINE_HEARTBEAT_FILE"
"""The environment variable with the path of a worker's file; a process without it needs none."""
_COUNT_BYTES: Final = 8
_CHECK_GAP_S_MAX: Final = 1.0


class Heartbeat:
    """A counter in a file, which the event loop of a worker increments while it runs."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._count = 0

    def beat(self) -> None:
        """Increment the counter."""
        self._count += 1
        os.pwrite(self._descriptor, self._count.to_bytes(_COUNT_BYTES, "big"), 0)


class HeartbeatMonitor:
    """Watches the counter of one worker. A worker that has not begun to count does not hang, it starts."""

    def __init__(self, path: Path, hang_ms: int) -> None:
        """Watch a file.

        Args:
            path: The worker's file, which may not exist yet.
            hang_ms: The time without a beat after which a worker hangs, in milliseconds; 0 for never.
        """
        self._path = path
        self._hang_s = hang_ms / 1000
        self._count = 0
        self._silent_s = 0.0

    def hangs(self, elapsed_s: float) -> bool:
        """Return True if the worker hangs.

        Args:
            elapsed_s: Seconds since the previous call. More than one second counts as one: if this process did not run
                either, such as while the machine was suspended, the worker's silence says nothing.
        """
        if not self._hang_s:
            return False
        count = 0
        with contextlib.suppress(FileNotFoundError):
            count = int.from_bytes(self._path.read_bytes(), "big")
        if count != self._count or not count:
            self._count, self._silent_s = count, 0.0
        else:
            self._silent_s += min(elapsed_s, _CHECK_GAP_S_MAX)
        return self._silent_s >= self._hang_s
