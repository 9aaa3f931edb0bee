"""Checking a published draw: written another way than the draw itself, so that the two do not share a mistake."""

from __future__ import annotations

__all__ = ["FINDINGS_MAX", "NOTHING_NOTED", "Expected", "check_draw"]

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from quota_engine.draws.files import ResultHead
from quota_engine.draws.lottery import Application, Capacities, Lot

FINDINGS_MAX: Final = 50
"""So many findings are told; one is enough to doubt the draw."""


class Expected(msgspec.Struct, frozen=True):
    """What was published before the draw, as the one who checks it noted it then; ``""`` for what they did not note."""

    commitment: str = ""
    applications_digest: str = ""
    capacities_digest: str = ""
    entropy: str | None = None


NOTHING_NOTED: Final = Expected()


class _Findings(list[str]):
    def note(self, finding: str) -> None:
        if len(self) < FINDINGS_MAX:
            self.append(finding)


def check_draw(
    head: ResultHead,
    lots: Sequence[tuple[Lot, str]],
    capacities: Capacities,
    applications: Iterable[Application],
    capacities_digest: str,
    applications_digest: str,
    expected: Expected = NOTHING_NOTED,
) -> list[str]:
    """Everything that is wrong with a result, a sentence each (at most :data:`FINDINGS_MAX`); none: it is right.

    ``capacities_digest`` and ``applications_digest`` are of the canonical forms of what is given here.
    """
    findings = _Findings()
    _check_head(head, capacities, capacities_digest, applications_digest, expected, findings)
    by_number = _by_number(applications, findings)
    _check_totals(head, lots, by_number, findings)
    if _check_order(head, lots, by_number, findings):
        _check_choices(lots, capacities, by_number, findings)
    return list(findings)


def _check_head(
    head: ResultHead,
    capacities: Capacities,
    capacities_digest: str,
    applications_digest: str,
    expected: Expected,
    findings: _Findings,
) -> None:
    if head.draw != capacities.draw:
        findings.note(f"the result is of draw {head.draw}, the capacities of draw {capacities.draw}")
    if hashlib.sha256(f"{head.draw} {head.seed}".encode()).hexdigest() != head.commitment:
        findings.note("the seed does not match the commitment")
    for what, found, claimed, noted in (
        ("applications", applications_digest, head.applications_digest, expected.applications_digest),
        ("capacities", capacities_digest, head.capacities_digest, expected.capacities_digest),
    ):
        if found != claimed:
            findings.note(f"the {what} are not those of the result: their digest is {found}, its is {claimed}")
        if noted and found != noted:
            findings.note(f"the {what} are not those that were published: their digest is {found}, not {noted}")
    if expected.commitment and head.commitment != expected.commitment:
        findings.note(f"the commitment is {head.commitment}, published was {expected.commitment}")
    if expected.entropy is not None and head.entropy != expected.entropy:
        findings.note("the entropy is not the text that was expected")


def _by_number(applications: Iterable[Application], findings: _Findings) -> dict[int, Application]:
    by_number: dict[int, Application] = {}
    applied: dict[str, int] = {}
    for one in applications:
        if one.number in by_number:
            findings.note(f"application {one.number}: there are two of this number")
        by_number[one.number] = one
        for applicant in one.applicants:
            if applicant in applied:
                findings.note(f"application {one.number}: an applicant is in application {applied[applicant]} too")
            applied[applicant] = one.number
    return by_number


def _check_totals(
    head: ResultHead, lots: Sequence[tuple[Lot, str]], by_number: dict[int, Application], findings: _Findings
) -> None:
    counts = Counter(lot.preference for lot, _ in lots)
    places = sum(len(by_number[lot.number].applicants) for lot, _ in lots if lot.preference and lot.number in by_number)
    told = head.totals
    found = (len(lots), sum(len(one.applicants) for one in by_number.values()), len(lots) - counts[0], places)
    if found != (told.applications, told.applicants, told.winners, told.places):
        findings.note("the figures in the head are not those of the list")
    if tuple(counts[preference] for preference in range(max(counts, default=0) + 1)) != told.by_preference:
        findings.note("the figures by preference in the head are not those of the list")


def _check_order(
    head: ResultHead, lots: Sequence[tuple[Lot, str]], by_number: dict[int, Application], findings: _Findings
) -> bool:
    """Whether all applications are there, and stand in the order of their lots."""
    before = len(findings)
    listed = {lot.number for lot, _ in lots}
    if len(listed) != len(lots):
        findings.note("an application is in the result twice")
    for number in sorted(by_number.keys() - listed)[:FINDINGS_MAX]:
        findings.note(f"application {number}: is missing in the result")
    for number in sorted(listed - by_number.keys())[:FINDINGS_MAX]:
        findings.note(f"application {number}: is in the result, and was never made")
    if len(findings) > before:
        return False
    key = hashlib.sha256(f"{head.draw} {head.seed} {head.entropy}".encode()).hexdigest()
    drawn = sorted((hashlib.sha256(f"{key} {number}".encode()).digest(), number) for number in listed)
    rank_of = {lot.number: lot.rank for lot, _ in lots}
    for rank, (_, number) in enumerate(drawn, 1):
        if rank_of[number] != rank:
            findings.note(f"application {number}: has rank {rank_of[number]}, its lot gives it {rank}")
    return len(findings) == before


def _check_choices(
    lots: Sequence[tuple[Lot, str]], capacities: Capacities, by_number: dict[int, Application], findings: _Findings
) -> None:
    """Nobody got what was not there, and nobody less than the best of what was. Stops at the first who did: what is
    left for those behind depends on it."""
    left = {
        (office, day, quota): units
        for (office, day), quotas in capacities.days.items()
        for quota, units in quotas.items()
    }
    for lot, got in sorted(lots, key=lambda one: one[0].rank):
        application = by_number[lot.number]
        best = _best(application, capacities, left)
        if isinstance(best, str):
            findings.note(f"application {lot.number}: {best}")
            return
        if best != (lot.preference, got, lot.option):
            findings.note(
                f"application {lot.number} (rank {lot.rank}): got {_told(lot.preference, got, lot.option)}, "
                f"and its best free choice was {_told(*best)}"
            )
            return
        if lot.preference:
            wish = capacities.preferences[got]
            for quota in wish.choice.options[lot.option]:
                left[wish.office, wish.day, quota] -= len(application.applicants)


def _best(
    application: Application, capacities: Capacities, left: dict[tuple[str, int, str], int]
) -> tuple[int, str, int] | str:
    """Preference, choice and option that it should have got; or what is wrong with the application."""
    for preference, name in enumerate(application.choices, 1):
        wish = capacities.preferences.get(name)
        if wish is None:
            return f"its choice {name} is not among those of the capacities"
        for index, option in enumerate(wish.choice.options):
            if min(left[wish.office, wish.day, quota] for quota in option) >= len(application.applicants):
                return preference, name, index
    return 0, "", 0


def _told(preference: int, choice: str, option: int) -> str:
    return f"choice {preference} ({choice}, alternative {option + 1})" if preference else "nothing"
