"""Workflows about office-days: publish, lookup, availability, audit."""

from __future__ import annotations

__all__ = ["DAYS_MAX", "AuditReport", "PublishReport", "audit", "audit_offices", "lookup", "publish", "view"]

import datetime
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from quota_engine.catalog import Catalog, DayCorrection, check_year, day_terms, get_office, rules_of
from quota_engine.domain.commands import CloseDay, Command, Expire, Publish, SetRules
from quota_engine.domain.errors import InvalidRequest, WrongIdentityKey
from quota_engine.domain.identity_key import source_of
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import DayTerms, Reservation
from quota_engine.domain.notebook_tables import html_table
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.ports import ApplyMany, Audit, ListOffices, Lookup, View
from quota_engine.workflows.arguments import Day, day_number
from quota_engine.workflows.catalog_changes import DayEffect, corrections_of, measure_effect
from quota_engine.workflows.catalog_plans import check_catalog
from quota_engine.workflows.generator_drivers import Workflow
from quota_engine.workflows.identity_key_check import check_identity_key
from quota_engine.workflows.jobs import Checkpoint
from quota_engine.workflows.national_claims import audit_claims
from quota_engine.workflows.request_builder import RequestBuilder

DAYS_MAX: Final = 400
"""Most days in one call."""
_IN_USE: Final = Status.QUOTA_IN_USE


class PublishReport(msgspec.Struct, frozen=True):
    """Result of a publish.

    Args:
        offices: number of offices.
        days_published: office-days that are new or changed.
        days_unchanged: office-days that were published already.
        days_over: office-days that are over.
        problems: one sentence for each office that has days without valid terms, and one for each that has days with
            people on quotas that the catalog lacks. Its other days, and all other offices, are published.
        days_closed: office-days that were published and are no working days of the catalog any more.
        quotas_removed: quotas of published office-days that the catalog lacks, without people; they are gone.
        people_affected: confirmed, held and waiting people of closed days, and of quotas that the catalog lacks.
        days_refused: office-days that keep their terms, because people are on quotas that the catalog lacks.
        overbooked: units by which the publication overbooked days: people who booked before a guard counted them, or
            whose quota joined another one.
    """

    offices: int
    days_published: int
    days_unchanged: int
    days_over: int
    problems: tuple[str, ...] = ()
    days_closed: int = 0
    quotas_removed: int = 0
    people_affected: int = 0
    days_refused: int = 0
    overbooked: int = 0


