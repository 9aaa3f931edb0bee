"""Changes of a party: one applicant leaves it, or an operator puts another applicant in their place."""

from __future__ import annotations

__all__ = ["remove_applicant", "replace_applicant"]

from msgspec.structs import replace

from quota_engine.domain.abandonment import expire_own_holds
from quota_engine.domain.checks import (
    REFUSED,
    STATUS_OF,
    conflicting_claim,
    end_of_block_ms,
    not_closed,
    not_over,
    not_over_unless_closed,
    refuse_transition,
)
from quota_engine.domain.commands import RemoveApplicant, ReplaceApplicant
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.extension import show_extensions_left
from quota_engine.domain.inventory import distribute_free_units, settle_reservation
from quota_engine.domain.ledger import Ledger, known_reservation
from quota_engine.domain.lifecycle import ACTIVE, TRANSITIONS, State, Verb
from quota_engine.domain.model import FORMER_APPLICANTS_MAX, Reservation
from quota_engine.domain.offers import has_room_for_demand
from quota_engine.domain.outcomes import Outcome, Status


def remove_applicant(ledger: Ledger, command: RemoveApplicant, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.RemoveApplicant`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    known = known_reservation(ledger, command.id)
    if known is None:
        return REFUSED[Status.NOT_FOUND]
    record = settle_reservation(ledger, known, now_ms)
    applicant, owner = command.applicant, command.owner
    has_left = applicant not in record.applicants and applicant in record.former_applicants
    # An applicant may repeat the command by which they have left.
    if owner and owner not in record.applicants and not (has_left and owner == applicant):
        return REFUSED[Status.NOT_OWNER]
    if has_left and record.state in ACTIVE:
        return show_extensions_left(ledger, Outcome(STATUS_OF[record.state], record, replayed=True))
    if applicant not in record.applicants:
        return Outcome(Status.NOT_IN_PARTY, record)
    refusal = refuse_transition(record, command.expected_version, Verb.REMOVE_APPLICANT)
    if refusal is not None:
        return refusal
    day = ledger.days[record.day]
    status = not_over_unless_closed(day, record, now_ms) if record.state is State.CONFIRMED else None
    if status is None and record.units == 1:
        status = Status.PARTY_TOO_SMALL
    # A smaller party is another demand on the wait list, and the list is served by demand.
    if status is None and record.state is State.WAITING:
        has_room = has_room_for_demand(day, record.choice, record.units - 1, now_ms)
        status = None if has_room else Status.WAIT_LIST_FULL
    if status is not None:
        return Outcome(status, record)

    # From here on it must succeed.
    index = record.applicants.index(applicant)
    changed = replace(
        record,
        applicants=record.applicants[:index] + record.applicants[index + 1 :],
        state=TRANSITIONS[record.state, Verb.REMOVE_APPLICANT],
        version=record.version + 1,
        former_applicants=_former_applicants(record, applicant),
        **_queue_numbers_without(record, index),
    )
    evolve(ledger, ReservationChanged(now_ms, Verb.REMOVE_APPLICANT, changed))
    distribute_free_units(ledger, day, now_ms)
    changed = ledger.reservations[record.id]  # a smaller party may fit where the larger one waited
    return show_extensions_left(ledger, Outcome(STATUS_OF[changed.state], changed))


def _former_applicants(record: Reservation, applicant: str, newcomer: str = "") -> tuple[str, ...]:
    others = tuple(one for one in record.former_applicants if one not in (applicant, newcomer))
    return (*others, applicant)[-FORMER_APPLICANTS_MAX:]


def _queue_numbers_without(record: Reservation, index: int) -> dict[str, object]:
    """Return the fields of the queue numbers without the one at ``index``. All others keep their own number."""
    if not record.queue_number:
        return {}
    numbers = [number for at, number in enumerate(record.queue_numbers) if at != index]
    offsets = tuple(number - numbers[0] for number in numbers)
    is_consecutive = offsets == tuple(range(len(offsets)))
    return {"queue_number": numbers[0], "queue_offsets": () if is_consecutive else offsets}


def replace_applicant(ledger: Ledger, command: ReplaceApplicant, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.ReplaceApplicant`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    known = known_reservation(ledger, command.id)
    if known is None:
        return REFUSED[Status.NOT_FOUND]
    record = settle_reservation(ledger, known, now_ms)
    applicant, newcomer = command.applicant, command.replacement
    if applicant not in record.applicants:
        is_done = newcomer in record.applicants and applicant in record.former_applicants and record.state in ACTIVE
        if is_done:
            return show_extensions_left(ledger, Outcome(STATUS_OF[record.state], record, replayed=True))
    if command.valid_until_ms and now_ms > command.valid_until_ms:
        return Outcome(Status.COMMAND_EXPIRED, record)
    if applicant not in record.applicants:
        return Outcome(Status.NOT_IN_PARTY, record)
    if ledger.rules.abandoned_holds_max:
        expire_own_holds(ledger, (newcomer,), now_ms)
        record = ledger.reservations[record.id]  # the wait list may have been served
    refusal = refuse_transition(record, command.expected_version, Verb.REPLACE_APPLICANT)
    if refusal is not None:
        return refusal
    day = ledger.days[record.day]
    status = not_closed(day, record, now_ms) or not_over(day, record, now_ms)
    if status is not None:
        return Outcome(status, record)
    blocked_until_ms = end_of_block_ms(ledger, (newcomer,), now_ms)
    if blocked_until_ms:
        return Outcome(Status.BLOCKED, record, retry_at_ms=blocked_until_ms)
    is_limited = conflicting_claim(ledger, (newcomer,), record.day, now_ms, except_id=record.id) is not None
    if is_limited or newcomer in record.applicants:
        return Outcome(Status.IDENTITY_LIMIT, record)

    # From here on it must succeed.
    changed = replace(
        record,
        applicants=tuple(newcomer if one == applicant else one for one in record.applicants),
        state=TRANSITIONS[record.state, Verb.REPLACE_APPLICANT],
        version=record.version + 1,
        former_applicants=_former_applicants(record, applicant, newcomer),
    )
    evolve(ledger, ReservationChanged(now_ms, Verb.REPLACE_APPLICANT, changed))
    if changed.state is State.WAITING:
        distribute_free_units(ledger, day, now_ms)  # the change has queued the party again
        changed = ledger.reservations[record.id]
    return show_extensions_left(ledger, Outcome(STATUS_OF[changed.state], changed))
