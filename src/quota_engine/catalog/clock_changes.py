"""Warnings about a catalog's wall times that a clock change skips or repeats.

Such times are valid on all other days of the year, so that they are no errors. :mod:`~quota_engine.catalog.calendar`
says which moments they mean.
"""

from __future__ import annotations

__all__ = ["ClockChangeWarning", "list_clock_change_warnings"]

import dataclasses
import datetime
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

from quota_engine.catalog.calendar import change_at_ms, is_working_day, opens_at_ms, utc_offset, wall_time_ms
from quota_engine.catalog.resolved import Catalog, ResolvedOffice
from quota_engine.catalog.schema import Hours, Schedule, Session

_ONE_DAY = datetime.timedelta(days=1)
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
_OPENED_DAYS_AHEAD_MAX = 400
"""No schedule opens a day that is further ahead. A monthly one opens up to the end of the twelfth month after it."""
_OFFICES_SHOWN_MAX = 5


@dataclasses.dataclass(frozen=True, slots=True)
class ClockChangeWarning:
    """A wall time of a catalog that a clock change skips or repeats.

    Attributes:
        offices: ids of the offices with this time, in the order of the file.
        key: the key of the time in the office's plan, such as ``hours.start`` or ``schedule friday: at``.
        day: the date of the wall time.
        time: the wall time, or a window such as ``02:00 to 03:00``.
        problem: the clock change and its effect, in words.
    """

    offices: tuple[str, ...]
    key: str
    day: datetime.date
    time: str
    problem: str

    def __str__(self) -> str:
        shown = ", ".join(self.offices[:_OFFICES_SHOWN_MAX])
        omitted = len(self.offices) - _OFFICES_SHOWN_MAX
        offices = f"{shown} and {omitted} more" if omitted > 0 else shown
        return f"{offices}: {self.key}: {self.time} on {self.day}: {self.problem}"


def list_clock_change_warnings(
    catalog: Catalog, first_day: datetime.date, last_day: datetime.date
) -> tuple[ClockChangeWarning, ...]:
    """Return a warning for each time of the catalog that a clock change between two dates skips or repeats.

    Covers the hours and sessions of working days, the openings of release schedules, and the times of reallocations.
    Offices with the same warning share one.

    Args:
        catalog: the catalog.
        first_day: the first date.
        last_day: the last date, included; not after 2098.
    """
    changes: dict[str, list[_ClockChange]] = {}

    def changes_of(zone: ZoneInfo) -> list[_ClockChange]:
        if zone.key not in changes:
            changes[zone.key] = list(_list_changes(zone, first_day, last_day))
        return changes[zone.key]

    found: dict[ClockChangeWarning, list[str]] = {}
    for office in catalog.offices.values():
        for warning in _list_office_warnings(office, changes_of):
            found.setdefault(warning, []).append(office.id)
    warnings = [dataclasses.replace(warning, offices=tuple(offices)) for warning, offices in found.items()]
    return tuple(sorted(warnings, key=lambda warning: (warning.day, warning.key, warning.offices)))


@dataclasses.dataclass(frozen=True, slots=True)
class _ClockChange:
    """A change of a zone's offset. The wall times from ``first`` to before ``end`` are skipped or come twice."""

    zone: str
    first: datetime.datetime
    end: datetime.datetime
    is_skip: bool

    def affects(self, day: datetime.date, time: datetime.time) -> bool:
        return self.first <= datetime.datetime.combine(day, time) < self.end

    def days(self) -> Iterator[datetime.date]:
        """Yield the dates of the affected wall times."""
        day = self.first.date()
        while day <= self.end.date():
            yield day
            day += _ONE_DAY

    def describe(self, effect: str) -> str:
        earlier, later = (self.first, self.end) if self.is_skip else (self.end, self.first)
        return f"clocks in {self.zone} go from {earlier:%H:%M} to {later:%H:%M}; {effect}"


