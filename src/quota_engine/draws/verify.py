"""Verification of a published draw. It shares no code with the draw, so a bug in one does not hide in the other."""

from __future__ import annotations

__all__ = ["FINDINGS_MAX", "NOTHING_NOTED", "Expected", "check_draw", "contradictions"]

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from quota_engine.draws.files import ResultHead
from quota_engine.draws.lottery import Application, Capacities, Lot

FINDINGS_MAX: Final = 50
"""The most findings that are reported. One is enough to doubt the draw."""


class Expected(msgspec.Struct, frozen=True):
    """Values that the verifier noted when they were published before the draw.

    Attributes:
        commitment: The commitment, in hex, or ``""`` if it was not noted.
        applications_digest: Digest of the applications, in hex, or ``""``.
        capacities_digest: Digest of the capacities, in hex, or ``""``.
        entropy: The public entropy, or ``None`` if it was not noted.
    """

    commitment: str = ""
    applications_digest: str = ""
    capacities_digest: str = ""
    entropy: str | None = None


NOTHING_NOTED: Final = Expected()


class _Findings(list[str]):
    def add(self, finding: str) -> None:
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
    """Verify the published result of a draw.

    Args:
        head: Head of the result.
        lots: Each application's lot, and the name of the choice that it got (``""``: none), in the order of the file.
        capacities: The published capacities.
        applications: The published applications, in the order of the file.
        capacities_digest: SHA-256 of the file of ``capacities``, in hex.
        applications_digest: SHA-256 of the file of ``applications``, in hex.
        expected: Values that the verifier noted before the draw.

    Returns:
        One sentence for each fault, at most 50. Empty if the result is right.
    """
    findings = _Findings()
    _check_head(head, capacities, capacities_digest, applications_digest, expected, findings)
    by_number = _index_applications(applications, findings)
    _check_totals(head, lots, by_number, findings)
    if _check_order(head, lots, by_number, findings):
        _check_choices(lots, capacities, by_number, findings)
    return list(findings)


_FIXED: Final = {
    "draw": "the id of the draw",
    "commitment": "the commitment",
    "applications_digest": "the digest of the applications",
    "capacities_digest": "the digest of the capacities",
    "seed": "the seed",
    "entropy": "the entropy",
}


def contradictions(head: ResultHead, earlier: ResultHead) -> list[str]:
    """Return one sentence for each value that an earlier published result of the draw had and that differs now.

    The result follows from these values. The epoch may differ: a run that a failover has lost is repeated.

    Args:
        head: Head of the later result.
        earlier: Head of the earlier result.
    """
    return [
        f"{name} was {getattr(earlier, field)!r} before, and is {getattr(head, field)!r} now"
        for field, name in _FIXED.items()
        if getattr(earlier, field) != getattr(head, field)
    ]


def _check_head(
    head: ResultHead,
    capacities: Capacities,
    capacities_digest: str,
    applications_digest: str,
    expected: Expected,
    findings: _Findings,
) -> None:
    for sentence in head.contradictions:
        findings.add(f"the publisher states: {sentence}")
    if head.draw != capacities.draw:
        findings.add(f"the result is of draw {head.draw}, the capacities are of draw {capacities.draw}")
    if hashlib.sha256(f"{head.draw} {head.seed}".encode()).hexdigest() != head.commitment:
        findings.add("the seed does not match the commitment")
    for name, digest, stated, noted in (
        ("applications", applications_digest, head.applications_digest, expected.applications_digest),
        ("capacities", capacities_digest, head.capacities_digest, expected.capacities_digest),
    ):
        if digest != stated:
            findings.add(f"the {name} have the digest {digest}, but the result states {stated}")
        if noted and digest != noted:
            findings.add(f"the {name} have the digest {digest}, but {noted} was published")
    if expected.commitment and head.commitment != expected.commitment:
        findings.add(f"the commitment is {head.commitment}, but {expected.commitment} was published")
    if expected.entropy is not None and head.entropy != expected.entropy:
        findings.add("the entropy is not the expected text")


def _index_applications(applications: Iterable[Application], findings: _Findings) -> dict[int, Application]:
    by_number: dict[int, Application] = {}
    number_of: dict[str, int] = {}
    before = 0
    for application in applications:
        if application.number < before:
            findings.add(f"application {application.number}: its line comes after that of application {before}")
        before = application.number
        if application.number in by_number:
            findings.add(f"application {application.number}: the number occurs twice")
        by_number[application.number] = application
        for applicant in application.applicants:
            if applicant in number_of:
                other = number_of[applicant]
                findings.add(f"application {application.number}: an applicant is in application {other}, too")
            number_of[applicant] = application.number
    return by_number


