"""The events of an office carried out: :func:`evolve` applies one to a ledger, :func:`rebuild` applies all of them.

:func:`evolve` is the only code that changes a ledger's reservations and counters. The state machine decides which
events happen and passes them to ``evolve`` one by one. :func:`rebuild` passes the same events later and therefore
arrives at the same state.
"""

from __future__ import annotations

__all__ = ["EVENT_HANDLERS", "evolve", "let_wait_lists_be_served", "rebuild"]

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

from msgspec.structs import replace

from quota_engine.domain.claims import add_claims, remove_claims
from quota_engine.domain.events import (
    CapacitySet,
    Cooled,
    DayClosed,
    DayForgotten,
    DayOpened,
    DayPublished,
    Event,
    ParkedReleased,
    ReservationChanged,
    RulesSet,
    TimeCorrected,
    UnitsReallocated,
)
from quota_engine.domain.ledger import Day, Ledger, next_forget_ms
from quota_engine.domain.lifecycle import ACTIVE, CONSUMING, State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.penalties import update_penalties
from quota_engine.domain.quota_replacement import replace_quotas
from quota_engine.domain.returned_units import split_returned_units

# Attribute access on an enum class costs as much as a call on Python 3.11, and each event reads these members.
_HELD: Final = State.HELD
_WAITING: Final = State.WAITING
_NO_SHOW: Final = State.NO_SHOW
_CANCEL: Final = Verb.CANCEL
_EXPIRE: Final = Verb.EXPIRE
_MARK_NO_SHOW: Final = Verb.MARK_NO_SHOW
_REACQUIRE: Final = Verb.REACQUIRE
_ABANDONING: Final = frozenset({Verb.RELEASE, Verb.EXPIRE})
"""Verbs that abandon a hold. A move is not among them: the hold continues at another office, with the same deadline."""
_PARTY_CHANGES: Final = frozenset({Verb.REMOVE_APPLICANT, Verb.REPLACE_APPLICANT})


def _reservation_changed(ledger: Ledger, event: ReservationChanged) -> None:
    new = event.reservation
    reservations = ledger.reservations
    old = reservations.setdefault(new.id, new)
    day = ledger.days[new.day]
    if old is not new:
        reservations[new.id] = new
        if old.day in ledger.days:
            _existing_reservation_changed(ledger, day, old, event)
            return
        if old.state in ACTIVE:  # a record of a forgotten day that is not purged yet counts as unknown
            remove_claims(ledger, old)
    day.reservation_ids.append(new.id)
    applicants = new.applicants
    if len(applicants) == 1 and applicants[0] not in ledger.claims:
        ledger.claims[applicants[0]] = new.id
    else:
        add_claims(ledger, new)
    if new.state is _HELD:
        units = len(applicants)
        quotas = day.quotas
        for name in new.quotas:
            quota = quotas[name]
            quota.free -= units
            quota.held += units
        day.push_due(new)
    elif new.state is _WAITING:
        day.waiting[new.id] = day.last_wait_list_number = new.wait_list_number
        day.wait_queues.add(new)
    else:  # moved in from another office, where it was already confirmed
        for name in new.quotas:
            day.quotas[name].free -= new.units
            day.quotas[name].confirmed += new.units
        day.last_queue_number = new.queue_number + new.units - 1


