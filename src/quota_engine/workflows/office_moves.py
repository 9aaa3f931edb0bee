"""Moving a reservation to another office: two ledgers, no step that spans both, and never neither place.

In this order: the source's office says whether it may be moved; the move is written down in the registry; the target's
office takes a place; the source's office gives the old one up; the registry hears that it is done. Whoever dies in
between leaves the old place, or for a while both. Every step finds itself done if it is sent again, and
:func:`recover_moves` goes on from wherever somebody else has stopped. ``docs/across-offices.md`` goes through what can
come in between.
"""

from __future__ import annotations

__all__ = ["MovesReport", "find_moved", "move_id", "recover_moves", "reschedule"]

import base64
import hashlib
from typing import Final

import msgspec
from msgspec.structs import replace

from quota_engine.catalog import Selection
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
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer
from quota_engine.ports import Lookup, Query
from quota_engine.workflows import national_claims
from quota_engine.workflows.arguments import Day
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder

MOVE_LEASE_MS: Final = 30_000
"""How long whoever has written a move down may be at work on it; then anybody may finish it."""

MOVES_KEPT_MS: Final = 90 * 86_400_000
"""How long after both days are over it is remembered where a reservation went."""

FINISHED_MAX: Final = 10_000
ATTEMPTS_MAX: Final = 3
_HOPS_MAX: Final = 8


class MovesReport(msgspec.Struct, frozen=True):
    """What :func:`recover_moves` did: moves that were brought to their end, and moves that came to nothing."""

    finished: int
    undone: int


def move_id(source: str, version: int, office: str, day: int, choice: Choice) -> str:
    """The id of the reservation at the target: the same for the same move, and as hard to guess as the source's."""
    options = "|".join(",".join(option) for option in choice.options)
    names = (choice.service, choice.service_unit, choice.session, choice.channel, choice.group, options)
    text = "\n".join((source, str(version), office, str(day), *names))
    digest = hashlib.blake2b(text.encode(), digest_size=16, person=b"move").digest()
    return base64.urlsafe_b64encode(digest)[:22].decode()


def reschedule(
    requests: RequestBuilder,
    reference: str,
    day: Day,
    office: str,
    selection: Selection,
    owner: str | None,
    expected_version: int,
) -> Workflow[Outcome]:
    """Within the office in one step; to another one as a move."""
    source_office, _ = requests.parse_reference(reference)
    if not office or office == source_office:
        there, command = requests.reschedule(reference, day, selection, owner, expected_version)
        if requests.has_national_limit:
            return (yield from national_claims.reschedule(requests, there, command))
        outcome: Outcome = yield Apply(there, command)
        return outcome
    number, choice = requests.plan(office, day, selection)
    return (yield from _move(requests, reference, office, number, choice, requests.owner_hash(owner), expected_version))


def _move(
    requests: RequestBuilder, source: str, office: str, day: int, choice: Choice, owner: str, version: int
) -> Workflow[Outcome]:
    source_office, _, source_id = source.partition("~")
    for _ in range(ATTEMPTS_MAX):
        prepared: Outcome = yield Apply(source_office, PrepareMove(source_id, owner, version))
        record = prepared.reservation
        if not prepared.ok or record is None:
            if record is not None and record.state is State.MOVED:
                return (yield from _moved_before(prepared, record, office, day, choice))
            return prepared
        target = f"{office}~{move_id(source, record.version, office, day, choice)}"
        ends_at_ms = max(requests.ends_at_ms(source_office, record.day), requests.ends_at_ms(office, day))
        opened: RegistryResult = yield Apply(
            shard_of(source),
            OpenMove(source, target, record.version, MOVE_LEASE_MS, ends_at_ms + MOVES_KEPT_MS),
        )
        if opened.status is RegistryStatus.OVERLOADED:
            return Outcome(Status.OVERLOADED)
        if opened.ok:
            return (yield from _move_in(requests, record, target, day, choice, opened))
        # Another move of it came first. Whoever began it may be at work on it until its lease is over.
        if not opened.done and not opened.lease_is_over:
            return Outcome(Status.MOVING, record, retry_at_ms=opened.lease_until_ms)
        others: list[MoveEntry] = yield Query(shard_of(source), FindMove(source))
        for other in others:
            # One that has been begun again in the meantime has somebody at work on it.
            if not other.done and other.number == opened.number:
                yield from _finish(requests, other)
    return Outcome(Status.MOVING, record)


def _moved_before(refused: Outcome, record: Reservation, office: str, day: int, choice: Choice) -> Workflow[Outcome]:
    """It is gone: by this very move, whose answer was lost?"""
    # The version that the move was made of: leaving has added 1.
    target_id = move_id(record.reference, record.version - 1, office, day, choice)
    moved: Reservation | None = yield Lookup(office, target_id)
    if moved is None:
        return refused
    status = Status(moved.state) if moved.state in ACTIVE else Status.RESERVATION_ENDED
    return Outcome(status, moved, replayed=True)


def _move_in(
    requests: RequestBuilder, record: Reservation, target: str, day: int, choice: Choice, opened: RegistryResult
) -> Workflow[Outcome]:
    source, (office, _, target_id) = record.reference, target.partition("~")
    valid_until_ms = opened.lease_until_ms - national_claims.CLOCKS_MARGIN_MS
    taken: national_claims.ClaimsTaken | None = None
    if requests.has_national_limit:
        # From now on they stand for the new place, too, even before it is there: if the old one is given up in
        # between, nobody else gets a place with them until the new one can not come to be any more.
        found = yield from national_claims.take_claims(
            requests, record.applicants, source, record.day, secondary_reference=target
        )
        if isinstance(found, national_claims.ClaimConflict):
            yield from _forget_attempt(requests, record, target, opened, None)
            return (yield from _refused(record, found))
        taken = found
        valid_until_ms = min(valid_until_ms, taken.valid_until_ms)
    command = MoveIn(
        target_id,
        day,
        record.applicants,
        choice,
        record.deadline_at_ms if record.state is State.HELD else 0,
        record.moves + 1,
        valid_until_ms,
    )
    try:
        moved: Outcome = yield Apply(office, command)
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
            f"the new place has been taken, and the old one not been given up yet: ask again ({error})"
        ) from error
    return moved if refusal is None else refusal


