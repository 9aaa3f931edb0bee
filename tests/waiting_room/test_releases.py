"""Releases of the catalog, their waiting rooms, and the reserves that need a pass."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import pytest

from quota_engine import InvalidRequest, load_catalog
from quota_engine.catalog import catalog_from
from quota_engine.waiting_room.releases import CLOCK_MARGIN_MS, Releases, WaitingRoomSchedule, room_id

DAY = datetime.date(2026, 12, 7)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OPENS_AT_MS = 1_796_367_600_000
"""2026-12-04 14:00 in Jakarta, 07:00 UTC."""
ROOM = "surabaya-20261204T0700"


def releases(**changes: Any) -> Releases:
    return Releases(load_catalog("surabaya"), WaitingRoomSchedule(("surabaya",), **changes))


def test_release_has_all_days_of_one_opening() -> None:
    """A holiday in the week belongs to it as well."""
    known = releases()
    found = {known.find_by_day("surabaya", DAY.toordinal() + ahead) for ahead in range(7)}
    (release,) = found
    assert release is not None
    assert (release.room, release.opens_at_ms) == (ROOM, OPENS_AT_MS)
    assert (release.first_day, release.last_day) == (DAY, DAY + datetime.timedelta(days=4))
    assert (release.join_opens_at_ms, release.closes_at_ms) == (OPENS_AT_MS - HOUR_MS, OPENS_AT_MS + 2 * HOUR_MS)
    following = known.find_by_day("surabaya", DAY.toordinal() + 7)
    assert following is not None
    assert following.room == "surabaya-20261211T0700"
    assert known.find_by_day("malang", DAY.toordinal()) is None
    with pytest.raises(InvalidRequest, match="day"):
        known.find_by_day("surabaya", 1)


def test_current_room_is_the_running_one_first() -> None:
    known = releases()
    names = {
        after_ms: [one.room for one in known.list_active("surabaya", OPENS_AT_MS + after_ms)]
        for after_ms in (-1, 0, 2 * HOUR_MS - 1, 2 * HOUR_MS)
    }
    following = "surabaya-20261211T0700"
    assert names == {
        -1: [ROOM],
        0: [ROOM, following],
        2 * HOUR_MS - 1: [ROOM, following],
        2 * HOUR_MS: [following],
    }
    assert known.current_room("surabaya", OPENS_AT_MS) == ROOM
    assert known.current_room("malang", OPENS_AT_MS) is None


def test_overlapping_rooms_are_listed_oldest_first() -> None:
    raw = tomllib.loads(Path("src/quota_engine/catalog/data/surabaya.toml").read_text(encoding="utf-8"))
    raw["schedules"] = [{"id": "friday", "kind": "days_ahead", "days": 7, "at": datetime.time(7), "zone": "UTC"}]
    known = Releases(catalog_from(raw), WaitingRoomSchedule(("surabaya",), duration_ms=4 * DAY_MS))
    now_ms = OPENS_AT_MS + 3 * DAY_MS  # a Monday
    found = known.list_active("surabaya", now_ms)
    assert [(one.opens_at_ms - now_ms) // DAY_MS for one in found] == [-3, 0, 1]
    assert [str(one.first_day) for one in found] == ["2026-12-11", "2026-12-14", "2026-12-15"]
    assert all(one.first_day == one.last_day for one in found)


@pytest.mark.parametrize(
    ("after_ms", "channel", "day", "expected"),
    [
        (-CLOCK_MARGIN_MS - 1, "online", 0, False),
        (-CLOCK_MARGIN_MS, "online", 0, True),
        (0, "online", 0, True),
        (2 * HOUR_MS - 1, "online", 4, True),
        (2 * HOUR_MS, "online", 0, False),
        (0, "kiosk", 0, False),
        (0, "walk-in", 0, False),
        (0, "online", 7, False),
        (0, "online", -7, False),
    ],
)
def test_online_reserves_need_a_pass_until_the_room_ends(after_ms: int, channel: str, day: int, expected: bool) -> None:
    assert releases().needs_pass("surabaya", DAY.toordinal() + day, channel, OPENS_AT_MS + after_ms) is expected


def test_room_id_has_the_office_and_the_opening_in_utc() -> None:
    assert room_id("surabaya", OPENS_AT_MS) == ROOM
