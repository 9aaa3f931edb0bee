"""The default values, and the smallest and the largest value of each integer field of limits, passes and decisions."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.admission.policy import DecisionKind, DecisionRecord, PolicyDecision, PolicyRequest
from quota_engine.admission.token_bucket import Charge, Limit, SlidingWindow, TakeOutcome, TakeTokens
from tests.support.bounds import Bounds, defaults_of, find_wrong_bounds

MESSAGES: list[tuple[Any, Bounds]] = [
    (Limit(1, 1, 1), {"amount": (1, 10**9), "per_ms": (1, 31_622_400_000), "burst": (1, 10**9)}),
    (SlidingWindow(9, 1, 9), {"per_ms": (1, 31_622_400_000), "burst": (9, 9)}),
    (PolicyDecision(DecisionKind.WAIT, "busy"), {"retry_after_ms": (0, 316_224_000_000)}),
]


@pytest.mark.parametrize(("example", "bounds"), MESSAGES, ids=[type(one).__name__ for one, _ in MESSAGES])
def test_integers_are_accepted_up_to_their_bounds(example: Any, bounds: Bounds) -> None:
    assert find_wrong_bounds(example, bounds) == []


DEFAULTS: list[tuple[Any, dict[str, Any]]] = [
    (PolicyRequest, {}),
    (PolicyDecision, {}),
    (DecisionRecord, {"enforced": True}),
    (Charge, {"cost": 1}),
    (TakeTokens, {}),
    (TakeOutcome, {"refused_by": -1}),
]


@pytest.mark.parametrize(("message_type", "defaults"), DEFAULTS, ids=[one.__name__ for one, _ in DEFAULTS])
def test_other_fields_are_zero_or_empty_unless_given(message_type: Any, defaults: dict[str, Any]) -> None:
    assert defaults_of(message_type) == defaults
