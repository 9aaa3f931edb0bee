"""Units of a day: find them for a reserve, expire and cool them when due, reallocate them, offer them to the wait list.

Every loop is bounded by a constant below, so that a command has a bounded cost.
"""

from __future__ import annotations

__all__ = [
    "RECLAIM_MAX",
    "SETTLE_MAX",
    "distribute_free_units",
    "expire",
    "find_option",
    "reallocate",
    "settle",
    "settle_reservation",
]

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import Cooled, ReservationChanged, UnitsReallocated
from quota_engine.domain.ledger import Day, Ledger, Quota
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.offers import serve_wait_list, wait_list_due_ms, withheld_units

SETTLE_MAX: Final = 64
"""The most overdue holds that one command expires while it settles a day. The same bound holds for each quota's
cooling units.
"""
RECLAIM_MAX: Final = 1000
"""The most overdue holds that a command expires, or cooled units that it releases, because it lacks units."""
_HELD: Final = State.HELD


def _fits(day: Day, option: tuple[str, ...], units: int, kept: Sequence[str] = ()) -> bool:
    """Return True if every quota of ``option`` has ``units`` free. Quotas in ``kept`` need none."""
    return all(day.quotas[name].free >= units or name in kept for name in option)


def find_option(
    ledger: Ledger, day: Day, choice: Choice, units: int, now_ms: int, kept: Sequence[str] = ()
) -> tuple[str, ...] | None:
    """Return the first option of ``choice`` with room, or ``None``.

    Expires overdue holds on quotas that lack units, at most :data:`RECLAIM_MAX`. Takes nothing that a party on the wait
    list can use now, and no units that are withheld for one.

    Args:
        ledger: the office's ledger; changed by expiries.
        day: the day, settled.
        choice: its options are tried in order. All their quotas exist on the day.
        units: the units needed of each quota, 1 or more.
        now_ms: milliseconds since 1970 (UTC).
        kept: quotas of which the reservation has its units already.
    """
    if day.waiting:
        return _find_option_behind_wait_list(ledger, day, choice, units, now_ms, kept)
    quotas = day.quotas
    budget = RECLAIM_MAX
    for option in choice.options:
        for name in option:  # the same as _fits(), without its generator, because every reserve runs this loop
            if quotas[name].free < units and name not in kept:
                break
        else:
            return option
        if now_ms >= day.next_due_ms:
            for name in option:
                if name not in kept:
                    budget = _reclaim(ledger, day, name, units, now_ms, budget)
            if _fits(day, option, units, kept):
                return option
    return None


def _find_option_behind_wait_list(
    ledger: Ledger, day: Day, choice: Choice, units: int, now_ms: int, kept: Sequence[str]
) -> tuple[str, ...] | None:
    """Do what :func:`find_option` does on a day with a wait list: its parties come first."""
    quotas = day.quotas
    budget = RECLAIM_MAX
    withheld: dict[str, int] = {}
    is_withheld_known = False
    for option in choice.options:
        needed = [name for name in option if name not in kept]
        while True:
            lacking = next((name for name in needed if quotas[name].free < units), "")
            if not lacking:
                if not is_withheld_known:
                    found = withheld_units(ledger, day, quotas, now_ms)
                    if found is None:
                        return None
                    withheld, is_withheld_known = found, True
                lacking = next((name for name in needed if quotas[name].free - withheld.get(name, 0) < units), "")
                if not lacking:
                    return option
            if now_ms < day.next_due_ms or not budget or not _reclaim_one(ledger, day, lacking, now_ms):
                break
            budget -= 1
            is_withheld_known = False
    return None


def _reclaim(ledger: Ledger, day: Day, name: str, units: int, now_ms: int, budget: int) -> int:
    """Release overdue units of one quota until it has ``units`` free, and return the remaining budget.

    This makes the bounded sweep exact: however many holds are overdue, a reserve finds the units it needs.
    """
    quota = day.quotas[name]
    while budget and quota.free < units and _reclaim_one(ledger, day, name, now_ms):
        budget -= 1
    return budget


def _reclaim_one(ledger: Ledger, day: Day, name: str, now_ms: int) -> bool:
    """Release one cooled entry or one overdue hold of a quota. Return False if there is none."""
    changed: Sequence[str] = (name,)
    if not _release_cooled(ledger, day, name, now_ms):
        sets = (quotas for quotas in _held_quota_sets(day) if name in quotas)
        changed = next((quotas for quotas in sets if _expire_one(ledger, day, quotas, now_ms)), ())
        if not changed:
            return False
    # While returned units only reduce an overbooking, none becomes free, and the wait list need not be served.
    if any(day.quotas[one].free > 0 for one in changed):
        distribute_free_units(ledger, day, now_ms)
    return True


