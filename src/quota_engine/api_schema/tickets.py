"""How a ticket of a waiting room stands, over the wire: in answers, and in problems of those whose turn it is not."""

from __future__ import annotations

__all__ = ["TicketStatusBody", "ticket_status_body"]

from typing import Annotated, Final

from msgspec import Meta

from quota_engine.api_schema.base import ResponseBody
from quota_engine.waiting_room.machine import RoomView
from quota_engine.waiting_room.polling import ticket_poll_after_ms
from quota_engine.waiting_room.ticket_status import Chance, TicketPhase, TicketStatus

_FINE_MS: Final = 60_000
_COARSE_MS: Final = 600_000

PollAfter = Annotated[
    int, Meta(description="When to ask again, in milliseconds from now: add a random tenth. 0: enter now.")
]


class TicketStatusBody(ResponseBody, frozen=True, kw_only=True):
    """How one ticket stands. ``position`` counts from 0 and is -1 as long as there is none, ``ahead`` is -1 before the
    opening, ``left`` is -1 as long as nobody has counted the places, and a time that can not be told is -1.

    Times are rounded up: to a second, to ten from one minute on, to a minute from ten on.
    """

    phase: TicketPhase
    position: int
    ahead: int
    tickets: int
    places_left: int
    chance: Chance
    wait_ms: int
    wait_ms_min: int
    called_until_at_ms: int
    opens_at_ms: int
    poll_after_ms: PollAfter


def ticket_status_body(view: RoomView, standing: TicketStatus) -> TicketStatusBody:
    """A standing as it goes out: nothing in it changes only because time passes, or else nobody would have it yet."""
    return TicketStatusBody(
        phase=standing.phase,
        position=standing.position,
        ahead=standing.ahead,
        tickets=standing.tickets,
        places_left=standing.places_left,
        chance=standing.chance,
        wait_ms=_rounded(standing.wait_ms),
        wait_ms_min=_rounded(standing.wait_ms_min),
        called_until_at_ms=standing.enter_until_ms,
        opens_at_ms=standing.opens_at_ms,
        poll_after_ms=ticket_poll_after_ms(view, standing),
    )


def _rounded(duration_ms: int) -> int:
    unit_ms = 1_000 if duration_ms < _FINE_MS else 10_000 if duration_ms < _COARSE_MS else 60_000
    return duration_ms if duration_ms < 0 else -(-duration_ms // unit_ms) * unit_ms
