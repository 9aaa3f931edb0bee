"""The national limit: one active place per applicant over all offices.

A workflow takes a claim for each applicant before it takes the place. A claim
(:mod:`quota_engine.domain.cross_office_registry`) points to a reservation and holds no state of it. A workflow that
finds a claim asks the office of the reservation. It replaces the claim if the reservation has ended, or never existed
and cannot exist any more. So no later step of a reservation returns here, and the claim of a dead client excludes
others for one lease at most.

A claim is replaced only when its reservation cannot exist again. Three rules ensure this:

- A reserve and a late confirm carry the end of their lease, and the office refuses them after it.
- A workflow renews the claim before it confirms an expired reservation.
- A workflow replaces a claim by its number, so it reads again a claim that was renewed in between.
"""

from __future__ import annotations

__all__ = [
    "CLOCKS_MARGIN_MS",
    "ClaimConflict",
    "ClaimsTaken",
    "audit_claims",
    "drop_claim",
    "lookup_reference",
    "reacquire",
    "redirect_claims",
    "release_claims",
    "reschedule",
    "reserve",
    "reserve_all",
    "restore_claims",
    "take_claims",
]

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from quota_engine.catalog import extensions_left
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
from quota_engine.workflows.admission_gate import ApplyCommand, applied_plainly
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder

CLOCKS_MARGIN_MS: Final = 5_000
"""Greatest difference between the clocks of two servers."""

ATTEMPTS_MAX: Final = 3
"""Attempts to read a claim that changes meanwhile, and to send a reserve that came too late."""

_FINAL_STATES: Final = frozenset({State.RELEASED, State.CANCELLED, State.MOVED})
"""No command leaves these states. ``EXPIRED`` is not one: a late confirm leaves it."""


class ClaimsTaken(NamedTuple):
    """Claims of a workflow, as pairs of applicant and number.

    Args:
        made: claims that the workflow made itself.
        all: all claims that it may rely on.
        valid_until_ms: when the first of their leases ends.
    """

    made: tuple[tuple[str, int], ...]
    all: tuple[tuple[str, int], ...]
    valid_until_ms: int


class ClaimConflict(NamedTuple):
    """Reason why a claim is not available.

    Args:
        record: the reservation that the claim points to; ``None`` if there is none yet.
        retry_at_ms: when a later attempt may succeed; 0 if unknown.
        overloaded: true if the registry refused because of its load.
    """

    record: Reservation | None = None
    retry_at_ms: int = 0
    overloaded: bool = False


def take_claims(
    requests: RequestBuilder, applicants: tuple[str, ...], reference: str, day: int, secondary_reference: str = ""
) -> Workflow[ClaimsTaken | ClaimConflict]:
    """Point the claims of all applicants to a reservation, or the claim of none of them.

    Args:
        requests: the engine's request builder.
        applicants: keyed hashes of the applicants.
        reference: the reservation.
        day: its day, as an ordinal.
        secondary_reference: a second reservation that the claims cover, during a move. Claims that point to it already
            count as taken.
    """
    made: list[tuple[str, int]] = []
    relied_on: list[tuple[str, int]] = []
    lease_until_ms = 0
    try:
        # All workflows use one order, so that of two parties with a common applicant one succeeds.
        for applicant in sorted(applicants):
            answer = yield from _take_claim(requests, applicant, reference, day, secondary_reference)
            if isinstance(answer, ClaimConflict):
                yield from release_claims(made)
                return answer
            # An earlier claim is not this workflow's to release: an earlier call with the same key may have the place.
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
    replaced, covered_it = 0, False
    answer: RegistryResult = RegistryResult(RegistryStatus.OVERLOADED)
    for _ in range(ATTEMPTS_MAX):
        claim = Claim(applicant, reference, requests.national_lease_ms, forget_at_ms, replaced, secondary_reference)
        answer = yield Apply(shard_of(applicant), claim)
        if answer.status is RegistryStatus.OVERLOADED:
            return ClaimConflict(overloaded=True)
        if answer.ok or answer.reference == secondary_reference:
            granted: RegistryResult = replace(answer, renewed=answer.renewed or covered_it)
            return granted
        for pointed in (answer.reference, answer.secondary_reference):
            # A claim that also covers this reservation does not exclude it.
            if pointed and pointed != reference:
                record: Reservation | None = yield from lookup_reference(pointed)
                if _blocks(requests, applicant, record, answer):
                    if answer.secondary_reference == reference and not secondary_reference:
                        # The other reservation is being moved to this one, and the claim covers both.
                        shared: RegistryResult = answer
                        return shared
                    has_left = record is not None and applicant not in record.applicants
                    waits_for_lease = record is None or has_left or record.state is State.EXPIRED
                    return ClaimConflict(record, answer.lease_until_ms if waits_for_lease else 0)
        # A claim that covers the reservation being moved is not this workflow's to release.
        replaced, covered_it = answer.number, answer.secondary_reference == reference
    return ClaimConflict(retry_at_ms=answer.lease_until_ms)


