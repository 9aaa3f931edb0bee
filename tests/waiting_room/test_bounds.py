"""The default values, and the smallest and the largest value of each integer field of a room."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.conformance.random_rooms import OPENS_AT_MS, SEED, terms
from quota_engine.waiting_room.commands import CallTickets, JoinRoom, OpenRoom, RoomConfig, SetPace
from quota_engine.waiting_room.results import RoomResult
from quota_engine.waiting_room.transcript import TranscriptEpoch, TranscriptWindow
from tests.support.bounds import Bounds, defaults_of, find_wrong_bounds

CLOSES_AT_MS = OPENS_AT_MS + 3_600_000
WEEK_MS = 7 * 86_400_000

MESSAGES: list[tuple[Any, Bounds]] = [
    (
        terms(),
        {
            "last_day": (739_000, 739_061),
            "join_opens_at_ms": (0, None),
            "tickets_max": (1, 100_000_000),
            "window_ms": (1_000, WEEK_MS),
            "turn_ms": (1_000, 512_000),
            "pass_grace_ms": (1_000, None),
            "forget_at_ms": (CLOSES_AT_MS + 1_200_000, CLOSES_AT_MS + 366 * 86_400_000),
            "per_minute_min": (1, None),
            "per_minute_max": (60, None),
            "burst": (100, 1_000_000),
            "latency_max_ms": (1, 60_000),
            "calls_per_100_places": (1, 100_000),
            "units_max": (1, 100),
        },
    ),
    (
        terms(window_ms=WEEK_MS, forget_at_ms=OPENS_AT_MS + 3 * WEEK_MS),
        {"closes_at_ms": (OPENS_AT_MS + 1, OPENS_AT_MS + WEEK_MS), "pass_grace_ms": (1_000, WEEK_MS)},
    ),
    (terms(per_minute_max=60), {"step_ms": (None, 60_000)}),
    (terms(turn_ms=51_200), {"step_ms": (100, None)}),
    (JoinRoom("p", 1), {"replaces_ticket": (None, 99_999_999), "replaces_epoch": (1, 2**31)}),
    (OpenRoom(SEED), {"epoch": (0, 2**31)}),
    (
        CallTickets(1, places_left=1),
        {"per_minute": (0, 6_000_000), "tickets_max": (0, 1_000_000), "places_left": (None, 620_000_000)},
    ),
    (SetPace(9, 9), {"per_minute_max": (9, 6_000_000), "per_minute_min": (1, None)}),
    (TranscriptWindow(1, 1, 1), {"window": (0, 4096), "first": (1, 100_000_000), "tickets": (1, 100_000_000)}),
    (TranscriptEpoch(2, 1), {"epoch": (2, 2**31), "first": (1, 100_000_001)}),
]


@pytest.mark.parametrize(("example", "bounds"), MESSAGES, ids=[type(one).__name__ for one, _ in MESSAGES])
def test_integers_are_accepted_up_to_their_bounds(example: Any, bounds: Bounds) -> None:
    assert find_wrong_bounds(example, bounds) == []


DEFAULTS: list[tuple[Any, dict[str, Any]]] = [
    (JoinRoom, {"replaces_ticket": -1, "replaces_epoch": 1}),
    (OpenRoom, {}),
    (CallTickets, {"tickets_max": 1_000_000, "places_left": -1}),
    (RoomResult, {"index": -1}),
    (
        RoomConfig,
        {
            "channel": "online",
            "tickets_max": 100_000_000,
            "window_ms": 10_000,
            "step_ms": 1_000,
            "turn_ms": 300_000,
            "pass_grace_ms": 900_000,
            "per_minute_min": 60,
            "per_minute_max": 6_000,
            "burst": 200,
            "latency_max_ms": 200,
            "calls_per_100_places": 150,
            "units_max": 1,
        },
    ),
]


@pytest.mark.parametrize(("message_type", "defaults"), DEFAULTS, ids=[one.__name__ for one, _ in DEFAULTS])
def test_other_fields_are_zero_or_empty_unless_given(message_type: Any, defaults: dict[str, Any]) -> None:
    assert defaults_of(message_type) == defaults