def _held_quota_sets(day: Day) -> list[tuple[str, ...]]:
    """Return the sets of quotas that holds consume, sorted by their names: an order that every store can keep."""
    return sorted(day.due, key=",".join)


def _expire_one(ledger: Ledger, day: Day, quotas: tuple[str, ...], now_ms: int) -> bool:
    record = day.due[quotas].first_overdue(ledger.reservations, now_ms)
    if record is None:
        return False
    expire(ledger, record, now_ms)
    return True


def expire(ledger: Ledger, record: Reservation, now_ms: int) -> Reservation:
    """Expire an overdue hold, and return its new record. ``record`` is the ledger's present one."""
    # A sweep that listed overdue holds first and expired them by id
    # later would expire a reservation that was confirmed in between.
    expired = replace(record, state=TRANSITIONS[record.state, Verb.EXPIRE], version=record.version + 1)
    evolve(ledger, ReservationChanged(now_ms, Verb.EXPIRE, expired))
    return expired


def _release_cooled(ledger: Ledger, day: Day, name: str, now_ms: int) -> bool:
    cooling_due = day.quotas[name].cooling_due
    if not cooling_due or cooling_due[0][0] > now_ms:
        return False
    due_at_ms, units = cooling_due[0]
    evolve(ledger, Cooled(now_ms, day.number, name, units, due_at_ms))
    return True


def settle(ledger: Ledger, day: Day, now_ms: int, limit: int = SETTLE_MAX) -> int:
    """Apply to ``day`` what is due by time alone, and return the number of expired holds.

    Expires overdue holds, releases cooled units, reallocates unused units and serves the wait list. No result depends
    on how far a bounded settling came: a command that meets an overdue hold treats it as expired.

    Args:
        ledger: the office's ledger; changed in place.
        day: one of its days.
        now_ms: milliseconds since 1970 (UTC).
        limit: the most holds to expire.
    """
    if now_ms < day.next_due_ms:
        return 0
    expired = 0
    for quotas in _held_quota_sets(day):
        while expired < limit and _expire_one(ledger, day, quotas, now_ms):
            expired += 1
    for name in day.quotas:
        for _ in range(SETTLE_MAX):
            if not _release_cooled(ledger, day, name, now_ms):
                break
    distribute_free_units(ledger, day, now_ms)
    day.next_due_ms = _next_due_ms(ledger, day)
    return expired


def _next_due_ms(ledger: Ledger, day: Day) -> int:
    # Relative to the last event, not to the command: a command without an event may be followed by one at an earlier
    # time.
    now_ms = ledger.now_ms
    due_ms = [day.terms.forget_at_ms]
    if day.waiting:
        due_ms.append(wait_list_due_ms(ledger, day))
    for quotas, queue in list(day.due.items()):
        deadline_ms = queue.next_deadline_ms(ledger.reservations)
        if deadline_ms is None:
            del day.due[quotas]
        else:
            due_ms.append(deadline_ms)
    for quota in day.quotas.values():
        if quota.cooling_due:
            due_ms.append(quota.cooling_due[0][0])
        if quota.reallocation is not None and quota.reallocation.at_ms > now_ms:
            due_ms.append(quota.reallocation.at_ms)
    return min(due_ms)


def settle_reservation(ledger: Ledger, record: Reservation, now_ms: int) -> Reservation:
    """Settle the reservation's day and return its present record. A hold that is still overdue is expired as well."""
    day = ledger.days[record.day]
    if now_ms >= day.next_due_ms:
        settle(ledger, day, now_ms)
        record = ledger.reservations[record.id]
    if record.state is _HELD and record.deadline_at_ms <= now_ms:
        record = expire(ledger, record, now_ms)
        distribute_free_units(ledger, day, now_ms)
    return record


def distribute_free_units(ledger: Ledger, day: Day, now_ms: int) -> None:
    """Distribute units that may have become free: first due reallocations, then offers to the wait list."""
    for name, quota in day.quotas.items():
        if quota.reallocation is not None and quota.reallocation.at_ms <= now_ms:
            reallocate(ledger, day, name, quota, now_ms)
    if day.waiting:
        serve_wait_list(ledger, day, now_ms)


def reallocate(ledger: Ledger, day: Day, name: str, quota: Quota, now_ms: int, *, by_operator: bool = False) -> int:
    """Move a quota's free units to the quota that its terms name, and return how many there were."""
    units = quota.free
    if units <= 0 or quota.reallocation is None:
        return 0
    evolve(ledger, UnitsReallocated(now_ms, day.number, name, quota.reallocation.to, units, by_operator))
    return units
