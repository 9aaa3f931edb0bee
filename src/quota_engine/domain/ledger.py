"""The state of one office.

:func:`~quota_engine.domain.event_handlers.evolve` is the only code that changes a ledger's reservations and counters.
"""

from __future__ import annotations

__all__ = ["Day", "Ledger", "Quota", "describe", "guards_of", "known_reservation", "next_forget_ms"]

from typing import Any, Final

import msgspec

from quota_engine.domain.due_queue import DueQueue
from quota_engine.domain.events import Event
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    GuardScope,
    QuotaTerms,
    Reallocation,
    ReRelease,
    Reservation,
    Rules,
    find_session,
)
from quota_engine.domain.outcomes import AbandonedHolds
from quota_engine.domain.penalties import PenaltyRecord
from quota_engine.domain.wait_list import WaitQueues

_HELD: Final = State.HELD  # reading a member of the class costs as much as a call
_NEVER_MS: Final = 2**62


class Quota:
    """The counters of one quota on one day, in units.

    Always ``free == capacity - held - confirmed - cooling``. A negative ``free`` is an overbooking: the operator has
    lowered the capacity below the units in use. ``cooling`` includes ``parked``.
    """

    __slots__ = (
        "capacity",
        "confirmed",
        "cooling",
        "cooling_due",
        "free",
        "free_since_ms",
        "guard",
        "held",
        "parked",
        "re_release",
        "reallocation",
    )

    def __init__(self, terms: QuotaTerms) -> None:
        self.capacity = terms.capacity
        self.free = terms.capacity
        self.free_since_ms = 0
        """The time at which the quota last had a free unit again after it had none; 0 if it never ran out."""
        self.held = 0
        self.confirmed = 0
        self.cooling = 0
        self.parked = 0
        self.cooling_due: list[tuple[int, int]] = []
        """A heap of ``(due_at_ms, units)``, without the parked units."""
        self.guard: GuardScope | None = terms.guard
        self.re_release: ReRelease = terms.re_release
        self.reallocation: Reallocation | None = terms.reallocation

    def add_free(self, units: int, now_ms: int) -> None:
        """Add free units, and note when the first one is there. ``units`` is negative if there are fewer."""
        if self.free <= 0 < self.free + units:
            self.free_since_ms = now_ms
        self.free += units

    def add_taken(self, state: State, units: int) -> None:
        """Count ``units`` more of reservations in ``state``, which consumes units; fewer if negative."""
        if state is _HELD:
            self.held += units
        else:
            self.confirmed += units


class Day:
    """One published office-day."""

    __slots__ = (
        "closed",
        "departed",
        "due",
        "guards",
        "last_complete_choice",
        "last_queue_number",
        "last_valid_choice",
        "last_valid_until_ms",
        "last_wait_list_number",
        "next_due_ms",
        "number",
        "quotas",
        "reservation_ids",
        "revision",
        "terms",
        "wait_queues",
        "waiting",
    )

    def __init__(self, number: int, terms: DayTerms) -> None:
        self.number = number
        self.terms = terms
        self.closed = False
        self.departed = 0
        """Confirmed units that have left the day since it was closed last."""
        self.quotas: dict[str, Quota] = {quota.name: Quota(quota) for quota in terms.quotas}
        self.guards = guards_of(self.quotas)
        """The scopes of the quotas that are guards, in the order of the quotas."""
        self.due: dict[tuple[str, ...], DueQueue] = {}
        """Holds by the set of quotas they consume: a reserve that lacks units of a quota expires holds on it first."""
        self.waiting: dict[str, int] = {}
        """The wait list: the numbers of its parties by id. They are served in the order of the numbers."""
        self.wait_queues = WaitQueues()
        """The same parties by what they want."""
        self.last_wait_list_number = 0
        self.last_valid_choice: Choice | None = None
        """The last choice whose quotas all exist on this day. During an opening most reserves have the same choice."""
        self.last_complete_choice: Choice | None = None
        """The same choice with the day's guards added."""
        self.last_valid_until_ms = 0
        """:meth:`book_until_ms` of that choice's session."""
        self.last_queue_number = 0
        self.reservation_ids: list[str] = []
        """The ids of all reservations that were ever on this day. :func:`purge` frees them with the day."""
        self.revision = 1
        """The number of operators' changes, the first publication included."""
        self.next_due_ms = 0
        """Nothing on this day is due before this time. It may be too early, never too late."""

    def book_until_ms(self, session: str) -> int:
        """Return the time from which a choice of ``session`` can no longer be booked. ``session`` may be ``""``."""
        terms = find_session(self.terms.sessions, session)
        return self.terms.ends_at_ms if terms is None else terms.book_until_ms

    def push_due(self, record: Reservation) -> None:
        """Schedule the expiry of a hold."""
        deadline_ms = record.deadline_at_ms
        queue = self.due.get(record.quotas)
        if queue is None:
            queue = self.due[record.quotas] = DueQueue()
        if record.extensions:
            queue.push_out_of_order(record)
        else:
            queue.push(record, deadline_ms)
        if deadline_ms < self.next_due_ms:
            self.next_due_ms = deadline_ms


