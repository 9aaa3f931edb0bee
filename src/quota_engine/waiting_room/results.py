"""Results of a waiting room's commands and queries."""

from __future__ import annotations

__all__ = [
    "RoomResult",
    "RoomStatus",
    "RoomView",
    "TicketCall",
]

import enum
from typing import NamedTuple

import msgspec

from quota_engine.domain.epochs import EPOCH_FIRST, EpochStart
from quota_engine.waiting_room.commands import INDEX_NONE, RoomConfig


class RoomStatus(enum.StrEnum):
    """Status of a result, in order of precedence: the first that applies."""

    __hash__ = str.__hash__

    OVERLOADED = "OVERLOADED"
    """The queue of calls for this room's store is full. The room was not read."""
    NOT_FOUND = "NOT_FOUND"
    """The room does not exist, or the store has deleted it."""
    CONFLICT = "CONFLICT"
    """The room exists with other settings, the seed does not match the commitment, or the entropy differs."""
    ROOM_CLOSED = "ROOM_CLOSED"
    """The room has closed."""
    NOT_OPEN = "NOT_OPEN"
    """The command is possible from ``retry_at_ms``."""
    EPOCH_CHANGED = "EPOCH_CHANGED"
    """The room's store has failed over, so an earlier opening may be lost. Open the room with the entropy of that
    opening, and name the present epoch."""
    FULL = "FULL"
    """The room has given all its tickets."""
    NOT_JOINED = "NOT_JOINED"
    """The applicant has no ticket."""
    JOINED = "JOINED"
    """The applicant has the ticket ``index`` of ``epoch``."""
    DONE = "DONE"
    """The command was carried out, or the query answered."""


class TicketCall(NamedTuple):
    """One call: the time, the called count after it, and the places left then (or ``PLACES_LEFT_UNKNOWN``)."""

    at_ms: int
    called_count: int
    places_left: int


class RoomView(msgspec.Struct, frozen=True):
    """State of a room at one moment. All polls of the room are answered from one view.

    Moments are in milliseconds since 1970 (UTC), and 0 if they have not come. Seeds are ``""`` until they are revealed.

    Attributes:
        now_ms: Time of the view.
        changed_at_ms: Time of the room's last change. No later change can have an earlier time.
        config: Settings of the room.
        tickets: Tickets given so far.
        windows: Number and first ticket index of each window that has tickets.
        seed: Seed that orders the tickets of window 0.
        entropy: Text from the entropy source.
        opened_at_ms: Time at which the room opened.
        called_count: Tickets called so far.
        turns_ended: Called tickets whose turn had ended at the last step.
        calls: Calls whose turns had not ended at the last step.
        tokens: Unused pace from before the last step, in 1/60,000 of a ticket.
        per_minute: Pace, in tickets a minute.
        last_step_at_ms: Time of the last ``CallTickets`` that took effect.
        places_left: Places left, or ``PLACES_LEFT_UNKNOWN``.
        closed_at_ms: Time at which the room was closed.
        closing_seed: Seed that orders the tickets of later windows.
        pace_min: Lowest pace that an operator set, or 0.
        pace_max: Highest pace that an operator set, or 0.
        epoch: Epoch of the room, from 1. It grows when the room may have lost its last changes.
        epoch_starts: Each epoch above 1, and the number of tickets at its start; without epochs that gave no ticket.
    """

    now_ms: int
    changed_at_ms: int
    config: RoomConfig
    tickets: int
    windows: tuple[tuple[int, int], ...]
    seed: str
    entropy: str
    opened_at_ms: int
    called_count: int
    turns_ended: int
    calls: tuple[TicketCall, ...]
    tokens: int
    per_minute: int
    last_step_at_ms: int
    places_left: int
    closed_at_ms: int
    closing_seed: str
    pace_min: int = 0
    pace_max: int = 0
    epoch: int = EPOCH_FIRST
    epoch_starts: tuple[EpochStart, ...] = ()

    @property
    def per_minute_min(self) -> int:
        """Lowest pace that is allowed, in tickets a minute."""
        return self.pace_min or self.config.per_minute_min

    @property
    def per_minute_max(self) -> int:
        """Highest pace that is allowed, in tickets a minute."""
        return self.pace_max or self.config.per_minute_max

    @property
    def is_closed(self) -> bool:
        """True if the room was closed, or if its closing time has passed."""
        return bool(self.closed_at_ms) or self.now_ms >= self.config.closes_at_ms


class RoomResult(msgspec.Struct, frozen=True, gc=False):
    """Result of a command or query.

    Attributes:
        status: The status.
        index: Index of the ticket, for ``JOINED``.
        replayed: True if an earlier command had the same effect.
        retry_at_ms: Time from which the command is possible, for ``NOT_OPEN``.
        view: The room after the command, for ``DONE``.
        epoch: Epoch in which the room gave the ticket, for ``JOINED``; otherwise 0.
        room_epoch: Epoch of the room, for ``FindTicket`` and ``EPOCH_CHANGED``; otherwise 0.
    """

    status: RoomStatus
    index: int = INDEX_NONE
    replayed: bool = False
    retry_at_ms: int = 0
    view: RoomView | None = None
    epoch: int = 0
    room_epoch: int = 0

    @property
    def ok(self) -> bool:
        """True if the command or query succeeded."""
        return self.status in (RoomStatus.JOINED, RoomStatus.DONE)
