"""Which days are working days, and when their quota opens: pure functions of a schedule, a zone and a calendar.

Wall times become UTC by the zone's rules of that date. Where clocks are put forward, a wall time that is skipped
counts with the offset from before the change, so it falls as much later as the clocks jump (02:30 that does not
exist is what the clock then calls 03:30). Where clocks are put back, a wall time that comes twice is its first
occurrence. Indonesia has neither; other countries do.
"""

from __future__ import annotations

__all__ = ["WorkingCalendar", "is_working_day", "opens_at_ms", "wall_time_ms", "working_days"]

import dataclasses
import datetime
from collections.abc import Iterator
from zoneinfo import ZoneInfo

from quota_engine.catalog.schema import WEEKDAYS, DaysAhead, Monthly, Schedule, Weekly

_ONE_DAY = datetime.timedelta(days=1)
_LOOK_BACK_DAYS_MAX = 366


@dataclasses.dataclass(frozen=True, slots=True)
class WorkingCalendar:
    """When an office works.

    Attributes:
        weekdays: working weekdays, Monday is 0.
        holidays: days off, national ones and the office's own.
        closures: (first, last) of each closed range, both included.
    """

    weekdays: frozenset[int]
    holidays: frozenset[datetime.date] = frozenset()
    closures: tuple[tuple[datetime.date, datetime.date], ...] = ()


def is_working_day(calendar: WorkingCalendar, day: datetime.date) -> bool:
    """Return whether the office works on ``day``: a working weekday, no holiday, not closed."""
    return (
        day.weekday() in calendar.weekdays
        and day not in calendar.holidays
        and not any(first <= day <= last for first, last in calendar.closures)
    )


def working_days(calendar: WorkingCalendar, first: datetime.date, last: datetime.date) -> Iterator[datetime.date]:
    """Yield the working days from ``first`` to ``last``, both included, in order (none if ``last`` is before)."""
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        day = datetime.date.fromordinal(ordinal)
        if is_working_day(calendar, day):
            yield day


def wall_time_ms(day: datetime.date, time: datetime.time, zone: ZoneInfo) -> int:
    """Return the UTC milliseconds since 1970 of a local wall time (gaps and folds: see the module)."""
    moment = datetime.datetime.combine(day, time.replace(fold=0), tzinfo=zone)
    since_1970 = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return since_1970 // datetime.timedelta(milliseconds=1)


def opens_at_ms(schedule: Schedule, zone: ZoneInfo, calendar: WorkingCalendar, day: datetime.date) -> int:
    """Return when the quota of the service day ``day`` opens, in UTC milliseconds since 1970.

    - weekly: on the schedule's weekday in the week (Monday to Sunday) that is ``weeks_ahead`` before the week of
      ``day``. The opening happens online, so a holiday on that weekday does not move it.
    - monthly: on the last working day, by ``calendar``, of the month that is ``months_ahead`` before the month of
      ``day``. If that month has none, the last working day before it; after 366 days without any, the month's last day.
    - days ahead: ``days`` days before ``day``.

    ``zone`` is the office's; a zone named by the schedule goes before it. ``day`` is in the years 1972 to 9998.
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
