"""Workflows about a changed catalog: what its publication changes for the people of published days."""

from __future__ import annotations

__all__ = [
    "DayEffect",
    "OfficeImpact",
    "corrections_of",
    "count_people",
    "measure_effect",
    "measure_impact",
    "people_on_removed",
]

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from quota_engine.catalog import Catalog, DayCorrection, OfficeChanges, correct_day, day_terms
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.guards import matching_guards, rewrite_option
from quota_engine.domain.lifecycle import CONSUMING, State
from quota_engine.domain.model import DayTerms, Reservation
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
        quotas: people by quota that vanishes. While there are any, their published days refuse the new catalog.
        guards: people by guard that appears, whom it counts although they booked before.
        overbooked: units by which the new guards, and quotas that join, overbook published days.
        services: people by service that the office no longer offers.
        sessions: people by session that vanishes or has other times.
    """

    office: str
    days: int
    people: int
    closed: Mapping[int, int]
    retimed: int
    quotas: Mapping[str, int]
    guards: Mapping[str, int]
    overbooked: int
    services: Mapping[str, int]
    sessions: Mapping[str, int]


class DayEffect(NamedTuple):
    """The effect of a publication on the people of a published day.

    Attributes:
        people: confirmed, held and waiting people who lose the day, or whose quota the catalog lacks.
        on_removed: those people by quota that the catalog lacks. If there are any, the day is refused.
        overbooked: units by which the publication overbooks the day.
    """

    people: int
    on_removed: Mapping[str, int]
    overbooked: int


def corrections_of(catalog: Catalog, office: str, views: Iterable[DayView]) -> list[DayCorrection]:
    """Return what a publication changes for the people of published days. Days without valid terms are left out."""
    corrections: list[DayCorrection] = []
    for view in views:
        try:
            correction = correct_day(catalog, office, view)
        except InvalidRequest:  # the publication reports it
            continue
        if correction is not None:
            corrections.append(correction)
    return corrections


def measure_effect(
    office: str, correction: DayCorrection, view: DayView, terms: DayTerms | None
) -> Workflow[DayEffect]:
    """Return the effect of a correction. Scans the office. ``terms`` are the day's new ones; ``None`` if it closes."""
    reservations: list[Reservation] = yield ListDay(office, correction.day)
    overbooked = 0 if terms is None else _overbooked_by(correction, view, terms, reservations)
    return DayEffect(count_people(correction, reservations), people_on_removed(correction, reservations), overbooked)


def people_on_removed(correction: DayCorrection, reservations: Iterable[Reservation]) -> dict[str, int]:
    """Return the people of each removed quota who consume it or wait for it. Quotas without any are left out."""
    people: dict[str, int] = {}
    for record in reservations:
        names = _wanted_quotas(record) if record.state is State.WAITING else set(record.quotas)
        if record.state in CONSUMING or record.state is State.WAITING:
            for name in names.intersection(correction.quotas_removed):
                people[name] = people.get(name, 0) + record.units
    return {name: people[name] for name in correction.quotas_removed if name in people}


def _wanted_quotas(record: Reservation) -> set[str]:
    return {name for option in record.choice.options for name in option}


def _overbooked_by(
    correction: DayCorrection, view: DayView, terms: DayTerms, reservations: Iterable[Reservation]
) -> int:
    """Return by how many units the new terms overbook the day: its quotas get the people that the rules give them."""
    renamed = correction.quotas_renamed
    guards = {quota.name: quota.guard for quota in terms.quotas if quota.guard is not None}
    taken = {quota.name: 0 for quota in terms.quotas}
    for name, counters in view.quotas.items():
        new_name = renamed.get(name, name)
        taken[new_name] = taken.get(new_name, 0) + counters.cooling
    for record in reservations:
        if record.state in CONSUMING:
            for name in rewrite_option(renamed, matching_guards(guards, record.choice), record.quotas):
                taken[name] = taken.get(name, 0) + record.units
    former = {new: old for old, new in renamed.items() if new not in view.quotas}
    overbooked = -sum(counters.overbooked for counters in view.quotas.values())
    for quota in terms.quotas:
        known = view.quotas.get(former.get(quota.name, quota.name))
        overbooked += max(0, taken[quota.name] - (quota.capacity if known is None else known.capacity))
    return max(0, overbooked)


def count_people(correction: DayCorrection, reservations: Iterable[Reservation]) -> int:
    """Return how many confirmed, held and waiting people of a day's reservations the correction affects."""
    removed = set(correction.quotas_removed)
    people = 0
    for record in reservations:
        names = _wanted_quotas(record) if record.state is State.WAITING else set(record.quotas)
        if record.state in _AFFECTED and (correction.closes or not names.isdisjoint(removed)):
            people += record.units
    return people


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
            impact.add_quotas(view, reservations)
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
        self.guards: dict[str, int] = {}
        self.overbooked = 0
        self._catalog = new
        self._quotas: frozenset[str] = frozenset()
        self._corrections: dict[int, DayCorrection] = {}
        if self._office is not None:
            self._quotas = frozenset(one.id for one in (*self._office.quotas, *self._office.allotments))
            self._quotas |= changes.quotas_renamed.keys()
            self._corrections = {one.day: one for one in corrections_of(new, changes.office, views)}
            self.closed = {day: 0 for day, correction in self._corrections.items() if correction.closes}

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
        for quota in _wanted_quotas(record) if record.state is State.WAITING else record.quotas:
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

    def add_quotas(self, view: DayView, reservations: Sequence[Reservation]) -> None:
        """Count the people of new guards, and the units by which a day would be overbooked."""
        correction = self._corrections.get(view.day)
        if correction is None or correction.closes:
            return
        terms = day_terms(self._catalog, self._changes.office, datetime.date.fromordinal(view.day))
        assert terms is not None  # the day would close
        self.overbooked += _overbooked_by(correction, view, terms, reservations)
        guards = {one.name: one.guard for one in terms.quotas if one.guard and one.name in correction.guards_added}
        for record in reservations:
            for name in matching_guards(guards, record.choice) if record.state in CONSUMING else ():
                self.guards[name] = self.guards.get(name, 0) + record.units

    def result(self, days: int) -> OfficeImpact:
        """Return the counts. ``days`` is the number of published days."""
        return OfficeImpact(
            self._changes.office,
            days,
            self.people,
            self.closed,
            self.retimed,
            self.quotas,
            self.guards,
            self.overbooked,
            self.services,
            self.sessions,
        )
