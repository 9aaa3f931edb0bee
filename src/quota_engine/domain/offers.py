"""Offers of a day's wait list: which waiting party gets free units, and which units are withheld from others.

The parties are served in the order of their numbers. The cost of a command is bounded by :data:`DEMANDS_MAX` and
:data:`OFFERS_MAX`, and does not depend on the length of the list. If a command reaches the second bound, the rest of
the units stays with the list: no other party gets any until later commands have served it.
"""

from __future__ import annotations

__all__ = [
    "DEMANDS_MAX",
    "OFFERS_MAX",
    "RESUME_MAX",
    "has_room_for_demand",
    "note_join",
    "serve_wait_list",
    "served_by_wait_list",
    "wait_list_due_ms",
    "withheld_units",
]

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec.structs import replace

from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.ledger import Day, Ledger, Quota
from quota_engine.domain.lifecycle import TRANSITIONS, Verb
from quota_engine.domain.model import Choice, ReReleaseRule, Reservation

DEMANDS_MAX: Final = 256
"""The most different demands on the wait list of a day: pairs of a choice and a number of applicants."""
OFFERS_MAX: Final = 64
"""The most offers that one step of a command makes."""
RESUME_MAX: Final = 1000
"""The most parties whose pause one step of a command ends."""
_NEVER_MS: Final = 2**62


def served_by_wait_list(day: Day, choice: Choice) -> bool:
    """Return True if at least one quota of the choice's options has the re-release rule ``wait_list``."""
    rule = ReReleaseRule.WAIT_LIST
    return any(day.quotas[name].re_release.rule is rule for option in choice.options for name in option)


def has_room_for_demand(day: Day, choice: Choice, units: int, now_ms: int) -> bool:
    """Return True if a party with this demand would not be one demand too many for the wait list."""
    day.wait_queues.resume(now_ms, RESUME_MAX)
    return (choice, units) in day.wait_queues or len(day.wait_queues) < DEMANDS_MAX


def _is_served(day: Day, now_ms: int) -> bool:
    return not day.closed and day.terms.opens_at_ms <= now_ms < day.terms.ends_at_ms


def serve_wait_list(ledger: Ledger, day: Day, now_ms: int) -> None:
    """Offer free units to the parties on the wait list, at most :data:`OFFERS_MAX` offers.

    Args:
        ledger: the office's ledger; changed by offers.
        day: one of its days, with a wait list.
        now_ms: milliseconds since 1970 (UTC).
    """
    if not _is_served(day, now_ms):
        return
    day.wait_queues.resume(now_ms, RESUME_MAX)
    heads = [(record.wait_list_number, record.id) for record in _heads(ledger, day, now_ms)]
    heapify(heads)
    withheld: dict[str, int] = {}
    offers = 0
    while heads and offers < OFFERS_MAX:
        number, reservation_id = heappop(heads)
        record = ledger.reservations[reservation_id]
        option = _first_fitting(day.quotas, record, withheld)
        if option is None:
            _withhold(day.quotas, record, withheld, now_ms)
            continue
        offered = replace(
            record,
            quotas=option,
            state=TRANSITIONS[record.state, Verb.OFFER],
            version=record.version + 1,
            deadline_at_ms=now_ms + ledger.rules.offer_ttl_ms,
            paused_until_ms=0,
        )
        evolve(ledger, ReservationChanged(now_ms, Verb.OFFER, offered))
        offers += 1
        following = day.wait_queues.next_of((record.choice, record.units), number, ledger.reservations, now_ms)
        if following is not None:
            heappush(heads, (following.wait_list_number, following.id))
    day.next_due_ms = min(day.next_due_ms, wait_list_due_ms(ledger, day))


def _heads(ledger: Ledger, day: Day, now_ms: int) -> Iterator[Reservation]:
    """Yield the first party of each demand that the wait list serves, and whose session can still be booked."""
    for record in day.wait_queues.heads(ledger.reservations, now_ms):
        if served_by_wait_list(day, record.choice) and now_ms < day.book_until_ms(record.choice.session):
            yield record


def _first_fitting(
    quotas: Mapping[str, Quota], record: Reservation, withheld: Mapping[str, int]
) -> tuple[str, ...] | None:
    units = record.units
    for option in record.choice.options:
        if all(quotas[name].free - withheld.get(name, 0) >= units for name in option):
            return option
    return None


def _withhold(quotas: Mapping[str, Quota], record: Reservation, withheld: dict[str, int], now_ms: int) -> None:
    """Withhold units for a party that does not fit, in quotas with the order ``strict``.

    Only the first such party of a quota blocks it. Otherwise the sum of their needs would block units that none of them
    could use yet.
    """
    for option in record.choice.options:
        for name in option:
            if name not in withheld and now_ms < _blocked_until_ms(quotas[name]):
                withheld[name] = record.units


def _blocked_until_ms(quota: Quota) -> int:
    """Return until when a party may block the quota's free units; 0 if the order is ``first_fit``."""
    blocks_ms = quota.re_release.blocks_ms
    return quota.free_since_ms + blocks_ms if blocks_ms else 0


def withheld_units(ledger: Ledger, day: Day, quotas: Mapping[str, Quota], now_ms: int) -> dict[str, int] | None:
    """Return the units that the wait list withholds from all others, by quota; or ``None`` for all units of the day.

    It is ``None`` if a party on the list fits: an earlier command had too many offers to make, and the rest follows.

    Args:
        ledger: the office's ledger; not changed.
        day: one of its days.
        quotas: the day's quotas, or copies of them at another time.
        now_ms: milliseconds since 1970 (UTC).
    """
    withheld: dict[str, int] = {}
    if not _is_served(day, now_ms):
        return withheld
    if day.wait_queues.resume(now_ms, RESUME_MAX):
        return None
    for record in sorted(_heads(ledger, day, now_ms), key=lambda one: one.wait_list_number):
        if _first_fitting(quotas, record, withheld) is not None:
            return None
        _withhold(quotas, record, withheld, now_ms)
    return withheld


def wait_list_due_ms(ledger: Ledger, day: Day) -> int:
    """Return when the wait list has to be served next although no unit becomes free, in milliseconds since 1970.

    The time is relative to the ledger's last event. It may be too early, never too late.
    """
    now_ms = ledger.now_ms
    if now_ms < day.terms.opens_at_ms:
        return day.terms.opens_at_ms
    if not _is_served(day, now_ms):
        return _NEVER_MS
    if withheld_units(ledger, day, day.quotas, now_ms) is None:
        return now_ms
    resume_ms = day.wait_queues.next_resume_ms()
    return min(_NEVER_MS if resume_ms is None else resume_ms, _next_unblocked_ms(day, now_ms))


def note_join(ledger: Ledger, day: Day) -> None:
    """Note when the wait list is due next, after a party has joined it. The party itself did not fit."""
    day.next_due_ms = min(day.next_due_ms, _next_unblocked_ms(day, ledger.now_ms))


def _next_unblocked_ms(day: Day, now_ms: int) -> int:
    """Return when a party may have to stop blocking free units next."""
    times_ms = [_NEVER_MS]
    for quota in day.quotas.values():
        blocked_until_ms = _blocked_until_ms(quota)
        if quota.free > 0 and blocked_until_ms > now_ms:
            times_ms.append(blocked_until_ms)
            # A party whose session can no longer be booked blocks nothing.
            times_ms += [one.book_until_ms for one in day.terms.sessions if one.book_until_ms > now_ms]
    return min(times_ms)
