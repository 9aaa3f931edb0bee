"""Hours, sessions and openings at a clock change: their moments, and the warnings about them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from datetime import date, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quota_engine.catalog import (
    Catalog,
    catalog_from,
    day_terms,
    list_clock_change_warnings,
    load_catalog,
    next_release,
    wall_time_ms,
)
from quota_engine.domain.model import SessionTerms
from tests.support.catalog_samples import sample

SKIP = date(2027, 3, 28)
"""Clocks in Berlin go from 02:00 to 03:00; a Sunday."""
REPEAT = date(2027, 10, 31)
"""Clocks in Berlin go from 03:00 to 02:00; a Sunday."""
ALL_WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def night_catalog(start: str, end: str, session: Mapping[str, Any] = {}, **office: Any) -> Catalog:
    """Return a catalog whose office in Berlin works every day from ``start`` to ``end``, in one session."""
    raw = sample()
    hours = {"start": start, "end": end}
    sessions = [{"id": "night", **hours, **session}]
    raw["plans"][0] |= {"hours": hours, "working_weekdays": ALL_WEEK, "sessions": sessions}
    raw["plans"][0]["quotas"] = [{"id": "all", "session": "night", "capacity": 10}]
    raw["plans"][0]["allotments"][0].pop("reallocation")
    raw["plans"][0].pop("capacities_by_class")
    raw["offices"] = [{"id": "night", "name": "Night", "time_zone": "Europe/Berlin", "schedule": "daily", **office}]
    return catalog_from(raw)


def utc(text: str) -> int:
    """Return milliseconds since 1970 of an ISO time with an offset."""
    return int(datetime.datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize(
    ("start", "end", "starts", "ends"),
    [
        ("02:30", "03:15", "03:00+02:00", "03:15+02:00"),  # read with the old offset, the start would follow the end
        ("01:00", "02:30", "01:00+01:00", "03:00+02:00"),
        ("01:30", "04:00", "01:30+01:00", "04:00+02:00"),
    ],
)
def test_hours_at_a_skipped_hour_stay_in_order(start: str, end: str, starts: str, ends: str) -> None:
    terms = day_terms(night_catalog(start, end), "night", SKIP)
    assert terms is not None
    assert terms.starts_at_ms == utc(f"{SKIP}T{starts}")
    assert terms.ends_at_ms == utc(f"{SKIP}T{ends}")


@pytest.mark.parametrize(("start", "end"), [("02:00", "03:00"), ("02:10", "02:50")])
def test_day_whose_hours_are_skipped_is_no_working_day(start: str, end: str) -> None:
    catalog = night_catalog(start, end)
    assert day_terms(catalog, "night", SKIP) is None
    assert day_terms(catalog, "night", SKIP + timedelta(days=1)) is not None
    release = next_release(catalog, "night", utc("2027-03-24T12:00+01:00"))
    assert release is not None
    assert release[1] == (SKIP + timedelta(days=1),)


ZONES = st.sampled_from(
    [
        ZoneInfo(name)
        for name in ("Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia", "Asia/Tehran")
    ]
)
DAYS = st.dates(date(1973, 1, 1), date(2060, 1, 1))
TIMES = st.times().map(lambda moment: moment.replace(second=0, microsecond=0))


@given(DAYS, TIMES, st.integers(0, 5_000), ZONES)
@example(date(2011, 12, 29), time(23), 1_500, ZoneInfo("Pacific/Apia"))  # skipped a whole date
@example(SKIP, time(2, 30), 45, ZoneInfo("Europe/Berlin"))
@example(date(2027, 10, 3), time(2, 10), 30, ZoneInfo("Australia/Lord_Howe"))  # half an hour
def test_later_wall_time_is_never_an_earlier_moment(day: date, at: time, minutes: int, zone: ZoneInfo) -> None:
    later = datetime.datetime.combine(day, at) + timedelta(minutes=minutes)
    assert wall_time_ms(day, at, zone) <= wall_time_ms(later.date(), later.time(), zone)


def warnings_of(catalog: Catalog, first: date, last: date) -> list[tuple[str, date, str]]:
    return [(one.key, one.day, one.time) for one in list_clock_change_warnings(catalog, first, last)]


def test_warnings_name_every_change_of_two_years() -> None:
    catalog = night_catalog("02:30", "03:15")
    found = warnings_of(catalog, date(2027, 1, 1), date(2028, 12, 31))
    assert [(key, str(day)) for key, day, _ in found] == [
        ("hours.start", "2027-03-28"),
        ("session night: start", "2027-03-28"),
        ("hours.start", "2027-10-31"),
        ("session night: start", "2027-10-31"),
        ("hours.start", "2028-03-26"),
        ("session night: start", "2028-03-26"),
        ("hours.start", "2028-10-29"),
        ("session night: start", "2028-10-29"),
    ]
    skipped, *_ = list_clock_change_warnings(catalog, SKIP, SKIP)
    assert str(skipped) == (
        "night: hours.start: 02:30 on 2027-03-28: clocks in Europe/Berlin go from 02:00 to 03:00; it counts as 03:00"
    )
    repeated, *_ = list_clock_change_warnings(catalog, REPEAT, REPEAT)
    assert repeated.problem == "clocks in Europe/Berlin go from 03:00 to 02:00; the first of the two counts"


def test_warning_names_a_window_that_is_skipped_as_a_whole() -> None:
    hours, session = list_clock_change_warnings(night_catalog("02:00", "03:00"), SKIP, SKIP)
    assert (hours.key, hours.time) == ("hours", "02:00 to 03:00")
    assert hours.problem.endswith("the office does not work on that day")
    assert "the session has no length" in session.problem


@pytest.mark.parametrize(
    ("day", "until"), [(SKIP, "2027-03-28T01:30+01:00"), (REPEAT, "2027-10-31T02:30+02:00")], ids=["skip", "repeat"]
)
def test_minutes_before_a_session_are_elapsed_time(day: date, until: str) -> None:
    """The night from 01:00 to 04:00 has two hours, or four; booking ends a number of real minutes before its end."""
    minutes = 90 if day == SKIP else 150
    catalog = night_catalog("01:00", "04:00", {"book_until": {"before_end_min": minutes}})
    terms = day_terms(catalog, "night", day)
    assert terms is not None
    (session,) = terms.sessions
    assert session.ends_at_ms - session.book_until_ms == minutes * 60_000
    assert session.book_until_ms == utc(until)


def test_session_that_a_clock_change_skips_cannot_be_booked() -> None:
    raw_hours = {"start": "01:00", "end": "05:00"}
    catalog = night_catalog(**raw_hours, session={"start": "02:00", "end": "03:00"})
    terms = day_terms(catalog, "night", SKIP)
    assert terms is not None
    assert terms.sessions == (SessionTerms("night", utc(f"{SKIP}T03:00+02:00"), 0),)
    (warning,) = list_clock_change_warnings(catalog, SKIP, SKIP)
    assert "cannot be booked" in warning.problem


def test_no_warning_on_a_day_off_or_at_other_times() -> None:
    closed = night_catalog("02:30", "03:15", closures=[{"first": str(SKIP), "last": str(SKIP)}])
    assert warnings_of(closed, SKIP, SKIP) == []
    assert warnings_of(night_catalog("03:00", "04:00"), SKIP, SKIP) == []
    assert warnings_of(load_catalog("indonesia"), date(2027, 1, 1), date(2028, 12, 31)) == []


def test_openings_and_reallocations_are_checked() -> None:
    """A schedule in its own zone counts there; a reallocation may take place days before the booked day."""
    raw = sample()
    raw["schedules"][0] = {
        "id": "friday", "kind": "weekly", "weekday": "sunday", "at": "02:15", "zone": "Europe/Berlin"
    }  # fmt: skip
    raw["plans"][0]["allotments"][0]["reallocation"] = {"to": "kiosk", "at": "02:45", "days_before": 1}
    raw["offices"][0]["time_zone"] = "Europe/Berlin"
    catalog = catalog_from(raw)
    assert warnings_of(catalog, SKIP, SKIP) == [
        ("allotment priority: reallocation.at", SKIP, "02:45"),
        ("schedule friday: at", SKIP, "02:15"),
    ]
    (friday,) = [one for one in list_clock_change_warnings(catalog, SKIP, SKIP) if "schedule" in one.key]
    assert friday.offices == ("west",)


def test_offices_with_the_same_warning_share_it() -> None:
    raw = sample()
    raw["plans"][0].pop("capacities_by_class")
    raw["plans"][0]["hours"] = {"start": "02:30", "end": "16:00"}
    raw["plans"][0]["working_weekdays"] = ALL_WEEK
    raw["offices"] = [
        {"id": f"o{number}", "name": "O", "time_zone": "Europe/Berlin", "schedule": "daily"} for number in range(7)
    ]
    (warning,) = list_clock_change_warnings(catalog_from(raw), SKIP, SKIP)
    assert len(warning.offices) == 7
    assert str(warning).startswith("o0, o1, o2, o3, o4 and 2 more: hours.start")


def test_opening_at_a_skipped_time_is_the_moment_of_the_change() -> None:
    assert wall_time_ms(SKIP, time(2, 15), ZoneInfo("Europe/Berlin")) == utc("2027-03-28T03:00+02:00")
