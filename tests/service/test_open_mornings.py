"""Tests on the real time find a morning to book at any time of a week."""

from __future__ import annotations

import datetime
from pathlib import Path

from quota_engine.catalog import Catalog, load_catalog
from quota_engine.clocks import ManualClock
from quota_engine.engine.quota_engine import QuotaEngine
from tests.support.concurrent_bookers import OFFICE, first_open_morning, write_catalog

MONDAY = datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC)
MINUTES = 7 * 24 * 60


def minutes_without_a_morning(catalog: Catalog) -> list[str]:
    """Return the minutes of a week in which no morning can be booked for ten more minutes."""
    clock = ManualClock(int(MONDAY.timestamp() * 1000))
    engine = QuotaEngine.open(identity_key=b"a key for tests, and only them", catalog=catalog, clock=clock)
    engine.publish(catalog, MONDAY.date(), MONDAY.date() + datetime.timedelta(days=20))
    missing = []
    for number in range(MINUTES):
        now = MONDAY + datetime.timedelta(minutes=number)
        if number % 1_440 == 0:
            days = engine.availability(OFFICE, now.date(), now.date() + datetime.timedelta(days=14))
        if first_open_morning(days, int(now.timestamp() * 1000)) is None:
            missing.append(f"{now:%a %H:%M}")
    return missing


def test_a_morning_can_be_booked_in_every_minute_of_a_week(tmp_path: Path) -> None:
    assert minutes_without_a_morning(load_catalog(str(write_catalog(tmp_path)))) == []


def test_the_shipped_catalog_has_none_on_friday_around_noon() -> None:
    """The search for a gap finds one: from 11:50 to 14:00 in western time."""
    missing = minutes_without_a_morning(load_catalog("surabaya"))
    assert (missing[0], missing[-1], len(missing)) == ("Fri 04:50", "Fri 07:00", 131)
