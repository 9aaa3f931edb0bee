"""The default values, and the smallest and the largest value of each integer field of a draw."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.conformance.world import ONLINE
from quota_engine.draws.commands import (
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.lottery import Preference
from quota_engine.draws.outcomes import DrawOutcome
from quota_engine.draws.queries import ReadApplications
from tests.support.bounds import Bounds, defaults_of, find_wrong_bounds

DIGEST = "a" * 64
DAY = (1, 3_652_059)
EPOCH = (0, 2**31)

MESSAGES: list[tuple[Any, Bounds]] = [
    (DrawConfig(0, 1, 2**42, 400, 400, DIGEST), {"forget_at_ms": (None, 2**42)}),
    (
        DrawConfig(0, 1, 2, 400, 400, DIGEST),
        {"party_max": (1, 100), "choices_max": (1, 50), "applications_max": (1, 10_000_000)},
    ),
    (OfferDay("surabaya", 1, ()), {"day": DAY}),
    (WithdrawApplication("p", 1), {"expected_version": (1, 2**31), "expected_epoch": EPOCH}),
    (FreezeDraw(1, DIGEST, DIGEST), {"applications": (0, 10_000_000), "epoch": EPOCH}),
    (RevealSeed("d", DIGEST), {"epoch": EPOCH}),
    (Preference("surabaya", 1, ONLINE), {"day": DAY}),
    (
        SubmitApplication(("p",), (Preference("surabaya", 1, ONLINE),)),
        {"expected_version": (0, 2**31), "expected_epoch": EPOCH},
    ),
    (ReadApplications(0), {"after": (0, 10_000_000), "limit": (1, 2_000)}),
]


@pytest.mark.parametrize(("example", "bounds"), MESSAGES, ids=[type(one).__name__ for one, _ in MESSAGES])
def test_integers_are_accepted_up_to_their_bounds(example: Any, bounds: Bounds) -> None:
    assert find_wrong_bounds(example, bounds) == []


DEFAULTS: list[tuple[Any, dict[str, Any]]] = [
    (SubmitApplication, {}),
    (WithdrawApplication, {}),
    (FreezeDraw, {}),
    (RevealSeed, {}),
    (DrawOutcome, {}),
    (ReadApplications, {"limit": 2_000}),
    (DrawConfig, {"party_max": 5, "choices_max": 10, "applications_max": 1_000_000}),
]


@pytest.mark.parametrize(("message_type", "defaults"), DEFAULTS, ids=[one.__name__ for one, _ in DEFAULTS])
def test_other_fields_are_zero_or_empty_unless_given(message_type: Any, defaults: dict[str, Any]) -> None:
    assert defaults_of(message_type) == defaults
