"""Tests of the example consumers, which are killed again and again while reservations change."""

from __future__ import annotations

import base64
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from quota_engine import ManualClock, QuotaEngine, RecordedEvent, ReservationChanged, load_catalog
from quota_engine.domain.consumer_groups import Lease
from tests.support.effort import PROFILE
from tests.support.identities import nik
from tests.support.paths import ROOT

pytestmark = pytest.mark.store

KEY = b"a key for tests, and only them"
ROUNDS = 4 if PROFILE == "gate" else 6
START_PAUSE_S = 0.003
"""Pause between reservations while the consumers start, which leaves the processor to them."""
ARGUMENTS = ["--office", "surabaya", "--catalog", "surabaya"]


def start(store: str, into: Path, consumer: str, *more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "QUOTA_ENGINE_IDENTITY_KEY": base64.b64encode(KEY).decode()}
    command = [sys.executable, str(ROOT / "examples" / "events_to_sqlite.py"), "--store", store, "--into", str(into)]
    return subprocess.Popen([*command, *ARGUMENTS, "--consumer", consumer, *more], env=environment)


def progress(engine: QuotaEngine) -> tuple[int, tuple[Lease, ...]]:
    (group,) = engine.list_consumer_groups("surabaya")
    return group.acknowledged, group.leases


def test_killed_consumers_apply_each_event_once(tmp_path: Path) -> None:
    """Two consumers of a group are killed at random moments and take over each other's events, while events are
    trimmed.

    Every change is stored exactly once, and the sums are right.
    """
    rng = random.Random(7)
    store, into = f"valkey+embedded://{tmp_path}/store", tmp_path / "bookings.db"
    opening = ManualClock.at("2026-12-04T14:00:00+07:00")
    catalog = load_catalog("surabaya")
    events: list[RecordedEvent] = []
    with QuotaEngine.open(store, identity_key=KEY, catalog=catalog, clock=opening) as engine:
        engine.publish(catalog, "2026-12-07")
        engine.set_capacity("surabaya", "2026-12-07", "online", 1_000_000)
        engine.set_capacity("surabaya", "2026-12-07", "morning", 1_000_000)
        assert engine.create_consumer_group("surabaya", "sqlite")
        booked = rounds = acknowledged = 0
        while rounds < ROUNDS or (acknowledged <= 100 and rounds < 5 * ROUNDS):  # a busy machine needs more rounds
            rounds += 1
            # The manual clock stands still, so only a min_idle_ms of 0 takes events from others, and then all of them.
            idle_ms = [str(rng.choice((0, 60_000))) for _ in range(2)]
            consumers = [start(store, into, f"w{one}", "--min-idle-ms", idle_ms[one]) for one in range(2)]
            before = progress(engine)
            give_up_at_s = kill_at_s = time.monotonic() + 120
            while time.monotonic() < kill_at_s:
                held = engine.reserve(
                    "surabaya",
                    "2026-12-07",
                    nik(booked),
                    service="new",
                    session="morning",
                    idempotency_key=f"k{booked}",
                )
                booked += 1
                if booked % 3:
                    engine.confirm(held.reference)
                if kill_at_s == give_up_at_s and progress(engine) != before:  # both have started
                    kill_at_s = time.monotonic() + rng.random() * 0.4
                if kill_at_s == give_up_at_s:
                    time.sleep(START_PAUSE_S)
            for consumer in consumers:
                consumer.kill()
                consumer.wait()
            events += engine.events("surabaya", after=len(events), limit=100_000)
            left = engine.trim_events("surabaya", len(events))
            (group,) = engine.list_consumer_groups("surabaya")
            assert left == len(events) - group.acknowledged
            assert kill_at_s < give_up_at_s
            acknowledged = group.acknowledged
        assert acknowledged > 100
        assert start(store, into, "w0", "--once", "--min-idle-ms", "0").wait() == 0
        assert engine.trim_events("surabaya", len(events)) == 0
    changes = [(one.number, one.event) for one in events if isinstance(one.event, ReservationChanged)]
    database = sqlite3.connect(into)
    found = database.execute("SELECT number, verb, reservation FROM changes ORDER BY number").fetchall()
    sums = dict(database.execute("SELECT verb, units FROM steps_of_day").fetchall())
    database.close()
    assert len(changes) > 100
    assert found == [(number, event.verb, event.reservation.id) for number, event in changes]
    assert sums == Counter(str(event.verb) for _, event in changes)
