"""An office that opens in a few seconds, with a waiting room, for tests in real time."""

from __future__ import annotations

__all__ = ["Opening", "write_opening"]

import dataclasses
import datetime
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from quota_engine.catalog import catalog_from
from quota_engine.waiting_room.releases import Releases, WaitingRoomSchedule

ZONE = ZoneInfo("Asia/Jakarta")


@dataclasses.dataclass(frozen=True)
class Opening:
    """The configuration file of a service, and the room and day of its next opening."""

    config: Path
    room: str
    opens_at_ms: int
    first_day: datetime.date


def write_opening(
    folder: Path,
    opens_in_s: int,
    *,
    join_opens_before_ms: int = 3_600_000,
    duration_ms: int = 7_200_000,
    capacity: int = 100,
    wait_list: bool = False,
    offices: int = 1,
    weeks_ahead: int = 1,
    **settings: int,
) -> Opening:
    """Write a catalog and a configuration: this week is open, and the next week opens in ``opens_in_s`` seconds."""
    raw: dict[str, Any] = tomllib.loads(
        (resources.files("quota_engine.catalog.data") / "surabaya.toml").read_text(encoding="utf-8")
    )
    opens_at = (datetime.datetime.now(ZONE) + datetime.timedelta(seconds=opens_in_s)).replace(microsecond=0)
    days = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    raw["holidays"] = []
    raw["schedules"] = [
        {
            "id": "friday",
            "kind": "weekly",
            "weekday": days[opens_at.weekday()],
            "at": opens_at.time(),
            "zone": ZONE.key,
            "weeks_ahead": weeks_ahead,
        }
    ]
    plan = raw["plans"][0]
    plan["working_weekdays"] = list(days)
    if wait_list:
        plan["re_release"] = {"rule": "wait_list"}
    for allotment in plan["allotments"]:
        if allotment["id"] == "online":
            allotment["capacity"] = capacity
    raw["offices"] += [{**raw["offices"][0], "id": f"kantor-{n}", "name": f"Kantor {n}"} for n in range(1, offices)]
    catalog = folder / "catalog.json"
    catalog.write_bytes(msgspec.json.encode(raw))
    config = folder / "service.json"
    waiting_rooms = {
        "offices": ["*"],
        "join_opens_before_ms": join_opens_before_ms,
        "duration_ms": duration_ms,
        "settings": settings,
    }
    config.write_bytes(msgspec.json.encode({"catalog": catalog.name, "waiting_rooms": waiting_rooms}))
    opens_at_ms = int(opens_at.timestamp() * 1000)
    office = raw["offices"][0]["id"]
    releases = Releases(catalog_from(raw), WaitingRoomSchedule((office,), join_opens_before_ms, duration_ms))
    (release,) = [one for one in releases.list_active(office, opens_at_ms) if one.opens_at_ms == opens_at_ms]
    return Opening(config, release.room, opens_at_ms, release.first_day)