def guards_of(quotas: dict[str, Quota]) -> dict[str, GuardScope]:
    """Return the scopes of the quotas that are guards."""
    return {name: quota.guard for name, quota in quotas.items() if quota.guard is not None}


class Ledger:
    """All state of one office. Only :func:`quota_engine.domain.state_machine.apply` may change it."""

    __slots__ = (
        "abandoned",
        "claims",
        "days",
        "events",
        "forgotten_day_max",
        "forgotten_days",
        "next_forget_ms",
        "now_ms",
        "office",
        "penalties",
        "reservations",
        "rules",
    )

    def __init__(self, office: str) -> None:
        self.office = office
        self.rules = Rules()
        self.now_ms = 0
        """The time of the last event. A command never has an earlier time."""
        self.days: dict[int, Day] = {}
        self.reservations: dict[str, Reservation] = {}
        self.claims: dict[str, str | tuple[str, ...]] = {}
        """The ids of an applicant's active reservations. A single id is stored bare, which saves 56 bytes per place."""
        self.penalties: dict[str, PenaltyRecord] = {}
        self.abandoned = AbandonedHolds()
        self.events: list[Event] = []
        self.forgotten_days: list[Day] = []
        """Forgotten days with records that :func:`purge` has not freed yet."""
        self.forgotten_day_max = 0
        self.next_forget_ms = _NEVER_MS
        """No day has to be forgotten before this time. It is 0 while records wait to be purged."""


def known_reservation(ledger: Ledger, reservation_id: str) -> Reservation | None:
    """Return the reservation of this id, or ``None``. Reservations of forgotten days do not count."""
    record = ledger.reservations.get(reservation_id)
    return record if record is not None and record.day in ledger.days else None


def next_forget_ms(ledger: Ledger) -> int:
    """Return the time before which no day has to be forgotten; 0 while records of forgotten days wait to be purged."""
    if ledger.forgotten_days:
        return 0
    return min((known.terms.forget_at_ms for known in ledger.days.values()), default=_NEVER_MS)


def describe(ledger: Ledger, *, records: bool = True) -> dict[str, Any]:
    """Return the ledger's state as builtins. Two ledgers behave the same if their descriptions are equal.

    Forgotten days, caches and event logs are left out. ``records=False`` leaves out the reservations, too.
    """
    known = {key: record for key, record in ledger.reservations.items() if record.day in ledger.days}
    claims: dict[str, list[str]] = {}
    for applicant, ids in ledger.claims.items():
        left = [one for one in ((ids,) if isinstance(ids, str) else ids) if one in known]
        if left:
            claims[applicant] = sorted(left) if len(left) > 1 else left
    return {
        "office": ledger.office,
        "now_ms": ledger.now_ms,
        "rules": msgspec.to_builtins(ledger.rules),
        "forgotten_day_max": ledger.forgotten_day_max,
        "days": {
            day.number: {
                "terms": msgspec.to_builtins(day.terms),
                "closed": day.closed,
                "departed": day.departed,
                "revision": day.revision,
                "last_queue_number": day.last_queue_number,
                "last_wait_list_number": day.last_wait_list_number,
                "waiting": sorted(day.waiting, key=lambda one: (day.waiting[one], one)),
                "quotas": {
                    name: {
                        "capacity": quota.capacity,
                        "free": quota.free,
                        "free_since_ms": quota.free_since_ms,
                        "held": quota.held,
                        "confirmed": quota.confirmed,
                        "cooling": quota.cooling,
                        "parked": quota.parked,
                        "cooling_due": sorted(quota.cooling_due),
                        "guard": msgspec.to_builtins(quota.guard),
                        "re_release": msgspec.to_builtins(quota.re_release),
                        "reallocation": msgspec.to_builtins(quota.reallocation),
                    }
                    for name, quota in sorted(day.quotas.items())
                },
            }
            for day in sorted(ledger.days.values(), key=lambda day: day.number)
        },
        "reservations": {key: msgspec.to_builtins(record) for key, record in sorted(known.items()) if records},
        "claims": dict(sorted(claims.items())),
        "abandoned": msgspec.to_builtins(ledger.abandoned),
        "penalties": {key: msgspec.to_builtins(value) for key, value in sorted(ledger.penalties.items())},
    }
