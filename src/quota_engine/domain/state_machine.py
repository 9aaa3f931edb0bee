"""The reservation rules: one command in, one outcome out, and the events that carry it out.

Theory of operation
===================

**State.** A :class:`~quota_engine.domain.ledger.Ledger` holds all state of one office. Only
:func:`~quota_engine.domain.event_handlers.evolve` changes its reservations and counters, one event at a time. Replaying
the events therefore rebuilds the ledger.

**Commands.** :func:`apply` looks up the handler of the command's type in :data:`HANDLERS`. Each handler works in two
phases, like a transaction:

1. It checks everything, in the order of :data:`~quota_engine.domain.outcomes.PRECEDENCE`. The first check that fails
   decides the status, and the handler returns a refusal. ``docs/rules.md`` lists the same checks in the same order.
2. After the line "From here on it must succeed" it only builds events and hands them to ``evolve``. Nothing after this
   line may refuse or raise.

**Transitions.** :data:`~quota_engine.domain.lifecycle.TRANSITIONS` lists every permitted step of a reservation. The
steps on one reservation and day (confirm, release, cancel, check-in, no-show and their undo, move-out, undo-move) share
one handler, :func:`_step`. They differ only in the data at the end of this file.

**Time.** Time is an argument and never runs backwards: a time before the ledger's last event counts as that event's
time. Deadlines decide, not the sweeper. A handler first *settles* the day it works on: it expires overdue holds,
releases cooled units, reallocates unused units and serves the wait list
(:mod:`~quota_engine.domain.inventory`). Settling is bounded, and no result depends on how far it came: a handler that
meets an overdue hold treats it as expired.

**Purity.** The same ledger, command and time give the same outcome and the same events. There is no I/O, no clock and
no randomness, so the Lua scripts and the SQL stores can be compared with this module step by step.
"""

from __future__ import annotations

__all__ = ["HANDLERS", "PURGE_MAX", "Handler", "apply", "apply_batch", "is_repeat", "make_apply"]

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from quota_engine.domain.abandonment import announce, expire_own_holds
from quota_engine.domain.checks import (
    REFUSED,
    STATUS_OF,
    DayCheck,
    conflicting_claim,
    end_of_block_ms,
    is_party_of,
    is_same_party,
    not_closed,
    not_over,
    not_over_unless_closed,
    owned_reservation,
    refuse_transition,
    session_not_over,
    started,
    undo_in_time,
)
from quota_engine.domain.claims import active_claims
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import (
    CapacitySet,
    DayClosed,
    DayForgotten,
    DayOpened,
    ParkedReleased,
    ReservationChanged,
    RulesSet,
)
from quota_engine.domain.extension import extend, show_extensions_left
from quota_engine.domain.guards import complete_choice, is_same_choice
from quota_engine.domain.inventory import (
    distribute_free_units,
    find_option,
    reallocate,
    settle,
    settle_reservation,
)
from quota_engine.domain.ledger import Day, Ledger, Quota, known_reservation
from quota_engine.domain.lifecycle import ACTIVE, TRANSITIONS, State, Verb
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.offers import has_room_for_demand, note_join, served_by_wait_list
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.party_changes import remove_applicant, replace_applicant
from quota_engine.domain.publication import publish
from quota_engine.domain.retention import purge

PURGE_MAX: Final = 64
"""The most records of forgotten days whose memory one command frees."""

# Attribute access on an enum class costs as much as a call on Python 3.11. Each reserve and step reads these members.
_HELD: Final = State.HELD
_STATUS_HELD: Final = Status.HELD
_EXPIRED: Final = State.EXPIRED
_VERB_RESERVE: Final = Verb.RESERVE
_VERB_CONFIRM: Final = Verb.CONFIRM
_VERB_DECLINE: Final = Verb.DECLINE
_VERB_RELEASE: Final = Verb.RELEASE
_RETURNS_UNITS: Final = frozenset({Verb.RELEASE, Verb.DECLINE, Verb.CANCEL, Verb.MOVE_OUT, Verb.UNDO_MOVE})
_RECORDS_ATTENDANCE: Final = frozenset({Verb.CHECK_IN, Verb.MARK_NO_SHOW})
_SOLD_OUT: Final = REFUSED[Status.SOLD_OUT]


