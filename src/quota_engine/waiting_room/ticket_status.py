"""Status of one ticket: its position, its expected wait and its chance of a place.

Pure arithmetic on the one view of the room that answers all polls, so a poll costs no call of the store.
"""

from __future__ import annotations

__all__ = [
    "POSITION_LOST",
    "POSITION_NONE",
    "Chance",
    "TicketPhase",
    "TicketPositions",
    "TicketStatus",
    "TicketStatuses",
    "called_at_ms",
    "pass_until_ms",
]

import enum
from bisect import bisect_left
from collections.abc import Callable
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
_AHEAD_NEVER: Final = -2
"""A bound that no count of tickets ahead is within."""
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


# Members that most polls read: reading one of its class costs as much as a call.
_WAITING: Final = TicketPhase.WAITING
_ROOM_CLOSED: Final = TicketPhase.ROOM_CLOSED
_ENOUGH: Final = Chance.ENOUGH
_LIKELY: Final = Chance.LIKELY


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


class TicketPositions:
    """Positions of a room's tickets by one view. A position never changes within an epoch of the room."""

    __slots__ = ("_epoch", "_first_end", "_first_position", "_order", "_ordered", "_view")

    def __init__(self, view: RoomView, order: RoomOrder) -> None:
        """Use a view of a room, and the room's order."""
        self._view = view
        self._order = order
        self._epoch = view.epoch
        self._ordered = tickets_ordered(view, view.changed_at_ms) if view.seed else 0
        self._first_end = 0
        """Tickets of the first window, once a ticket has asked for a position; 0 in a room of several epochs."""
        self._first_position: Callable[[int], int] | None = None

    def of(self, index: int, epoch: int = EPOCH_FIRST) -> int:
        """Return the position of a ticket, from 1.

        Args:
            index: Index of the ticket, from 0.
            epoch: Epoch of the ticket.

        Returns:
            The position; ``POSITION_NONE`` if the ticket has none yet or is newer than the view; ``POSITION_LOST`` if
            the room has lost it.
        """
        if index < self._first_end and epoch == EPOCH_FIRST:  # nearly all tickets are from before the opening
            return 1 + self._first_position(index)  # type: ignore[misc]  # set together with its end
        view = self._view
        if epoch > self._epoch:
            return POSITION_NONE
        if self._epoch > EPOCH_FIRST and epoch != epoch_of(view.epoch_starts, index):
            return POSITION_LOST
        if index >= self._ordered:
            return POSITION_NONE
        position = self._order.position(view.windows, view.tickets, index)
        if position is None:
            return POSITION_NONE
        if self._epoch == EPOCH_FIRST and self._first_position is None:
            first = self._order.first_window(view.windows, view.tickets)
            if first is not None:
                self._first_position, self._first_end = first.position, first.size
        return position


