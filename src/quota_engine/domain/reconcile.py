"""Reconciliation: repair a ledger after a failover or after damage to a store.

If all events are there, they rebuild the ledger. If older events have been trimmed, every counter, list and index is
recomputed from the records.
"""

from __future__ import annotations

__all__ = ["CLOCKS_DIFFER_MS", "Reconciliation", "correct_time", "examine", "recompute", "restore_events"]

from collections.abc import Sequence
from typing import Final

import msgspec

from quota_engine.domain.audit import audit_state, replay
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.event_handlers import evolve, rebuild
from quota_engine.domain.events import Event, TimeCorrected
from quota_engine.domain.ledger import Day, Ledger, Quota, guards_of, known_reservation
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.model import QuotaTerms, Reservation

_CONFIRMED = frozenset({State.CONFIRMED, State.ATTENDED, State.NO_SHOW})


class Reconciliation(msgspec.Struct, frozen=True):
    """The result of reconciling one office, or of opening another ledger.

    Attributes:
        address: the office's id, or the address of another ledger.
        epoch: the fencing token. It grows with each reconciliation of an office, and each time that another ledger is
            opened after a failover. 0 if there is no ledger.
        findings: the audit's findings before the repair, one sentence each.
        repaired: entries of the store that were corrected, including those of indexes that the audit does not read.
        restored: lost events that were written again.
        time_corrected_by_ms: by how much the ledger's time was brought back, because it was later than the clock's.
    """

    address: str
    epoch: int
    findings: tuple[str, ...] = ()
    repaired: int = 0
    restored: int = 0
    time_corrected_by_ms: int = 0


CLOCKS_DIFFER_MS: Final = 60_000
"""Clocks of several machines differ by seconds. A ledger's time that is ahead by less needs no correction."""


def correct_time(ledger: Ledger, now_ms: int) -> int:
    """Bring a ledger's time back if it is later than the clock's, and return by how many milliseconds.

    Not after :func:`restore_events`: the caller of that says what has happened, and may call again.

    Args:
        ledger: the ledger; changed in place.
        now_ms: the time of the clock, in milliseconds since 1970 (UTC).
    """
    ahead_ms = ledger.now_ms - now_ms
    if ahead_ms <= CLOCKS_DIFFER_MS:
        return 0
    evolve(ledger, TimeCorrected(now_ms, ledger.now_ms))
    return ahead_ms


def examine(ledger: Ledger, *, from_events: bool) -> tuple[list[str], Ledger]:
    """Return the findings of the audit, and the ledger of :func:`recompute`. The events are replayed once for both.

    Args:
        ledger: the ledger; not changed.
        from_events: use its events, of which none is missing.
    """
    findings = audit_state(ledger)
    if from_events:
        rebuilt, found = replay(ledger)
        return [*findings, *found], rebuilt or _from_records(ledger)
    return findings, _from_records(ledger)


def recompute(ledger: Ledger, *, from_events: bool) -> Ledger:
    """Return the ledger with every counter, list and index recomputed.

    Args:
        ledger: the ledger to repair; not changed.
        from_events: rebuild it from its events, of which none is missing. If they do not fit together, or if this is
            False, the records decide.
    """
    if from_events:
        try:
            return rebuild(ledger.office, ledger.events)
        except (KeyError, IndexError):
            pass  # an event refers to a day or quota that no earlier event has published
    return _from_records(ledger)


def restore_events(ledger: Ledger, number: int, events: Sequence[tuple[int, Event]]) -> int:
    """Apply events that the ledger has lost, and return how many there were.

    Args:
        ledger: the ledger; changed in place.
        number: the number of its last event.
        events: numbered events in ascending order. They may begin with some that the ledger has.

    Raises:
        InvalidRequest: the events do not continue the ledger's own. The ledger may be partly changed then, so pass a
            copy.
    """
    kept_from = number - len(ledger.events) + 1
    restored = 0
    for own, event in events:
        if own <= number:
            if own >= kept_from and ledger.events[own - kept_from] != event:
                raise InvalidRequest("events", f"number {own} is another event here", "events of this ledger's history")
            continue
        if own != number + restored + 1:
            raise InvalidRequest("events", f"number {own} follows {number + restored}", "consecutive numbers")
        try:
            evolve(ledger, event)
        except (KeyError, IndexError):
            problem = f"number {own} does not fit the events before it"
            raise InvalidRequest("events", problem, "events of this ledger's history") from None
        restored += 1
    return restored


