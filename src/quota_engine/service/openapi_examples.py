"""A valid request for each endpoint, for the OpenAPI document and the API reference.

Tests send these requests, and variants of them with one part made invalid.
"""

from __future__ import annotations

__all__ = ["BODY_EXAMPLES", "PATH_EXAMPLES", "QUERY_EXAMPLES"]

from typing import Any, Final

_OPENS_AT_MS: Final = 1_796_367_600_000  # 2026-12-04 14:00 in Jakarta
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_DAY: Final = "2026-12-07"
_NIK: Final = "3578012345678901"
_SELECTION: Final = {"service": "new", "session": "morning"}

PATH_EXAMPLES: Final[dict[str, str]] = {
    "office": "surabaya",
    "address": "surabaya",
    "day": _DAY,
    "quota": "online",
    "reference": "surabaya~Zq3fVt0XQ1y",
    "room": "surabaya-20261204T0700",
    "ticket": "AQAAAAAKmZyZ",
    "draw": "january",
    "file": "applications.jsonl",
    "number": "1",
    "consumer_group": "mail",
}
"""Values of path parameters."""

QUERY_EXAMPLES: Final[dict[str, dict[str, str]]] = {
    "availability": {"first_day": _DAY, "last_day": "2026-12-11", **_SELECTION},
    "reservations": {"skip": "0", "limit": "100"},
    "events": {"after": "0", "limit": "100"},
    "audit": {"office": "surabaya"},
}

BODY_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "reserve": {"applicants": [_NIK], **_SELECTION, "caller": {"network": "203.0.113.7"}},
    "confirm": {"owner": _NIK, "expected_version": 1},
    "extend": {"owner": _NIK, "extension": 1},
    "remove-applicant": {"owner": _NIK, "applicant": _NIK},
    "replace-applicant": {"applicant": _NIK, "replacement": "3578012345678902"},
    "release": {"owner": _NIK},
    "decline": {"owner": _NIK, "expected_version": 2},
    "cancel": {"owner": _NIK},
    "reschedule": {"day": "2026-12-08", **_SELECTION, "owner": _NIK},
    "check-in": {"expected_version": 2},
    "no-show": {"expected_version": 2},
    "undo-attendance": {"expected_version": 3},
    "set-capacity": {"capacity": 80, "expected_revision": 3},
    "close-day": {"expected_revision": 3},
    "open-day": {"expected_revision": 4},
    "reallocate-unused": {"expected_revision": 3},
    "release-parked": {"expected_revision": 3},
    "expire": {"limit": 100},
    "publish": {"first_day": _DAY, "last_day": "2026-12-11"},
    "relocate-day": {"targets": [{"day": "2026-12-14"}], "dry_run": True},
    "recover-moves": {"older_than_ms": 60_000, "limit": 100},
    "create-room": {
        "office": "surabaya",
        "first_day": _DAY,
        "last_day": "2026-12-11",
        "opens_at_ms": _OPENS_AT_MS,
        "join_opens_at_ms": _OPENS_AT_MS - _HOUR_MS,
        "settings": {"per_minute_max": 1_200},
    },
    "join": {"identity": _NIK},
    "enter": {"ticket": PATH_EXAMPLES["ticket"], "identity": _NIK},
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
        "choices": [{"office": "surabaya", "day": "2027-01-04", **_SELECTION}],
    },
    "find-application": {"applicant": _NIK},
    "withdraw": {"applicant": _NIK, "expected_version": 1, "expected_epoch": 1},
    "check-receipt": {"applicant": _NIK, "number": 1, "version": 1, "epoch": 1},
    "close-draw": {"epoch": 0},
    "run-draw": {"seed": "53a9" * 16, "entropy": "7,123.45"},
    "award": {"hold_ttl_ms": 2 * _DAY_MS},
    "trim-events": {"through": 100},
    "create-consumer-group": {"after": 0},
    "acknowledge": {"numbers": [1, 2, 3]},
}
"""Bodies of the endpoints that take one with fields."""
