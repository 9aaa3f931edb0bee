"""Workflows about office-days: publish, lookup, availability, audit."""

from __future__ import annotations

__all__ = ["DAYS_MAX", "AuditReport", "PublishReport", "audit", "lookup", "publish", "view"]

import datetime
from typing import Final

import msgspec

from quota_engine.catalog import Catalog, day_terms, rules_of
from quota_engine.domain.commands import Command, Expire, Publish, SetRules
from quota_engine.domain.errors import InvalidRequest, WrongIdentityKey
from quota_engine.domain.identity_key import source_of
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Status
from quota_engine.ports import ApplyMany, Audit, ListOffices, Lookup, View
from quota_engine.workflows.arguments import Day, day_number
from quota_engine.workflows.generator_drivers import Workflow
from quota_engine.workflows.identity_key_check import check_identity_key
from quota_engine.workflows.national_claims import audit_claims
from quota_engine.workflows.request_builder import RequestBuilder

DAYS_MAX: Final = 400
"""Most days in one call."""


class PublishReport(msgspec.Struct, frozen=True):
    """Result of a publish.

    Args:
        offices: number of offices.
        days_published: office-days that are new or changed.
        days_unchanged: office-days that were published already.
        days_over: office-days that are over.
    """

    offices: int
    days_published: int
    days_unchanged: int
    days_over: int


class AuditReport(msgspec.Struct, frozen=True):
    """Result of an audit: the number of offices, and one sentence for each inconsistency."""

    offices: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if there is no inconsistency."""
        return not self.findings


def _range(requests: RequestBuilder, first_day: Day, last_day: Day | None) -> range:
    first = day_number(first_day)
    last = first if last_day is None else day_number(last_day)
    if not 0 < first <= last or last - first >= DAYS_MAX:
        raise InvalidRequest("first_day, last_day", f"{last - first + 1} days", f"1 to {DAYS_MAX}, first to last")
    return range(first, last + 1)


def publish(
    requests: RequestBuilder, catalog: Catalog, first_day: Day, last_day: Day | None
) -> Workflow[PublishReport]:
    """Publish the rules and the working days of every office of the catalog. Safe to repeat.

    Raises:
        WrongIdentityKey: the store was first opened with another key, or an office was published with another one.
    """
    # The check of an opening is repeated here: the store may have been emptied, or replaced by a backup, since.
    yield from check_identity_key(requests.identity_key)
    requests.use_catalog(catalog)
    days = [datetime.date.fromordinal(number) for number in _range(requests, first_day, last_day)]
    published = unchanged = over = 0
    for office in catalog.offices:
        rules = rules_of(catalog, office, jitter_seed=requests.jitter_seed)
        (outcome,) = yield ApplyMany(office, (SetRules(rules),))
        if outcome.status is Status.CONFLICT:
            raise WrongIdentityKey(source_of(requests.identity_key))
        commands: list[Command] = []
        for day in days:
            terms = day_terms(catalog, office, day)
            if terms is not None:
                commands.append(Publish(day.toordinal(), terms))
        outcomes = yield ApplyMany(office, tuple(commands))
        for outcome in outcomes:
            over += outcome.status is Status.DAY_OVER
            unchanged += outcome.status is Status.DONE and outcome.replayed
            published += outcome.status is Status.DONE and not outcome.replayed
    return PublishReport(len(catalog.offices), published, unchanged, over)


def lookup(requests: RequestBuilder, reference: str) -> Workflow[Reservation | None]:
    """Return the current reservation. A lookup of a waiting one also advances the wait list, so it needs no sweep."""
    office, reservation_id = requests.parse_reference(reference)
    record: Reservation | None = yield Lookup(office, reservation_id)
    if record is not None and record.state is State.WAITING:
        yield ApplyMany(office, (Expire(record.day),))
        record = yield Lookup(office, reservation_id)
    return record


def view(requests: RequestBuilder, office: str, first_day: Day, last_day: Day | None) -> Workflow[list[DayView]]:
    """Return the counters of an office's days from first to last."""
    views: list[DayView] = yield View(requests.known_office(office), tuple(_range(requests, first_day, last_day)))
    return views


def audit(requests: RequestBuilder, office: str | None) -> Workflow[AuditReport]:
    """Audit one office, or all of them."""
    offices: list[str] = [requests.known_office(office)] if office is not None else (yield ListOffices())
    findings: list[str] = []
    for one in offices:
        findings += yield Audit(one)
        if requests.has_national_limit:
            findings += yield from audit_claims(requests, one)
    return AuditReport(len(offices), tuple(findings))
