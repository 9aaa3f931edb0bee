"""Steps of one reservation on its day: confirm, release, decline, cancel, check-in, no-show and their undo.

They share one handler, :func:`step`, and differ in data: the goal, and the checks of the day.
"""

from __future__ import annotations

__all__ = ["step"]

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from quota_engine.domain.abandonment import announce, expire_own_holds
from quota_engine.domain.checks import (
    STATUS_OF,
    DayCheck,
    conflicting_claim,
    end_of_block_ms,
    owned_reservation,
    refuse_day,
    refuse_transition,
)
from quota_engine.domain.commands import Confirm
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.inventory import distribute_free_units, find_option
from quota_engine.domain.ledger import Day, Ledger
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status

# Attribute access on an enum class costs as much as a call on Python 3.11. Each step reads these members.
_EXPIRED: Final = State.EXPIRED
_VERB_CONFIRM: Final = Verb.CONFIRM
_VERB_DECLINE: Final = Verb.DECLINE
_VERB_RELEASE: Final = Verb.RELEASE
_RETURNS_UNITS: Final = frozenset({Verb.RELEASE, Verb.DECLINE, Verb.CANCEL, Verb.MOVE_OUT, Verb.UNDO_MOVE})
_RECORDS_ATTENDANCE: Final = frozenset({Verb.CHECK_IN, Verb.MARK_NO_SHOW})


def step(verb: Verb, goal: State, *day_checks: DayCheck) -> Callable[[Ledger, Any, int], Outcome]:
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
        refuse_day(day, record.choice, now_ms) is None
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
