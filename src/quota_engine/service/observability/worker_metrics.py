"""Metrics of several workers on one machine: each writes its samples to a folder, and any of them adds them all up.

A worker writes once a second, so one that is killed loses at most its last second. Its counters keep counting in the
sum; its gauges do not.
"""

from __future__ import annotations

__all__ = [
    "DIRECTORY_VARIABLE",
    "WRITE_INTERVAL_S",
    "WorkerMetrics",
    "fold_ended_worker",
    "has_started_worker",
    "hung_workers",
    "record_hung_worker",
]

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from quota_engine import typed_data
from quota_engine.service.observability.metric_families import METRIC_FAMILIES, Sample

DIRECTORY_VARIABLE: Final = "QUOTA_ENGINE_METRICS_DIR"
"""Environment variable with the folder; without it a process reports its own samples only."""
WRITE_INTERVAL_S: Final = 1.0
_LIVE_FOR_S: Final = 5.0
_ENDED_FILE: Final = "ended"
_SUFFIX: Final = ".samples"
_HUNG_FILE: Final = "hung"
_HUNG_MAX: Final = 100
_FOLDED_MAX: Final = 64


class _MetricsFile(msgspec.Struct, frozen=True):
    """The samples of one worker, or the sum of those that have ended. ``folded`` names the last files in that sum."""

    written_at_s: float
    samples: list[Sample]
    folded: tuple[str, ...] = ()


_decoder: Final = typed_data.msgpack_decoder(_MetricsFile)


class WorkerMetrics:
    """The file of one worker, and the sum over all workers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._name = f"{os.getpid()}-{time.time_ns()}{_SUFFIX}"

    def write(self, samples: list[Sample]) -> None:
        """Replace this worker's file. If the disk is full, the previous file stays."""
        with contextlib.suppress(OSError):
            _write(self._directory / self._name, _MetricsFile(time.time(), samples))

    def aggregate(self, samples: list[Sample]) -> list[Sample]:
        """Return the sum of this worker's ``samples`` and those that the other workers have written.

        The samples are written first, so that a reported counter never decreases when this process ends.
        """
        self.write(samples)
        files = {path.name: file for path in self._directory.glob(f"*{_SUFFIX}") if (file := _read(path)) is not None}
        files.pop(self._name, None)
        # Read last: a worker folded since the lines above is in this sum, and its own file is dropped.
        ended = _read(self._directory / _ENDED_FILE)
        if ended is not None:
            for name in ended.folded:
                files.pop(name, None)
        now_s = time.time()
        found = list(samples)
        for file in files.values():
            is_live = now_s - file.written_at_s < _LIVE_FOR_S
            found += file.samples if is_live else _without_gauges(file.samples)
        return _sum((*found, *(ended.samples if ended is not None else ())))


def has_started_worker(directory: Path) -> bool:
    """Return True if any worker has ever written its samples, which it does after it has opened the store."""
    return (directory / _ENDED_FILE).exists() or any(directory.glob(f"*{_SUFFIX}"))


def fold_ended_worker(directory: Path, pid: int) -> None:
    """Add the counters of an ended worker to the sum of ended ones, and delete its file.

    Only the supervising process calls this.
    """
    for path in directory.glob(f"{pid}-*{_SUFFIX}"):
        file, ended = _read(path), _read(directory / _ENDED_FILE)
        before = ended or _MetricsFile(0.0, [])
        samples = [] if file is None else _without_gauges(file.samples)
        folded = (*before.folded, path.name)[-_FOLDED_MAX:]
        total = _MetricsFile(time.time(), _sum((*before.samples, *samples)), folded)
        _write(directory / _ENDED_FILE, total)
        path.unlink()


def record_hung_worker(directory: Path, at_ms: int) -> None:
    """Keep the time at which a worker that hung was ended, for the operators' pages. Keeps the last 100 of them.

    Only the supervising process calls this. If the disk is full, the time is lost.

    Args:
        directory: The folder of the workers' files.
        at_ms: The time in milliseconds since 1970 (UTC).
    """
    draft = directory / f"{_HUNG_FILE}.draft"
    with contextlib.suppress(OSError):
        draft.write_bytes(msgspec.json.encode([*hung_workers(directory, 0)[1 - _HUNG_MAX :], at_ms]))
        draft.replace(directory / _HUNG_FILE)


def hung_workers(directory: Path, since_ms: int) -> list[int]:
    """Return when workers that hung were ended, from ``since_ms`` on. All times are in milliseconds since 1970."""
    try:
        times = typed_data.decode_json((directory / _HUNG_FILE).read_bytes(), list[int])
    except (OSError, msgspec.DecodeError):
        return []
    return [at_ms for at_ms in times if at_ms >= since_ms]


def _without_gauges(samples: Iterable[Sample]) -> list[Sample]:
    return [sample for sample in samples if METRIC_FAMILIES[sample.family].kind != "gauge"]


def _sum(samples: Iterable[Sample]) -> list[Sample]:
    sums: dict[tuple[str, tuple[str, ...]], tuple[float, ...]] = {}
    for sample in samples:
        key = sample.family, sample.labels
        before = sums.get(key)
        sums[key] = sample.values if before is None else tuple(map(sum, zip(before, sample.values, strict=True)))
    return [Sample(family, labels, values) for (family, labels), values in sums.items()]


def _write(path: Path, file: _MetricsFile) -> None:
    draft = path.with_name(path.name + ".draft")  # readers must never see a half-written file
    draft.write_bytes(msgspec.msgpack.encode(file))
    draft.replace(path)


def _read(path: Path) -> _MetricsFile | None:
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
