"""Reading a ledger without changing it: what time has decided counts, whether or not a command has settled it yet."""

from __future__ import annotations

__all__ = ["hold_remaining_histogram", "list_day", "lookup", "sort_reservations", "view", "wait_list_position"]

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from quota_engine.domain.ledger import Day, Ledger, Quota, known_reservation, split_returned_units
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, QuotaView, WaitListPosition


def lookup(ledger: Ledger, reservation_id: str, now_ms: int) -> Reservation | None:
    """The reservation as it stands at ``now_ms``, or ``None``; an overdue hold is shown as the expired one it is."""
    now_ms = max(now_ms, ledger.now_ms)
    record = known_reservation(ledger, reservation_id)
    if record is None or ledger.days[record.day].terms.forget_at_ms <= now_ms:
        return None
    if record.state is State.HELD and record.deadline_at_ms <= now_ms:
        return replace(record, state=TRANSITIONS[record.state, Verb.EXPIRE], version=record.version + 1)
    return record


def list_day(ledger: Ledger, number: int, now_ms: int) -> list[Reservation]:
    """All reservations of day ``number`` as they stand at ``now_ms``, see :func:`in_order`; none of an unknown day."""
    day = ledger.days.get(number)
    if day is None:
        return []
    # A reservation that was moved away stands among the day's ids still, and one that came back twice.
    shown = (lookup(ledger, reservation_id, now_ms) for reservation_id in dict.fromkeys(day.reservation_ids))
    return sort_reservations(record for record in shown if record is not None and record.day == number)


def hold_remaining_histogram(ledger: Ledger, number: int, bounds_ms: Sequence[int], now_ms: int) -> list[int]:
    """How many holds of day ``number`` have how much of their time left at ``now_ms``.

    ``bounds_ms`` are bounds that rise. The answer has one number more than they are: holds with at most the first bound
    left, with more than that and at most the second, …, and with more than the last. An overdue hold is none any more.
    """
    now_ms = max(now_ms, ledger.now_ms)
    counts = [0] * (len(bounds_ms) + 1)
    day = ledger.days.get(number)
    if day is None or day.terms.forget_at_ms <= now_ms:
        return counts
    for reservation_id in dict.fromkeys(day.reservation_ids):
        record = ledger.reservations[reservation_id]
        if record.day == number and record.state is State.HELD and record.deadline_at_ms > now_ms:
            counts[bisect_left(bounds_ms, record.deadline_at_ms - now_ms)] += 1
    return counts


def sort_reservations(records: Iterable[Reservation]) -> list[Reservation]:
    """By queue number, and those without one behind them, by creation and id."""
    return sorted(records, key=lambda one: (one.queue_number == 0, one.queue_number, one.created_at_ms, one.id))


def wait_list_position(ledger: Ledger, reservation_id: str, now_ms: int) -> WaitListPosition | None:
    """Where the reservation stands on its day's wait list at ``now_ms``; ``None`` if it waits for nothing (any more):
    it is not known, in another state, or its day is over. The wait list is not served by looking.
    """
    record = lookup(ledger, reservation_id, now_ms)
    if record is None or record.state is not State.WAITING:
        return None
    day = ledger.days[record.day]
    if day.terms.ends_at_ms <= max(now_ms, ledger.now_ms):
        return None
    return WaitListPosition(list(day.waiting).index(reservation_id), len(day.waiting))


def view(ledger: Ledger, number: int, now_ms: int) -> DayView | None:
    """The counters of day ``number`` (a date's ordinal) at ``now_ms``; ``None`` for an unknown or forgotten day.

    Overdue holds count as given back by their quotas' rules, units that have cooled as available, and allotments whose
    time has come as passed on. The wait list is not served by looking.
    """
    now_ms = max(now_ms, ledger.now_ms)
    day = ledger.days.get(number)
    if day is None or day.terms.forget_at_ms <= now_ms:
        return None
    quotas = {name: _copy_counters(quota) for name, quota in day.quotas.items()}
    if now_ms >= day.next_due_ms:
        _settle_counters(ledger, day, quotas, now_ms)
    return DayView(
        number,
        day.terms.opens_at_ms,
        day.terms.starts_at_ms,
        day.terms.ends_at_ms,
        day.closed,
        len(day.waiting),
        {
            name: QuotaView(
                quota.capacity,
                max(0, quota.free),
                quota.held,
                quota.confirmed,
                quota.cooling,
                quota.parked,
                max(0, -quota.free),
            )
            for name, quota in quotas.items()
        },
    )


def _copy_counters(quota: Quota) -> Quota:
    """A scratch quota with the same counters; the heap of cooling units is shared, and only read."""
    copy = Quota.__new__(Quota)
    for field in Quota.__slots__:
        setattr(copy, field, getattr(quota, field))
    return copy


def _settle_counters(ledger: Ledger, day: Day, quotas: dict[str, Quota], now_ms: int) -> None:
    """Let time pass on scratch counters: the same as settling, but for the events."""
    for quotas_held in sorted(day.due, key=",".join):  # the order counts where an overbooking is worked off
        overdue = day.due[quotas_held].overdue(ledger.reservations, now_ms)
        for record in sorted(overdue, key=lambda one: (one.deadline_at_ms, one.id)):
            expired = replace(record, version=record.version + 1)
            for name in record.quotas:
                quota = quotas[name]
                quota.held -= record.units
                split = split_returned_units(
                    quota, name, record.units, expired, record.deadline_at_ms, ledger.rules.jitter_seed
                )
                cooled = split.cooling > split.parked and split.due_at_ms <= now_ms
                quota.free += split.free + (split.cooling if cooled else 0)
                quota.cooling += 0 if cooled else split.cooling
                quota.parked += split.parked
    for quota in quotas.values():
        for due_at_ms, units in quota.cooling_due:
            if due_at_ms <= now_ms:
                quota.cooling -= units
                quota.free += units
    for quota in quotas.values():
        if quota.reallocation is not None and quota.reallocation.at_ms <= now_ms and quota.free > 0:
            target = quotas[quota.reallocation.to]
            units = quota.free
            quota.free -= units
            quota.capacity -= units
            target.free += units
            target.capacity += units