def _existing_reservation_changed(ledger: Ledger, day: Day, old: Reservation, event: ReservationChanged) -> None:
    new = event.reservation
    old_day = ledger.days[old.day]
    units, old_units = len(new.applicants), len(old.applicants)
    old_quotas = old.quotas if old.state in CONSUMING else ()
    new_quotas = new.quotas if new.state in CONSUMING else ()
    # A quota that the reservation keeps must not see its units returned and taken again: the re-release rule would
    # cool units that the applicant never gave up.
    kept = frozenset(old_quotas) & frozenset(new_quotas) if old_day is day else frozenset()
    for name in new_quotas:
        quota = day.quotas[name]
        quota.add_taken(new.state, units)
        if name not in kept:
            quota.free -= units
    # A hold ends at its deadline, not when a later sweep expires it.
    ended_at_ms = old.deadline_at_ms if event.verb is _EXPIRE else event.at_ms
    for name in old_quotas:
        old_day.quotas[name].add_taken(old.state, -old_units)
        returned = old_units - units if name in kept else old_units
        if returned:
            _give_back(ledger, old_day, name, returned, new, ended_at_ms)

    if old.state is _WAITING:
        old_day.wait_queues.discard(old)
        if new.state is not _WAITING:
            del old_day.waiting[new.id]
    if new.state is _WAITING:
        day.waiting[new.id] = new.wait_list_number
        day.wait_queues.add(new)
    if new.state is _HELD:
        day.push_due(new)
    if old_day is not day:
        day.reservation_ids.append(new.id)
    if new.queue_number:
        day.last_queue_number = max(day.last_queue_number, new.queue_numbers[-1])
    if old.state in ACTIVE and new.state not in ACTIVE:
        remove_claims(ledger, old)
    elif new.state in ACTIVE and old.state not in ACTIVE:
        add_claims(ledger, new)
    elif event.verb in _PARTY_CHANGES:
        _party_changed(ledger, day, old, event)
        return
    if old.state is _NO_SHOW:  # undone, also on a closed day: the no-show counted before the office closed it
        _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, event.at_ms)
        return
    if old_day.closed:  # the office has ended the reservation: no step counts against the applicants
        if old.state in CONSUMING and old.state is not _HELD and (old_day is not day or new.state not in CONSUMING):
            old_day.departed += units
        return
    if event.verb in (_CANCEL, _MARK_NO_SHOW):
        _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, event.at_ms)
    elif old.state is _HELD and event.verb in _ABANDONING:
        _count_abandoned_hold(ledger, event.verb)
        if ledger.rules.abandoned_holds_max:
            _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, ended_at_ms)
    elif event.verb is _REACQUIRE and ledger.rules.abandoned_holds_max:
        _update_penalties(ledger, new, new.applicants, event.verb, event.at_ms, old.deadline_at_ms)


def _give_back(ledger: Ledger, day: Day, name: str, units: int, record: Reservation, at_ms: int) -> None:
    quota = day.quotas[name]
    split = split_returned_units(quota, name, units, record, at_ms, ledger.rules.jitter_seed)
    quota.add_free(split.free, ledger.now_ms)
    quota.cooling += split.cooling
    quota.parked += split.parked
    if split.cooling > split.parked:
        heappush(quota.cooling_due, (split.due_at_ms, split.cooling))
        if split.due_at_ms < day.next_due_ms:
            day.next_due_ms = split.due_at_ms


def _party_changed(ledger: Ledger, day: Day, old: Reservation, event: ReservationChanged) -> None:
    new, at_ms = event.reservation, event.at_ms
    leaving = tuple(one for one in old.applicants if one not in new.applicants)
    remove_claims(ledger, old, leaving)
    if event.verb is Verb.REPLACE_APPLICANT:
        add_claims(ledger, new, tuple(one for one in new.applicants if one not in old.applicants))
        return
    if day.closed:
        day.departed += len(leaving) if old.state is State.CONFIRMED else 0
    elif old.state is State.CONFIRMED:
        _update_penalties(ledger, new, leaving, Verb.CANCEL, at_ms, at_ms)
    elif old.state is _HELD and ledger.rules.abandoned_holds_max:
        _update_penalties(ledger, new, leaving, Verb.RELEASE, at_ms, at_ms)


def _count_abandoned_hold(ledger: Ledger, verb: Verb) -> None:
    counts = ledger.abandoned
    if verb is Verb.RELEASE:
        ledger.abandoned = replace(counts, released=counts.released + 1)
    else:
        ledger.abandoned = replace(counts, expired=counts.expired + 1)


def _update_penalties(
    ledger: Ledger, record: Reservation, applicants: Sequence[str], verb: Verb, at_ms: int, ended_at_ms: int
) -> None:
    blocks = update_penalties(ledger.penalties, record, applicants, verb, at_ms, ended_at_ms, ledger.rules)
    if blocks and verb in _ABANDONING:
        ledger.abandoned = replace(ledger.abandoned, blocks=ledger.abandoned.blocks + blocks)


def _rules_set(ledger: Ledger, event: RulesSet) -> None:
    ledger.rules = event.rules


def _day_published(ledger: Ledger, event: DayPublished) -> None:
    day = ledger.days.get(event.day)
    if day is None:
        ledger.days[event.day] = Day(event.day, event.terms)
    else:
        replace_quotas(ledger, day, event.terms)
        day.terms = event.terms
        day.last_valid_choice = None
        day.revision += 1
        day.next_due_ms = 0
    ledger.next_forget_ms = next_forget_ms(ledger)


def _capacity_set(ledger: Ledger, event: CapacitySet) -> None:
    day = ledger.days[event.day]
    day.revision += 1
    quota = day.quotas[event.quota]
    quota.add_free(event.capacity - quota.capacity, event.at_ms)
    quota.capacity = event.capacity