Handler = Callable[[Ledger, Any, int], Any]
"""Applies a command of one type. Its last argument is a time that is not before the ledger's last event."""

HANDLERS: Final[dict[type, Handler]] = {}
"""The handler of each command type. Filled at the end of this file."""


def make_apply(handlers: Mapping[type, Handler]) -> Handler:
    """Return an :func:`apply` for ``handlers``.

    Args:
        handlers: handler by command type. Higher layers pass :data:`HANDLERS` with their own commands added.
    """

    def apply(ledger: Ledger, command: Any, now_ms: int) -> Any:
        """Apply one command and return its outcome.

        A refusal is an outcome, not an exception. A refused command changes nothing except what is due by time alone
        (see :func:`~quota_engine.domain.inventory.settle`).

        Args:
            ledger: the office's ledger; changed in place.
            command: one of :data:`~quota_engine.domain.commands.Command`.
            now_ms: milliseconds since 1970, UTC. A time before the ledger's last event counts as that event's time.
                That event's time makes no day forgotten, because it may be wrong.

        Returns:
            The outcome. Its status is the first that applies in :data:`~quota_engine.domain.outcomes.PRECEDENCE`.

        Raises:
            KeyError: no handler for the command's type.
        """
        clock_ms = now_ms
        if now_ms < ledger.now_ms:
            now_ms = ledger.now_ms
        if clock_ms >= ledger.next_forget_ms:
            _forget(ledger, clock_ms, now_ms)
        return handlers[type(command)](ledger, command, now_ms)

    return apply


apply: Final[Callable[[Ledger, Command, int], Outcome]] = make_apply(HANDLERS)


def apply_batch(ledger: Ledger, commands: Iterable[Command], now_ms: int) -> list[Outcome]:
    """Apply several commands at the same time and return their outcomes in order.

    Equal to calling :func:`apply` for one after the other.

    Args:
        ledger: the office's ledger; changed in place.
        commands: the commands, in the order in which they take effect.
        now_ms: milliseconds since 1970, UTC, for all of them.
    """
    return [apply(ledger, command, now_ms) for command in commands]


# --- Reserve -----------------------------------------------------------------------------------------------------


def _reserve(ledger: Ledger, command: Reserve, now_ms: int) -> Outcome:
    known = ledger.reservations.get(command.id)
    if known is not None and known.day in ledger.days:
        return _replay_reserve(ledger, known, command, now_ms)
    if command.valid_until_ms and now_ms > command.valid_until_ms:
        return REFUSED[Status.COMMAND_EXPIRED]
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]
    if now_ms >= day.next_due_ms:
        settle(ledger, day, now_ms)
    choice, applicants, terms = command.choice, command.applicants, day.terms
    if choice is not day.last_valid_choice or day.closed or not terms.opens_at_ms <= now_ms < day.last_valid_until_ms:
        refusal = _refuse_day(day, choice, now_ms)
        if refusal is not None:
            return refusal
        day.last_valid_choice, day.last_valid_until_ms = choice, day.book_until_ms(choice.session)
        day.last_complete_choice = complete_choice(day.guards, choice)
    units, rules = len(applicants), ledger.rules
    if units > rules.party_max:
        return REFUSED[Status.PARTY_TOO_LARGE]
    if rules.abandoned_holds_max:
        expire_own_holds(ledger, applicants, now_ms)
    if ledger.penalties:
        blocked_until_ms = end_of_block_ms(ledger, applicants, now_ms)
        if blocked_until_ms:
            return Outcome(Status.BLOCKED, retry_at_ms=blocked_until_ms)
    claims = ledger.claims
    for applicant in applicants:
        if applicant in claims:
            refusal = _resume_or_refuse(ledger, command, now_ms)
            if refusal is not None:
                return refusal
            break
    choice = day.last_complete_choice or choice
    option = find_option(ledger, day, choice, units, now_ms)
    if option is None:
        return _join_wait_list(ledger, day, command, choice, now_ms) if command.join_wait_list else _SOLD_OUT

    # From here on it must succeed.
    record = Reservation(
        ledger.office,
        command.id,
        command.day,
        applicants,
        choice,
        option,
        _HELD,
        1,
        now_ms,
        now_ms + (command.hold_ttl_ms or rules.hold_ttl_ms),
        0,
        0,
    )
    evolve(ledger, ReservationChanged(now_ms, _VERB_RESERVE, record))
    outcome = Outcome(_STATUS_HELD, record)
    if rules.extensions_max:
        outcome = show_extensions_left(ledger, outcome)
    return announce(ledger, outcome, now_ms) if rules.abandoned_holds_max else outcome


