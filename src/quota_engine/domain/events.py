"""What has happened to a ledger. The events alone rebuild it: see :func:`quota_engine.domain.ledger.rebuild`."""

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
    "UnitsReallocated",
]

import msgspec

from quota_engine.domain.lifecycle import Verb
from quota_engine.domain.model import DayTerms, Reservation, Rules


class ReservationChanged(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A reservation took a step of its life cycle; ``reservation`` is the whole record after it."""

    at_ms: int
    verb: Verb
    reservation: Reservation


class RulesSet(msgspec.Struct, frozen=True, tag=True):
    at_ms: int
    rules: Rules


class DayPublished(msgspec.Struct, frozen=True, tag=True):
    at_ms: int
    day: int
    terms: DayTerms


class CapacitySet(msgspec.Struct, frozen=True, gc=False, tag=True):
    at_ms: int
    day: int
    quota: str
    capacity: int


class DayClosed(msgspec.Struct, frozen=True, gc=False, tag=True):
    at_ms: int
    day: int


class DayOpened(msgspec.Struct, frozen=True, gc=False, tag=True):
    at_ms: int
    day: int


class DayForgotten(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The day's retention is over; its reservations are unknown from here on."""

    at_ms: int
    day: int


class UnitsReallocated(msgspec.Struct, frozen=True, gc=False, tag=True):
    """``units`` of capacity went from one quota to another."""

    at_ms: int
    day: int
    from_quota: str
    to_quota: str
    units: int


class Cooled(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Units whose cooling time ended at ``due_at_ms`` are available again."""

    at_ms: int
    day: int
    quota: str
    units: int
    due_at_ms: int


class ParkedReleased(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Units that waited for the next draw are available."""

    at_ms: int
    day: int
    quota: str
    units: int


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
)