def lookup_reference(reference: str) -> Workflow[Reservation | None]:
    """Return the current reservation of a reference."""
    office, _, reservation_id = reference.partition("~")
    record: Reservation | None = yield Lookup(office, reservation_id)
    return record


def _blocks(requests: RequestBuilder, applicant: str, record: Reservation | None, claim: RegistryResult) -> bool:
    """Return True if a claim that points to ``record`` excludes its applicant from another place."""
    if record is None or applicant not in record.applicants or record.state is State.EXPIRED:
        # Until the lease ends, the reservation may still be made, or restored by a late confirm.
        return not claim.lease_is_over
    if record.state in _FINAL_STATES:
        return False
    if record.state is State.HELD:
        return True
    is_over = requests.ends_at_ms(record.office, record.day) + CLOCKS_MARGIN_MS <= claim.now_ms
    return not (is_over and claim.lease_is_over)


def release_claims(made: list[tuple[str, int]] | tuple[tuple[str, int], ...]) -> Workflow[None]:
    """Release claims that are not needed. A claim that cannot be reached ends with its lease."""
    for applicant, number in made:
        try:
            yield Apply(shard_of(applicant), Drop(applicant, number))
        except QuotaEngineError:
            return


def drop_claim(requests: RequestBuilder, applicant: str, record: Reservation) -> Workflow[None]:
    """Drop the claim of an applicant who has left a party, if it still points to its reservation.

    A claim whose lease has not ended stays: another call may be about to put the applicant back. Like a claim that
    cannot be reached, it excludes the applicant until its lease ends.
    """
    if applicant in record.applicants:
        return
    try:
        yield Apply(shard_of(applicant), Drop(applicant, reference=record.reference))
    except QuotaEngineError:
        return


def redirect_claims(
    requests: RequestBuilder,
    applicants: tuple[str, ...],
    reference: str,
    day: int,
    replaced: str,
    secondary_reference: str = "",
) -> Workflow[None]:
    """Point the claims of ``replaced``, and those that point nowhere, to ``reference``.

    Args:
        requests: the engine's request builder.
        applicants: keyed hashes of the applicants.
        reference: the reservation to point to.
        day: its day, as an ordinal.
        replaced: the reservation that the claims point to now.
        secondary_reference: a second reservation that the claims cover; ``""`` keeps the one that they cover now.
    """
    forget_at_ms = requests.ends_at_ms(reference.partition("~")[0], day) + 2 * CLOCKS_MARGIN_MS
    for applicant in sorted(applicants):
        number, other = 0, secondary_reference
        for _ in range(ATTEMPTS_MAX):
            claim = Claim(applicant, reference, requests.national_lease_ms, forget_at_ms, number, other)
            answer: RegistryResult = yield Apply(shard_of(applicant), claim)
            if answer.ok or answer.reference != replaced:
                break
            # The claim covers a later move of the source by now: that move overtook this one.
            if secondary_reference and answer.secondary_reference not in ("", reference, secondary_reference):
                break
            number, other = answer.number, secondary_reference or answer.secondary_reference


def restore_claims(requests: RequestBuilder, taken: ClaimsTaken, reference: str, day: int) -> Workflow[None]:
    """Make the claims of a failed move cover ``reference`` alone again."""
    forget_at_ms = requests.ends_at_ms(reference.partition("~")[0], day) + 2 * CLOCKS_MARGIN_MS
    for applicant, number in taken.all:
        claim = Claim(applicant, reference, requests.national_lease_ms, forget_at_ms, number, reference)
        try:
            yield Apply(shard_of(applicant), claim)
        except QuotaEngineError:
            return