def _replay_reserve(ledger: Ledger, known: Reservation, command: Reserve | MoveIn, now_ms: int) -> Outcome:
    """Return the outcome of a command whose idempotency key is known."""
    record = settle_reservation(ledger, known, now_ms)
    if not is_party_of(record, command.applicants) or (
        record.moves == 0
        and (
            record.day != command.day
            or not is_same_choice(ledger.days[record.day].guards, record.choice, command.choice)
        )
    ):
        return REFUSED[Status.CONFLICT]
    if record.state not in ACTIVE:
        return Outcome(Status.RESERVATION_ENDED, record, replayed=True)
    outcome = show_extensions_left(ledger, Outcome(STATUS_OF[record.state], record, replayed=True))
    if record.state is _HELD and ledger.rules.abandoned_holds_max:
        expire_own_holds(ledger, record.applicants, now_ms)
        return announce(ledger, outcome, now_ms)
    return outcome


def _refuse_day(day: Day, choice: Choice, now_ms: int) -> Outcome | None:
    """Return the refusal for a day that takes no booking of ``choice`` now, or ``None``."""
    quotas = day.quotas
    for option in choice.options:
        for name in option:
            if name not in quotas:
                return REFUSED[Status.UNKNOWN_QUOTA]
    terms = day.terms
    if day.closed:
        return REFUSED[Status.DAY_CLOSED]
    if now_ms >= terms.ends_at_ms:
        return REFUSED[Status.DAY_OVER]
    if now_ms >= day.book_until_ms(choice.session):
        return REFUSED[Status.SESSION_OVER]
    if now_ms < terms.opens_at_ms:
        return Outcome(Status.NOT_OPEN, retry_at_ms=terms.opens_at_ms)
    return None


def is_repeat(ledger: Ledger, command: Reserve, now_ms: int) -> bool:
    """Return True if the party already has what ``command`` asks for. Changes nothing.

    That is the case if the idempotency key is known, or if the party has a hold or a wait-list entry to resume.

    Args:
        ledger: the office's ledger.
        command: the reserve that is about to be applied.
        now_ms: milliseconds since 1970, UTC.
    """
    return (
        known_reservation(ledger, command.id) is not None
        or _resumable_reservation(ledger, command, max(now_ms, ledger.now_ms)) is not None
    )


def _resumable_reservation(ledger: Ledger, command: Reserve, now_ms: int) -> Reservation | None:
    for record in active_claims(ledger, command.applicants[0], now_ms):
        if (
            record.day == command.day
            and record.state in (State.WAITING, _HELD)
            and is_same_party(record.applicants, command.applicants)
        ):
            return record
    return None


def _resume_or_refuse(ledger: Ledger, command: Reserve, now_ms: int) -> Outcome | None:
    record = _resumable_reservation(ledger, command, now_ms)
    if record is not None:
        outcome = show_extensions_left(ledger, Outcome(STATUS_OF[record.state], record, resumed=True))
        is_limited = record.state is _HELD and ledger.rules.abandoned_holds_max
        return announce(ledger, outcome, now_ms) if is_limited else outcome
    return _refuse_identity(ledger, command.applicants, command.day, now_ms)


def _refuse_identity(ledger: Ledger, applicants: tuple[str, ...], day: int, now_ms: int) -> Outcome | None:
    """Return the ``IDENTITY_LIMIT`` refusal, or ``None``. It shows the conflicting record to its own party only."""
    conflicting = conflicting_claim(ledger, applicants, day, now_ms)
    if conflicting is None:
        return None
    is_own = is_same_party(conflicting.applicants, applicants)
    return Outcome(Status.IDENTITY_LIMIT, conflicting if is_own else None)


