"""Moves of a reservation to another office.

A move spans two ledgers without a common transaction, and never leaves the applicant without a place. Its steps:

1. The source's office says whether the reservation may move.
2. The registry records the move.
3. The target's office takes a place, with the requirements of its admission policies.
4. The source's office releases the old place.
5. The registry records that the move is done.

A client that dies in between leaves the old place, or both places for a while. Each step recognizes that it was done
before, and :func:`recover_moves` continues after any of them. Only the applicant's own call takes the place of step 3.
A recovery that finds no place there undoes the move, so it needs no pass. ``docs/multi-office.md`` covers the
interleavings.
"""

from __future__ import annotations

__all__ = ["MovesReport", "find_moved", "move_id", "recover_moves", "reschedule"]

import base64
import hashlib
from typing import Final

import msgspec
from msgspec.structs import replace

from quota_engine.catalog import Selection, extensions_left
from quota_engine.domain.commands import MoveIn, MoveOut, PrepareMove, UndoMove
from quota_engine.domain.cross_office_registry import (
    QUERY_ITEMS_MAX,
    CloseMove,
    FindMove,
    MoveEntry,
    OpenMove,
    OpenMoves,
    RegistryResult,
    RegistryStatus,
    shard_of,
    shards,
)
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown, QuotaEngineError
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer
from quota_engine.generators import Request
from quota_engine.ports import Lookup, Query, View
from quota_engine.workflows import entries, national_claims
from quota_engine.workflows.admission_gate import ApplyCommand, CallAdmission, Entry, applied_plainly
from quota_engine.workflows.arguments import Day
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.jobs import Checkpoint
from quota_engine.workflows.request_builder import RequestBuilder

MOVE_LEASE_MS: Final = 30_000
"""Time that a client has for a move it recorded. After it, any client may finish the move."""

MOVES_KEPT_MS: Final = 90 * 86_400_000
"""Time that the registry keeps a move after both days are over."""

FINISHED_MAX: Final = 10_000
ATTEMPTS_MAX: Final = 3
_HOPS_MAX: Final = 8


class MovesReport(msgspec.Struct, frozen=True):
    """Result of :func:`recover_moves`.

    Args:
        finished: moves that reached their target.
        undone: moves that were undone.
    """

    finished: int
    undone: int


def move_id(source: str, version: int, office: str, day: int, choice: Choice) -> str:
    """Return the id of the target's reservation: the same for the same move, and as hard to guess as the source's."""
    options = "|".join(",".join(option) for option in choice.options)
    names = (choice.service, choice.service_unit, choice.session, choice.channel, choice.group, options)
    text = "\n".join((source, str(version), office, str(day), *names))
    digest = hashlib.blake2b(text.encode(), digest_size=16, person=b"move").digest()
    return base64.urlsafe_b64encode(digest)[:22].decode()


def reschedule(
    requests: RequestBuilder,
    admission: CallAdmission,
    reference: str,
    day: Day,
    office: str,
    selection: Selection,
    owner: str | None,
    expected_version: int,
) -> Workflow[Outcome] | Request[Outcome]:
    """Reschedule within the office in one step, or move to another office.

    Arguments as for :meth:`quota_engine.QuotaEngine.reschedule`. ``admission`` is the admission of the call.
    """
    source_office, _ = requests.parse_reference(reference)
    if not office or office == source_office:
        there, command = requests.reschedule(reference, day, selection, owner, expected_version)
        return entries.reschedule(requests, admission, there, command)
    number, choice = requests.plan(office, day, selection)
    owner_hash = requests.owner_hash(owner)
    return _move(requests, admission, reference, office, number, choice, owner_hash, expected_version)


def _move(
    requests: RequestBuilder,
    admission: CallAdmission,
    source: str,
    office: str,
    day: int,
    choice: Choice,
    owner: str,
    version: int,
) -> Workflow[Outcome]:
    source_office, _, source_id = source.partition("~")
    for _ in range(ATTEMPTS_MAX):
        prepared: Outcome = yield Apply(source_office, PrepareMove(source_id, owner, version))
        record = prepared.reservation
        if not prepared.ok or record is None:
            if record is not None and record.state is State.MOVED:
                return (yield from _moved_before(requests, prepared, record, office, day, choice))
            return prepared
        target = f"{office}~{move_id(source, record.version, office, day, choice)}"
        admitted = yield from _admit(admission, record, target, day, choice)
        if isinstance(admitted, Outcome):
            return admitted
        ends_at_ms = max(requests.ends_at_ms(source_office, record.day), requests.ends_at_ms(office, day))
        opened: RegistryResult = yield Apply(
            shard_of(source),
            OpenMove(source, target, record.version, MOVE_LEASE_MS, ends_at_ms + MOVES_KEPT_MS),
        )
        if opened.status is RegistryStatus.OVERLOADED:
            return Outcome(Status.OVERLOADED)
        if opened.ok:
            return (yield from _move_in(requests, record, target, day, choice, opened, admitted))
        # Another move came first. Its client may be at work until the lease ends.
        if not opened.done and not opened.lease_is_over:
            return Outcome(Status.MOVING, record, retry_at_ms=opened.lease_until_ms)
        others: list[MoveEntry] = yield Query(shard_of(source), FindMove(source))
        for other in others:
            # A move that was started again meanwhile has another client at work.
            if not other.done and other.number == opened.number:
                yield from _finish(requests, other)
    return Outcome(Status.MOVING, record)