def _day_closed(ledger: Ledger, event: DayClosed) -> None:
    day = ledger.days[event.day]
    day.closed = True
    day.departed = 0
    day.revision += 1


def _day_opened(ledger: Ledger, event: DayOpened) -> None:
    day = ledger.days[event.day]
    day.closed = False
    day.revision += 1


def _day_forgotten(ledger: Ledger, event: DayForgotten) -> None:
    ledger.forgotten_days.append(ledger.days.pop(event.day))
    ledger.forgotten_day_max = max(ledger.forgotten_day_max, event.day)
    ledger.next_forget_ms = 0


def _units_reallocated(ledger: Ledger, event: UnitsReallocated) -> None:
    day = ledger.days[event.day]
    day.revision += event.by_operator
    quotas = day.quotas
    for name, units in ((event.from_quota, -event.units), (event.to_quota, event.units)):
        quotas[name].capacity += units
        quotas[name].add_free(units, event.at_ms)


def _cooled(ledger: Ledger, event: Cooled) -> None:
    quota = ledger.days[event.day].quotas[event.quota]
    heappop(quota.cooling_due)
    quota.cooling -= event.units
    quota.add_free(event.units, event.at_ms)


def _parked_released(ledger: Ledger, event: ParkedReleased) -> None:
    day = ledger.days[event.day]
    day.revision += 1
    quota = day.quotas[event.quota]
    quota.parked -= event.units
    quota.cooling -= event.units
    quota.add_free(event.units, event.at_ms)


def _time_corrected(ledger: Ledger, event: TimeCorrected) -> None:
    longest_ms = max(ledger.rules.hold_ttl_ms, ledger.rules.offer_ttl_ms)
    for old in tuple(ledger.reservations.values()):
        day = ledger.days.get(old.day)
        if day is None:
            continue
        undo_until_ms = min(old.undo_until_ms, event.at_ms + ledger.rules.undo_window_ms)
        new = replace(old, created_at_ms=min(old.created_at_ms, event.at_ms), undo_until_ms=undo_until_ms)
        if old.state is _HELD:
            was_made_later = old.created_at_ms > event.at_ms
            length_ms = old.deadline_at_ms - old.created_at_ms if was_made_later else longest_ms
            new = replace(new, deadline_at_ms=min(old.deadline_at_ms, event.at_ms + length_ms))
        if new != old:
            ledger.reservations[new.id] = new
            if new.state is _HELD:
                day.due[new.quotas].push_out_of_order(new)
    for day in ledger.days.values():
        day.next_due_ms = 0


EVENT_HANDLERS: Final[dict[type, Callable[[Ledger, Any], None]]] = {
    ReservationChanged: _reservation_changed,
    RulesSet: _rules_set,
    DayPublished: _day_published,
    CapacitySet: _capacity_set,
    DayClosed: _day_closed,
    DayOpened: _day_opened,
    DayForgotten: _day_forgotten,
    UnitsReallocated: _units_reallocated,
    Cooled: _cooled,
    ParkedReleased: _parked_released,
    TimeCorrected: _time_corrected,
}


def evolve(ledger: Ledger, event: Event) -> None:
    """Append ``event`` to the ledger's events and apply it to the state. An event cannot be refused.

    Args:
        ledger: the office's ledger; changed in place.
        event: one of :data:`~quota_engine.domain.events.Event`, not earlier than the
            ledger's last one, except ``TimeCorrected``.

    Raises:
        KeyError, IndexError: the event does not fit the ledger, as with damaged or reordered events.
    """
    ledger.events.append(event)
    ledger.now_ms = event.at_ms
    EVENT_HANDLERS[type(event)](ledger, event)


def let_wait_lists_be_served(ledger: Ledger) -> None:
    """Let the next command of each day with a wait list serve it, after events of another process were replayed.

    Events do not show when a pause ends, when a party no longer blocks units, or if more offers follow.
    The process that made them knew, and this one has perhaps settled the day before them.
    """
    for day in ledger.days.values():
        if day.waiting:
            day.next_due_ms = 0


def rebuild(office: str, events: Iterable[Event]) -> Ledger:
    """Return the ledger that ``events`` lead to.

    Args:
        office: the office's id.
        events: all events of the office, in order.

    Raises:
        KeyError, IndexError: the events do not fit together.
    """
    ledger = Ledger(office)
    for event in events:
        evolve(ledger, event)
    return ledger