def _join_wait_list(ledger: Ledger, day: Day, command: Reserve, choice: Choice, now_ms: int) -> Outcome:
    if not served_by_wait_list(day, choice):
        return _SOLD_OUT
    is_full = len(day.waiting) >= ledger.rules.wait_list_max
    if is_full or not has_room_for_demand(day, choice, len(command.applicants), now_ms):
        return REFUSED[Status.WAIT_LIST_FULL]

    # From here on it must succeed.
    record = Reservation(
        ledger.office,
        command.id,
        command.day,
        command.applicants,
        choice,
        (),
        State.WAITING,
        1,
        now_ms,
        0,
        0,
        0,
        wait_list_number=day.last_wait_list_number + 1,
    )
    evolve(ledger, ReservationChanged(now_ms, Verb.WAIT, record))
    note_join(ledger, day)
    return Outcome(Status.WAITING, record)


# --- Steps of one reservation --------------------------------------------------------------------------------------


def _step(verb: Verb, goal: State, *day_checks: DayCheck) -> Handler:
    """Return the handler of a step that leads to ``goal``.

    Args:
        verb: the step, as :data:`~quota_engine.domain.lifecycle.TRANSITIONS` names it.
        goal: the state it leads to. A reservation that is in it already makes the command a replay.
        day_checks: checks of the reservation's day, in order of precedence.
    """

    def handle(ledger: Ledger, command: Any, now_ms: int) -> Outcome:
        record = owned_reservation(ledger, command, now_ms)
        if isinstance(record, Outcome):
            return record
        is_announced = verb is _VERB_RELEASE and ledger.rules.abandoned_holds_max > 0
        if is_announced:
            expire_own_holds(ledger, record.applicants, now_ms)
            record = ledger.reservations[record.id]  # the wait list may have been served
        if record.state is goal:
            outcome = Outcome(STATUS_OF[goal], record, replayed=True)
            return announce(ledger, outcome, now_ms) if is_announced else outcome
        if record.state is _EXPIRED and verb is _VERB_CONFIRM and command.reacquire:
            return _reacquire(ledger, record, command, now_ms)
        refusal = refuse_transition(record, command.expected_version, verb)
        if refusal is not None:
            return refusal
        day = ledger.days[record.day]
        for check in day_checks:
            status = check(day, record, now_ms)
            if status is not None:
                return Outcome(status, record)
        if verb is _VERB_DECLINE and record.declines >= ledger.rules.declines_max:
            return Outcome(Status.DECLINES_EXCEEDED, record)

        # From here on it must succeed.
        record = _after_step(ledger, day, record, verb, goal, now_ms)
        evolve(ledger, ReservationChanged(now_ms, verb, record))
        if verb in _RETURNS_UNITS:
            distribute_free_units(ledger, day, now_ms)
        outcome = Outcome(STATUS_OF[goal], record)
        return announce(ledger, outcome, now_ms) if is_announced else outcome

    return handle


def _after_step(ledger: Ledger, day: Day, record: Reservation, verb: Verb, goal: State, now_ms: int) -> Reservation:
    """Return the record after a step that leads to ``goal``."""
    if verb is _VERB_CONFIRM:
        return replace(record, state=goal, version=record.version + 1, queue_number=day.last_queue_number + 1)
    if verb is _VERB_DECLINE:
        return replace(
            record,
            state=goal,
            version=record.version + 1,
            quotas=(),
            deadline_at_ms=0,
            extensions=0,
            declines=record.declines + 1,
            paused_until_ms=now_ms + ledger.rules.decline_pause_ms,
        )
    undo_until_ms = now_ms + ledger.rules.undo_window_ms if verb in _RECORDS_ATTENDANCE else 0
    return replace(record, state=goal, version=record.version + 1, undo_until_ms=undo_until_ms)


def _reacquire(ledger: Ledger, record: Reservation, command: Confirm, now_ms: int) -> Outcome:
    """Confirm an expired hold on new units, if the same choice can still be reserved."""
    if command.valid_until_ms and now_ms > command.valid_until_ms:
        return Outcome(Status.COMMAND_EXPIRED, record)
    if ledger.rules.abandoned_holds_max:
        expire_own_holds(ledger, record.applicants, now_ms)
    day = ledger.days[record.day]
    option = None
    if (
        _refuse_day(day, record.choice, now_ms) is None
        and not end_of_block_ms(ledger, record.applicants, now_ms)
        and conflicting_claim(ledger, record.applicants, record.day, now_ms) is None
    ):
        option = find_option(ledger, day, record.choice, record.units, now_ms)
    if option is None:
        return Outcome(Status.HOLD_EXPIRED, record)

    # From here on it must succeed.
    record = replace(
        record,
        quotas=option,
        state=TRANSITIONS[record.state, Verb.REACQUIRE],
        version=record.version + 1,
        queue_number=day.last_queue_number + 1,
    )
    evolve(ledger, ReservationChanged(now_ms, Verb.REACQUIRE, record))
    return Outcome(Status.CONFIRMED, record)


