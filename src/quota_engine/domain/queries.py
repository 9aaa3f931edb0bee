"""Queries of a ledger. They change nothing, and show the state that time alone has led to.

An overdue hold is shown as expired even if no command has settled it yet. ``now_ms`` is milliseconds since 1970 (UTC);
a time before the ledger's last event counts as that event's time. ``number`` is the ordinal of a day.
"""

from __future__ import annotations

__all__ = [
    "abandoned_holds",
    "hold_remaining_histogram",
    "list_day",
    "lookup",
    "sort_reservations",
    "view",
    "wait_list_position",
]

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from quota_engine.domain.ledger import Day, Ledger, Quota, known_reservation
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.model import Reservation
from quota_engine.domain.offers import withheld_units
from quota_engine.domain.outcomes import AbandonedHolds, DayView, QuotaView, WaitListPosition
from quota_engine.domain.returned_units import split_returned_units


def lookup(ledger: Ledger, reservation_id: str, now_ms: int) -> Reservation | None:
    """Return the reservation at ``now_ms``, or ``None`` if it is unknown. An overdue hold is shown as expired."""
    clock_ms, now_ms = now_ms, max(now_ms, ledger.now_ms)
    record = known_reservation(ledger, reservation_id)
    if record is None or ledger.days[record.day].terms.forget_at_ms <= clock_ms:
        return None
    if record.state is State.HELD and record.deadline_at_ms <= now_ms:
        return replace(record, state=TRANSITIONS[record.state, Verb.EXPIRE], version=record.version + 1)
    return record


def list_day(ledger: Ledger, number: int, now_ms: int) -> list[Reservation]:
    """Return a day's reservations at ``now_ms``, sorted by :func:`sort_reservations`. Empty for an unknown day."""
    day = ledger.days.get(number)
    if day is None:
        return []
    # A reservation that was rescheduled away is still listed on the day, and one that came back is listed twice.
    shown = (lookup(ledger, reservation_id, now_ms) for reservation_id in dict.fromkeys(day.reservation_ids))
    return sort_reservations(record for record in shown if record is not None and record.day == number)


def hold_remaining_histogram(ledger: Ledger, number: int, bounds_ms: Sequence[int], now_ms: int) -> list[int]:
    """Return a histogram of the remaining time of a day's holds.

    Args:
        ledger: the office's ledger.
        number: the day.
        bounds_ms: the upper bounds of the buckets, in milliseconds, ascending.
        now_ms: the time of the query. Holds that are overdue at this time do not count.

    Returns:
        One count per bound and one more. A hold counts for the first bound that is not below its remaining time. The
        last count is of holds with more time left than the last bound.
    """
    clock_ms, now_ms = now_ms, max(now_ms, ledger.now_ms)
    counts = [0] * (len(bounds_ms) + 1)
    day = ledger.days.get(number)
    if day is None or day.terms.forget_at_ms <= clock_ms:
        return counts
    for reservation_id in dict.fromkeys(day.reservation_ids):
        record = ledger.reservations.get(reservation_id)  # None if it moved to a day that is forgotten by now
        if (
            record is not None
            and record.day == number
            and record.state is State.HELD
            and record.deadline_at_ms > now_ms
        ):
            counts[bisect_left(bounds_ms, record.deadline_at_ms - now_ms)] += 1
    return counts


def abandoned_holds(ledger: Ledger) -> AbandonedHolds:
    """Return how many holds of the office ended without a confirm."""
    return ledger.abandoned


def sort_reservations(records: Iterable[Reservation]) -> list[Reservation]:
    """Sort by queue number. Reservations without one follow, by creation time and id."""
    return sorted(records, key=lambda one: (one.queue_number == 0, one.queue_number, one.created_at_ms, one.id))


def wait_list_position(ledger: Ledger, reservation_id: str, now_ms: int) -> WaitListPosition | None:
    """Return the reservation's position on its day's wait list at ``now_ms``.

    Returns:
        The position, or ``None`` if the reservation is unknown, is in another state, or can no longer be served
        because its day or its session is over.
    """
    record = lookup(ledger, reservation_id, now_ms)
    if record is None or record.state is not State.WAITING:
        return None
    day = ledger.days[record.day]
    if day.book_until_ms(record.choice.session) <= max(now_ms, ledger.now_ms):
        return None
    ahead = sum(number < record.wait_list_number for number in day.waiting.values())
    return WaitListPosition(ahead, len(day.waiting))


def view(ledger: Ledger, number: int, now_ms: int) -> DayView | None:
    """Return the counters of a day at ``now_ms``, or ``None`` if the day is unknown or forgotten.

    Overdue holds count as expired under their quotas' re-release rules, cooled units as available, and due
    reallocations as done. A query does not serve the wait list, but shows the units that it withholds.
    """
    clock_ms, now_ms = now_ms, max(now_ms, ledger.now_ms)
    day = ledger.days.get(number)
    if day is None or day.terms.forget_at_ms <= clock_ms:
        return None
    quotas = {name: _copy_counters(quota) for name, quota in day.quotas.items()}
    if now_ms >= day.next_due_ms:
        _settle_counters(ledger, day, quotas, now_ms)
    withheld = (withheld_units(ledger, day, quotas, now_ms) or {}) if day.waiting else {}
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
                min(max(0, quota.free), withheld.get(name, 0)),
            )
            for name, quota in quotas.items()
        },
        day.revision,
        day.terms.sessions,
    )


def _copy_counters(quota: Quota) -> Quota:
    """Return a copy for a projection. It shares the heap of cooling units, which the projection only reads."""
    copy = Quota.__new__(Quota)
    for field in Quota.__slots__:
        setattr(copy, field, getattr(quota, field))
    return copy


def _settle_counters(ledger: Ledger, day: Day, quotas: dict[str, Quota], now_ms: int) -> None:
    """Settle copied counters at ``now_ms``, as :func:`~quota_engine.domain.inventory.settle` would, without events."""
    for quotas_held in sorted(day.due, key=",".join):  # the order matters if returned units reduce an overbooking
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
                quota.add_free(split.free + (split.cooling if cooled else 0), now_ms)
                quota.cooling += 0 if cooled else split.cooling
                quota.parked += split.parked
    for quota in quotas.values():
        for due_at_ms, units in quota.cooling_due:
            if due_at_ms <= now_ms:
                quota.cooling -= units
                quota.add_free(units, now_ms)
    for quota in quotas.values():
        if quota.reallocation is not None and quota.reallocation.at_ms <= now_ms and quota.free > 0:
            target = quotas[quota.reallocation.to]
            units = quota.free
            quota.free -= units
            quota.capacity -= units
            target.add_free(units, now_ms)
            target.capacity += units
