"""The national limit: one active place per applicant over all offices, by a claim that is taken before the place is.

The claim (:mod:`quota_engine.domain.cross_office_registry`) points to the reservation and says nothing about it:
whoever finds one
in the way asks the office that it points to. What has ended, or was never made and can not be made any more, is
replaced. So no step of a reservation's life has to come back here, and a client that dies is in nobody's way for
longer than the lease.

That a claim is replaced only when its reservation can not come (back) to life rests on three things. A reserve, and a
late confirm, carry the last moment of their lease, and the office refuses them after it. A claim is renewed before
something that has expired is confirmed all the same. And a claim is replaced by its number: if it has been renewed in
between, it is looked at anew.
"""

from __future__ import annotations

__all__ = [
    "CLOCKS_MARGIN_MS",
    "ClaimConflict",
    "ClaimsTaken",
    "audit_claims",
    "confirm",
    "lookup_reference",
    "redirect_claims",
    "release_claims",
    "reschedule",
    "reserve",
    "reserve_all",
    "restore_claims",
    "take_claims",
]

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from quota_engine.domain.commands import Confirm, Reschedule, Reserve
from quota_engine.domain.cross_office_registry import (
    QUERY_ITEMS_MAX,
    Claim,
    Drop,
    FindClaims,
    FindMove,
    FoundClaims,
    MoveEntry,
    RegistryResult,
    RegistryStatus,
    shard_of,
)
from quota_engine.domain.errors import BackendUnavailable, QuotaEngineError
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, Describe, Lookup, Query
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder

CLOCKS_MARGIN_MS: Final = 5_000
"""How far the clocks of two servers may be apart: what is over on one by as much is over on all."""

ATTEMPTS_MAX: Final = 3
"""How often a claim that changes while it is looked at is looked at anew, and a reserve that came too late is sent
again.
"""

_GONE_FOR_GOOD: Final = frozenset({State.RELEASED, State.CANCELLED, State.MOVED})
"""No step leads out of these; out of ``EXPIRED`` a late confirm does."""


class ClaimsTaken(NamedTuple):
    """Claims that a flow has.

    Those that it made itself, and all that it may rely on, by applicant and number; and until when they hold.
    """

    made: tuple[tuple[str, int], ...]
    all: tuple[tuple[str, int], ...]
    valid_until_ms: int


class ClaimConflict(NamedTuple):
    """Why a claim is not to be had: the reservation that it points to, or nothing yet, and when to ask again."""

    record: Reservation | None = None
    retry_at_ms: int = 0
    overloaded: bool = False


def take_claims(
    requests: RequestBuilder, applicants: tuple[str, ...], reference: str, day: int, secondary_reference: str = ""
) -> Workflow[ClaimsTaken | ClaimConflict]:
    """Let the claims of all applicants point to ``reference``, a reservation on ``day``; or of none of them.

    They stand for ``secondary_reference``, too. Claims that point to it already stay as they are, and count as taken.
    """
    made: list[tuple[str, int]] = []
    relied_on: list[tuple[str, int]] = []
    lease_until_ms = 0
    try:
        # In one order for all: of two parties that share people one gets through.
        for applicant in sorted(applicants):
            answer = yield from _take_claim(requests, applicant, reference, day, secondary_reference)
            if isinstance(answer, ClaimConflict):
                yield from release_claims(made)
                return answer
            # One that was there before is somebody else's, too: an earlier call under the same key may have the place.
            if answer.ok and not answer.renewed:
                made.append((applicant, answer.number))
            relied_on.append((applicant, answer.number))
            lease_until_ms = min(lease_until_ms or answer.lease_until_ms, answer.lease_until_ms)
    except BackendUnavailable:
        yield from release_claims(made)
        raise
    return ClaimsTaken(tuple(made), tuple(relied_on), lease_until_ms - CLOCKS_MARGIN_MS)


def _take_claim(
    requests: RequestBuilder, applicant: str, reference: str, day: int, secondary_reference: str
) -> Workflow[RegistryResult | ClaimConflict]:
    office = reference.partition("~")[0]
    forget_at_ms = requests.ends_at_ms(office, day) + 2 * CLOCKS_MARGIN_MS
    instead_of, stood_for_it = 0, False
    answer: RegistryResult = RegistryResult(RegistryStatus.OVERLOADED)
    for _ in range(ATTEMPTS_MAX):
        claim = Claim(applicant, reference, requests.national_lease_ms, forget_at_ms, instead_of, secondary_reference)
        answer = yield Apply(shard_of(applicant), claim)
        if answer.status is RegistryStatus.OVERLOADED:
            return ClaimConflict(overloaded=True)
        if answer.ok or answer.reference == secondary_reference:
            granted: RegistryResult = replace(answer, renewed=answer.renewed or stood_for_it)
            return granted
        for pointed in (answer.reference, answer.secondary_reference):
            # That it stands for the asker's own reservation, too, is in nobody's way.
            if pointed and pointed != reference:
                record: Reservation | None = yield from lookup_reference(pointed)
                if _blocks(requests, applicant, record, answer):
                    if answer.secondary_reference == reference and not secondary_reference:
                        # It is on its way there, and the claim stands for both.
                        shared: RegistryResult = answer
                        return shared
                    waits_for_lease = record is None or record.state is State.EXPIRED
                    return ClaimConflict(record, answer.lease_until_ms if waits_for_lease else 0)
        # Of the reservation that was being moved: then it is not this flow's to give up.
        instead_of, stood_for_it = answer.number, answer.secondary_reference == reference
    return ClaimConflict(retry_at_ms=answer.lease_until_ms)


