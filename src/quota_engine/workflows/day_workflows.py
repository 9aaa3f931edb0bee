"""Workflows about office-days: publish, lookup, availability, audit."""

from __future__ import annotations

__all__ = ["DAYS_MAX", "AuditReport", "PublishReport", "audit", "lookup", "publish", "view"]

import datetime
from collections.abc import Sequence
from typing import Final

import msgspec

from quota_engine.catalog import Catalog, check_year, day_terms, get_office, rules_of
from quota_engine.domain.commands import CloseDay, Command, Expire, Publish, SetRules
from quota_engine.domain.errors import InvalidRequest, WrongIdentityKey
from quota_engine.domain.identity_key import source_of
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.ports import ApplyMany, Audit, ListOffices, Lookup, View
from quota_engine.workflows.arguments import Day, day_number
from quota_engine.workflows.catalog_changes import corrections_of, people_affected
from quota_engine.workflows.catalog_plans import check_catalog
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
        problems: one sentence for each office that has days without valid terms. Its other days, and all other offices,
            are published.
        days_closed: office-days that were published and are no working days of the catalog any more.
        quotas_withdrawn: quotas of published office-days that the catalog lacks; their capacity is 0 now.
        people_affected: confirmed, held and waiting people of those days and quotas.
    """

    offices: int
    days_published: int
    days_unchanged: int
    days_over: int
    problems: tuple[str, ...] = ()
    days_closed: int = 0
    quotas_withdrawn: int = 0
    people_affected: int = 0


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
    requests: RequestBuilder,
    catalog: Catalog,
    first_day: Day,
    last_day: Day | None,
    offices: Sequence[str] | None = None,
    dry_run: bool = False,
) -> Workflow[PublishReport]:
    """Publish the rules and the working days of the given offices, or of all. Safe to repeat.

    Published days in the range that the catalog no longer has are closed, and quotas that it lacks get the capacity 0.
    With ``dry_run``, return the same report and change nothing.

    Raises:
        WrongIdentityKey: the store was first opened with another key, or an office was published with another one.
    """
    check_catalog(catalog)
    chosen = tuple(catalog.offices) if offices is None else tuple(get_office(catalog, one).id for one in offices)
    days = [datetime.date.fromordinal(number) for number in _range(requests, first_day, last_day)]
    check_year(days[0])
    check_year(days[-1])
    if not dry_run:
        # The check of an opening is repeated here: the store may have been emptied, or replaced by a backup, since.
        yield from check_identity_key(requests.identity_key)
        requests.use_catalog(catalog)
    published = unchanged = over = closed = withdrawn = people = 0
    problems: list[str] = []
    for office in chosen:
        if not dry_run:
            rules = rules_of(catalog, office, jitter_seed=requests.jitter_seed)
            (outcome,) = yield ApplyMany(office, (SetRules(rules),))
            if outcome.status is Status.CONFLICT:
                raise WrongIdentityKey(source_of(requests.identity_key))
        publishes, problem = _publish_commands(catalog, office, days)
        problems += problem
        views: list[DayView] = yield View(office, tuple(day.toordinal() for day in days))
        corrections, withdrawals = corrections_of(catalog, office, views)
        commands: tuple[Command, ...] = (*publishes, *withdrawals)
        outcomes: Sequence[Outcome] = _dry_outcomes(publishes, withdrawals, views)
        if not dry_run:
            outcomes = yield ApplyMany(office, commands)
        for command, outcome in zip(commands, outcomes, strict=True):
            is_change = outcome.status is Status.DONE and not outcome.replayed
            if isinstance(command, Publish):
                over += outcome.status is Status.DAY_OVER
                unchanged += outcome.status is Status.DONE and outcome.replayed
                published += is_change
            elif isinstance(command, CloseDay):
                closed += is_change
            else:
                withdrawn += is_change
        people += yield from people_affected(office, corrections)
    return PublishReport(len(chosen), published, unchanged, over, tuple(problems), closed, withdrawn, people)


def _dry_outcomes(
    publishes: Sequence[Publish], withdrawals: Sequence[Command], views: Sequence[DayView]
) -> list[Outcome]:
    """Return what the commands would answer. A view has no quota rules: if only they differ, a day is unchanged."""
    known = {view.day: view for view in views}
    outcomes: list[Outcome] = []
    for command in publishes:
        view, terms = known.get(command.day), command.terms
        is_known = (
            view is not None
            and (view.opens_at_ms, view.starts_at_ms, view.ends_at_ms, view.sessions)
            == (terms.opens_at_ms, terms.starts_at_ms, terms.ends_at_ms, terms.sessions)
            and all(quota.name in view.quotas for quota in terms.quotas)
        )
        outcomes.append(Outcome(Status.DONE, replayed=is_known))
    return [*outcomes, *(Outcome(Status.DONE) for _ in withdrawals)]


def _publish_commands(
    catalog: Catalog, office: str, days: Sequence[datetime.date]
) -> tuple[tuple[Publish, ...], tuple[str, ...]]:
    """Return the commands of an office's valid days, and a sentence about its invalid days, if there are any."""
    commands: list[Publish] = []
    failed: list[tuple[datetime.date, InvalidRequest]] = []
    for day in days:
        try:
            terms = day_terms(catalog, office, day)
        except InvalidRequest as error:
            failed.append((day, error))
            continue
        if terms is not None:
            commands.append(Publish(day.toordinal(), terms))
    if not failed:
        return tuple(commands), ()
    first, reason = failed[0]
    return tuple(commands), (f"{office}: {len(failed)} days cannot be published, the first is {first}: {reason}",)


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
