"""Puts together what the workers of one machine have counted: each writes its numbers into a folder once a second, and
whoever is asked adds up what is there.

A worker that dies takes the last second with it. Its counters stay, and its gauges count no more.
"""

from __future__ import annotations

__all__ = ["DIRECTORY", "Sharing", "fold", "has_begun"]

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from quota_engine.service.observability.metrics import FAMILIES, Row

DIRECTORY: Final = "QUOTA_ENGINE_METRICS_DIR"
"""The variable that names the folder; without one a process counts for itself."""
WRITE_EVERY_S: Final = 1.0
_LIVE_FOR_S: Final = 5.0
_ENDED: Final = "ended"
_SUFFIX: Final = ".numbers"
_FOLDED_MAX: Final = 64


class _Page(msgspec.Struct, frozen=True):
    """What one worker has written, or (``folded``) what is left of those that have ended, by the names of the last."""

    written_at_s: float
    rows: list[Row]
    folded: tuple[str, ...] = ()


_decoder: Final = msgspec.msgpack.Decoder(_Page)


class Sharing:
    """One worker's part in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._name = f"{os.getpid()}-{time.time_ns()}{_SUFFIX}"

    def write(self, rows: list[Row]) -> None:
        """Let the others see these numbers."""
        with contextlib.suppress(OSError):  # a full disk: what was there is read on
            _write(self._directory / self._name, _Page(time.time(), rows))

    def together(self, rows: list[Row]) -> list[Row]:
        """These numbers (of this worker, now) and what the others have written last. They are written down as well:
        what somebody was told does not end with this process.
        """
        self.write(rows)
        pages = {path.name: page for path in self._directory.glob(f"*{_SUFFIX}") if (page := _read(path)) is not None}
        pages.pop(self._name, None)
        # Read last: whoever is folded in meanwhile is in here, and is not counted twice.
        ended = _read(self._directory / _ENDED)
        if ended is not None:
            for name in ended.folded:
                pages.pop(name, None)
        now_s = time.time()
        found = list(rows)
        for page in pages.values():
            found += page.rows if now_s - page.written_at_s < _LIVE_FOR_S else _lasting(page.rows)
        return _sum((*found, *(ended.rows if ended is not None else ())))


def has_begun(directory: Path) -> bool:
    """Whether any worker has ever got as far as to write: it has opened the store by then."""
    return (directory / _ENDED).exists() or any(directory.glob(f"*{_SUFFIX}"))


def fold(directory: Path, pid: int) -> None:
    """Keep the counters of a worker that has ended, and forget the rest of it. For the one who looks after them."""
    for path in directory.glob(f"{pid}-*{_SUFFIX}"):
        page, ended = _read(path), _read(directory / _ENDED)
        before = ended or _Page(0.0, [])
        rows = [] if page is None else _lasting(page.rows)
        folded = (*before.folded, path.name)[-_FOLDED_MAX:]
        _write(directory / _ENDED, _Page(time.time(), _sum((*before.rows, *rows)), folded))
        path.unlink()


def _lasting(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if FAMILIES[row.family].kind != "gauge"]


def _sum(rows: Iterable[Row]) -> list[Row]:
    sums: dict[tuple[str, tuple[str, ...]], tuple[float, ...]] = {}
    for row in rows:
        key = row.family, row.labels
        before = sums.get(key)
        sums[key] = row.values if before is None else tuple(map(sum, zip(before, row.values, strict=True)))
    return [Row(family, labels, values) for (family, labels), values in sums.items()]


def _write(path: Path, page: _Page) -> None:
    draft = path.with_name(path.name + ".draft")  # never half of it under its name
    draft.write_bytes(msgspec.msgpack.encode(page))
    draft.replace(path)


def _read(path: Path) -> _Page | None:
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