class TicketStatuses:
    """Statuses of a room's tickets by one view. All that the tickets have in common is computed once."""

    __slots__ = (
        "_ahead_enough_max",
        "_ahead_likely_max",
        "_called_count",
        "_chance_beyond",
        "_closes_at_ms",
        "_epoch",
        "_now_ms",
        "_observed_calls",
        "_observed_ms",
        "_opens_at_ms",
        "_per_minute_max",
        "_places_left",
        "_tickets",
        "_turn_ms",
        "_view",
    )

    def __init__(self, view: RoomView) -> None:
        """Use a view of a room."""
        config = view.config
        self._view = view
        self._now_ms, self._epoch = view.now_ms, view.epoch
        self._opens_at_ms, self._turn_ms = config.opens_at_ms, config.turn_ms
        self._closes_at_ms = 0 if view.closed_at_ms else config.closes_at_ms
        self._tickets, self._called_count, self._per_minute_max = view.tickets, view.called_count, view.per_minute_max
        self._observed_ms, self._observed_calls = _observed_pace(view)
        self._places_left = view.places_left
        self._ahead_enough_max, self._ahead_likely_max, self._chance_beyond = _chances(view)

    def of(self, number: int, position: int, now_ms: int) -> TicketStatus:
        """Return the status of a ticket.

        Args:
            number: Number of the ticket, from 1.
            position: Position of the ticket, ``POSITION_NONE`` or ``POSITION_LOST``.
            now_ms: The store's time, in milliseconds since 1970 (UTC). An earlier time than that of the view counts as
                the time of the view.
        """
        if now_ms < self._now_ms:
            now_ms = self._now_ms
        called_count, tickets, opens_at_ms = self._called_count, self._tickets, self._opens_at_ms
        if position > called_count and opens_at_ms <= now_ms < self._closes_at_ms:  # nearly all polls
            # Made at once, without the values of the other phases: they would cost each poll time.
            ahead = position - called_count - 1
            wait_ms = wait_ms_min = ahead * _MINUTE_MS // self._per_minute_max
            if not self._observed_calls:
                wait_ms = WAIT_UNKNOWN
            elif (observed_ms := ahead * self._observed_ms // self._observed_calls) > wait_ms:
                wait_ms = observed_ms
            chance = self._chance_beyond
            if ahead <= self._ahead_likely_max:
                chance = _ENOUGH if ahead <= self._ahead_enough_max else _LIKELY
            return TicketStatus(
                _WAITING,
                number,
                position,
                ahead,
                tickets,
                self._places_left,
                chance,
                wait_ms_min,
                wait_ms,
                0,
                opens_at_ms,
                self._now_ms,
                self._epoch,
            )
        ahead = 0
        wait_ms_min = wait_ms = WAIT_UNKNOWN
        enter_until_ms = 0
        if now_ms >= self._closes_at_ms:
            phase = _ROOM_CLOSED
            position = max(position, POSITION_NONE)
        elif position == POSITION_LOST:
            phase, position, ahead = TicketPhase.TICKET_LOST, POSITION_NONE, AHEAD_UNKNOWN
        elif now_ms < opens_at_ms:
            phase, position, ahead = TicketPhase.NOT_OPEN, POSITION_NONE, AHEAD_UNKNOWN
        elif position == POSITION_NONE:
            phase, ahead, wait_ms_min = TicketPhase.SHUFFLING, tickets - 1 - called_count, 0
        else:
            called_ms = called_at_ms(self._view, position)
            if not called_ms or now_ms >= called_ms + self._turn_ms:
                phase = TicketPhase.TURN_MISSED
            else:
                phase, wait_ms_min, wait_ms = TicketPhase.CALLED, 0, 0
                enter_until_ms = min(called_ms + self._turn_ms, self._closes_at_ms)
        competing = tickets - 1 if ahead == AHEAD_UNKNOWN else ahead
        chance = self._chance_beyond
        if competing <= self._ahead_likely_max:
            chance = _ENOUGH if competing <= self._ahead_enough_max else _LIKELY
        return TicketStatus(
            phase,
            number,
            position,
            ahead,
            tickets,
            self._places_left,
            chance,
            wait_ms_min,
            wait_ms,
            enter_until_ms,
            opens_at_ms,
            self._now_ms,
            self._epoch,
        )


def _called_count(call: TicketCall) -> int:
    return call.called_count


def _chances(view: RoomView) -> tuple[int, int, Chance]:
    """Return the tickets ahead up to which the chance is ``ENOUGH``, those up to which it is ``LIKELY``, and the rest.

    Called tickets whose turn has not ended compete for the places, too.
    """
    places_left = view.places_left
    if places_left == PLACES_LEFT_UNKNOWN:
        return _AHEAD_NEVER, _AHEAD_NEVER, Chance.UNKNOWN
    if places_left == 0:
        return _AHEAD_NEVER, _AHEAD_NEVER, Chance.NONE_LEFT
    called = view.called_count - view.turns_ended
    return places_left // view.config.units_max - 1 - called, places_left - 1 - called, Chance.MAY_NOT_REACH


def _observed_pace(view: RoomView) -> tuple[int, int]:
    """Return a time in milliseconds and the tickets called in it, from which the wait is expected.

    It is the rate of the last ``turn_ms``, or the present pace soon after the opening. No tickets mean that the wait is
    unknown.
    """
    observed_ms = view.now_ms - view.opened_at_ms
    if observed_ms < _OBSERVED_MS_MIN:
        return _MINUTE_MS, view.per_minute
    return min(observed_ms, view.config.turn_ms), view.called_count - view.turns_ended
