"""How often to ask how a room or a ticket stands: rarely while nothing can happen, soon when something can. Pure.

The times come from steps, so that the same answer is given for a while, and from three bounds:

- Nobody loses more than a quarter of a turn by not having asked: never longer than ``claim_ms / 4``.
- All who wait together ask at most :data:`POLLS_PER_S` times a second, as far as the first bound allows: before the
  opening each of ``tickets`` people waits ``tickets / POLLS_PER_S`` seconds between two polls, or longer.
- Once the order is known, who can not be called for ``wait_ms_min`` asks again after half of that, so that those near
  to their turn ask often and are few: of all positions that is about ``2 * per_minute_max / 60 * ln(tickets)`` a
  second. With longer waits the second bound counts again.

A million people and turns of five minutes: 13,000 polls a second, of which none costs a call of the store. Everybody
should add a random tenth, or all who joined together would ask together.
"""

from __future__ import annotations

__all__ = ["POLLS_PER_S", "POLL_MS_MAX", "room_poll_after_ms", "ticket_poll_after_ms"]

from bisect import bisect_right
from typing import Final

from quota_engine.waiting_room.machine import RoomView
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus

POLLS_PER_S: Final = 5_000
"""What a service should have to answer of those who wait, if turns are long enough."""
POLL_MS_MAX: Final = 60_000
_STEPS_MS: Final = (1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 45_000, POLL_MS_MAX)
_FAR_MS: Final = 30_000


def room_poll_after_ms(view: RoomView) -> int:
    """When somebody without a ticket should ask for the room again, in milliseconds."""
    terms = view.config
    if view.is_closed:
        return POLL_MS_MAX
    if view.now_ms < terms.opens_at_ms:
        return _before(view)
    return _step(min(max(2_000, _crowd_ms(view)), _longest_ms(view)))


def ticket_poll_after_ms(view: RoomView, standing: TicketStatus) -> int:
    """When the holder of a ticket should ask again, in milliseconds; 0 for one who is called, and should enter now."""
    match standing.phase:
        case TicketPhase.CALLED:
            return 0
        case TicketPhase.TURN_MISSED | TicketPhase.ROOM_CLOSED:
            return POLL_MS_MAX
        case TicketPhase.NOT_OPEN:
            return _before(view)
        case TicketPhase.SHUFFLING:
            return _step(min(max(view.config.window_ms // 2, _crowd_ms(view)), _longest_ms(view)))
        case TicketPhase.WAITING:
            return _step(min(standing.wait_ms_min // 2, max(_FAR_MS, _crowd_ms(view)), _longest_ms(view)))


def _before(view: RoomView) -> int:
    """A quarter of the time to the opening, so that it is not missed by much, and at most a minute."""
    nearing_ms = (view.config.opens_at_ms - view.now_ms) // 4
    return _step(max(min(nearing_ms, POLL_MS_MAX), min(_crowd_ms(view), _longest_ms(view))))


def _crowd_ms(view: RoomView) -> int:
    return view.tickets * 1_000 // POLLS_PER_S


def _longest_ms(view: RoomView) -> int:
    return view.config.turn_ms // 4


def _step(duration_ms: int) -> int:
    """The longest step that is not longer; at least the shortest."""
    return _STEPS_MS[max(0, bisect_right(_STEPS_MS, duration_ms) - 1)]
