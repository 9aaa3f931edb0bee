"""Publishing a changed catalog withdraws what it lacks, and counts the people; a dry run only counts them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from quota_engine import Catalog, ManualClock, QuotaEngine, Status
from quota_engine.catalog import catalog_from, diff_catalogs
from quota_engine.workflows.catalog_changes import measure_impact
from quota_engine.workflows.generator_drivers import run
from tests.support.catalog_samples import sample

MONDAY = date(2026, 12, 7)
TUESDAY = MONDAY + timedelta(days=1)
FRIDAY = MONDAY + timedelta(days=4)
HOLIDAY = {"holidays": [{"date": str(MONDAY)}]}


def with_office(**changes: Any) -> Catalog:
    """Return the sample with other keys of its first office."""
    raw = sample()
    raw["offices"][0].update(changes)
    return catalog_from(raw)


def without_afternoon() -> Catalog:
    """Return the sample without its afternoon session."""
    raw = sample()
    plan = raw["plans"][0]
    plan["sessions"], plan["quotas"] = plan["sessions"][:1], plan["quotas"][:1]
    return catalog_from(raw)


@pytest.fixture
def engine() -> Iterator[QuotaEngine]:
    """A published week with a confirmed party of two on Monday morning, a hold on Monday and one on Tuesday."""
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    with QuotaEngine.open(identity_key=b"a key for tests, and only them", clock=clock) as engine:
        engine.publish(catalog_from(sample()), MONDAY, FRIDAY, offices=["west"])
        held = engine.reserve("west", MONDAY, ["1", "2"], service="new", session="morning")
        assert engine.confirm(held.reference).ok
        assert engine.reserve("west", MONDAY, "3", service="renewal", session="afternoon").ok
        assert engine.reserve("west", TUESDAY, "4", service="new", session="afternoon").ok
        yield engine


def publish(engine: QuotaEngine, catalog: Catalog, **more: Any) -> tuple[int, int, int]:
    """Publish the week, and return closed days, withdrawn quotas and people affected."""
    report = engine.publish(catalog, MONDAY, FRIDAY, offices=["west"], **more)
    return report.days_closed, report.quotas_withdrawn, report.people_affected


def reserve(engine: QuotaEngine, day: date, **more: Any) -> Status:
    return engine.reserve("west", day, "5", service="new", session="morning", **more).status


@pytest.mark.parametrize(
    "change", [HOLIDAY, {"closures": [{"first": str(MONDAY), "last": str(MONDAY)}]}, {"working_weekdays": ["tuesday"]}]
)
def test_publish_closes_published_days_off(engine: QuotaEngine, change: dict[str, Any]) -> None:
    """The people stay counted. A second publish changes nothing."""
    assert reserve(engine, MONDAY, idempotency_key="before") is Status.HELD
    assert engine.release("west~before").ok
    closed, withdrawn, people = publish(engine, with_office(**change))
    assert (closed, withdrawn, people) == (4 if "working_weekdays" in change else 1, 0, 3)
    assert reserve(engine, MONDAY) is Status.DAY_CLOSED
    assert reserve(engine, TUESDAY) is Status.HELD
    assert publish(engine, with_office(**change)) == (0, 0, 0)
    assert engine.audit("west").ok


def test_publish_sets_vanished_quotas_to_0(engine: QuotaEngine) -> None:
    """A process with the old catalog sells no place of the afternoon. Its people count as overbooked."""
    assert publish(engine, without_afternoon()) == (0, 5, 2)
    engine.publish(catalog_from(sample()), FRIDAY + timedelta(days=3), offices=["west"])  # the old catalog again
    afternoon = engine.reserve("west", TUESDAY, "6", service="new", session="afternoon")
    assert afternoon.status is Status.SOLD_OUT
    (view,) = engine.availability("west", TUESDAY)
    assert (view.quotas["pm"].capacity, view.quotas["pm"].overbooked) == (0, 1)
    assert reserve(engine, TUESDAY) is Status.HELD
    assert engine.audit("west").ok


def test_a_day_that_is_a_working_day_again_stays_closed(engine: QuotaEngine) -> None:
    """An operator may have closed it, so an operator opens it."""
    publish(engine, with_office(**HOLIDAY))
    publish(engine, catalog_from(sample()))
    assert reserve(engine, MONDAY) is Status.DAY_CLOSED
    assert engine.open_day("west", MONDAY).ok
    publish(engine, catalog_from(sample()))
    assert reserve(engine, MONDAY) is Status.HELD


@pytest.mark.parametrize("catalog", [with_office(**HOLIDAY), without_afternoon()], ids=["holiday", "session"])
def test_a_dry_run_reports_and_changes_nothing(engine: QuotaEngine, catalog: Catalog) -> None:
    before = engine.availability("west", MONDAY, FRIDAY)
    last = engine.events("west")[-1].number
    dry = engine.publish(catalog, MONDAY, FRIDAY, offices=["west"], dry_run=True)
    assert engine.availability("west", MONDAY, FRIDAY) == before
    assert engine.events("west")[-1].number == last
    late = engine.reserve("west", TUESDAY, "7", service="new", session="afternoon")
    assert late.ok, "the catalog is still the old one"
    engine.release(late.reference)
    assert engine.publish(catalog, MONDAY, FRIDAY, offices=["west"]) == dry


def test_impact_counts_people_by_change(engine: QuotaEngine) -> None:
    raw = sample()
    plan = raw["plans"][0]
    plan["services"] = ["new"]
    plan["sessions"], plan["quotas"] = plan["sessions"][:1], plan["quotas"][:1]
    raw["offices"][0].update(HOLIDAY)
    new = catalog_from(raw)
    changes = diff_catalogs(catalog_from(sample()), new, MONDAY, FRIDAY)
    (impact,) = run(measure_impact(new, changes, MONDAY, FRIDAY), engine._store)
    assert (impact.office, impact.days, impact.people) == ("west", 5, 4)
    assert impact.closed == {MONDAY.toordinal(): 3}
    assert impact.services == {"renewal": 1}
    assert impact.sessions == {"afternoon": 2}
    assert impact.quotas == {"pm": 2}


def test_impact_of_other_hours_and_of_a_gone_office(engine: QuotaEngine) -> None:
    raw = sample()
    raw["plans"][0]["hours"]["start"] = "07:30"
    old, later = catalog_from(sample()), catalog_from(raw)
    (impact,) = run(measure_impact(later, diff_catalogs(old, later, MONDAY, TUESDAY), MONDAY, TUESDAY), engine._store)
    assert (impact.retimed, impact.people, impact.closed) == (4, 4, {})
    raw["offices"] = [{**raw["offices"][0], "id": "north"}]
    gone = catalog_from(raw)
    (impact,) = run(measure_impact(gone, diff_catalogs(old, gone, MONDAY, MONDAY), MONDAY, MONDAY), engine._store)
    assert impact.people == 3


def test_ended_reservations_are_not_affected(engine: QuotaEngine) -> None:
    for record in engine.list_reservations("west", MONDAY):
        step = engine.cancel if record.queue_number else engine.release
        assert step(record.reference).ok
    assert publish(engine, with_office(**HOLIDAY)) == (1, 0, 0)
