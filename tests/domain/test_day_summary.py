"""Summaries of days."""

from __future__ import annotations

import datetime

from quota_engine import ManualClock, QuotaEngine, load_catalog
from quota_engine.catalog import day_terms
from quota_engine.domain.day_summary import DayState, day_state, day_to_builtins

DAY = datetime.date(2026, 12, 7)
CATALOG = load_catalog("surabaya")


def test_day_state_follows_the_clock_unless_the_office_closed_the_day() -> None:
    terms = day_terms(CATALOG, "surabaya", DAY)
    assert terms is not None
    engine = QuotaEngine.open(clock=ManualClock(terms.opens_at_ms))
    engine.publish(CATALOG, DAY, DAY)
    (view,) = engine.availability("surabaya", DAY)
    assert day_state(view, view.opens_at_ms - 1) is DayState.NOT_OPEN
    assert day_state(view, view.opens_at_ms) is DayState.OPEN
    assert day_state(view, view.ends_at_ms) is DayState.OVER
    engine.close_day("surabaya", DAY)
    (closed,) = engine.availability("surabaya", DAY)
    assert day_state(closed, view.ends_at_ms) is DayState.CLOSED


def test_day_to_builtins_writes_the_date_in_iso_format() -> None:
    engine = QuotaEngine.open(clock=ManualClock(0))
    engine.publish(CATALOG, DAY, DAY)
    fields = day_to_builtins(engine.availability("surabaya", DAY)[0])
    assert fields["day"] == "2026-12-07"
    assert fields["quotas"]["online"]["available"] == 100