def _check_totals(
    head: ResultHead, lots: Sequence[tuple[Lot, str]], by_number: dict[int, Application], findings: _Findings
) -> None:
    counts = Counter(lot.preference for lot, _ in lots)
    places = sum(len(by_number[lot.number].applicants) for lot, _ in lots if lot.preference and lot.number in by_number)
    applicants = sum(len(application.applicants) for application in by_number.values())
    stated = head.totals
    counted = (len(lots), applicants, len(lots) - counts[0], places)
    if counted != (stated.applications, stated.applicants, stated.winners, stated.places):
        findings.add("the totals in the head differ from the list")
    if tuple(counts[preference] for preference in range(max(counts, default=0) + 1)) != stated.by_preference:
        findings.add("the totals by preference in the head differ from the list")


def _check_order(
    head: ResultHead, lots: Sequence[tuple[Lot, str]], by_number: dict[int, Application], findings: _Findings
) -> bool:
    """Return True if the result lists all applications in the order of their lots."""
    before = len(findings)
    listed = {lot.number for lot, _ in lots}
    if len(listed) != len(lots):
        findings.add("an application is in the result twice")
    for number in sorted(by_number.keys() - listed)[:FINDINGS_MAX]:
        findings.add(f"application {number}: is missing in the result")
    for number in sorted(listed - by_number.keys())[:FINDINGS_MAX]:
        findings.add(f"application {number}: is in the result, but not among the applications")
    for (lot, _), (following, _) in itertools.pairwise(lots):
        if following.number < lot.number:
            findings.add(f"application {following.number}: its line in the result comes after that of {lot.number}")
    if len(findings) > before:
        return False
    key = hashlib.sha256(f"{head.draw} {head.seed} {head.entropy}".encode()).hexdigest()
    order = sorted((hashlib.sha256(f"{key} {number}".encode()).digest(), number) for number in listed)
    rank_of = {lot.number: lot.rank for lot, _ in lots}
    for rank, (_, number) in enumerate(order, 1):
        if rank_of[number] != rank:
            findings.add(f"application {number}: has rank {rank_of[number]}, but its lot has rank {rank}")
    return len(findings) == before


def _check_choices(
    lots: Sequence[tuple[Lot, str]], capacities: Capacities, by_number: dict[int, Application], findings: _Findings
) -> None:
    """Check that each application got its best available choice.

    The check stops at the first that did not, because the units left for all later ones depend on it.
    """
    units_left = {
        (office, day, quota): units
        for (office, day), quotas in capacities.days.items()
        for quota, units in quotas.items()
    }
    for lot, choice in sorted(lots, key=lambda one: one[0].rank):
        application = by_number[lot.number]
        best = _best_choice(application, capacities, units_left)
        if isinstance(best, str):
            findings.add(f"application {lot.number}: {best}")
            return
        if best != (lot.preference, choice, lot.option):
            findings.add(
                f"application {lot.number} (rank {lot.rank}): "
                f"got {_describe_choice(lot.preference, choice, lot.option)}, "
                f"but its best available choice was {_describe_choice(*best)}"
            )
            return
        if lot.preference:
            preference = capacities.preferences[choice]
            for quota in preference.choice.options[lot.option - 1]:
                units_left[preference.office, preference.day, quota] -= len(application.applicants)


def _best_choice(
    application: Application, capacities: Capacities, units_left: dict[tuple[str, int, str], int]
) -> tuple[int, str, int] | str:
    """Return the rank, name and option of the choice that an application should get, or a fault of the application."""
    for rank, name in enumerate(application.choices, 1):
        preference = capacities.preferences.get(name)
        if preference is None:
            return f"its choice {name} is not among those of the capacities"
        for number, option in enumerate(preference.choice.options, 1):
            available = min(units_left[preference.office, preference.day, quota] for quota in option)
            if available >= len(application.applicants):
                return rank, name, number
    return 0, "", 0


def _describe_choice(rank: int, name: str, option: int) -> str:
    return f"choice {rank} ({name}, option {option})" if rank else "nothing"