# --- Moves -----------------------------------------------------------------------------------------------------------


def _prepare_move(ledger: Ledger, command: PrepareMove, now_ms: int) -> Outcome:
    record = owned_reservation(ledger, command, now_ms)
    if isinstance(record, Outcome):
        return record
    refusal = refuse_transition(record, command.expected_version, Verb.MOVE_OUT)
    if refusal is not None:
        return refusal
    outcome = Outcome(_refuse_move(ledger, record, now_ms) or STATUS_OF[record.state], record)
    return show_extensions_left(ledger, outcome)


def _stay(ledger: Ledger, command: Stay, now_ms: int) -> Outcome:
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


def _move_in(ledger: Ledger, command: MoveIn, now_ms: int) -> Outcome:
    known = known_reservation(ledger, command.id)
    if known is not None:
        return _replay_reserve(ledger, known, command, now_ms)
    if command.valid_until_ms and now_ms > command.valid_until_ms:
        return REFUSED[Status.COMMAND_EXPIRED]
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]
    settle(ledger, day, now_ms)
    day_refusal = _refuse_day(day, command.choice, now_ms)
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
    identity_refusal = _refuse_identity(ledger, command.applicants, command.day, now_ms)
    if identity_refusal is not None:
        return identity_refusal
    choice = complete_choice(day.guards, command.choice)
    option = find_option(ledger, day, choice, len(command.applicants), now_ms)
    if option is None:
        return _SOLD_OUT

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


def _reschedule(ledger: Ledger, command: Reschedule, now_ms: int) -> Outcome:
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
    day_refusal = _refuse_day(day, command.choice, now_ms)
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


# --- Operators' commands -------------------------------------------------------------------------------------------


def _forget(ledger: Ledger, clock_ms: int, now_ms: int) -> None:
    for number in sorted(day.number for day in ledger.days.values() if day.terms.forget_at_ms <= clock_ms):
        evolve(ledger, DayForgotten(now_ms, number))
    purge(ledger, PURGE_MAX)


def _set_rules(ledger: Ledger, command: SetRules, now_ms: int) -> Outcome:
    if command.rules == ledger.rules:
        return Outcome(Status.DONE, replayed=True)
    # The jitter seed is derived from the identity key. Another seed means another key, and with another key the same
    # applicant has another hash: identity limits would no longer hold.
    if ledger.rules.jitter_seed and command.rules.jitter_seed not in ("", ledger.rules.jitter_seed):
        return REFUSED[Status.CONFLICT]

    # From here on it must succeed.
    evolve(ledger, RulesSet(now_ms, command.rules))
    return Outcome(Status.DONE)


def _done(day: Day, *, replayed: bool = False, units: int = 0, overbooked: int = 0) -> Outcome:
    return Outcome(Status.DONE, replayed=replayed, units=units, overbooked=overbooked, revision=day.revision)


def _refuse_revision(day: Day, expected_revision: int) -> Outcome | None:
    """Return the refusal of a command that expects another revision of the day, or ``None``."""
    if expected_revision in (0, day.revision):
        return None
    return Outcome(Status.STALE, revision=day.revision)


def _set_capacity(ledger: Ledger, day: Day, quota: Quota, command: SetCapacity, now_ms: int) -> Outcome:
    replayed = quota.capacity == command.capacity
    stale = _refuse_revision(day, command.expected_revision)
    if stale is not None and not replayed:
        return stale
    # After its reallocation time a quota gives away what is set here at once, and again if the command is sent again.
    if quota.reallocation is not None and quota.reallocation.at_ms <= now_ms:
        return REFUSED[Status.WRONG_STATE]

    # From here on it must succeed.
    if not replayed:
        evolve(ledger, CapacitySet(now_ms, command.day, command.quota, command.capacity))
        distribute_free_units(ledger, day, now_ms)
    return _done(day, replayed=replayed, overbooked=max(0, -quota.free))