def lookup_reference(reference: str) -> Workflow[Reservation | None]:
    """The reservation of this reference, as it stands at its office."""
    office, _, reservation_id = reference.partition("~")
    record: Reservation | None = yield Lookup(office, reservation_id)
    return record


def _blocks(requests: RequestBuilder, applicant: str, record: Reservation | None, claim: RegistryResult) -> bool:
    """Whether a claim that points to ``record`` keeps its applicant from another place."""
    if record is None or applicant not in record.applicants or record.state is State.EXPIRED:
        # Until the lease is over it may come to be, or be brought back by a late confirm.
        return not claim.lease_is_over
    if record.state in _GONE_FOR_GOOD:
        return False
    if record.state is State.HELD:
        return True
    is_over = requests.ends_at_ms(record.office, record.day) + CLOCKS_MARGIN_MS <= claim.now_ms
    return not (is_over and claim.lease_is_over)


def release_claims(made: list[tuple[str, int]] | tuple[tuple[str, int], ...]) -> Workflow[None]:
    """Take back the claims that were made for nothing. What is not reached is over with its lease."""
    for applicant, number in made:
        try:
            yield Apply(shard_of(applicant), Drop(applicant, number))
        except QuotaEngineError:
            return


def redirect_claims(
    requests: RequestBuilder,
    applicants: tuple[str, ...],
    reference: str,
    day: int,
    instead_of: str,
    secondary_reference: str = "",
) -> Workflow[None]:
    """Let the claims that point to ``instead_of``, and those that point nowhere, point to ``reference``.

    They stand for ``secondary_reference``, too; or without that, for whatever else they did.
    """
    forget_at_ms = requests.ends_at_ms(reference.partition("~")[0], day) + 2 * CLOCKS_MARGIN_MS
    for applicant in sorted(applicants):
        number, other = 0, secondary_reference
        for _ in range(ATTEMPTS_MAX):
            claim = Claim(applicant, reference, requests.national_lease_ms, forget_at_ms, number, other)
            answer: RegistryResult = yield Apply(shard_of(applicant), claim)
            if answer.ok or answer.reference != instead_of:
                break
            # By now it stands for a later move of the source: this one has been overtaken, and comes to nothing.
            if secondary_reference and answer.secondary_reference not in ("", reference, secondary_reference):
                break
            number, other = answer.number, secondary_reference or answer.secondary_reference


def restore_claims(requests: RequestBuilder, taken: ClaimsTaken, reference: str, day: int) -> Workflow[None]:
    """Let the claims that were taken stand for ``reference`` alone again."""
    forget_at_ms = requests.ends_at_ms(reference.partition("~")[0], day) + 2 * CLOCKS_MARGIN_MS
    for applicant, number in taken.all:
        claim = Claim(applicant, reference, requests.national_lease_ms, forget_at_ms, number, reference)
        try:
            yield Apply(shard_of(applicant), claim)
        except QuotaEngineError:
            return


ApplyReserve = Callable[[Reserve], Workflow[Outcome]]
"""Applies the command of a reserve to its office: plainly, or with the charges of the admission policies."""


def reserve(
    requests: RequestBuilder, office: str, command: Reserve, apply_reserve: ApplyReserve | None = None
) -> Workflow[Outcome]:
    """Take the claims of all applicants, then the places; release the claims if the office refuses.

    Args:
        requests: the engine's request builder.
        office: the office of ``command``.
        command: the reserve.
        apply_reserve: applies the command to the office; plainly if ``None``.
    """

    def apply_plainly(reserve: Reserve) -> Workflow[Outcome]:
        outcome: Outcome = yield Apply(office, reserve)
        return outcome

    apply_reserve = apply_reserve or apply_plainly
    reference = f"{office}~{command.id}"
    outcome = Outcome(Status.COMMAND_EXPIRED)
    for _ in range(ATTEMPTS_MAX):
        taken = yield from take_claims(requests, command.applicants, reference, command.day)
        if isinstance(taken, ClaimConflict):
            return (yield from _refused(office, command, taken, apply_reserve))
        try:
            outcome = yield from apply_reserve(replace(command, valid_until_ms=taken.valid_until_ms))
        except BackendUnavailable:
            yield from release_claims(taken.made)
            raise
        if outcome.ok:
            break
        yield from release_claims(taken.made)
        if outcome.status is not Status.COMMAND_EXPIRED:
            break
    if outcome.resumed and outcome.reservation is not None:
        # Of a time before there was a limit: from now on it is claimed.
        record = outcome.reservation
        yield from redirect_claims(requests, record.applicants, record.reference, record.day, reference)
    return outcome


