"""The default values, and the smallest and the largest value of each integer field of commands and rules."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.conformance.world import ONLINE
from quota_engine.domain.commands import (
    CloseDay,
    Confirm,
    Expire,
    Extend,
    MoveIn,
    Publish,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
)
from quota_engine.domain.cross_office_registry import Claim, CloseMove, Drop, OpenMove, OpenMoves
from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.domain.model import (
    DayTerms,
    IdentityLimit,
    QuotaTerms,
    Reallocation,
    ReRelease,
    ReReleaseRule,
    Reservation,
    Rules,
    SessionTerms,
)
from quota_engine.domain.outcomes import Outcome
from tests.support.bounds import Bounds, defaults_of, find_wrong_bounds

TIME = (0, 2**42)
DURATION = (0, 316_224_000_000)
SOME_TIME = (1, 316_224_000_000)
DAY = (1, 3_652_059)
VERSION = (0, 2**31)
NUMBER = 2**53 - 1
QUOTAS = (QuotaTerms("online", 1),)

MESSAGES: list[tuple[Any, Bounds]] = [
    (ReRelease(ReReleaseRule.WAIT_LIST), {"cooling_ms": DURATION, "jitter_ms": DURATION, "blocks_ms": DURATION}),
    (Reallocation("online", 1), {"at_ms": TIME}),
    (QuotaTerms("online", 1), {"capacity": (0, 10_000_000)}),
    (SessionTerms("morning", 9, 0), {"ends_at_ms": TIME, "book_until_ms": (0, 9)}),
    (DayTerms(0, 0, 0, 2**42, QUOTAS), {"forget_at_ms": TIME}),
    (DayTerms(0, 0, 2**42, 2**42, QUOTAS), {"opens_at_ms": TIME, "starts_at_ms": TIME}),
    (IdentityLimit(1, 1), {"places_max": (1, 1000), "span_days": (0, 3660)}),
    (
        Rules(),
        {
            "hold_ttl_ms": SOME_TIME,
            "offer_ttl_ms": SOME_TIME,
            "extensions_max": (0, 100),
            "extension_ms": SOME_TIME,
            "party_max": (1, 100),
            "no_show_block_ms": DURATION,
            "cancellations_max": (0, 100),
            "cancellations_window_ms": DURATION,
            "cancellations_block_ms": DURATION,
            "abandoned_holds_max": (0, 100),
            "abandoned_holds_window_ms": DURATION,
            "abandoned_holds_block_ms": DURATION,
            "reschedules_max": (0, 1000),
            "reschedule_before_ms": DURATION,
            "wait_list_max": (0, 10_000_000),
            "declines_max": (0, 1000),
            "decline_pause_ms": SOME_TIME,
            "undo_window_ms": (0, 86_400_000),
        },
    ),
    (Reserve("r", 1, ("p",), ONLINE), {"day": DAY, "hold_ttl_ms": DURATION, "valid_until_ms": TIME}),
    (Confirm("r"), {"expected_version": VERSION, "valid_until_ms": TIME}),
    (Extend("r"), {"extension": (1, 100), "expected_version": VERSION}),
    (ReplaceApplicant("r", "p", "q"), {"expected_version": VERSION, "valid_until_ms": TIME}),
    (Reschedule("r", 1, ONLINE), {"day": DAY, "expected_version": VERSION}),
    (
        MoveIn("r", 1, ("p",), ONLINE, 1, 1),
        {
            "day": DAY,
            "deadline_at_ms": TIME,
            "moves": (1, 2**31),
            "forced_moves": (0, 1),
            "extensions": (0, 100),
            "valid_until_ms": TIME,
        },
    ),
    (Expire(1), {"day": DAY, "limit": (1, 10_000)}),
    (Publish(1, DayTerms(0, 0, 0, 0, QUOTAS)), {"day": DAY}),
    (CloseDay(1), {"day": DAY, "expected_revision": VERSION}),
    (SetCapacity(1, "online", 1), {"capacity": (0, 10_000_000)}),
    (AdvanceEpoch(1), {"epoch_min": (0, 2**31 - 1)}),
    (
        Claim("p", "a~1", 1, 1),
        {"lease_ms": SOME_TIME, "forget_at_ms": (1, 2**42), "replaces_number": (0, NUMBER)},
    ),
    (Drop("p", 1), {"number": (1, NUMBER)}),
    (Drop("p", 0, "a~1"), {"number": (0, 0)}),
    (
        OpenMove("a~1", "b~1", 1, 1, 1),
        {"version": (1, 2**31), "lease_ms": SOME_TIME, "forget_at_ms": (1, 2**42)},
    ),
    (CloseMove("a~1", "b~1", True), {"number": (0, NUMBER)}),
    (OpenMoves(1), {"limit": (1, 1000), "over_for_ms": DURATION}),
]


@pytest.mark.parametrize(
    ("example", "bounds"), MESSAGES, ids=[f"{type(one).__name__}-{'-'.join(bounds)}" for one, bounds in MESSAGES]
)
def test_integers_are_accepted_up_to_their_bounds(example: Any, bounds: Bounds) -> None:
    assert find_wrong_bounds(example, bounds) == []


DEFAULTS: list[tuple[Any, dict[str, Any]]] = [
    (Reserve, {}),
    (Confirm, {}),
    (ReplaceApplicant, {}),
    (Reschedule, {}),
    (MoveIn, {}),
    (SetCapacity, {}),
    (CloseDay, {}),
    (Claim, {}),
    (Drop, {}),
    (CloseMove, {}),
    (OpenMoves, {}),
    (Outcome, {}),
    (Reservation, {}),
    (Extend, {"extension": 1}),
    (Expire, {"limit": 100}),
    (ReRelease, {"rule": ReReleaseRule.AT_ONCE}),
    (
        Rules,
        {
            "hold_ttl_ms": 900_000,
            "offer_ttl_ms": 1_800_000,
            "extension_ms": 300_000,
            "party_max": 5,
            "identity_limits": (IdentityLimit(1, 1),),
            "cancellations_window_ms": 2_592_000_000,
            "abandoned_holds_window_ms": 86_400_000,
            "abandoned_holds_block_ms": 86_400_000,
            "reschedules_max": 1,
            "reschedule_before_ms": 86_400_000,
            "wait_list_max": 1_000,
            "declines_max": 3,
            "decline_pause_ms": 3_600_000,
            "undo_window_ms": 600_000,
        },
    ),
]


@pytest.mark.parametrize(("message_type", "defaults"), DEFAULTS, ids=[one.__name__ for one, _ in DEFAULTS])
def test_other_fields_are_zero_or_empty_unless_given(message_type: Any, defaults: dict[str, Any]) -> None:
    assert defaults_of(message_type) == defaults
