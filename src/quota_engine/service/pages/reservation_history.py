"""The history of one reservation: the changes of its record, from the events of its office."""

from __future__ import annotations

__all__ = ["EVENTS_READ_MAX", "HistoryStep", "ReservationHistory", "read_history"]

from typing import Final

import msgspec

from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.lifecycle import Verb
from quota_engine.domain.model import Reservation
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.ports import RecordedEvent

EVENTS_READ_MAX: Final = 20_000
"""Events that are read after the reserve, and as many again before the last event."""
_PAGE: Final = 5_000


class HistoryStep(msgspec.Struct, frozen=True):
    """One change.

    Attributes:
        at_ms: Time of the change in milliseconds since 1970 (UTC).
        verb: Step of the life cycle.
        before: Record before the change; ``None`` for the first one that is known.
        after: Record after the change.
    """

    at_ms: int
    verb: Verb
    before: Reservation | None
    after: Reservation


class ReservationHistory(msgspec.Struct, frozen=True):
    """The changes of a reservation in their order.

    Attributes:
        steps: The changes that are known.
        is_complete: True if these are all changes. Older events may be deleted, or too many to read.
    """

    steps: tuple[HistoryStep, ...]
    is_complete: bool


async def read_history(engine: AsyncQuotaEngine, reservation: Reservation) -> ReservationHistory:
    """Return the history of a reservation.

    Reads at most twice :data:`EVENTS_READ_MAX` events of the office: those after the reserve, and the last ones. A
    search by time finds the first of them, so that the length of the office's history does not matter.

    Args:
        engine: Engine of the service.
        reservation: Present record of the reservation.
    """
    office = reservation.office
    last = await _first_number(engine, office, None) - 1
    start = await _first_number(engine, office, reservation.created_at_ms) - 1
    changes = await _read(engine, reservation, start, min(last, start + EVENTS_READ_MAX))
    later = max(start + EVENTS_READ_MAX, last - EVENTS_READ_MAX)
    if last > start + EVENTS_READ_MAX:
        changes += await _read(engine, reservation, later, last)
    steps: list[HistoryStep] = []
    before: Reservation | None = None
    for event in changes:
        steps.append(HistoryStep(event.at_ms, event.verb, before, event.reservation))
        before = event.reservation
    versions = [step.after.version for step in steps]
    return ReservationHistory(tuple(steps), versions == list(range(1, reservation.version + 1)))


async def _first_number(engine: AsyncQuotaEngine, office: str, at_ms: int | None) -> int:
    """Return the number of the first event at or after a time; for ``None``, the number after the last event."""

    async def is_before(number: int) -> bool:
        found: list[RecordedEvent] = await engine.events(office, number - 1, 1)
        return bool(found) and (at_ms is None or found[0].event.at_ms < at_ms)

    known, step = 0, 1  # all events up to the number ``known`` are before
    while await is_before(known + step):
        known, step = known + step, 2 * step
    end = known + step
    while end - known > 1:
        middle = (known + end) // 2
        if await is_before(middle):
            known = middle
        else:
            end = middle
    return end


async def _read(
    engine: AsyncQuotaEngine, reservation: Reservation, after: int, through: int
) -> list[ReservationChanged]:
    found: list[ReservationChanged] = []
    while after < through:
        page: list[RecordedEvent] = await engine.events(reservation.office, after, min(_PAGE, through - after))
        if not page:
            break
        for recorded in page:
            event = recorded.event
            if isinstance(event, ReservationChanged) and event.reservation.id == reservation.id:
                found.append(event)
        after = page[-1].number
    return found