def reserve_all(requests: RequestBuilder, office: str, commands: Sequence[Reserve]) -> Workflow[list[Outcome]]:
    """Several reserves at one office, one after the other: in one call, unless each of them needs its claims."""
    if not requests.has_national_limit:
        outcomes: list[Outcome] = yield ApplyMany(office, tuple(commands))
        return outcomes
    claimed: list[Outcome] = []
    for command in commands:
        claimed += [(yield from reserve(requests, office, command))]
    return claimed


def _refused(office: str, command: Reserve, conflict: ClaimConflict, apply_reserve: ApplyReserve) -> Workflow[Outcome]:
    if conflict.overloaded:
        return Outcome(Status.OVERLOADED)
    # A key that is known is answered before anything else is. Nothing can come of this one but that answer.
    known = yield from apply_reserve(replace(command, valid_until_ms=1))
    if known.status is not Status.COMMAND_EXPIRED:
        return known
    record = conflict.record
    if record is None or sorted(record.applicants) != sorted(command.applicants):
        return Outcome(Status.IDENTITY_LIMIT, retry_at_ms=conflict.retry_at_ms)
    here = (record.office, record.day) == (office, command.day)
    if here and record.state in (State.WAITING, State.HELD):
        return Outcome(Status(record.state), record, resumed=True)
    return Outcome(Status.IDENTITY_LIMIT, record, retry_at_ms=conflict.retry_at_ms)


def confirm(requests: RequestBuilder, office: str, command: Confirm) -> Workflow[Outcome]:
    """A confirm that may re-acquire: what has expired is claimed anew before it takes a place again."""
    outcome: Outcome = yield Apply(office, replace(command, reacquire=False))
    record = outcome.reservation
    if outcome.status is not Status.HOLD_EXPIRED or record is None:
        return outcome
    taken = yield from take_claims(requests, record.applicants, record.reference, record.day)
    if isinstance(taken, ClaimConflict):
        return Outcome(Status.OVERLOADED) if taken.overloaded else outcome
    outcome = yield Apply(office, replace(command, valid_until_ms=taken.valid_until_ms))
    if not outcome.ok:
        yield from release_claims(taken.made)
    return outcome


def reschedule(requests: RequestBuilder, office: str, command: Reschedule) -> Workflow[Outcome]:
    """A reschedule within an office: the claims come along, and last until the new day is over."""
    record: Reservation | None = yield Lookup(office, command.id)
    if record is not None and record.state in (State.HELD, State.CONFIRMED):
        taken = yield from take_claims(requests, record.applicants, record.reference, command.day)
        if isinstance(taken, ClaimConflict):
            if taken.overloaded:
                return Outcome(Status.OVERLOADED)
            own = not command.owner or command.owner in record.applicants
            return Outcome(Status.IDENTITY_LIMIT, record) if own else Outcome(Status.NOT_OWNER)
    outcome: Outcome = yield Apply(office, command)
    return outcome


def audit_claims(requests: RequestBuilder, office: str) -> Workflow[list[str]]:
    """Which active reservations of the office nobody claims, a sentence each; what is being moved is left out."""
    state: dict[str, Any] = yield Describe(office)
    wanted: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for reservation_id, record in state["reservations"].items():
        if record["state"] in (State.WAITING, State.HELD, State.CONFIRMED):
            for applicant in record["applicants"]:
                wanted[shard_of(applicant)].append((applicant, f"{office}~{reservation_id}"))
    suspects: dict[str, int] = {}
    for shard, pairs in sorted(wanted.items()):
        for start in range(0, len(pairs), QUERY_ITEMS_MAX):
            part = pairs[start : start + QUERY_ITEMS_MAX]
            found: FoundClaims = yield Query(shard, FindClaims(tuple(applicant for applicant, _ in part)))
            for (_, reference), *claimed in zip(part, found.references, found.secondary_references, strict=True):
                if reference not in claimed:
                    suspects[reference] = found.now_ms
    findings: list[str] = []
    for reference, now_ms in sorted(suspects.items()):
        # Time has passed since the state was read: it may have ended, or be on its way to another office.
        known: Reservation | None = yield from lookup_reference(reference)
        moves: list[MoveEntry] = yield Query(shard_of(reference), FindMove(reference))
        if known is None or moves or known.state not in (State.WAITING, State.HELD, State.CONFIRMED):
            continue
        if known.state is State.HELD or now_ms < requests.ends_at_ms(office, known.day):
            findings.append(f"office {office}: reservation {known.id} is active, and not all its applicants claim it")
    return findings