def _reallocate_unused(ledger: Ledger, day: Day, quota: Quota, command: ReallocateUnused, now_ms: int) -> Outcome:
    stale = _refuse_revision(day, command.expected_revision)
    if stale is not None and (quota.free > 0 or quota.reallocation is None):
        return stale
    if quota.reallocation is None:
        return REFUSED[Status.WRONG_STATE]

    # From here on it must succeed.
    units = reallocate(ledger, day, command.quota, quota, now_ms, by_operator=True)
    distribute_free_units(ledger, day, now_ms)
    return _done(day, units=units)


def _release_parked(ledger: Ledger, day: Day, quota: Quota, command: ReleaseParked, now_ms: int) -> Outcome:
    units = quota.parked
    stale = _refuse_revision(day, command.expected_revision)
    if stale is not None and units:
        return stale

    # From here on it must succeed.
    if units:
        evolve(ledger, ParkedReleased(now_ms, command.day, command.quota, units))
        distribute_free_units(ledger, day, now_ms)
    return _done(day, units=units)


def _with_quota(handler: Callable[[Ledger, Day, Quota, Any, int], Outcome]) -> Handler:
    """Return a handler that settles the command's day and passes its day and quota on, or refuses unknown ones."""

    def handle(ledger: Ledger, command: Any, now_ms: int) -> Outcome:
        day = ledger.days.get(command.day)
        if day is None:
            return REFUSED[Status.UNKNOWN_DAY]
        settle(ledger, day, now_ms)
        quota = day.quotas.get(command.quota)
        if quota is None:
            return REFUSED[Status.UNKNOWN_QUOTA]
        return handler(ledger, day, quota, command, now_ms)

    return handle


def _set_closed(event_type: type[DayClosed | DayOpened]) -> Handler:
    """Return the handler that closes or opens a day."""

    def handle(ledger: Ledger, command: CloseDay | OpenDay, now_ms: int) -> Outcome:
        day = ledger.days.get(command.day)
        if day is None:
            return REFUSED[Status.UNKNOWN_DAY]
        settle(ledger, day, now_ms)
        if day.closed == (event_type is DayClosed):
            return _done(day, replayed=True, units=0 if day.closed else day.departed)
        stale = _refuse_revision(day, command.expected_revision)
        if stale is not None:
            return stale

        # From here on it must succeed.
        evolve(ledger, event_type(now_ms, command.day))
        distribute_free_units(ledger, day, now_ms)
        return _done(day, units=0 if day.closed else day.departed)

    return handle


def _expire(ledger: Ledger, command: Expire, now_ms: int) -> Outcome:
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]
    return Outcome(Status.DONE, units=settle(ledger, day, now_ms, command.limit))


HANDLERS.update(
    {
        Reserve: _reserve,
        Extend: extend,
        RemoveApplicant: remove_applicant,
        ReplaceApplicant: replace_applicant,
        Confirm: _step(Verb.CONFIRM, State.CONFIRMED, not_closed, not_over, session_not_over),
        Release: _step(Verb.RELEASE, State.RELEASED),
        Decline: _step(Verb.DECLINE, State.WAITING, not_closed, not_over, session_not_over),
        Cancel: _step(Verb.CANCEL, State.CANCELLED, not_over_unless_closed),
        CheckIn: _step(Verb.CHECK_IN, State.ATTENDED, not_over, started),
        MarkNoShow: _step(Verb.MARK_NO_SHOW, State.NO_SHOW, not_closed, started),
        UndoAttendance: _step(Verb.UNDO_ATTENDANCE, State.CONFIRMED, undo_in_time),
        Reschedule: _reschedule,
        Stay: _stay,
        PrepareMove: _prepare_move,
        MoveIn: _move_in,
        MoveOut: _step(Verb.MOVE_OUT, State.MOVED),
        UndoMove: _step(Verb.UNDO_MOVE, State.RELEASED),
        Expire: _expire,
        SetRules: _set_rules,
        Publish: publish,
        SetCapacity: _with_quota(_set_capacity),
        CloseDay: _set_closed(DayClosed),
        OpenDay: _set_closed(DayOpened),
        ReallocateUnused: _with_quota(_reallocate_unused),
        ReleaseParked: _with_quota(_release_parked),
    }
)