def _from_records(ledger: Ledger) -> Ledger:
    mended = Ledger(ledger.office)
    mended.rules, mended.now_ms, mended.forgotten_day_max = ledger.rules, ledger.now_ms, ledger.forgotten_day_max
    mended.events, mended.penalties = ledger.events, dict(ledger.penalties)
    mended.abandoned = ledger.abandoned
    records = [record for record in ledger.reservations.values() if known_reservation(ledger, record.id) is record]
    records_of: dict[int, list[Reservation]] = {number: [] for number in ledger.days}
    for record in records:
        records_of[record.day].append(record)
    for number, day in ledger.days.items():
        mended.days[number] = _day_from_records(day, records_of[number])
        mended.next_forget_ms = min(mended.next_forget_ms, day.terms.forget_at_ms)
    mended.reservations = {record.id: record for record in records}
    _claims_from_records(ledger, mended, records)
    return mended


def _day_from_records(day: Day, records: list[Reservation]) -> Day:
    mended = Day(day.number, day.terms)
    mended.closed, mended.departed, mended.revision = day.closed, day.departed, day.revision
    mended.quotas = {name: _copy_quota(name, quota) for name, quota in day.quotas.items()}
    mended.guards = guards_of(mended.quotas)
    numbers = [number for record in records for number in record.queue_numbers]
    mended.last_queue_number = max([day.last_queue_number, *numbers])
    mended.last_wait_list_number = max([day.last_wait_list_number, *(record.wait_list_number for record in records)])
    for record in sorted(records, key=lambda one: one.wait_list_number):
        if record.state is State.WAITING:
            mended.waiting[record.id] = record.wait_list_number
            mended.wait_queues.add(record)
    for record in records:
        mended.reservation_ids.append(record.id)
        # An ended record may name a quota without which the day was published since.
        if record.state is State.HELD:
            mended.push_due(record)
            for name in record.quotas:
                mended.quotas[name].held += record.units
        elif record.state in _CONFIRMED:
            for name in record.quotas:
                mended.quotas[name].confirmed += record.units
    for quota in mended.quotas.values():
        quota.free = quota.capacity - quota.held - quota.confirmed - quota.cooling
    return mended


def _copy_quota(name: str, quota: Quota) -> Quota:
    """Return a quota with the same terms, capacity and cooling units, and with no held or confirmed ones."""
    copy = Quota(QuotaTerms(name, quota.capacity, quota.re_release, quota.reallocation, quota.guard))
    copy.parked, copy.cooling_due = quota.parked, list(quota.cooling_due)
    copy.free_since_ms = quota.free_since_ms
    copy.cooling = quota.parked + sum(units for _, units in quota.cooling_due)
    return copy


def _claims_from_records(ledger: Ledger, mended: Ledger, records: list[Reservation]) -> None:
    """Rebuild the index of claims in the ledger's order. Lost claims follow, the oldest first."""
    wanted: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda record: (record.created_at_ms, record.id)):
        if record.state in ACTIVE:
            for applicant in record.applicants:
                wanted.setdefault(applicant, []).append(record.id)
    for applicant, ids in wanted.items():
        found = ledger.claims.get(applicant, ())
        known = [one for one in dict.fromkeys((found,) if isinstance(found, str) else found) if one in ids]
        several = (*known, *(one for one in ids if one not in known))
        mended.claims[applicant] = several if len(several) > 1 else several[0]
