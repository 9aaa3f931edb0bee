"""A small catalog as raw data. Tests copy it and make one part invalid."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from quota_engine.catalog import catalog_from
from quota_engine.domain.errors import CatalogError, ValidationIssue

FILE = "sample.toml"

_RAW: dict[str, Any] = {
    "services": [{"id": "new"}, {"id": "renewal"}],
    "channels": [{"id": "online"}, {"id": "kiosk"}],
    "groups": [{"id": "priority", "eligibility": ["60 and older"]}],
    "schedules": [
        {"id": "friday", "kind": "weekly", "weekday": "friday", "at": "14:00", "zone": "Asia/Jakarta"},
        {"id": "month", "kind": "monthly", "at": "09:00"},
        {"id": "daily", "kind": "days_ahead", "days": 3, "at": "08:00"},
    ],
    "holidays": [{"date": "2026-08-17", "name": "Independence Day"}],
    "rules": {"hold_ttl_s": 900, "identity_limits": [{"places_max": 1, "span_days": 30}], "retention_days": 60},
    "plans": [
        {
            "id": "standard",
            "schedule": "friday",
            "hours": {"start": "08:00", "end": "16:00"},
            "sessions": [
                {"id": "morning", "start": "08:00", "end": "12:00"},
                {"id": "afternoon", "start": "13:00", "end": "16:00"},
            ],
            "quotas": [
                {"id": "am", "session": "morning", "capacity": 60},
                {"id": "pm", "session": "afternoon", "capacity": 40},
            ],
            "allotments": [
                {
                    "id": "priority",
                    "groups": ["priority"],
                    "capacity": 10,
                    "fallback": ["online", "kiosk"],
                    "reallocation": {"to": "kiosk", "at": "10:00"},
                },
                {"id": "online", "channels": ["online"], "capacity": 70, "re_release": {"rule": "wait_list"}},
                {"id": "kiosk", "channels": ["kiosk"], "capacity": 20, "fallback": ["priority"]},
            ],
            "capacities_by_class": {"I": {"online": 80}},
        }
    ],
    "offices": [
        {"id": "west", "name": "West", "time_zone": "Asia/Jakarta", "class": "I"},
        {
            "id": "east",
            "name": "East",
            "time_zone": "Asia/Jayapura",
            "class": "II",
            "schedule": "daily",
            "capacities": {"online": 5},
            "service_units": [{"id": "counter-1"}, {"id": "counter-2"}],
            "closures": [{"first": "2026-07-01", "last": "2026-07-10"}],
        },
    ],
}


def sample() -> dict[str, Any]:
    """Return a copy that may be changed."""
    return copy.deepcopy(_RAW)


def issues_of(raw: object) -> list[ValidationIssue]:
    """Return the issues of invalid raw data."""
    with pytest.raises(CatalogError) as caught:
        catalog_from(raw, FILE)
    return list(caught.value.issues)
