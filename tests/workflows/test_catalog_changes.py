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
    """Publish the week, and return closed days, removed quotas and people affected."""
    report = engine.publish(catalog, MONDAY, FRIDAY, offices=["west"], **more)
    return report.days_closed, report.quotas_removed, report.people_affected


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


def test_publish_keeps_a_day_whose_people_are_on_a_vanished_quota(engine: QuotaEngine) -> None:
    """Monday and Tuesday have people in the afternoon; the quota is removed from the rest of the week."""
    report = engine.publish(without_afternoon(), MONDAY, FRIDAY, offices=["west"])
    assert (report.days_refused, report.quotas_removed, report.people_affected) == (2, 3, 2)
    (problem,) = report.problems
    assert problem.startswith("west: 2 days keep their terms")
    assert "the first is 2026-12-07: 1 on 'pm'" in problem
    assert engine.availability("west", TUESDAY)[0].quotas["pm"].held == 1
    assert "pm" not in engine.availability("west", FRIDAY)[0].quotas
    assert engine.audit("west").ok


def test_a_guard_that_is_removed_and_put_back_counts_everybody(engine: QuotaEngine) -> None:
    """People who book while the catalog lacks the guard are counted, on days that refuse the catalog as well."""
    raw = sample()
    raw["plans"][0]["quotas"] = raw["plans"][0]["quotas"][:1]  # the afternoon has no guard any more
    engine.publish(catalog_from(raw), MONDAY, FRIDAY, offices=["west"])
    for day in (TUESDAY, FRIDAY):
        assert engine.reserve("west", day, f"8 {day}", service="new", session="afternoon", idempotency_key=str(day)).ok
        engine.confirm(f"west~{day}")
        assert engine.reserve("west", day, f"9 {day}", service="new", session="afternoon").ok
    engine.publish(catalog_from(sample()), MONDAY, FRIDAY, offices=["west"])
    counted = [(one.quotas["pm"].held, one.quotas["pm"].confirmed) for one in engine.availability("west", TUESDAY)]
    assert counted == [(2, 1)]
    (friday,) = engine.availability("west", FRIDAY)
    assert (friday.quotas["pm"].held, friday.quotas["pm"].confirmed) == (1, 1)
    assert engine.audit("west").ok


def test_a_guard_that_is_added_later_counts_those_who_have_booked(engine: QuotaEngine) -> None:
    """Twelve people have the morning; a guard of ten is overbooked by two. The dry run reports it."""
    for number in range(10):
        assert engine.reserve("west", MONDAY, f"m{number}", service="new", session="morning").ok
    raw = sample()
    raw["plans"][0]["quotas"].append({"id": "counter", "session": "morning", "service": "new", "capacity": 10})
    catalog = catalog_from(raw)
    dry = engine.publish(catalog, MONDAY, FRIDAY, offices=["west"], dry_run=True)
    (impact,) = run(
        measure_impact(catalog, diff_catalogs(catalog_from(sample()), catalog, MONDAY, FRIDAY)[:1], MONDAY, FRIDAY),
        engine._store,
    )
    assert (impact.guards, impact.overbooked) == ({"counter": 12}, 2)
    assert engine.publish(catalog, MONDAY, FRIDAY, offices=["west"]) == dry
    assert (dry.days_published, dry.overbooked) == (5, 2)
    (monday,) = engine.availability("west", MONDAY)
    assert (monday.quotas["counter"].held, monday.quotas["counter"].confirmed) == (10, 2)
    assert monday.quotas["counter"].overbooked == 2
    assert engine.reserve("west", MONDAY, "m11", service="new", session="morning").status is Status.SOLD_OUT
    assert engine.reserve("west", MONDAY, "m11", service="renewal", session="morning").ok
    assert engine.audit("west").ok


def test_a_renamed_allotment_keeps_its_people(engine: QuotaEngine) -> None:
    """Without ``renamed_from``, its days are refused; with it, its people move, and nothing is sold twice."""
    raw = sample()
    raw["plans"][0].pop("capacities_by_class")
    for office in raw["offices"]:
        office.pop("capacities", None)
    priority, online, _ = raw["plans"][0]["allotments"]
    online["id"] = "web"
    priority["fallback"] = ["web", "kiosk"]
    report = engine.publish(catalog_from(raw), MONDAY, FRIDAY, offices=["west"])
    assert (report.days_refused, report.people_affected) == (2, 4)
    online["renamed_from"] = "online"
    dry = engine.publish(catalog_from(raw), MONDAY, FRIDAY, offices=["west"], dry_run=True)
    assert engine.publish(catalog_from(raw), MONDAY, FRIDAY, offices=["west"]) == dry
    assert (dry.days_refused, dry.people_affected, dry.overbooked) == (0, 0, 0)
    (monday,) = engine.availability("west", MONDAY)
    assert "online" not in monday.quotas
    assert (monday.quotas["web"].held, monday.quotas["web"].confirmed, monday.quotas["web"].capacity) == (1, 2, 80)
    assert {record.quotas[0] for record in engine.list_reservations("west", MONDAY)} == {"web"}
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
