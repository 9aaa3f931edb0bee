"""Outcomes: the views that answer a question."""

from __future__ import annotations

import pytest

from quota_engine.domain.model import SessionTerms
from quota_engine.domain.outcomes import DayView

VIEW = DayView(740_000, 100, 200, 300, False, 0, {}, sessions=(SessionTerms("morning", 250, 220),))


@pytest.mark.parametrize(
    ("session", "now_ms", "expected"),
    [
        ("", 99, False),
        ("", 100, True),
        ("", 299, True),
        ("", 300, False),
        ("morning", 219, True),
        ("morning", 220, False),
        ("evening", 299, True),
    ],
)
def test_a_day_can_be_booked_until_the_booking_of_its_session_ends(session: str, now_ms: int, expected: bool) -> None:
    """A session that the day does not name follows the day alone."""
    assert VIEW.can_be_booked(session, now_ms) is expected


def test_a_closed_day_cannot_be_booked() -> None:
    """Its times do not matter."""
    closed = DayView(740_000, 100, 200, 300, True, 0, {})
    assert not closed.can_be_booked("", 200)
