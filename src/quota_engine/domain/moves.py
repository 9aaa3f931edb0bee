"""Moves of a reservation: to another day or choice of its office, or to another office in several steps."""

from __future__ import annotations

__all__ = ["move_in", "prepare_move", "reschedule", "stay"]

from msgspec.structs import replace

from quota_engine.domain.abandonment import expire_own_holds
from quota_engine.domain.checks import (
    REFUSED,
    STATUS_OF,
    conflicting_claim,
    end_of_block_ms,
    owned_reservation,
    refuse_day,
    refuse_identity,
    refuse_transition,
)
from quota_engine.domain.commands import MoveIn, PrepareMove, Reschedule, Stay
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.extension import show_extensions_left
from quota_engine.domain.guards import complete_choice, is_same_choice
from quota_engine.domain.inventory import distribute_free_units, find_option, settle, settle_reservation
from quota_engine.domain.ledger import Ledger, known_reservation
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.reserve_command import replay_reserve


def prepare_move(ledger: Ledger, command: PrepareMove, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.PrepareMove`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    record = owned_reservation(ledger, command, now_ms)
    if isinstance(record, Outcome):
        return record
    refusal = refuse_transition(record, command.expected_version, Verb.MOVE_OUT)
    if refusal is not None:
        return refusal
    outcome = Outcome(_refuse_move(ledger, record, now_ms) or STATUS_OF[record.state], record)
    return show_extensions_left(ledger, outcome)


def stay(ledger: Ledger, command: Stay, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.Stay`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    record = owned_reservation(ledger, command, now_ms)
    if isinstance(record, Outcome):
        return record
    refusal = refuse_transition(record, command.expected_version, Verb.STAY)
    if refusal is not None:
        return refusal
    if not ledger.days[record.day].closed:
        return Outcome(Status.WRONG_STATE, record)

    # From here on it must succeed.
    record = replace(record, version=record.version + 1)
    evolve(ledger, ReservationChanged(now_ms, Verb.STAY, record))
    return Outcome(Status.CONFIRMED, record)


def _refuse_move(ledger: Ledger, record: Reservation, now_ms: int) -> Status | None:
    """Return the status that keeps the record on its day and choice, or ``None``. The target does not matter."""
    rules, day = ledger.rules, ledger.days[record.day]
    if day.closed:
        return None
    if record.state is State.CONFIRMED and now_ms > day.terms.starts_at_ms - rules.reschedule_before_ms:
        return Status.TOO_LATE
    return Status.MOVES_EXCEEDED if record.moves - record.forced_moves >= rules.reschedules_max else None


def move_in(ledger: Ledger, command: MoveIn, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.MoveIn`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    known = known_reservation(ledger, command.id)
    if known is not None:
        return replay_reserve(ledger, known, command, now_ms)
    if command.valid_until_ms and now_ms > command.valid_until_ms:
        return REFUSED[Status.COMMAND_EXPIRED]
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]
    settle(ledger, day, now_ms)
    day_refusal = refuse_day(day, command.choice, now_ms)
    if day_refusal is not None and day_refusal.status is Status.UNKNOWN_QUOTA:
        return day_refusal
    if 0 < command.deadline_at_ms <= now_ms:
        return REFUSED[Status.HOLD_EXPIRED]
    if day_refusal is not None:
        return day_refusal
    if len(command.applicants) > ledger.rules.party_max:
        return REFUSED[Status.PARTY_TOO_LARGE]
    if ledger.rules.abandoned_holds_max:
        expire_own_holds(ledger, command.applicants, now_ms)
    blocked_until_ms = end_of_block_ms(ledger, command.applicants, now_ms)
    if blocked_until_ms:
        return Outcome(Status.BLOCKED, retry_at_ms=blocked_until_ms)
    identity_refusal = refuse_identity(ledger, command.applicants, command.day, now_ms)
    if identity_refusal is not None:
        return identity_refusal
    choice = complete_choice(day.guards, command.choice)
    option = find_option(ledger, day, choice, len(command.applicants), now_ms)
    if option is None:
        return REFUSED[Status.SOLD_OUT]

    # From here on it must succeed.
    verb = Verb.MOVE_IN if command.deadline_at_ms else Verb.MOVE_IN_CONFIRMED
    record = Reservation(
        ledger.office,
        command.id,
        command.day,
        command.applicants,
        choice,
        option,
        TRANSITIONS[None, verb],
        1,
        now_ms,
        command.deadline_at_ms,
        0 if command.deadline_at_ms else day.last_queue_number + 1,
        command.moves,
        command.forced_moves,
        command.extensions,
    )
    evolve(ledger, ReservationChanged(now_ms, verb, record))
    return show_extensions_left(ledger, Outcome(STATUS_OF[record.state], record))


def reschedule(ledger: Ledger, command: Reschedule, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.Reschedule`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    known = known_reservation(ledger, command.id)
    if known is None:
        return REFUSED[Status.NOT_FOUND]
    record = settle_reservation(ledger, known, now_ms)
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]  # without the record: the owner has not been checked yet
    if now_ms >= day.next_due_ms:
        settle(ledger, day, now_ms)
        record = ledger.reservations[record.id]
    day_refusal = refuse_day(day, command.choice, now_ms)
    if day_refusal is not None and day_refusal.status is Status.UNKNOWN_QUOTA:
        return day_refusal
    if command.owner and command.owner not in record.applicants:
        return REFUSED[Status.NOT_OWNER]
    is_movable = (record.state, Verb.RESCHEDULE) in TRANSITIONS
    if is_movable and record.day == command.day and is_same_choice(day.guards, record.choice, command.choice):
        return show_extensions_left(ledger, Outcome(STATUS_OF[record.state], record, replayed=True))
    refusal = refuse_transition(record, command.expected_version, Verb.RESCHEDULE)
    if refusal is not None:
        return refusal
    if day_refusal is not None:
        return Outcome(day_refusal.status, record, retry_at_ms=day_refusal.retry_at_ms)
    move_refusal = _refuse_move(ledger, record, now_ms)
    if move_refusal is not None:
        return Outcome(move_refusal, record)
    if conflicting_claim(ledger, record.applicants, command.day, now_ms, except_id=record.id) is not None:
        return Outcome(Status.IDENTITY_LIMIT, record)
    kept = record.quotas if record.day == command.day else ()
    choice = complete_choice(day.guards, command.choice)
    option = find_option(ledger, day, choice, record.units, now_ms, kept)
    if option is None:
        return Outcome(Status.SOLD_OUT, record)

    # From here on it must succeed.
    is_renumbered = record.state is State.CONFIRMED and record.day != command.day
    moved = replace(
        record,
        day=command.day,
        choice=choice,
        quotas=option,
        state=TRANSITIONS[record.state, Verb.RESCHEDULE],
        version=record.version + 1,
        queue_number=day.last_queue_number + 1 if is_renumbered else record.queue_number,
        queue_offsets=() if is_renumbered else record.queue_offsets,
        moves=record.moves + 1,
        forced_moves=record.forced_moves + ledger.days[record.day].closed,
        wait_list_number=0,
        declines=0,
    )
    evolve(ledger, ReservationChanged(now_ms, Verb.RESCHEDULE, moved))
    distribute_free_units(ledger, ledger.days[record.day], now_ms)
    return show_extensions_left(ledger, Outcome(STATUS_OF[moved.state], moved))
