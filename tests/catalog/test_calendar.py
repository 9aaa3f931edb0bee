"""Working days and opening times, compared with tables and with naive searches day by day."""

from __future__ import annotations

import datetime
from datetime import date, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.catalog import WorkingCalendar, is_working_day, opens_at_ms, wall_time_ms, working_days
from quota_engine.catalog.schema import WEEKDAYS, DaysAhead, Monthly, Schedule, Weekly

JAKARTA = ZoneInfo("Asia/Jakarta")
JAYAPURA = ZoneInfo("Asia/Jayapura")
BERLIN = ZoneInfo("Europe/Berlin")
MON_TO_FRI = WorkingCalendar(frozenset(range(5)))

FRIDAY = Weekly(id="friday", weekday="friday", at=time(14), zone="Asia/Jakarta")
SUNDAY = Weekly(id="sunday", weekday="sunday", at=time(20), weeks_ahead=2)
MONTH = Monthly(id="month", at=time(9))
DAILY = DaysAhead(id="daily", at=time(8), days=3)


def utc(text: str) -> int:
    """Return milliseconds since 1970 of an ISO time with an offset."""
    return int(datetime.datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize(
    ("schedule", "zone", "day", "opens"),
    [
        (FRIDAY, JAKARTA, date(2026, 3, 2), "2026-02-27T14:00+07:00"),
        (FRIDAY, JAKARTA, date(2026, 3, 6), "2026-02-27T14:00+07:00"),
        (FRIDAY, JAKARTA, date(2026, 3, 8), "2026-02-27T14:00+07:00"),
        (FRIDAY, JAYAPURA, date(2026, 3, 9), "2026-03-06T14:00+07:00"),
        (
            Weekly(id="w", weekday="sunday", at=time(20), weeks_ahead=2),
            JAYAPURA,
            date(2026, 3, 9),
            "2026-03-01T20:00+09:00",
        ),
        (FRIDAY, JAKARTA, date(2026, 1, 1), "2025-12-26T14:00+07:00"),
        (MONTH, JAKARTA, date(2026, 3, 2), "2026-02-27T09:00+07:00"),
        (MONTH, JAYAPURA, date(2026, 3, 31), "2026-02-27T09:00+09:00"),
        (MONTH, JAKARTA, date(2026, 1, 15), "2025-12-31T09:00+07:00"),
        (Monthly(id="m", at=time(9), months_ahead=2), JAKARTA, date(2026, 1, 15), "2025-11-28T09:00+07:00"),
        (DAILY, JAKARTA, date(2026, 3, 2), "2026-02-27T08:00+07:00"),
        (DaysAhead(id="d", at=time(8), days=0), JAYAPURA, date(2026, 3, 2), "2026-03-02T08:00+09:00"),
    ],
)
def test_a_day_opens_when_its_schedule_says(schedule: Schedule, zone: ZoneInfo, day: date, opens: str) -> None:
    assert opens_at_ms(schedule, zone, MON_TO_FRI, day) == utc(opens)


def test_a_monthly_opening_is_moved_by_holidays_and_closures() -> None:
    calendar = WorkingCalendar(
        frozenset(range(5)), frozenset({date(2026, 2, 27)}), ((date(2026, 2, 24), date(2026, 2, 26)),)
    )
    assert opens_at_ms(MONTH, JAKARTA, calendar, date(2026, 3, 2)) == utc("2026-02-23T09:00+07:00")


def test_a_month_without_working_days_opens_on_the_last_working_day_before_it() -> None:
    closed = WorkingCalendar(frozenset(range(5)), frozenset(), ((date(2026, 2, 1), date(2026, 2, 28)),))
    assert opens_at_ms(MONTH, JAKARTA, closed, date(2026, 3, 2)) == utc("2026-01-30T09:00+07:00")
    never = WorkingCalendar(frozenset())
    assert opens_at_ms(MONTH, JAKARTA, never, date(2026, 3, 2)) == utc("2026-02-28T09:00+07:00")


@pytest.mark.parametrize(
    ("day", "wall", "expected"),
    [
        (date(2026, 3, 29), time(1, 59), "2026-03-29T01:59+01:00"),
        (date(2026, 3, 29), time(2, 0), "2026-03-29T03:00+02:00"),  # skipped: the moment of the change
        (date(2026, 3, 29), time(2, 30), "2026-03-29T03:00+02:00"),
        (date(2026, 3, 29), time(3, 0), "2026-03-29T03:00+02:00"),
        (date(2026, 10, 25), time(2, 30), "2026-10-25T02:30+02:00"),  # comes twice: the first
        (date(2026, 10, 25), time(3, 0), "2026-10-25T03:00+01:00"),
    ],
)
def test_wall_times_where_clocks_change(day: date, wall: time, expected: str) -> None:
    assert wall_time_ms(day, wall, BERLIN) == utc(expected)


DAYS = st.dates(date(1973, 1, 1), date(2090, 12, 31))
TIMES = st.times().map(lambda moment: moment.replace(second=0, microsecond=0))
ZONES = st.sampled_from([JAKARTA, JAYAPURA, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Pacific/Kiritimati")])


@st.composite
def calendars(draw: st.DrawFn, near: date) -> WorkingCalendar:
    """Return a calendar with holidays and closures in the months around a day."""
    offsets = st.integers(-120, 30).map(lambda days: near + timedelta(days=days))
    firsts = draw(st.lists(st.tuples(offsets, st.integers(0, 40)), max_size=2))
    return WorkingCalendar(
        draw(st.frozensets(st.integers(0, 6), min_size=1)),
        draw(st.frozensets(offsets, max_size=20)),
        tuple((first, first + timedelta(days=days)) for first, days in firsts),
    )


@given(st.data(), DAYS)
def test_working_days_are_those_that_no_rule_excludes(data: st.DataObject, day: date) -> None:
    calendar = data.draw(calendars(day))
    span = [day + timedelta(days=offset) for offset in range(-130, 40)]
    naive = [
        d
        for d in span
        if d.weekday() in calendar.weekdays
        and d not in calendar.holidays
        and all(d < first or last < d for first, last in calendar.closures)
    ]
    assert list(working_days(calendar, span[0], span[-1])) == naive
    assert [d for d in span if is_working_day(calendar, d)] == naive
    assert list(working_days(calendar, span[-1], span[0])) == []


@given(st.data(), DAYS, TIMES, ZONES, st.sampled_from(WEEKDAYS), st.integers(1, 5))
def test_weekly_openings_equal_a_naive_search(
    data: st.DataObject, day: date, at: time, zone: ZoneInfo, weekday: str, weeks: int
) -> None:
    schedule = Weekly(id="w", weekday=weekday, at=at, weeks_ahead=weeks)  # type: ignore[arg-type]
    walked = day
    while walked.weekday() != 0:  # to the Monday of the day's week
        walked -= timedelta(days=1)
    mondays = 0
    while mondays < weeks:  # and on to the Monday that many weeks before
        walked -= timedelta(days=1)
        mondays += walked.weekday() == 0
    while WEEKDAYS[walked.weekday()] != weekday:
        walked += timedelta(days=1)
    assert opens_at_ms(schedule, zone, data.draw(calendars(day)), day) == wall_time_ms(walked, at, zone)


@pytest.mark.slow
@given(st.data(), DAYS, TIMES, ZONES)
def test_monthly_openings_equal_a_naive_search(data: st.DataObject, day: date, at: time, zone: ZoneInfo) -> None:
    calendar = data.draw(calendars(day))
    walked = day
    while walked.month == day.month:
        walked -= timedelta(days=1)
    for _ in range(366):
        if is_working_day(calendar, walked):
            break
        walked -= timedelta(days=1)
    assert opens_at_ms(Monthly(id="m", at=at), zone, calendar, day) == wall_time_ms(walked, at, zone)


@given(DAYS, TIMES, ZONES, st.integers(0, 366))
def test_days_ahead_openings_equal_a_naive_count(day: date, at: time, zone: ZoneInfo, days: int) -> None:
    opening = opens_at_ms(DaysAhead(id="d", at=at, days=days), zone, MON_TO_FRI, day)
    assert opening == wall_time_ms(date.fromordinal(day.toordinal() - days), at, zone)


@given(DAYS, TIMES, ZONES)
def test_a_wall_time_reads_back_unless_it_is_skipped(day: date, at: time, zone: ZoneInfo) -> None:
    moment = datetime.datetime.fromtimestamp(wall_time_ms(day, at, zone) / 1000, tz=zone)
    wall = datetime.datetime.combine(day, at)
    assert timedelta() <= moment.replace(tzinfo=None) - wall <= timedelta(days=1)
    if moment.replace(tzinfo=None) == wall:
        assert moment.fold == 0


@given(st.data(), DAYS, st.sampled_from([FRIDAY, MONTH, DAILY]))
def test_a_later_day_never_opens_earlier(data: st.DataObject, day: date, schedule: Schedule) -> None:
    calendar = data.draw(calendars(day))
    openings = [opens_at_ms(schedule, JAKARTA, calendar, day + timedelta(days=offset)) for offset in range(40)]
    assert openings == sorted(openings)
