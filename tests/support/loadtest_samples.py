"""A small opening at Surabaya, and observations of it, written by hand."""

from __future__ import annotations

import datetime
from typing import Any

from quota_engine.catalog import day_terms, load_catalog
from quota_engine.loadtest.observations import BookedPlace, Observations
from quota_engine.loadtest.plan import DayOnSale, LoadTestOptions, LoadTestPlan, supply_of
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply

DAY = datetime.date(2026, 12, 7)
RUN = "test"
QUOTAS = ("online", "morning")


def small_plan(**options: Any) -> LoadTestPlan:
    """Return a plan with Surabaya's Monday and the places of its catalog."""
    terms = day_terms(load_catalog("surabaya"), "surabaya", DAY)
    assert terms is not None
    available = {quota.name: quota.capacity for quota in terms.quotas}
    day = DayOnSale(office="surabaya", day=DAY.toordinal(), opens_at_ms=terms.opens_at_ms, available=available)
    return LoadTestPlan(
        options=LoadTestOptions(run=RUN, **options), days=(day,), opens_at_ms=terms.opens_at_ms, opens_in_ms=0
    )


def small_market(plan: LoadTestPlan, scenario: Scenario | None = None) -> Supply:
    return supply_of(plan, scenario or Scenario())


def place(person: int, number: int = 0, state: str = "CONFIRMED", selection: int = 0) -> BookedPlace:
    """Return a place of a person, with a queue number."""
    numbers = (number,) if state == "CONFIRMED" else ()
    return BookedPlace(person, 0, f"surabaya~loadtest-{RUN}-{person}-{selection}", state, 1_000_000, 1, QUOTAS, numbers)


def books_of(*places: BookedPlace) -> Observations:
    observations = Observations.empty(10, 100, 0)
    for each in places:
        observations.record_place(each)
    return observations


def event(each: BookedPlace, number: int, state: str = "") -> dict[str, Any]:
    """Return the event that the target records for a place."""
    return {
        "number": number,
        "kind": "ReservationChanged",
        "reservation": {
            "reference": each.reference,
            "office": "surabaya",
            "day": DAY.isoformat(),
            "state": state or each.state,
            "units": each.units,
            "quotas": list(each.quotas),
            "queue_numbers": list(each.queue_numbers),
        },
    }
