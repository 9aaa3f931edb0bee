"""Two offices in which one day opens each day, so that a release with a waiting room has open days beside it."""

from __future__ import annotations

__all__ = ["DULL", "OPENS_AT_MS", "PLACES", "RELEASE", "catalog_of"]

import datetime
from typing import Any, Final

from quota_engine.catalog import Catalog, catalog_from
from quota_engine.clocks import ManualClock

PLACES: Final = 10
"""Places of a day, online and at the kiosk each."""
DULL: Final = datetime.date(2026, 12, 10)
"""A day that opened a day before the release. Its room has ended, so it needs no pass."""
RELEASE: Final = datetime.date(2026, 12, 11)
"""A day that opens at ``OPENS_AT_MS``, with a waiting room."""
OPENS_AT_MS: Final = ManualClock.at("2026-12-04T14:00:00+07:00").now_ms()


def catalog_of(*, national: bool = False) -> Catalog:
    """Return a catalog of two offices in which one day opens each day, a week ahead."""
    raw: dict[str, Any] = {
        "services": [{"id": "new"}],
        "channels": [{"id": "online"}, {"id": "kiosk"}],
        "schedules": [{"id": "daily", "kind": "days_ahead", "days": 7, "at": "14:00", "zone": "Asia/Jakarta"}],
        "rules": {"identity_limits": [{"places_max": 5, "span_days": 0}], "hold_ttl_s": 900, "reschedules_max": 5},
        "plans": [
            {
                "id": "plan",
                "hours": {"start": "08:00", "end": "16:00"},
                "sessions": [
                    {"id": "morning", "start": "08:00", "end": "12:00"},
                    {"id": "afternoon", "start": "13:00", "end": "16:00"},
                ],
                "allotments": [
                    {"id": "online", "channels": ["online"], "capacity": PLACES, "re_release": {"rule": "wait_list"}},
                    {"id": "kiosk", "channels": ["kiosk"], "capacity": PLACES},
                ],
            }
        ],
        "offices": [{"id": name, "name": name, "time_zone": "Asia/Jakarta"} for name in ("east", "west")],
    }
    if national:
        raw["national"] = {"places_max": 1}
    return catalog_from(raw)
