"""The command that takes places: a hold, a wait-list entry, or what the party has already."""

from __future__ import annotations

__all__ = ["is_repeat", "replay_reserve", "reserve"]

from typing import Final

from quota_engine.domain.abandonment import announce, expire_own_holds
from quota_engine.domain.checks import (
    REFUSED,
    STATUS_OF,
    end_of_block_ms,
    is_party_of,
    is_same_party,
    refuse_day,
    refuse_identity,
)
from quota_engine.domain.claims import active_claims
from quota_engine.domain.commands import MoveIn, Reserve
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.extension import show_extensions_left
from quota_engine.domain.guards import complete_choice, is_same_choice
from quota_engine.domain.inventory import find_option, settle, settle_reservation
from quota_engine.domain.ledger import Day, Ledger, known_reservation
from quota_engine.domain.lifecycle import ACTIVE, State, Verb
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.offers import has_room_for_demand, note_join, served_by_wait_list
from quota_engine.domain.outcomes import Outcome, Status

# Attribute access on an enum class costs as much as a call on Python 3.11. Each reserve reads these members.
_HELD: Final = State.HELD
_STATUS_HELD: Final = Status.HELD
_VERB_RESERVE: Final = Verb.RESERVE
_SOLD_OUT: Final = REFUSED[Status.SOLD_OUT]


def reserve(ledger: Ledger, command: Reserve, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.Reserve`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    known = ledger.reservations.get(command.id)
    if known is not None and known.day in ledger.days:
        return replay_reserve(ledger, known, command, now_ms)
    if command.valid_until_ms and now_ms > command.valid_until_ms:
        return REFUSED[Status.COMMAND_EXPIRED]
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]
    if now_ms >= day.next_due_ms:
        settle(ledger, day, now_ms)
    choice, applicants, terms = command.choice, command.applicants, day.terms
    if choice is not day.last_valid_choice or day.closed or not terms.opens_at_ms <= now_ms < day.last_valid_until_ms:
        refusal = refuse_day(day, choice, now_ms)
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


def replay_reserve(ledger: Ledger, known: Reservation, command: Reserve | MoveIn, now_ms: int) -> Outcome:
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
    return refuse_identity(ledger, command.applicants, command.day, now_ms)


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