def _list_changes(zone: ZoneInfo, first_day: datetime.date, last_day: datetime.date) -> Iterator[_ClockChange]:
    for day in range(first_day.toordinal() - 1, last_day.toordinal() + 2):
        before_ms = (day - _EPOCH_DAY) * _DAY_MS
        before, after = utc_offset(zone, before_ms), utc_offset(zone, before_ms + _DAY_MS)
        if before == after:
            continue
        change_ms = change_at_ms(zone, before_ms, before_ms + _DAY_MS)
        moment = datetime.datetime.fromtimestamp(change_ms / 1_000, tz=datetime.UTC).replace(tzinfo=None)
        change = _ClockChange(zone.key, moment + min(before, after), moment + max(before, after), after > before)
        if first_day <= change.first.date() <= last_day:
            yield change


def _list_office_warnings(
    office: ResolvedOffice, changes_of: Callable[[ZoneInfo], list[_ClockChange]]
) -> Iterator[ClockChangeWarning]:
    """Yield an office's warnings, without the office."""
    for change in changes_of(office.zone):
        for day in change.days():
            if is_working_day(office.calendar, day):
                nothing = "the office does not work on that day"
                yield from _list_window_warnings(change, day, "hours", office.hours, nothing)
                for session in office.sessions.values():
                    key = f"session {session.id}"
                    nothing = "the session has no length, and cannot be booked on that day"
                    yield from _list_window_warnings(change, day, key, session, nothing)
            for allotment in office.allotments:
                settings = allotment.reallocation
                if settings is None or settings.at is None:
                    continue
                booked_day = day + datetime.timedelta(days=settings.days_before)
                if is_working_day(office.calendar, booked_day):
                    key = f"allotment {allotment.id}: reallocation.at"
                    yield from _list_time_warnings(change, day, key, settings.at)
    for schedule in _used_schedules(office):
        zone = ZoneInfo(schedule.zone) if schedule.zone else office.zone
        for change in changes_of(zone):
            for day in change.days():
                if change.affects(day, schedule.at) and _opens_a_day(office, schedule, zone, day):
                    yield from _list_time_warnings(change, day, f"schedule {schedule.id}: at", schedule.at)


def _list_window_warnings(
    change: _ClockChange, day: datetime.date, key: str, window: Hours | Session, nothing: str
) -> Iterator[ClockChangeWarning]:
    """Yield the warnings of a window; one with the effect ``nothing`` if the change skips all of it."""
    end = datetime.datetime.combine(day, window.end)
    if change.is_skip and change.affects(day, window.start) and end <= change.end:
        time = f"{window.start:%H:%M} to {window.end:%H:%M}"
        yield ClockChangeWarning((), key, day, time, change.describe(nothing))
        return
    separator = "." if key == "hours" else ": "
    yield from _list_time_warnings(change, day, f"{key}{separator}start", window.start)
    yield from _list_time_warnings(change, day, f"{key}{separator}end", window.end)


def _list_time_warnings(
    change: _ClockChange, day: datetime.date, key: str, time: datetime.time
) -> Iterator[ClockChangeWarning]:
    if change.affects(day, time):
        effect = f"it counts as {change.end:%H:%M}" if change.is_skip else "the first of the two counts"
        yield ClockChangeWarning((), key, day, f"{time:%H:%M}", change.describe(effect))


def _used_schedules(office: ResolvedOffice) -> list[Schedule]:
    """Return the schedules that open days of the office or reallocate its allotments."""
    settings = (allotment.reallocation for allotment in office.allotments)
    names = {one.schedule for one in settings if one is not None and one.schedule}
    return [office.schedule, *(office.schedules[name] for name in sorted(names - {office.schedule.id}))]


def _opens_a_day(office: ResolvedOffice, schedule: Schedule, zone: ZoneInfo, day: datetime.date) -> bool:
    """Return True if the schedule opens a working day on this date."""
    opening_ms = wall_time_ms(day, schedule.at, zone)
    for ahead in range(_OPENED_DAYS_AHEAD_MAX):
        booked_day = day + ahead * _ONE_DAY
        if (
            is_working_day(office.calendar, booked_day)
            and opens_at_ms(schedule, office.zone, office.calendar, booked_day) == opening_ms
        ):
            return True
    return False
