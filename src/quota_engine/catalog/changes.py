"""Differences between two catalogs, and corrections of published days by a changed catalog.

All functions are pure. :mod:`quota_engine.workflows.catalog_changes` counts the people and applies the corrections.
"""

from __future__ import annotations

__all__ = ["DayCorrection", "OfficeChanges", "correct_day", "diff_catalogs"]

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Final

from quota_engine.catalog.planning import day_terms
from quota_engine.catalog.resolved import Catalog, ResolvedOffice
from quota_engine.catalog.schema import Session
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView

_DAYS_MAX: Final = 400


@dataclasses.dataclass(frozen=True, slots=True)
class OfficeChanges:
    """The changes of one office from an old to a new catalog, for a range of days.

    Attributes:
        office: id of the office.
        is_new: True if only the new catalog has the office. The other attributes are empty then.
        is_gone: True if only the old catalog has the office. The other attributes are empty then.
        days_closed: working days of the old catalog that are days off in the new one.
        days_opened: working days of the new catalog that are days off in the old one.
        days_retimed: working days of both whose opening, start or end differs. Sessions are counted below.
        quotas_added: new quotas and allotments with their capacities.
        quotas_removed: quotas and allotments that the new catalog lacks.
        quotas_renamed: new ids of quotas and allotments by their old ones.
        capacities: old and new capacity of those that differ. A published day keeps its capacity.
        services_removed: ids of services that the office no longer offers.
        sessions_removed: ids of sessions that the office no longer has.
        sessions_retimed: ids of sessions whose start, end or end of booking differs.
    """

    office: str
    is_new: bool = False
    is_gone: bool = False
    days_closed: tuple[datetime.date, ...] = ()
    days_opened: tuple[datetime.date, ...] = ()
    days_retimed: tuple[datetime.date, ...] = ()
    quotas_added: Mapping[str, int] = dataclasses.field(default_factory=dict)
    quotas_removed: tuple[str, ...] = ()
    quotas_renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    capacities: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    services_removed: tuple[str, ...] = ()
    sessions_removed: tuple[str, ...] = ()
    sessions_retimed: tuple[str, ...] = ()


def diff_catalogs(
    old: Catalog, new: Catalog, first_day: datetime.date, last_day: datetime.date
) -> tuple[OfficeChanges, ...]:
    """Return the offices that differ, in the order of the old file and then of the new one.

    Args:
        old: the catalog that is in use.
        new: the catalog that will replace it.
        first_day: the first day to compare.
        last_day: the last day to compare, at most 400 days in all.

    Raises:
        InvalidRequest: the range is empty, too long, or outside 1972 to 2098.
    """
    days = (last_day - first_day).days + 1
    if not 1 <= days <= _DAYS_MAX:
        raise InvalidRequest("first_day, last_day", f"{days} days", f"1 to {_DAYS_MAX}, first to last")
    found: list[OfficeChanges] = []
    for name, office in old.offices.items():
        if name not in new.offices:
            found.append(OfficeChanges(name, is_gone=True))
            continue
        changes = _diff_office(old, new, office, new.offices[name], first_day, days)
        if changes != OfficeChanges(name):
            found.append(changes)
    found += [OfficeChanges(name, is_new=True) for name in new.offices if name not in old.offices]
    return tuple(found)


def _diff_office(
    old: Catalog, new: Catalog, before: ResolvedOffice, after: ResolvedOffice, first_day: datetime.date, days: int
) -> OfficeChanges:
    closed: list[datetime.date] = []
    opened: list[datetime.date] = []
    retimed: list[datetime.date] = []
    for ahead in range(days):
        day = first_day + datetime.timedelta(days=ahead)
        was, will_be = day_terms(old, before.id, day), day_terms(new, after.id, day)
        if was is not None and will_be is None:
            closed.append(day)
        elif was is None and will_be is not None:
            opened.append(day)
        elif was is not None and will_be is not None:
            times = (was.opens_at_ms, was.starts_at_ms, was.ends_at_ms)
            if times != (will_be.opens_at_ms, will_be.starts_at_ms, will_be.ends_at_ms):
                retimed.append(day)
    capacity_before, capacity_after = _capacities(before), _capacities(after)
    former = {quota.renamed_from: quota.id for quota in after.quotas}
    former |= {allotment.renamed_from: allotment.id for allotment in after.allotments}
    renamed = {old_name: name for old_name, name in former.items() if old_name in capacity_before}
    return OfficeChanges(
        before.id,
        days_closed=tuple(closed),
        days_opened=tuple(opened),
        days_retimed=tuple(retimed),
        quotas_added={
            name: units
            for name, units in capacity_after.items()
            if name not in capacity_before and name not in renamed.values()
        },
        quotas_removed=tuple(name for name in capacity_before if name not in capacity_after and name not in renamed),
        quotas_renamed=renamed,
        capacities={
            name: (units, capacity_after[name])
            for name, units in capacity_before.items()
            if name in capacity_after and capacity_after[name] != units
        },
        services_removed=tuple(name for name in before.services if name not in after.services),
        sessions_removed=tuple(name for name in before.sessions if name not in after.sessions),
        sessions_retimed=tuple(
            name
            for name, session in before.sessions.items()
            if name in after.sessions and _session_times(session) != _session_times(after.sessions[name])
        ),
    )


def _session_times(session: Session) -> tuple[object, ...]:
    return session.start, session.end, session.book_until


def _capacities(office: ResolvedOffice) -> dict[str, int]:
    quotas = {quota.id: quota.capacity for quota in office.quotas}
    return quotas | {allotment.id: allotment.capacity for allotment in office.allotments}


@dataclasses.dataclass(frozen=True, slots=True)
class DayCorrection:
    """The differences of a published day from a catalog that concern the people of the day.

    Attributes:
        day: the date's ordinal.
        closes: True if the day is open for booking and no working day of the catalog. Nothing else is given then.
        quotas_removed: quotas that the catalog neither has nor renames.
        quotas_renamed: new names of quotas by their old ones.
        guards_added: guards of the catalog that the day lacks.
    """

    day: int
    closes: bool = False
    quotas_removed: tuple[str, ...] = ()
    quotas_renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    guards_added: tuple[str, ...] = ()


def correct_day(catalog: Catalog, office_id: str, view: DayView) -> DayCorrection | None:
    """Return what a publication would change for the people of a published day, or ``None`` for nothing.

    A day that operators have closed stays closed, and is never a correction. Times and new allotments
    change nothing for people who have booked.

    Args:
        catalog: the catalog.
        office_id: an office of the catalog.
        view: the day as the store has it.

    Raises:
        UnknownName: the catalog has no such office.
        InvalidRequest: the day is before 1972 or after 2098, or its terms are invalid.
    """
    terms = day_terms(catalog, office_id, datetime.date.fromordinal(view.day))
    if terms is None:
        return None if view.closed else DayCorrection(view.day, closes=True)
    known = {quota.name for quota in terms.quotas}
    renamed = {quota.renamed_from: quota.name for quota in terms.quotas if quota.renamed_from in view.quotas}
    correction = DayCorrection(
        view.day,
        quotas_removed=tuple(name for name in view.quotas if name not in known and name not in renamed),
        quotas_renamed=renamed,
        guards_added=tuple(
            quota.name
            for quota in terms.quotas
            if quota.guard is not None and quota.name not in view.quotas and quota.name not in renamed.values()
        ),
    )
    return None if correction == DayCorrection(view.day) else correction