def reserve(
    requests: RequestBuilder, office: str, command: Reserve, apply_command: ApplyCommand | None = None
) -> Workflow[Outcome]:
    """Take the claims of all applicants, then the places; release the claims if the office refuses.

    Args:
        requests: the engine's request builder.
        office: the office of ``command``.
        command: the reserve.
        apply_command: applies the command to the office; plainly if ``None``.
    """
    apply_command = apply_command or applied_plainly(office)
    reference = f"{office}~{command.id}"
    outcome = Outcome(Status.COMMAND_EXPIRED)
    for _ in range(ATTEMPTS_MAX):
        taken = yield from take_claims(requests, command.applicants, reference, command.day)
        if isinstance(taken, ClaimConflict):
            return (yield from _refused(requests, office, command, taken, apply_command))
        try:
            outcome = yield from apply_command(replace(command, valid_until_ms=taken.valid_until_ms))
        except BackendUnavailable:
            yield from release_claims(taken.made)
            raise
        if outcome.ok:
            break
        yield from release_claims(taken.made)
        if outcome.status is not Status.COMMAND_EXPIRED:
            break
    if outcome.resumed and outcome.reservation is not None:
        # The reservation is older than the national limit: claim it from now on.
        record = outcome.reservation
        yield from redirect_claims(requests, record.applicants, record.reference, record.day, reference)
    return outcome


def reserve_all(requests: RequestBuilder, office: str, commands: Sequence[Reserve]) -> Workflow[list[Outcome]]:
    """Reserve several times at one office, in order: in one call, unless there is a national limit."""
    if not requests.has_national_limit:
        outcomes: list[Outcome] = yield ApplyMany(office, tuple(commands))
        return outcomes
    claimed: list[Outcome] = []
    for command in commands:
        claimed += [(yield from reserve(requests, office, command))]
    return claimed


def _refused(
    requests: RequestBuilder, office: str, command: Reserve, conflict: ClaimConflict, apply_command: ApplyCommand
) -> Workflow[Outcome]:
    if conflict.overloaded:
        return Outcome(Status.OVERLOADED)
    # A known key has precedence over all refusals. This command has expired, so it can return that answer only.
    known = yield from apply_command(replace(command, valid_until_ms=1))
    if known.status is not Status.COMMAND_EXPIRED:
        return known
    record = conflict.record
    if record is None or sorted(record.applicants) != sorted(command.applicants):
        return Outcome(Status.IDENTITY_LIMIT, retry_at_ms=conflict.retry_at_ms)
    here = (record.office, record.day) == (office, command.day)
    if here and record.state in (State.WAITING, State.HELD):
        left = extensions_left(requests.catalog, record)
        return Outcome(Status(record.state), record, resumed=True, extensions_left=left)
    return Outcome(Status.IDENTITY_LIMIT, record, retry_at_ms=conflict.retry_at_ms)


def reacquire(
    requests: RequestBuilder, command: Confirm, expired: Reservation, apply_command: ApplyCommand
) -> Workflow[Outcome]:
    """Claim an expired reservation again, then re-acquire its places; release the claims if the office refuses.

    Args:
        requests: the engine's request builder.
        command: the confirm, with ``reacquire``.
        expired: the reservation.
        apply_command: applies the command to the office.
    """
    taken = yield from take_claims(requests, expired.applicants, expired.reference, expired.day)
    if isinstance(taken, ClaimConflict):
        return Outcome(Status.OVERLOADED) if taken.overloaded else Outcome(Status.HOLD_EXPIRED, expired)
    outcome = yield from apply_command(replace(command, valid_until_ms=taken.valid_until_ms))
    if not outcome.ok:
        yield from release_claims(taken.made)
    return outcome


def reschedule(
    requests: RequestBuilder, command: Reschedule, record: Reservation, apply_command: ApplyCommand
) -> Workflow[Outcome]:
    """Extend the claims of a reservation until the new day is over, then reschedule it within its office.

    Args:
        requests: the engine's request builder.
        command: the reschedule.
        record: the present reservation.
        apply_command: applies the command to the office.
    """
    if record.state in (State.HELD, State.CONFIRMED):
        taken = yield from take_claims(requests, record.applicants, record.reference, command.day)
        if isinstance(taken, ClaimConflict):
            if taken.overloaded:
                return Outcome(Status.OVERLOADED)
            own = not command.owner or command.owner in record.applicants
            return Outcome(Status.IDENTITY_LIMIT, record) if own else Outcome(Status.NOT_OWNER)
    return (yield from apply_command(command))


def audit_claims(requests: RequestBuilder, office: str) -> Workflow[list[str]]:
    """Return a finding for each active reservation of an office that is not claimed. Omit reservations in a move."""
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
        # The state was read a while ago: the reservation may have ended since, or be in a move.
        known: Reservation | None = yield from lookup_reference(reference)
        moves: list[MoveEntry] = yield Query(shard_of(reference), FindMove(reference))
        if known is None or moves or known.state not in (State.WAITING, State.HELD, State.CONFIRMED):
            continue
        if known.state is State.HELD or now_ms < requests.ends_at_ms(office, known.day):
            findings.append(f"office {office}: reservation {known.id} is active, and not all its applicants claim it")
    return findings