def _admit(
    admission: CallAdmission, record: Reservation, target: str, day: int, choice: Choice
) -> Workflow[ApplyCommand | Outcome]:
    """Decide if the reservation may enter the target's office. Return how to take the place, or the refusal.

    A move whose place an earlier call has taken was admitted then: the same call again has to finish it.
    """
    office, _, target_id = target.partition("~")
    if admission.gate is None:
        return applied_plainly(office)
    taken_before: Reservation | None = yield Lookup(office, target_id)
    if taken_before is not None:
        return applied_plainly(office)
    admitted = admission.admit(Entry(office, day, record.applicants, choice))
    return replace(admitted, reservation=record) if isinstance(admitted, Outcome) else admitted


def _moved_before(
    requests: RequestBuilder, refused: Outcome, record: Reservation, office: str, day: int, choice: Choice
) -> Workflow[Outcome]:
    """Return the target of this very move if an earlier call, whose response was lost, completed it."""
    # The version before the move: the move itself added 1.
    target_id = move_id(record.reference, record.version - 1, office, day, choice)
    moved: Reservation | None = yield Lookup(office, target_id)
    if moved is None:
        return refused
    status = Status(moved.state) if moved.state in ACTIVE else Status.RESERVATION_ENDED
    return Outcome(status, moved, replayed=True, extensions_left=extensions_left(requests.catalog, moved))


def _move_in(
    requests: RequestBuilder,
    record: Reservation,
    target: str,
    day: int,
    choice: Choice,
    opened: RegistryResult,
    apply_command: ApplyCommand,
) -> Workflow[Outcome]:
    source, (_, _, target_id) = record.reference, target.partition("~")
    valid_until_ms = opened.lease_until_ms - national_claims.CLOCKS_MARGIN_MS
    taken: national_claims.ClaimsTaken | None = None
    if requests.has_national_limit:
        # The claims cover the new place before it exists. If the old one is released in between, the applicants get no
        # other place until the new one cannot be taken any more.
        found = yield from national_claims.take_claims(
            requests, record.applicants, source, record.day, secondary_reference=target
        )
        if isinstance(found, national_claims.ClaimConflict):
            yield from _forget_attempt(requests, record, target, opened, None)
            return (yield from _refused(record, found))
        taken = found
        valid_until_ms = min(valid_until_ms, taken.valid_until_ms)
    days: list[DayView] = yield View(record.office, (record.day,))
    left_closed_day = any(view.closed for view in days)
    command = MoveIn(
        target_id,
        day,
        record.applicants,
        choice,
        record.deadline_at_ms if record.state is State.HELD else 0,
        record.moves + 1,
        valid_until_ms,
        record.forced_moves + left_closed_day,
        record.extensions,
    )
    try:
        moved = yield from apply_command(command)
    except BackendUnavailable:
        yield from _forget_attempt(requests, record, target, opened, taken)
        raise
    if not moved.ok or moved.reservation is None:
        yield from _forget_attempt(requests, record, target, opened, taken)
        return replace(moved, reservation=record)
    try:
        refusal = yield from _move_out(requests, source, record.version, target, moved.reservation)
    except BackendUnavailable as error:
        raise OutcomeUnknown(
            f"the new place is taken, and the old one is not released yet; repeat the call ({error})"
        ) from error
    return moved if refusal is None else refusal


def _refused(record: Reservation, conflict: national_claims.ClaimConflict) -> Workflow[Outcome]:
    if conflict.overloaded:
        return Outcome(Status.OVERLOADED)
    other = conflict.record
    if other is not None:
        before: list[MoveEntry] = yield Query(shard_of(other.reference), FindMove(other.reference))
        if before and before[0].target == record.reference:
            # The other reservation is still being moved to this one: that move ends first.
            return Outcome(Status.MOVING, record, retry_at_ms=before[0].lease_until_ms)
    return Outcome(Status.IDENTITY_LIMIT, record, retry_at_ms=conflict.retry_at_ms)


def _forget_attempt(
    requests: RequestBuilder,
    record: Reservation,
    target: str,
    opened: RegistryResult,
    taken: national_claims.ClaimsTaken | None,
) -> Workflow[None]:
    """Undo the record of a move that took no place, unless another call for the same move may still take one."""
    if opened.renewed:
        return
    if taken is not None:
        yield from national_claims.restore_claims(requests, taken, record.reference, record.day)
    yield from _close(record.reference, target, done=False, number=opened.number)


