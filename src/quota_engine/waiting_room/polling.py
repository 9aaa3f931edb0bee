"""Poll intervals for waiting rooms and tickets: long while nothing can change, short when something can. Pure.

Intervals are rounded down to fixed steps, so that a response stays the same for a while. Three bounds limit them:

- An interval is at most ``turn_ms / 4``, so an applicant misses at most a quarter of a turn.
- All waiting applicants together poll at most :data:`POLLS_PER_S` times a second, as far as the first bound allows.
  Before the opening, each of ``tickets`` applicants polls every ``tickets / POLLS_PER_S`` seconds or less often.
- Once the order is known, a ticket that cannot be called for ``wait_ms_min`` is polled again after half of that time.
  Few tickets are near their turn, so few poll often. Over all positions this is about
  ``2 * per_minute_max / 60 * ln(tickets)`` polls a second. Longer waits are under the second bound again.

A million applicants with turns of five minutes make 13,000 polls a second. None of them costs a call of the store.
Clients should add up to a tenth at random; otherwise all who joined together also poll together.
"""

from __future__ import annotations

__all__ = ["POLLS_PER_S", "POLL_MS_MAX", "room_poll_after_ms", "ticket_poll_after_ms"]

from bisect import bisect_right
from typing import Final

from quota_engine.waiting_room.results import RoomView
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus

POLLS_PER_S: Final = 5_000
"""Polls a second that a service has to answer for one room, if turns are long enough."""
POLL_MS_MAX: Final = 60_000
_ROOM_POLL_MS_MIN: Final = 2_000
_WAITING_POLL_MS_MAX: Final = 30_000
_STEPS_MS: Final = (1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 45_000, POLL_MS_MAX)


def room_poll_after_ms(view: RoomView) -> int:
    """Return the time after which a client without a ticket should poll the room again, in milliseconds."""
    config = view.config
    if view.is_closed:
        return POLL_MS_MAX
    if view.now_ms < config.opens_at_ms:
        return _before_opening_ms(view)
    return _round_down(min(max(_ROOM_POLL_MS_MIN, _load_bound_ms(view)), _turn_bound_ms(view)))


def ticket_poll_after_ms(view: RoomView, status: TicketStatus) -> int:
    """Return the time after which the owner of a ticket should poll again.

    Args:
        view: The room.
        status: Status of the ticket.

    Returns:
        Milliseconds, or 0 for a called ticket, whose owner should enter instead.
    """
    match status.phase:
        case TicketPhase.CALLED:
            return 0
        case TicketPhase.TURN_MISSED | TicketPhase.TICKET_LOST | TicketPhase.ROOM_CLOSED:
            return POLL_MS_MAX
        case TicketPhase.NOT_OPEN:
            return _before_opening_ms(view)
        case TicketPhase.SHUFFLING:
            return _round_down(min(max(view.config.window_ms // 2, _load_bound_ms(view)), _turn_bound_ms(view)))
        case TicketPhase.WAITING:
            interval_ms_max = max(_WAITING_POLL_MS_MAX, _load_bound_ms(view))
            return _round_down(min(status.wait_ms_min // 2, interval_ms_max, _turn_bound_ms(view)))


def _before_opening_ms(view: RoomView) -> int:
    """Return a quarter of the time to the opening, at most a minute, so that clients notice the opening soon."""
    interval_ms = (view.config.opens_at_ms - view.now_ms) // 4
    return _round_down(max(min(interval_ms, POLL_MS_MAX), min(_load_bound_ms(view), _turn_bound_ms(view))))


def _load_bound_ms(view: RoomView) -> int:
    return view.tickets * 1_000 // POLLS_PER_S


def _turn_bound_ms(view: RoomView) -> int:
    return view.config.turn_ms // 4


def _round_down(duration_ms: int) -> int:
    """Return the longest step that is not above ``duration_ms``, or the shortest step."""
    return _STEPS_MS[max(0, bisect_right(_STEPS_MS, duration_ms) - 1)]
