"""Status of one ticket: its position, its expected wait and its chance of a place.

Pure arithmetic on the one view of the room that answers all polls, so a poll costs no call of the store.
"""

from __future__ import annotations

__all__ = [
    "POSITION_LOST",
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
from bisect import bisect_left
from typing import Final

import msgspec

from quota_engine.domain.epochs import EPOCH_FIRST, epoch_of
from quota_engine.waiting_room.commands import PLACES_LEFT_UNKNOWN
from quota_engine.waiting_room.machine import tickets_ordered
from quota_engine.waiting_room.order import RoomOrder
from quota_engine.waiting_room.results import RoomView, TicketCall

POSITION_NONE: Final = -1
POSITION_LOST: Final = -2
"""Stands for the position of a ticket that the room has lost."""
WAIT_UNKNOWN: Final = -1
AHEAD_UNKNOWN: Final = -1
_MINUTE_MS: Final = 60_000
_OBSERVED_MS_MIN: Final = 30_000
"""Time after the opening from which the calls so far predict the wait. Before it, the pace does."""


class TicketPhase(enum.StrEnum):
    """Phase of a ticket."""

    NOT_OPEN = "NOT_OPEN"
    """The room opens later. The order does not exist yet."""
    SHUFFLING = "SHUFFLING"
    """The ticket has no position yet, because its window has not ended or the seed has not been revealed."""
    WAITING = "WAITING"
    """The ticket has a position and has not been called."""
    CALLED = "CALLED"
    """The ticket has its turn until ``enter_until_ms``."""
    TURN_MISSED = "TURN_MISSED"
    """The turn ended without an entry. The applicant can take a new ticket at the end of the queue."""
    TICKET_LOST = "TICKET_LOST"
    """The room lost the ticket in a failover of its store. The applicant has to join again for a new ticket."""
    ROOM_CLOSED = "ROOM_CLOSED"
    """The room has closed."""


class Chance(enum.StrEnum):
    """Chance that a place is left at a ticket's turn, from the places left now.

    It is an estimate: applicants can give places back, and some who are called do not take one.
    """

    UNKNOWN = "UNKNOWN"
    """The places have not been counted."""
    ENOUGH = "ENOUGH"
    """There are enough places even if each ticket ahead takes ``units_max`` of them."""
    LIKELY = "LIKELY"
    """There are enough places if each ticket ahead takes one."""
    MAY_NOT_REACH = "MAY_NOT_REACH"
    """More tickets are ahead than places are left."""
    NONE_LEFT = "NONE_LEFT"
    """All places are taken or held. Returned places become available."""


_WAITING: Final = TicketPhase.WAITING  # of nearly every poll; reading a member costs as much as a call
_CHANCE_UNKNOWN: Final = Chance.UNKNOWN
_ENOUGH: Final = Chance.ENOUGH
_LIKELY: Final = Chance.LIKELY
_MAY_NOT_REACH: Final = Chance.MAY_NOT_REACH


class TicketStatus(msgspec.Struct, frozen=True, gc=False):
    """Status of one ticket.

    Moments are in milliseconds since 1970 (UTC).

    Attributes:
        phase: Phase of the ticket.
        number: Number of the ticket in the order of the joins, from 1.
        position: Position among all tickets, from 1, or ``POSITION_NONE`` (-1).
        ahead: Tickets that are called before this one. Without a position it is the most possible. -1 before the
            opening.
        tickets: Tickets given so far.
        places_left: Places left, or ``PLACES_LEFT_UNKNOWN`` (-1).
        chance: Chance that a place is left at the ticket's turn.
        wait_ms_min: Wait at the room's highest pace, in milliseconds, or -1 if unknown.
        wait_ms: Wait at the pace of the last minutes, in milliseconds, or -1 if unknown.
        enter_until_ms: End of the turn of a called ticket, otherwise 0.
        opens_at_ms: Time at which the room opens.
        as_of_ms: Time of the view from which the status was computed.
        epoch: Epoch of the room in that view. Positions of different epochs may differ.
    """

    phase: TicketPhase
    number: int
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
    epoch: int = EPOCH_FIRST


def called_at_ms(view: RoomView, position: int) -> int:
    """Return the time at which a position (from 1) was called, in milliseconds since 1970 (UTC).

    Returns 0 if the position has not been called, or if its turn had ended at the room's last step.
    """
    if not view.turns_ended < position <= view.called_count:
        return 0
    return view.calls[bisect_left(view.calls, position, key=_called_count)].at_ms


def pass_until_ms(view: RoomView, position: int) -> int:
    """Return the time at which the pass of a called position expires, in milliseconds since 1970 (UTC).

    The result does not depend on the time of the view.
    """
    return called_at_ms(view, position) + view.config.turn_ms + view.config.pass_grace_ms


def position_of(
    view: RoomView, order: RoomOrder, index: int, epoch: int = EPOCH_FIRST, ordered: int | None = None
) -> int:
    """Return the position of a ticket, from 1. A position never changes within an epoch of the room.

    Args:
        view: The room.
        order: The room's order.
        index: Index of the ticket, from 0.
        epoch: Epoch of the ticket.
        ordered: Tickets of the view that are ordered, if the caller knows them.

    Returns:
        The position; ``POSITION_NONE`` if the ticket has none yet or is newer than the view; ``POSITION_LOST`` if the
        room has lost it.
    """
    if epoch > view.epoch:
        return POSITION_NONE
    if view.epoch > EPOCH_FIRST and epoch != epoch_of(view.epoch_starts, index):
        return POSITION_LOST
    if ordered is None:
        ordered = tickets_ordered(view, view.changed_at_ms)
    if not view.seed or index >= ordered:
        return POSITION_NONE
    position = order.position(view.windows, view.tickets, index)
    return POSITION_NONE if position is None else position


def ticket_status(view: RoomView, number: int, position: int, now_ms: int) -> TicketStatus:
    """Return the status of a ticket.

    Args:
        view: The room.
        number: Number of the ticket, from 1.
        position: Position of the ticket, ``POSITION_NONE`` or ``POSITION_LOST``.
        now_ms: The store's time, in milliseconds since 1970 (UTC). An earlier time than that of the view counts as the
            time of the view.
    """
    config = view.config
    if now_ms < view.now_ms:
        now_ms = view.now_ms
    if view.closed_at_ms or now_ms >= config.closes_at_ms:
        return _status(view, number, TicketPhase.ROOM_CLOSED, max(position, POSITION_NONE), 0)
    if position == POSITION_LOST:
        return _status(view, number, TicketPhase.TICKET_LOST, POSITION_NONE, AHEAD_UNKNOWN)
    if now_ms < config.opens_at_ms:
        return _status(view, number, TicketPhase.NOT_OPEN, POSITION_NONE, AHEAD_UNKNOWN)
    if position == POSITION_NONE:
        ahead = view.tickets - 1 - view.called_count
        return _status(view, number, TicketPhase.SHUFFLING, POSITION_NONE, ahead, 0)
    if position > view.called_count:
        ahead = position - view.called_count - 1
        wait_ms_min = ahead * _MINUTE_MS // view.per_minute_max
        return _status(
            view, number, _WAITING, position, ahead, wait_ms_min, _expected_wait_ms(view, ahead, wait_ms_min)
        )
    called_ms = called_at_ms(view, position)
    if not called_ms or now_ms >= called_ms + config.turn_ms:
        return _status(view, number, TicketPhase.TURN_MISSED, position, 0)
    enter_until_ms = min(called_ms + config.turn_ms, config.closes_at_ms)
    return _status(view, number, TicketPhase.CALLED, position, 0, 0, 0, enter_until_ms)


def _called_count(call: TicketCall) -> int:
    return call.called_count


def _status(
    view: RoomView,
    number: int,
    phase: TicketPhase,
    position: int,
    ahead: int,
    wait_ms_min: int = WAIT_UNKNOWN,
    wait_ms: int = WAIT_UNKNOWN,
    enter_until_ms: int = 0,
) -> TicketStatus:
    places_left = view.places_left
    chance = _CHANCE_UNKNOWN
    if places_left != PLACES_LEFT_UNKNOWN:
        chance = _chance(view, view.tickets - 1 if ahead == AHEAD_UNKNOWN else ahead)
    return TicketStatus(
        phase,
        number,
        position,
        ahead,
        view.tickets,
        places_left,
        chance,
        wait_ms_min,
        wait_ms,
        enter_until_ms,
        view.config.opens_at_ms,
        view.now_ms,
        view.epoch,
    )


def _chance(view: RoomView, ahead: int) -> Chance:
    """Return the chance of a ticket if the places have been counted.

    Called tickets whose turn has not ended compete for the places, too.
    """
    if view.places_left == 0:
        return Chance.NONE_LEFT
    competing = ahead + view.called_count - view.turns_ended
    if (competing + 1) * view.config.units_max <= view.places_left:
        return _ENOUGH
    return _LIKELY if competing < view.places_left else _MAY_NOT_REACH


def _expected_wait_ms(view: RoomView, ahead: int, wait_ms_min: int) -> int:
    """Return the wait at the rate of the last ``turn_ms``, or at the present pace soon after the opening.

    The result is at least ``wait_ms_min``, or ``WAIT_UNKNOWN``.
    """
    observed_ms = view.now_ms - view.opened_at_ms
    if observed_ms < _OBSERVED_MS_MIN:
        return max(wait_ms_min, ahead * _MINUTE_MS // view.per_minute)
    called = view.called_count - view.turns_ended
    if not called:
        return WAIT_UNKNOWN
    return max(wait_ms_min, ahead * min(observed_ms, view.config.turn_ms) // called)
