"""What is told to one ticket: where it stands, how long it may take, and whether places may reach it.

Pure arithmetic on the one view of the room that serves everybody (see ``room.RoomView``), so that a poll costs no call
of the store.
"""

from __future__ import annotations

__all__ = [
    "POSITION_NONE",
    "Chance",
    "TicketPhase",
    "TicketStatus",
    "called_at_ms",
    "pass_until_ms",
    "position_of",
    "ticket_status",
]

import enum
from bisect import bisect_right
from typing import Final

import msgspec

from quota_engine.waiting_room.machine import PLACES_LEFT_UNKNOWN, RoomView, tickets_ordered
from quota_engine.waiting_room.order import RoomOrder

POSITION_NONE: Final = -1
WAIT_UNKNOWN: Final = -1
_OBSERVED_MS_MIN: Final = 30_000
"""Before so much of an opening has been seen, its speed says little."""


class TicketPhase(enum.StrEnum):
    """Where a ticket is on its way."""

    NOT_OPEN = "NOT_OPEN"
    """The room opens later; the order does not exist yet."""
    SHUFFLING = "SHUFFLING"
    """The ticket's window has not ended, or the seed has not been revealed: no position yet."""
    WAITING = "WAITING"
    """It has its position, and has not been called."""
    CALLED = "CALLED"
    """It may enter, until ``enter_until_ms``."""
    TURN_MISSED = "TURN_MISSED"
    """It was called and nobody came: the turn is lost, and a new ticket goes behind."""
    ROOM_CLOSED = "ROOM_CLOSED"
    """The room has closed: nobody waits any more."""


class Chance(enum.StrEnum):
    """An honest word on the places left. Others may give places back, and some who are called do not come."""

    UNKNOWN = "UNKNOWN"
    """Nobody has counted the places."""
    ENOUGH = "ENOUGH"
    """There are enough even if all in front take as many as one may."""
    LIKELY = "LIKELY"
    """There are enough if all in front take one."""
    MAY_NOT_REACH = "MAY_NOT_REACH"
    """More are in front than places are left: they may not reach this position."""
    NONE_LEFT = "NONE_LEFT"
    """All places are taken or held; those that come back will be offered."""


class TicketStatus(msgspec.Struct, frozen=True, gc=False):
    """How one ticket stands, from the room as it was at ``as_of_ms``.

    ``position`` counts from 0 over all tickets, and is -1 as long as there is none. ``ahead``: those who will be called
    before this one (without a position: the most there can be, or -1 before the opening, when nobody is before
    anybody). ``tickets``: all so far. ``left``: places left, or -1 if unknown. ``wait_ms_min``: the soonest that the
    turn can come, at the highest pace; ``wait_ms``: when it comes at the pace of the last minutes; both -1 if that can
    not be said. ``enter_until_ms``: the end of the turn of one who is called.
    """

    phase: TicketPhase
    position: int
    ahead: int
    tickets: int
    places_left: int
    chance: Chance
    wait_ms_min: int
    wait_ms: int
    enter_until_ms: int
    opens_at_ms: int
    as_of_ms: int


def called_at_ms(view: RoomView, position: int) -> int:
    """When ``position`` was called; 0 if it has not been, or longer than ``claim_ms`` before the room last served."""
    if not view.turns_ended <= position < view.called_count:
        return 0
    return view.calls[bisect_right(view.calls, position, key=_mark_of)].at_ms


def pass_until_ms(view: RoomView, position: int) -> int:
    """When the lease of the pass ends that belongs to a position called: the same whenever it is asked for."""
    return called_at_ms(view, position) + view.config.turn_ms + view.config.pass_grace_ms


def position_of(view: RoomView, orders: RoomOrder, index: int) -> int:
    """The position of the ticket of ``index``, or ``POSITION_NONE`` as long as there is none. Once there, it stays.

    A ticket that is newer than the view has none.
    """
    if not view.seed or index >= tickets_ordered(view, view.changed_at_ms):
        return POSITION_NONE
    position = orders.position(view.windows, view.tickets, index)
    return POSITION_NONE if position is None else position


def ticket_status(view: RoomView, position: int, now_ms: int) -> TicketStatus:
    """How the ticket at ``position`` stands (or one that has none yet), ``now_ms`` being the store's time
    (``view.now_ms`` or a little later).
    """
    terms = view.config
    now_ms = max(now_ms, view.now_ms)
    if view.is_closed or now_ms >= terms.closes_at_ms:
        return _told(view, TicketPhase.ROOM_CLOSED, position, 0, WAIT_UNKNOWN, WAIT_UNKNOWN, 0)
    if now_ms < terms.opens_at_ms:
        return _told(view, TicketPhase.NOT_OPEN, POSITION_NONE, -1, WAIT_UNKNOWN, WAIT_UNKNOWN, 0)
    if position == POSITION_NONE:
        ahead = view.tickets - 1 - view.called_count
        return _told(view, TicketPhase.SHUFFLING, POSITION_NONE, ahead, 0, WAIT_UNKNOWN, 0)
    if position >= view.called_count:
        ahead = position - view.called_count
        return _told(view, TicketPhase.WAITING, position, ahead, _soonest_ms(view, ahead), _expected_ms(view, ahead), 0)
    called_ms = called_at_ms(view, position)
    if not called_ms or now_ms >= called_ms + terms.turn_ms:
        return _told(view, TicketPhase.TURN_MISSED, position, 0, WAIT_UNKNOWN, WAIT_UNKNOWN, 0)
    return _told(view, TicketPhase.CALLED, position, 0, 0, 0, min(called_ms + terms.turn_ms, terms.closes_at_ms))


def _mark_of(call: tuple[int, int, int]) -> int:
    return call[1]


def _told(
    view: RoomView, phase: TicketPhase, position: int, ahead: int, wait_ms_min: int, wait_ms: int, enter_until_ms: int
) -> TicketStatus:
    before = view.tickets - 1 if ahead < 0 else ahead
    return TicketStatus(
        phase,
        position,
        ahead,
        view.tickets,
        view.places_left,
        _chance(view, before),
        wait_ms_min,
        max(wait_ms, wait_ms_min) if wait_ms >= 0 else wait_ms,
        enter_until_ms,
        view.config.opens_at_ms,
        view.now_ms,
    )


def _chance(view: RoomView, ahead: int) -> Chance:
    """Those in front are the ones to be called before, and the ones who have been called and may still take a place."""
    if view.places_left == PLACES_LEFT_UNKNOWN:
        return Chance.UNKNOWN
    if view.places_left == 0:
        return Chance.NONE_LEFT
    in_front = ahead + view.called_count - view.turns_ended
    if (in_front + 1) * view.config.units_max <= view.places_left:
        return Chance.ENOUGH
    return Chance.LIKELY if in_front < view.places_left else Chance.MAY_NOT_REACH


def _soonest_ms(view: RoomView, ahead: int) -> int:
    return ahead * 60_000 // view.per_minute_max


def _expected_ms(view: RoomView, ahead: int) -> int:
    """By the calls of the last ``claim_ms``; at the very beginning, by the pace that the room is set to."""
    seen_ms = view.now_ms - view.opened_at_ms
    if seen_ms < _OBSERVED_MS_MIN:
        return ahead * 60_000 // view.per_minute
    called = view.called_count - view.turns_ended
    return ahead * min(seen_ms, view.config.turn_ms) // called if called else WAIT_UNKNOWN