def _refused(record: Reservation, conflict: national_claims.ClaimConflict) -> Workflow[Outcome]:
    if conflict.overloaded:
        return Outcome(Status.OVERLOADED)
    other = conflict.record
    if other is not None:
        before: list[MoveEntry] = yield Query(shard_of(other.reference), FindMove(other.reference))
        if before and before[0].target == record.reference:
            # It is still on its way here: that comes to its end first.
            return Outcome(Status.MOVING, record, retry_at_ms=before[0].lease_until_ms)
    return Outcome(Status.IDENTITY_LIMIT, record, retry_at_ms=conflict.retry_at_ms)


def _forget_attempt(
    requests: RequestBuilder,
    record: Reservation,
    target: str,
    opened: RegistryResult,
    taken: national_claims.ClaimsTaken | None,
) -> Workflow[None]:
    """Nothing was taken at the target. But another call for this very move may be about to: then all stays open."""
    if opened.renewed:
        return
    if taken is not None:
        yield from national_claims.restore_claims(requests, taken, record.reference, record.day)
    yield from _close(record.reference, target, done=False, number=opened.number)


def _close(source: str, target: str, *, done: bool, number: int = 0) -> Workflow[None]:
    try:
        yield Apply(shard_of(source), CloseMove(source, target, done, number))
    except QuotaEngineError:
        return  # it stays open, and is closed by whoever finishes moves next


def _move_out(
    requests: RequestBuilder, source: str, version: int, target: str, moved: Reservation
) -> Workflow[Outcome | None]:
    """The place at the target is there: give up the one at the source, or, if that went another way, the new one.

    Returns ``None``, or what the source's office says about a source that has changed since the move was begun.
    """
    office, _, source_id = source.partition("~")
    if requests.has_national_limit:
        # Before the old place is gone. Until it is, the claim stands for both: if this comes to nothing, or the new
        # place is given up, the old one still keeps its applicants from another.
        yield from national_claims.redirect_claims(
            requests, moved.applicants, target, moved.day, instead_of=source, secondary_reference=source
        )
    given_up: Outcome = yield Apply(office, MoveOut(source_id, expected_version=version))
    if given_up.status is Status.OVERLOADED:
        raise OutcomeUnknown("the new place has been taken, and the old one not been given up yet: ask again")
    # Gone already: by this move, or by another that overtook it while nobody was at work on this one?
    found: list[MoveEntry] = (yield Query(shard_of(source), FindMove(source))) if given_up.replayed else []
    overtaken = any(one.target != target for one in found)
    # Not known any more: its day has been forgotten, and its place with it.
    if given_up.status in (Status.MOVED, Status.NOT_FOUND) and not overtaken:
        yield from _close(source, target, done=True)
        return None
    yield from _undo(target)
    if requests.has_national_limit and given_up.reservation is not None:
        yield from national_claims.redirect_claims(
            requests, moved.applicants, source, given_up.reservation.day, instead_of=target
        )
    yield from _close(source, target, done=False)
    return Outcome(Status.WRONG_STATE if overtaken else given_up.status, given_up.reservation)


def _undo(target: str) -> Workflow[None]:
    """Give up the new place, wherever it has been moved to since."""
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
    """Go on with a move that its beginner has left; returns whether it came to anything."""
    moved: Reservation | None = yield from national_claims.lookup_reference(move.target)
    if moved is None:
        # The lease is over: nothing can come to be there any more.
        yield from _close(move.source, move.target, done=False, number=move.number)
        return False
    if moved.state in (State.EXPIRED, State.RELEASED, State.CANCELLED):
        # The new place is gone again, so the old one stays, unless that had been given up before.
        source: Reservation | None = yield from national_claims.lookup_reference(move.source)
        if source is None or source.state is State.MOVED:
            yield from _close(move.source, move.target, done=True)
            return True
        if requests.has_national_limit:
            yield from national_claims.redirect_claims(
                requests, source.applicants, move.source, source.day, instead_of=move.target
            )
        yield from _close(move.source, move.target, done=False)
        return False
    refusal = yield from _move_out(requests, move.source, move.version, move.target, moved)
    return refusal is None


def recover_moves(requests: RequestBuilder, older_than_ms: int, limit: int) -> Workflow[MovesReport]:
    """Bring up to ``limit`` moves to their end that nobody has been at work on for ``older_than_ms``."""
    check_integer(older_than_ms, "older_than_ms", 0, DURATION_MS_MAX)
    check_integer(limit, "limit", 1, FINISHED_MAX)
    finished = undone = 0
    for shard in shards():
        left = limit - finished - undone
        if left < 1:
            break
        moves: list[MoveEntry] = yield Query(shard, OpenMoves(min(left, QUERY_ITEMS_MAX), older_than_ms))
        for move in moves:
            if (yield from _finish(requests, move)):
                finished += 1
            else:
                undone += 1
    return MovesReport(finished, undone)


def find_moved(requests: RequestBuilder, reference: str) -> Workflow[str]:
    """The reference under which a reservation goes on that was moved to another office, or ``""``."""
    requests.parse_reference(reference)
    moves: list[MoveEntry] = yield Query(shard_of(reference), FindMove(reference))
    return moves[0].target if moves and moves[0].done else ""