class AuditReport(msgspec.Struct, frozen=True):
    """Result of an audit: the number of offices, and one sentence for each inconsistency."""

    offices: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if there is no inconsistency."""
        return not self.findings

    def _repr_html_(self) -> str:
        """Return a table of the findings for a notebook."""
        result = "no inconsistency" if self.ok else f"{len(self.findings)} inconsistencies"
        return html_table(f"Audit of {self.offices} offices: {result}", (), [(finding,) for finding in self.findings])


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

    Published days in the range that the catalog no longer has are closed. Quotas that it lacks are removed, unless
    people are on them: such a day keeps its terms. With ``dry_run``, return the same report and change nothing.

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
    report = PublishReport(len(chosen), 0, 0, 0)
    for done, office in enumerate(chosen):
        left = {"offices": list(chosen[done:])} if done else {}
        yield Checkpoint(done, len(chosen), "offices", left, msgspec.structs.replace(report, offices=done))
        if not dry_run:
            rules = rules_of(catalog, office, jitter_seed=requests.jitter_seed)
            (outcome,) = yield ApplyMany(office, (SetRules(rules),))
            if outcome.status is Status.CONFLICT:
                raise WrongIdentityKey(source_of(requests.identity_key))
        report = yield from _publish_office(catalog, office, days, report, dry_run=dry_run)
    return report


def _publish_office(
    catalog: Catalog, office: str, days: Sequence[datetime.date], report: PublishReport, *, dry_run: bool
) -> Workflow[PublishReport]:
    """Publish the days of one office, and return the report with them."""
    publishes, problems = _publish_commands(catalog, office, days)
    terms_of = {command.day: command.terms for command in publishes}
    views: list[DayView] = yield View(office, tuple(day.toordinal() for day in days))
    view_of = {view.day: view for view in views}
    corrections = corrections_of(catalog, office, views)
    effects: dict[int, DayEffect] = {}
    for correction in corrections if dry_run else ():
        effects[correction.day] = yield from _measure(office, correction, view_of, terms_of)
    closes = tuple(CloseDay(correction.day) for correction in corrections if correction.closes)
    commands: tuple[Command, ...] = (*publishes, *closes)
    outcomes: Sequence[Outcome]
    if dry_run:
        outcomes = [*_dry_outcomes(publishes, view_of, effects), *(Outcome(Status.DONE) for _ in closes)]
    else:
        outcomes = yield ApplyMany(office, commands)
    changes = [outcome.status is Status.DONE and not outcome.replayed for outcome in outcomes]
    refused = {one.day for one, outcome in zip(publishes, outcomes, strict=False) if outcome.status is _IN_USE}
    people = removed = 0
    for correction in corrections:
        if correction.closes or correction.day in refused:
            if correction.day not in effects:
                effects[correction.day] = yield from _measure(office, correction, view_of, terms_of)
            people += effects[correction.day].people
        else:
            removed += len(correction.quotas_removed)
    if refused:
        problems = (*problems, _in_use_problem(office, refused, effects))
    of_publishes = outcomes[: len(publishes)]
    return PublishReport(
        report.offices,
        report.days_published + sum(changes[: len(publishes)]),
        report.days_unchanged + sum(one.status is Status.DONE and one.replayed for one in of_publishes),
        report.days_over + sum(one.status is Status.DAY_OVER for one in of_publishes),
        (*report.problems, *problems),
        report.days_closed + sum(changes[len(publishes) :]),
        report.quotas_removed + removed,
        report.people_affected + people,
        report.days_refused + len(refused),
        report.overbooked + sum(one.overbooked for one in of_publishes),
    )


def _measure(
    office: str, correction: DayCorrection, view_of: Mapping[int, DayView], terms_of: Mapping[int, DayTerms]
) -> Workflow[DayEffect]:
    return measure_effect(office, correction, view_of[correction.day], terms_of.get(correction.day))


def _in_use_problem(office: str, refused: set[int], effects: Mapping[int, DayEffect]) -> str:
    """Return the sentence about days with people on quotas that the catalog lacks. It counts those of the first day."""
    first = min(refused)
    counts = effects[first].on_removed.items() if first in effects else ()
    people = ", ".join(f"{count} on {name!r}" for name, count in counts)
    count = "1 day keeps its" if len(refused) == 1 else f"{len(refused)} days keep their"
    return (
        f"{office}: {count} terms, because the catalog lacks quotas that people have; the first is "
        f"{datetime.date.fromordinal(first)}: {people}; keep these quotas, or give another one renamed_from"
    )


def _dry_outcomes(
    publishes: Sequence[Publish], view_of: Mapping[int, DayView], effects: Mapping[int, DayEffect]
) -> list[Outcome]:
    """Return what the commands would answer. A view has no quota rules: if only they differ, a day is unchanged."""
    outcomes: list[Outcome] = []
    for command in publishes:
        view, terms, effect = view_of.get(command.day), command.terms, effects.get(command.day)
        if effect is not None and effect.on_removed:
            outcomes.append(Outcome(_IN_USE, units=sum(effect.on_removed.values())))
            continue
        is_known = (
            view is not None
            and (view.opens_at_ms, view.starts_at_ms, view.ends_at_ms, view.sessions)
            == (terms.opens_at_ms, terms.starts_at_ms, terms.ends_at_ms, terms.sessions)
            and view.quotas.keys() == {quota.name for quota in terms.quotas}
        )
        overbooked = 0 if effect is None else effect.overbooked
        outcomes.append(Outcome(Status.DONE, replayed=is_known, overbooked=overbooked))
    return outcomes


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
    return (yield from audit_offices(offices, requests if requests.has_national_limit else None))


def audit_offices(offices: Sequence[str], requests: RequestBuilder | None = None) -> Workflow[AuditReport]:
    """Audit the ledgers of these offices; with ``requests``, the national claims of their reservations as well."""
    findings: list[str] = []
    for done, one in enumerate(offices):
        remedy = "audit office by office, or give it more time"
        yield Checkpoint(done, len(offices), "offices", report=AuditReport(done, tuple(findings)), remedy=remedy)
        findings += yield Audit(one)
        if requests is not None:
            findings += yield from audit_claims(requests, one)
    return AuditReport(len(offices), tuple(findings))
