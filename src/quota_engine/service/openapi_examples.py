"""A good request for each call: for the OpenAPI document and the page made from it. Tests send them, and attack the
service with what is left when one part of them has been made bad.
"""

from __future__ import annotations

__all__ = ["BODIES", "NAMES", "QUERIES"]

from typing import Any, Final

_OPENS_AT_MS: Final = 1_796_367_600_000  # 2026-12-04 14:00 in Jakarta
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_DAY: Final = "2026-12-07"
_NIK: Final = "3578012345678901"
_CHOICE: Final = {"service": "new", "session": "morning"}

NAMES: Final[dict[str, str]] = {
    "office": "surabaya",
    "day": _DAY,
    "quota": "online",
    "reference": "surabaya~Zq3fVt0XQ1y",
    "room": "surabaya-20261204T0700",
    "ticket": "AQAAAAAKmZyZ",
    "draw": "january",
    "file": "applications.jsonl",
    "number": "1",
    "group": "mail",
}
"""What stands in an address."""

QUERIES: Final[dict[str, dict[str, str]]] = {
    "availability": {"first_day": _DAY, "last_day": "2026-12-11", **_CHOICE},
    "reservations": {"skip": "0", "limit": "100"},
    "events": {"after": "0", "limit": "100"},
    "audit": {"office": "surabaya"},
}

BODIES: Final[dict[str, dict[str, Any]]] = {
    "reserve": {"applicants": [_NIK], **_CHOICE, "caller": {"network": "203.0.113.7"}},
    "confirm": {"applicant": _NIK, "version": 1},
    "release": {"applicant": _NIK},
    "cancel": {"applicant": _NIK},
    "reschedule": {"day": "2026-12-08", **_CHOICE, "applicant": _NIK},
    "check-in": {"version": 2},
    "no-show": {"version": 2},
    "set-capacity": {"capacity": 80},
    "expire": {"limit": 100},
    "publish": {"first_day": _DAY, "last_day": "2026-12-11"},
    "finish-moves": {"older_than_ms": 60_000, "limit": 100},
    "create-room": {
        "office": "surabaya",
        "first_day": _DAY,
        "last_day": "2026-12-11",
        "opens_at_ms": _OPENS_AT_MS,
        "join_opens_at_ms": _OPENS_AT_MS - _HOUR_MS,
        "settings": {"per_minute_max": 1_200},
    },
    "join": {"identity": _NIK},
    "enter": {"ticket": NAMES["ticket"], "identity": _NIK},
    "open-room": {"entropy": "7,123.45"},
    "set-pace": {"per_minute_min": 60, "per_minute_max": 1_200},
    "create-draw": {
        "opens_at_ms": _OPENS_AT_MS,
        "closes_at_ms": _OPENS_AT_MS + _DAY_MS,
        "forget_at_ms": _OPENS_AT_MS + 60 * _DAY_MS,
        "first_day": "2027-01-04",
        "last_day": "2027-01-08",
        "commitment": "8f1c" * 16,
        "entropy_source": "the closing price of the index on 2026-12-07",
    },
    "apply": {
        "applicants": [_NIK],
        "choices": [{"office": "surabaya", "day": "2027-01-04", **_CHOICE}],
    },
    "find-application": {"applicant": _NIK},
    "withdraw": {"applicant": _NIK, "version": 1},
    "run-draw": {"seed": "53a9" * 16, "entropy": "7,123.45"},
    "award": {"hold_ttl_ms": 2 * _DAY_MS},
    "trim-events": {"through": 100},
    "add-group": {"after": 0},
    "acknowledge": {"numbers": [1, 2, 3]},
}
"""Of the calls that take a body with something in it."""
