"""The events of a ledger. They alone rebuild it: see :func:`quota_engine.domain.event_handlers.rebuild`.

``at_ms`` is the time of the event, milliseconds since 1970 (UTC). ``day`` is a date's ordinal.
"""

from __future__ import annotations

__all__ = [
    "CapacitySet",
    "Cooled",
    "DayClosed",
    "DayForgotten",
    "DayOpened",
    "DayPublished",
    "Event",
    "ParkedReleased",
    "ReservationChanged",
    "RulesSet",
    "TimeCorrected",
    "UnitsReallocated",
]

import msgspec

from quota_engine.domain.lifecycle import Verb
from quota_engine.domain.model import DayTerms, Reservation, Rules


class ReservationChanged(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A reservation made the step ``verb`` of its life cycle. ``reservation`` is the record after it."""

    at_ms: int
    verb: Verb
    reservation: Reservation


class RulesSet(msgspec.Struct, frozen=True, tag=True):
    """The office has new rules."""

    at_ms: int
    rules: Rules


class DayPublished(msgspec.Struct, frozen=True, tag=True):
    """A day was published, or published again with other terms."""

    at_ms: int
    day: int
    terms: DayTerms


class CapacitySet(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A quota has a new capacity."""

    at_ms: int
    day: int
    quota: str
    capacity: int


class DayClosed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """An operator closed the day."""

    at_ms: int
    day: int


class DayOpened(msgspec.Struct, frozen=True, gc=False, tag=True):
    """An operator opened a closed day again."""

    at_ms: int
    day: int


class DayForgotten(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The day's retention time has ended. The day and its reservations are unknown from now on."""

    at_ms: int
    day: int


class UnitsReallocated(msgspec.Struct, frozen=True, gc=False, tag=True):
    """``units`` of capacity moved from one quota to another, at the time of the terms or ``by_operator``."""

    at_ms: int
    day: int
    from_quota: str
    to_quota: str
    units: int
    by_operator: bool = False


class Cooled(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Units became available because their cooling time ended at ``due_at_ms``."""

    at_ms: int
    day: int
    quota: str
    units: int
    due_at_ms: int


class ParkedReleased(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Parked units became available for the next draw."""

    at_ms: int
    day: int
    quota: str
    units: int


class TimeCorrected(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A reconciliation brought the ledger's time back to ``at_ms``. ``from_ms`` was the time of the event before.

    Records that were made later than ``at_ms`` are as if they were made then, and no hold lasts longer than one that
    begins now.
    """

    at_ms: int
    from_ms: int


Event = (
    ReservationChanged
    | RulesSet
    | DayPublished
    | CapacitySet
    | DayClosed
    | DayOpened
    | DayForgotten
    | UnitsReallocated
    | Cooled
    | ParkedReleased
    | TimeCorrected
)
