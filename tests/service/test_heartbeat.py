"""Heartbeats: a worker hangs when its counter stands still while the supervisor runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from quota_engine.service.heartbeat import Heartbeat, HeartbeatMonitor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


def test_a_worker_that_beats_does_not_hang(path: Path) -> None:
    heartbeat, monitor = Heartbeat(path), HeartbeatMonitor(path, 1_000)
    for _ in range(100):
        heartbeat.beat()
        assert not monitor.hangs(0.9)


def test_a_silent_worker_hangs_after_the_time(path: Path) -> None:
    heartbeat, monitor = Heartbeat(path), HeartbeatMonitor(path, 1_000)
    heartbeat.beat()
    assert [monitor.hangs(0.5) for _ in range(4)] == [False, False, True, True]
    heartbeat.beat()
    assert not monitor.hangs(0.5)


def test_a_starting_worker_does_not_hang(path: Path) -> None:
    """It may wait long for its store, before it has a file and before it counts."""
    monitor = HeartbeatMonitor(path, 1_000)
    assert not any(monitor.hangs(0.9) for _ in range(10))
    Heartbeat(path)
    assert not any(monitor.hangs(0.9) for _ in range(10))


def test_a_suspended_machine_is_no_hang(path: Path) -> None:
    """An hour in which the supervisor did not run counts as one second."""
    heartbeat, monitor = Heartbeat(path), HeartbeatMonitor(path, 3_000)
    heartbeat.beat()
    assert [monitor.hangs(3_600) for _ in range(3)] == [False, False, False]


def test_zero_means_never(path: Path) -> None:
    heartbeat, monitor = Heartbeat(path), HeartbeatMonitor(path, 0)
    heartbeat.beat()
    assert not any(monitor.hangs(0.9) for _ in range(100))
