"""The example consumer, killed again and again while a booking office is busy."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from quota_engine import ManualClock, QuotaEngine, ReservationChanged, load_catalog

ROOT = Path(__file__).parents[2]
KEY = b"a key for tests, and only them"
ARGUMENTS = ["--office", "surabaya", "--catalog", "surabaya"]


def start(store: str, into: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "QUOTA_ENGINE_IDENTITY_KEY": KEY.decode()}
    command = [sys.executable, str(ROOT / "examples" / "events_to_sqlite.py"), "--store", store, "--into", str(into)]
    return subprocess.Popen([*command, *ARGUMENTS, *more], env=environment)


def test_every_event_stands_in_the_table_once_however_often_the_consumer_is_killed(tmp_path: Path) -> None:
    """Killed at random moments, two of them at a time: each change is there once, in order, and none is missing."""
    rng = random.Random(7)
    store, into = f"valkey+embedded://{tmp_path}/store", tmp_path / "bookings.db"
    opening = ManualClock.at("2026-12-04T14:00:00+07:00")
    catalog = load_catalog("surabaya")
    with QuotaEngine.open(store, identity_key=KEY, catalog=catalog, clock=opening) as engine:
        engine.publish(catalog, "2026-12-07")
        engine.set_capacity("surabaya", "2026-12-07", "online", 1_000_000)
        engine.set_capacity("surabaya", "2026-12-07", "morning", 1_000_000)
        booked = 0
        for _ in range(6):
            consumers = [start(store, into), start(store, into)]
            kill_at_s = time.monotonic() + 0.3 + rng.random() * 0.5
            while time.monotonic() < kill_at_s:
                held = engine.reserve(
                    "surabaya", "2026-12-07", f"person {booked}", service="new", session="morning", key=f"k{booked}"
                )
                booked += 1
                if booked % 3:
                    engine.confirm(held.reference)
            for consumer in consumers:
                consumer.kill()
                consumer.wait()
        assert start(store, into, "--once").wait() == 0
        expected = [
            (one.number, one.event.verb, one.event.reservation.id)
            for one in engine.events("surabaya", limit=100_000)
            if isinstance(one.event, ReservationChanged)
        ]
    database = sqlite3.connect(into)
    found = database.execute("SELECT number, verb, reservation FROM changes ORDER BY number").fetchall()
    database.close()
    assert len(expected) > 100
    assert found == expected
