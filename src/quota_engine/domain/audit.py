"""Audit of a ledger: recompute every counter from the records and from the events, and report differences."""

from __future__ import annotations

__all__ = ["audit", "audit_state", "replay"]

from collections import Counter

from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.guards import complete_choice
from quota_engine.domain.ledger import Day, Ledger, describe, known_reservation
from quota_engine.domain.lifecycle import ACTIVE, State, Verb
from quota_engine.domain.model import Reservation

_CONFIRMED = frozenset({State.CONFIRMED, State.ATTENDED, State.NO_SHOW})
_TAKES_UNITS = frozenset({Verb.RESERVE, Verb.OFFER, Verb.REACQUIRE, Verb.MOVE_IN, Verb.MOVE_IN_CONFIRMED})
"""Verbs that must find free units. A reschedule may keep units of a quota that was overbooked in the meantime."""


def audit(ledger: Ledger, *, from_events: bool = True) -> list[str]:
    """Return one sentence per inconsistency of the ledger. An empty list means that the ledger is consistent.

    Per quota, the audit checks conservation and compares the counters with the records. Per day, it checks the queue
    numbers and the wait list. For the office, it checks the index of identity claims.

    Args:
        ledger: the office's ledger; not changed.
        from_events: also replay the events. They must lead to the same state, and none may have oversold a quota. Pass
            False if older events have been trimmed.
    """
    findings = audit_state(ledger)
    if from_events:
        findings += replay(ledger)[1]
    return findings


def audit_state(ledger: Ledger) -> list[str]:
    """Return the findings of :func:`audit` that need no events.

    Args:
        ledger: the office's ledger; not changed.
    """
    records = [record for record in ledger.reservations.values() if known_reservation(ledger, record.id) is record]
    records_of: dict[int, list[Reservation]] = {number: [] for number in ledger.days}
    for record in records:
        records_of[record.day].append(record)
    findings: list[str] = []
    for day in ledger.days.values():
        findings += _audit_day(day, records_of[day.number])
    findings += _audit_claims(ledger, records)
    return _in_office(ledger, findings)


def replay(ledger: Ledger) -> tuple[Ledger | None, list[str]]:
    """Replay a ledger's events.

    Args:
        ledger: the office's ledger with all its events; not changed.

    Returns:
        The ledger to which the events lead, ``None`` if they do not fit together; and the findings of :func:`audit`
        about them.
    """
    findings: list[str] = []
    rebuilt = Ledger(ledger.office)
    for event in ledger.events:
        try:
            evolve(rebuilt, event)
        except (KeyError, IndexError):  # it refers to a day or quota that no earlier event has published
            number = len(rebuilt.events)
            return None, _in_office(ledger, [*findings, f"event {number} does not fit the events before it"])
        if isinstance(event, ReservationChanged) and event.verb in _TAKES_UNITS:
            record = event.reservation
            quotas = rebuilt.days[record.day].quotas
            findings += [
                f"day {record.day}, quota {name}: oversold by reservation {record.id} ({event.verb})"
                for name in record.quotas
                if quotas[name].free < 0
            ]
    if not _have_same_state(rebuilt, ledger):
        findings.append("replaying the events leads to a different state")
    return rebuilt, _in_office(ledger, findings)


def _have_same_state(one: Ledger, other: Ledger) -> bool:
    """Return True if the descriptions of two ledgers are equal. To describe each record would take most of the time."""
    is_equal = describe(one, records=False) == describe(other, records=False)
    return is_equal and _known_records(one) == _known_records(other)


def _known_records(ledger: Ledger) -> dict[str, Reservation]:
    return {key: record for key, record in ledger.reservations.items() if record.day in ledger.days}


def _in_office(ledger: Ledger, findings: list[str]) -> list[str]:
    return [f"office {ledger.office}: {finding}" for finding in findings]


def _audit_day(day: Day, records: list[Reservation]) -> list[str]:
    findings: list[str] = []
    held: Counter[str] = Counter()
    confirmed: Counter[str] = Counter()
    for record in records:
        for name in record.quotas:
            held[name] += record.units if record.state is State.HELD else 0
            confirmed[name] += record.units if record.state in _CONFIRMED else 0
    for name, quota in day.quotas.items():
        where = f"day {day.number}, quota {name}"
        if quota.free != quota.capacity - quota.held - quota.confirmed - quota.cooling:
            findings.append(f"{where}: free units are not capacity - held - confirmed - cooling (conservation)")
        if (quota.held, quota.confirmed) != (held[name], confirmed[name]):
            findings.append(
                f"{where}: counts {quota.held} held and {quota.confirmed} confirmed, "
                f"but the records add up to {held[name]} held and {confirmed[name]} confirmed"
            )
        if quota.cooling != quota.parked + sum(units for _, units in quota.cooling_due):
            findings.append(f"{where}: cooling units are not the sum of parked and scheduled ones")
    findings += [
        f"day {day.number}: reservation {record.id} does not consume all guards that count it"
        for record in records
        if record.state in ACTIVE and complete_choice(day.guards, record.choice) != record.choice
    ]
    numbers = Counter(number for record in records for number in record.queue_numbers)
    findings += [f"day {day.number}: queue number {one} was given twice" for one, times in numbers.items() if times > 1]
    if any(number > day.last_queue_number for number in numbers):
        findings.append(f"day {day.number}: a reservation has a queue number above the last one given")
    if day.waiting != {record.id: record.wait_list_number for record in records if record.state is State.WAITING}:
        findings.append(f"day {day.number}: the wait list differs from the records")
    if any(record.wait_list_number > day.last_wait_list_number for record in records):
        findings.append(f"day {day.number}: a reservation has a wait-list number above the last one given")
    return findings


def _audit_claims(ledger: Ledger, records: list[Reservation]) -> list[str]:
    expected = {(one, record.id) for record in records if record.state in ACTIVE for one in record.applicants}
    found = {
        (applicant, one)
        for applicant, ids in ledger.claims.items()
        for one in ((ids,) if isinstance(ids, str) else ids)
        if known_reservation(ledger, one) is not None
    }
    return ["the index of identity claims differs from the records"] if expected != found else []
