"""Workflows about a changed catalog: withdraw what it lacks from published days, and count the people affected."""

from __future__ import annotations

__all__ = ["OfficeImpact", "corrections_of", "count_people", "measure_impact", "people_affected"]

import datetime
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quota_engine.catalog import Catalog, DayCorrection, OfficeChanges, correct_day
from quota_engine.domain.commands import CloseDay, Command, SetCapacity
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView
from quota_engine.ports import ListDay, ListOffices, View
from quota_engine.workflows.generator_drivers import Workflow

_AFFECTED = frozenset({State.CONFIRMED, State.HELD, State.WAITING})
"""States of people who still expect something of the day."""


class OfficeImpact(msgspec.Struct, frozen=True):
    """The people of an office whose published days a new catalog changes. Counts confirmed, held and waiting people.

    Attributes:
        office: id of the office.
        days: published days in the range.
        people: people affected by any change, each once.
        closed: people by day that closes, as a date's ordinal.
        retimed: people of days whose times change.
        quotas: people by quota that vanishes.
        services: people by service that the office no longer offers.
        sessions: people by session that vanishes or has other times.
    """

    office: str
    days: int
    people: int
    closed: Mapping[int, int]
    retimed: int
    quotas: Mapping[str, int]
    services: Mapping[str, int]
    sessions: Mapping[str, int]


def corrections_of(
    catalog: Catalog, office: str, views: Iterable[DayView]
) -> tuple[list[DayCorrection], tuple[Command, ...]]:
    """Return what the catalog withdraws from published days, and the commands that do so.

    A vanished quota gets the capacity 0: it sells nothing more, and its people count as overbooked.
    """
    corrections: list[DayCorrection] = []
    commands: list[Command] = []
    for view in views:
        try:
            correction = correct_day(catalog, office, view)
        except InvalidRequest:  # the day has no valid terms, which the publication reports
            continue
        if correction is None:
            continue
        corrections.append(correction)
        if correction.closes:
            commands.append(CloseDay(view.day))
        commands += [SetCapacity(view.day, quota, 0) for quota in correction.quotas_removed]
    return corrections, tuple(commands)


def people_affected(office: str, corrections: Sequence[DayCorrection]) -> Workflow[int]:
    """Return how many people have something that the corrections withdraw. Scans the office for each corrected day."""
    people = 0
    for correction in corrections:
        reservations: list[Reservation] = yield ListDay(office, correction.day)
        people += count_people(correction, reservations)
    return people


def count_people(correction: DayCorrection, reservations: Iterable[Reservation]) -> int:
    """Return how many confirmed, held and waiting people of a day's reservations the correction affects."""
    return sum(
        record.units
        for record in reservations
        if record.state in _AFFECTED
        and (correction.closes or not set(record.quotas).isdisjoint(correction.quotas_removed))
    )


def measure_impact(
    new: Catalog, changes: Sequence[OfficeChanges], first_day: datetime.date, last_day: datetime.date
) -> Workflow[list[OfficeImpact]]:
    """Count the people whom a new catalog affects. Changes nothing. Scans each office for each of its days.

    Args:
        new: the new catalog.
        changes: the differences from the catalog in use; offices that the store does not know are skipped.
        first_day: the first day to look at.
        last_day: the last day, at most 400 days in all.
    """
    known: list[str] = yield ListOffices()
    days = tuple(range(first_day.toordinal(), last_day.toordinal() + 1))
    found: list[OfficeImpact] = []
    for one in changes:
        if one.office not in known or one.is_new:
            continue
        views: list[DayView] = yield View(one.office, days)
        impact = _Impact(new, one, views)
        for view in views:
            reservations: list[Reservation] = yield ListDay(one.office, view.day)
            for record in reservations:
                if record.state in _AFFECTED:
                    impact.add(record)
        found.append(impact.result(len(views)))
    return found


class _Impact:
    """Counts the people of one office."""

    def __init__(self, new: Catalog, changes: OfficeChanges, views: Iterable[DayView]) -> None:
        self._changes = changes
        self._office = new.offices.get(changes.office)
        self._retimed_days = {day.toordinal() for day in changes.days_retimed}
        self.people = self.retimed = 0
        self.closed: dict[int, int] = {}
        self.quotas: dict[str, int] = {}
        self.services: dict[str, int] = {}
        self.sessions: dict[str, int] = {}
        self._quotas: frozenset[str] = frozenset()
        if self._office is not None:
            self._quotas = frozenset(one.id for one in (*self._office.quotas, *self._office.allotments))
            corrections, _ = corrections_of(new, changes.office, views)
            self.closed = {correction.day: 0 for correction in corrections if correction.closes}

    def add(self, record: Reservation) -> None:
        """Count the people of one reservation under each change that concerns it."""
        office, units, is_affected = self._office, record.units, False
        if office is None:
            self.people += units
            return
        if record.day in self.closed:
            self.closed[record.day] += units
            is_affected = True
        if record.day in self._retimed_days:
            self.retimed += units
            is_affected = True
        for quota in record.quotas:
            if quota not in self._quotas:
                self.quotas[quota] = self.quotas.get(quota, 0) + units
                is_affected = True
        service, session = record.choice.service, record.choice.session
        if service and service not in office.services:
            self.services[service] = self.services.get(service, 0) + units
            is_affected = True
        if session and (session not in office.sessions or session in self._changes.sessions_retimed):
            self.sessions[session] = self.sessions.get(session, 0) + units
            is_affected = True
        self.people += units if is_affected else 0

    def result(self, days: int) -> OfficeImpact:
        """Return the counts. ``days`` is the number of published days."""
        return OfficeImpact(
            self._changes.office,
            days,
            self.people,
            self.closed,
            self.retimed,
            self.quotas,
            self.services,
            self.sessions,
        )
