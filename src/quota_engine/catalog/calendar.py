"""Working days and opening times: pure functions of a schedule, a time zone and a calendar.

Wall times become UTC by the zone's rules of that date. When clocks go forward, a skipped wall time is the moment of the
change: 02:30 becomes 03:00 if the clocks jump from 02:00 to 03:00. When clocks go back, a wall time that occurs twice
is its first occurrence. A later wall time is therefore never an earlier moment, and times stay in their order.
Indonesia has no clock changes; other countries do.
"""

from __future__ import annotations

__all__ = [
    "WorkingCalendar",
    "change_at_ms",
    "is_working_day",
    "opens_at_ms",
    "utc_offset",
    "wall_time_ms",
    "working_days",
]

import dataclasses
import datetime
from collections.abc import Iterator
from zoneinfo import ZoneInfo

from quota_engine.catalog.schema import WEEKDAYS, DaysAhead, Monthly, Schedule, Weekly

_ONE_DAY = datetime.timedelta(days=1)
_EPOCH = datetime.datetime.combine(datetime.date(1970, 1, 1), datetime.time())
_ONE_MS = datetime.timedelta(milliseconds=1)
_LOOK_BACK_DAYS_MAX = 366


@dataclasses.dataclass(frozen=True, slots=True)
class WorkingCalendar:
    """The working days of an office.

    Attributes:
        weekdays: working weekdays; Monday is 0.
        holidays: national holidays and the office's own.
        closures: closed ranges as (first, last), both included.
    """

    weekdays: frozenset[int]
    holidays: frozenset[datetime.date] = frozenset()
    closures: tuple[tuple[datetime.date, datetime.date], ...] = ()


def is_working_day(calendar: WorkingCalendar, day: datetime.date) -> bool:
    """Return True if ``day`` is a working weekday, no holiday, and in no closure."""
    return (
        day.weekday() in calendar.weekdays
        and day not in calendar.holidays
        and not any(first <= day <= last for first, last in calendar.closures)
    )


def working_days(calendar: WorkingCalendar, first: datetime.date, last: datetime.date) -> Iterator[datetime.date]:
    """Yield the working days from ``first`` to ``last``, both included, in ascending order."""
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        day = datetime.date.fromordinal(ordinal)
        if is_working_day(calendar, day):
            yield day


def wall_time_ms(day: datetime.date, time: datetime.time, zone: ZoneInfo) -> int:
    """Return a local wall time in milliseconds since 1970 (UTC). The module describes skipped and repeated times."""
    wall = datetime.datetime.combine(day, time.replace(fold=0))
    before, after = zone.utcoffset(wall), zone.utcoffset(wall.replace(fold=1))
    assert before is not None
    assert after is not None
    since_1970 = wall - _EPOCH - before
    if before < after:  # only for a skipped time; PEP 495 gives a repeated one the greater offset first
        return change_at_ms(zone, (since_1970 + before - after) // _ONE_MS, since_1970 // _ONE_MS)
    return since_1970 // _ONE_MS


def change_at_ms(zone: ZoneInfo, before_ms: int, after_ms: int) -> int:
    """Return when a zone's offset changes, to the second, in milliseconds since 1970 (UTC).

    Args:
        zone: the time zone.
        before_ms: a time before the change.
        after_ms: a time after the only change since ``before_ms``, or its moment.
    """
    before_s, after_s = before_ms // 1_000, -(-after_ms // 1_000)
    offset = utc_offset(zone, before_s * 1_000)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if utc_offset(zone, middle_s * 1_000) == offset:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s * 1_000


def utc_offset(zone: ZoneInfo, time_ms: int) -> datetime.timedelta:
    """Return the zone's offset from UTC at a time in milliseconds since 1970 (UTC)."""
    offset = datetime.datetime.fromtimestamp(time_ms / 1_000, tz=zone).utcoffset()
    assert offset is not None
    return offset


def opens_at_ms(schedule: Schedule, zone: ZoneInfo, calendar: WorkingCalendar, day: datetime.date) -> int:
    """Return when ``day`` opens for booking, in milliseconds since 1970 (UTC).

    - Weekly: on the schedule's weekday of the week that is ``weeks_ahead`` before the week of ``day``. Weeks start on
      Monday. A holiday does not move the opening, because it happens online.
    - Monthly: on the last working day of the month that is ``months_ahead`` before the month of ``day``. If that month
      has none, on the last working day before it. After 366 days without any, on the month's last day.
    - Days ahead: ``days`` days before ``day``.

    Args:
        schedule: the release schedule. Its own zone, if it has one, replaces ``zone``.
        zone: the office's time zone.
        calendar: the office's working days, for monthly schedules.
        day: the day to book, in the years 1972 to 9998.
    """
    if schedule.zone:
        zone = ZoneInfo(schedule.zone)
    return wall_time_ms(_opening_date(schedule, calendar, day), schedule.at, zone)


def _opening_date(schedule: Schedule, calendar: WorkingCalendar, day: datetime.date) -> datetime.date:
    match schedule:
        case Weekly():
            monday = day - day.weekday() * _ONE_DAY
            return monday + (WEEKDAYS.index(schedule.weekday) - 7 * schedule.weeks_ahead) * _ONE_DAY
        case Monthly():
            months = day.year * 12 + (day.month - 1) - (schedule.months_ahead - 1)
            month_end = datetime.date(months // 12, months % 12 + 1, 1) - _ONE_DAY
            return _last_working_day(calendar, month_end)
        case DaysAhead():
            return day - schedule.days * _ONE_DAY


def _last_working_day(calendar: WorkingCalendar, month_end: datetime.date) -> datetime.date:
    for days_back in range(_LOOK_BACK_DAYS_MAX):
        day = month_end - days_back * _ONE_DAY
        if is_working_day(calendar, day):
            return day
    return month_end