def _close(source: str, target: str, *, done: bool, number: int = 0) -> Workflow[None]:
    try:
        yield Apply(shard_of(source), CloseMove(source, target, done, number))
    except QuotaEngineError:
        return  # the move stays open until the next recovery


def _move_out(
    requests: RequestBuilder, source: str, version: int, target: str, moved: Reservation
) -> Workflow[Outcome | None]:
    """Release the place at the source; or the new place, if the source has changed since the move began.

    Returns:
        ``None``, or the refusal of the source's office.
    """
    office, _, source_id = source.partition("~")
    if requests.has_national_limit:
        # The claims cover both places until the old one is released. If the release fails, or the new place is
        # released, the old place still excludes its applicants from another one.
        yield from national_claims.redirect_claims(
            requests, moved.applicants, target, moved.day, replaced=source, secondary_reference=source
        )
    released: Outcome = yield Apply(office, MoveOut(source_id, expected_version=version))
    if released.status is Status.OVERLOADED:
        raise OutcomeUnknown("the new place is taken, and the old one is not released yet; repeat the call")
    # A source that is released already: this move did it, or another one that overtook this one.
    found: list[MoveEntry] = (yield Query(shard_of(source), FindMove(source))) if released.replayed else []
    overtaken = any(one.target != target for one in found)
    # NOT_FOUND: the store has forgotten the day, and the place with it.
    if released.status in (Status.MOVED, Status.NOT_FOUND) and not overtaken:
        yield from _close(source, target, done=True)
        return None
    yield from _undo(target)
    if requests.has_national_limit and released.reservation is not None:
        yield from national_claims.redirect_claims(
            requests, moved.applicants, source, released.reservation.day, replaced=target
        )
    yield from _close(source, target, done=False)
    return Outcome(Status.WRONG_STATE if overtaken else released.status, released.reservation)


def _undo(target: str) -> Workflow[None]:
    """Release the new place, wherever it has been moved since."""
    for _ in range(_HOPS_MAX):
        office, _, target_id = target.partition("~")
        undone: Outcome = yield Apply(office, UndoMove(target_id))
        if undone.reservation is None or undone.reservation.state is not State.MOVED:
            return
        further: list[MoveEntry] = yield Query(shard_of(target), FindMove(target))
        if not further:
            return
        target = further[0].target


def _finish(requests: RequestBuilder, move: MoveEntry) -> Workflow[bool]:
    """Continue a move that its client left. Return True if it reached its target."""
    moved: Reservation | None = yield from national_claims.lookup_reference(move.target)
    if moved is None:
        # The lease is over, so no place can be taken there any more.
        yield from _close(move.source, move.target, done=False, number=move.number)
        return False
    if moved.state in (State.EXPIRED, State.RELEASED, State.CANCELLED):
        # The new place was released again, so the old one stays, unless it was released before.
        source: Reservation | None = yield from national_claims.lookup_reference(move.source)
        if source is None or source.state is State.MOVED:
            yield from _close(move.source, move.target, done=True)
            return True
        if requests.has_national_limit:
            yield from national_claims.redirect_claims(
                requests, source.applicants, move.source, source.day, replaced=move.target
            )
        yield from _close(move.source, move.target, done=False)
        return False
    refusal = yield from _move_out(requests, move.source, move.version, move.target, moved)
    return refusal is None


def recover_moves(requests: RequestBuilder, older_than_ms: int, limit: int) -> Workflow[MovesReport]:
    """Finish up to ``limit`` moves whose lease ended at least ``older_than_ms`` ago."""
    check_integer(older_than_ms, "older_than_ms", 0, DURATION_MS_MAX)
    check_integer(limit, "limit", 1, FINISHED_MAX)
    finished = undone = 0
    for shard in shards():
        yield Checkpoint(finished + undone, 0, "moves", report=MovesReport(finished, undone))
        left = limit - finished - undone
        if left < 1:
            break
        moves: list[MoveEntry] = yield Query(shard, OpenMoves(min(left, QUERY_ITEMS_MAX), older_than_ms))
        for move in moves:
            yield Checkpoint(finished + undone, 0, "moves", report=MovesReport(finished, undone))
            if (yield from _finish(requests, move)):
                finished += 1
            else:
                undone += 1
    return MovesReport(finished, undone)


def find_moved(requests: RequestBuilder, reference: str) -> Workflow[str]:
    """Return the new reference of a reservation that moved to another office, or ``""``."""
    requests.parse_reference(reference)
    moves: list[MoveEntry] = yield Query(shard_of(reference), FindMove(reference))
    return moves[0].target if moves and moves[0].done else ""
