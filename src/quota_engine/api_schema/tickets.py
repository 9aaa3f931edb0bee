"""Bodies of a ticket's status, in responses and in problems of tickets whose turn it is not."""

from __future__ import annotations

__all__ = ["PollAfter", "TicketStatusBody", "ticket_status_body"]

from typing import Annotated, Final

from msgspec import Meta

from quota_engine.api_schema.base import ResponseBody
from quota_engine.waiting_room.polling import ticket_poll_after_ms
from quota_engine.waiting_room.results import RoomView
from quota_engine.waiting_room.ticket_status import Chance, TicketPhase, TicketStatus

_MINUTE_MS: Final = 60_000
_TEN_MINUTES_MS: Final = 600_000

PollAfter = Annotated[
    int,
    Meta(description="Milliseconds until the next poll; add up to a tenth at random. 0: enter now."),
]


class TicketStatusBody(ResponseBody, frozen=True, kw_only=True):
    """The status of a ticket. ``number`` and ``position`` count from 1.

    ``number`` is that of the ticket in the order of the joins. ``position`` holds for ``epoch``, the present epoch of
    the room. ``position`` and ``ahead`` are -1 before the opening, ``places_left`` is -1 until the places are counted,
    and a wait that cannot be predicted is -1. Waits are rounded up: to a second below one minute, to ten seconds below
    ten minutes, and to a minute above.
    """

    phase: TicketPhase
    number: int
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
    epoch: int


def ticket_status_body(view: RoomView, ticket_status: TicketStatus) -> TicketStatusBody:
    """Return the body of a ticket's status.

    It contains no clock-derived value, so its ETag stays stable between changes.
    """
    return TicketStatusBody(
        phase=ticket_status.phase,
        number=ticket_status.number,
        position=ticket_status.position,
        ahead=ticket_status.ahead,
        tickets=ticket_status.tickets,
        places_left=ticket_status.places_left,
        chance=ticket_status.chance,
        wait_ms=_rounded_up(ticket_status.wait_ms),
        wait_ms_min=_rounded_up(ticket_status.wait_ms_min),
        called_until_at_ms=ticket_status.enter_until_ms,
        opens_at_ms=ticket_status.opens_at_ms,
        poll_after_ms=ticket_poll_after_ms(view, ticket_status),
        epoch=ticket_status.epoch,
    )


def _rounded_up(duration_ms: int) -> int:
    unit_ms = 1_000 if duration_ms < _MINUTE_MS else 10_000 if duration_ms < _TEN_MINUTES_MS else 60_000
    return duration_ms if duration_ms < 0 else -(-duration_ms // unit_ms) * unit_ms
