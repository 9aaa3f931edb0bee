"""Differences between two catalogs, and what a catalog withdraws from a published day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from quota_engine.catalog import Catalog, DayCorrection, OfficeChanges, catalog_from, correct_day, diff_catalogs
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView, QuotaView
from tests.support.catalog_samples import sample

MONDAY = date(2026, 3, 2)
SUNDAY = MONDAY + timedelta(days=6)


def changed(**office: Any) -> Catalog:
    """Return the sample with other keys of its first office."""
    raw = sample()
    raw["offices"][0].update(office)
    return catalog_from(raw)


def with_plan(**plan: Any) -> Catalog:
    """Return the sample with other keys of its plan."""
    raw = sample()
    raw["plans"][0].update(plan)
    return catalog_from(raw)


def changes_of_west(new: Catalog) -> OfficeChanges:
    (found,) = [one for one in diff_catalogs(catalog_from(sample()), new, MONDAY, SUNDAY) if one.office == "west"]
    return found


def test_equal_catalogs_have_no_differences() -> None:
    assert diff_catalogs(catalog_from(sample()), catalog_from(sample()), MONDAY, SUNDAY) == ()


@pytest.mark.parametrize(
    ("change", "closed"),
    [
        ({"holidays": [{"date": str(MONDAY)}]}, (0,)),
        ({"closures": [{"first": str(MONDAY), "last": str(MONDAY + timedelta(days=2))}]}, (0, 1, 2)),
        ({"working_weekdays": ["monday", "tuesday", "wednesday", "thursday"]}, (4,)),
    ],
)
def test_holidays_closures_and_weekdays_close_days(change: dict[str, Any], closed: tuple[int, ...]) -> None:
    days = tuple(MONDAY + timedelta(days=ahead) for ahead in closed)
    assert changes_of_west(changed(**change)) == OfficeChanges("west", days_closed=days)
    (back,) = diff_catalogs(changed(**change), catalog_from(sample()), MONDAY, SUNDAY)
    assert back == OfficeChanges("west", days_opened=days)


def test_hours_and_schedules_change_times() -> None:
    week = tuple(MONDAY + timedelta(days=ahead) for ahead in range(5))
    assert changes_of_west(with_plan(hours={"start": "07:00", "end": "16:00"})).days_retimed == week
    assert changes_of_west(changed(schedule="month")) == OfficeChanges("west", days_retimed=week)


def test_quotas_services_and_sessions_are_compared() -> None:
    raw = sample()
    plan = raw["plans"][0]
    plan["services"] = ["new"]
    plan["sessions"] = [{"id": "morning", "start": "08:00", "end": "11:00"}]
    plan["quotas"] = [{"id": "am", "session": "morning", "capacity": 50}, {"id": "day", "capacity": 200}]
    found = changes_of_west(catalog_from(raw))
    assert found.quotas_removed == ("pm",)
    assert found.quotas_added == {"day": 200}
    assert found.capacities == {"am": (60, 50)}
    assert found.services_removed == ("renewal",)
    assert found.sessions_removed == ("afternoon",)
    assert found.sessions_retimed == ("morning",)
    assert found.days_closed == ()


def test_a_renamed_quota_neither_appears_nor_vanishes() -> None:
    raw = sample()
    raw["plans"][0]["quotas"][1] |= {"id": "noon", "renamed_from": "pm"}
    found = changes_of_west(catalog_from(raw))
    assert (found.quotas_renamed, found.quotas_added, found.quotas_removed) == ({"pm": "noon"}, {}, ())


def test_offices_come_and_go() -> None:
    raw = sample()
    raw["offices"][0]["id"] = "north"
    found = diff_catalogs(catalog_from(sample()), catalog_from(raw), MONDAY, SUNDAY)
    assert found == (OfficeChanges("west", is_gone=True), OfficeChanges("north", is_new=True))


@pytest.mark.parametrize("days", [-1, 400])
def test_a_range_has_1_to_400_days(days: int) -> None:
    catalog = catalog_from(sample())
    with pytest.raises(InvalidRequest, match="1 to 400"):
        diff_catalogs(catalog, catalog, MONDAY, MONDAY + timedelta(days=days))


def view(day: date, *quotas: str, closed: bool = False) -> DayView:
    counters = QuotaView(5, 5, 0, 0, 0, 0, 0)
    return DayView(day.toordinal(), 0, 0, 0, closed, 0, dict.fromkeys(quotas, counters))


def test_a_correction_closes_days_off_once() -> None:
    catalog = catalog_from(sample())
    assert correct_day(catalog, "west", view(SUNDAY, "am")) == DayCorrection(SUNDAY.toordinal(), closes=True)
    assert correct_day(catalog, "west", view(SUNDAY, "am", closed=True)) is None
    assert correct_day(catalog, "west", view(MONDAY, "am", "pm", "online", closed=True)) is None


def test_a_correction_names_quotas_that_appear_vanish_or_are_renamed() -> None:
    raw = sample()
    raw["plans"][0]["quotas"][1]["renamed_from"] = "late"
    catalog = catalog_from(raw)
    found = correct_day(catalog, "west", view(MONDAY, "evening", "late"))
    assert found == DayCorrection(
        MONDAY.toordinal(), quotas_removed=("evening",), quotas_renamed={"late": "pm"}, guards_added=("am",)
    )
