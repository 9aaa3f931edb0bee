"""Summaries of a waiting room: its phase, and the figures that operators see.

Everything is computed from one view of the room, without a call of the store.
"""

from __future__ import annotations

__all__ = ["RoomPhase", "RoomSummary", "room_opening_times", "room_phase", "summarize_room"]

import datetime
import enum
from collections.abc import Iterable
from typing import Final

import msgspec

from quota_engine.domain.outcomes import DayView
from quota_engine.waiting_room.commands import OPEN_MS_MAX
from quota_engine.waiting_room.results import RoomView

_MINUTE_MS: Final = 60_000


class RoomPhase(enum.StrEnum):
    """Phase of a waiting room, in order of time."""

    SCHEDULED = "SCHEDULED"
    """The room gives no tickets yet."""
    JOINING = "JOINING"
    """The room gives tickets and opens later. The order of the tickets does not exist yet."""
    OPENING = "OPENING"
    """The opening time has passed, but the seed is not revealed yet.

    The room waits for its public entropy, or no request has reached it since the opening time.
    """
    OPEN = "OPEN"
    """The room calls tickets."""
    CLOSED = "CLOSED"
    """The room was closed, or its closing time has passed."""


class RoomSummary(msgspec.Struct, frozen=True):
    """Figures of a waiting room for operators.

    Moments are in milliseconds since 1970 (UTC), and 0 if they have not come.

    Attributes:
        room: Id of the room.
        office: Id of the office that the room serves.
        first_day: First day that the room serves.
        last_day: Last day that the room serves.
        phase: Phase of the room at the time of the view.
        tickets: Tickets given so far.
        waiting: Tickets that have not been called.
        called: Tickets that have been called.
        in_turn: Called tickets whose turn has not ended.
        rate_per_minute: Tickets called in the last minute, or since the opening if that is less than a minute ago.
        per_minute: Pace that the room is set to, in tickets a minute.
        per_minute_min: Lowest pace that is allowed.
        per_minute_max: Highest pace that is allowed.
        places_left: Places left, or ``PLACES_LEFT_UNKNOWN`` (-1) if they have not been counted.
        wait_ms: Expected wait of the last ticket at the present rate, or -1 if unknown.
        join_opens_at_ms: Time from which the room gives tickets.
        opens_at_ms: Time at which the room is due to open.
        closes_at_ms: Time at which the room closes at the latest.
        opened_at_ms: Time at which the room opened.
        ended_at_ms: Time at which the room closed.
        entropy_source: Public source of entropy, or ``""`` if the room uses none.
        epoch: Epoch of the room. It grows with each failover of the room's store, which may have lost the last tickets.
    """

    room: str
    office: str
    first_day: datetime.date
    last_day: datetime.date
    phase: RoomPhase
    tickets: int
    waiting: int
    called: int
    in_turn: int
    rate_per_minute: int
    per_minute: int
    per_minute_min: int
    per_minute_max: int
    places_left: int
    wait_ms: int
    join_opens_at_ms: int
    opens_at_ms: int
    closes_at_ms: int
    opened_at_ms: int
    ended_at_ms: int
    entropy_source: str
    epoch: int


def room_phase(view: RoomView) -> RoomPhase:
    """Return the phase of a room at the time of the view."""
    if view.is_closed:
        return RoomPhase.CLOSED
    if view.seed:
        return RoomPhase.OPEN
    if view.now_ms >= view.config.opens_at_ms:
        return RoomPhase.OPENING
    return RoomPhase.JOINING if view.now_ms >= view.config.join_opens_at_ms else RoomPhase.SCHEDULED


def summarize_room(room: str, view: RoomView) -> RoomSummary:
    """Return the figures of a room.

    Args:
        room: Id of the room.
        view: The room, as its store answered.
    """
    config = view.config
    phase = room_phase(view)
    waiting = view.tickets - view.called_count
    rate = _rate_per_minute(view)
    pace = rate or view.per_minute
    return RoomSummary(
        room=room,
        office=config.office,
        first_day=datetime.date.fromordinal(config.first_day),
        last_day=datetime.date.fromordinal(config.last_day),
        phase=phase,
        tickets=view.tickets,
        waiting=waiting,
        called=view.called_count,
        in_turn=view.called_count - view.turns_ended if phase is RoomPhase.OPEN else 0,
        rate_per_minute=rate,
        per_minute=view.per_minute,
        per_minute_min=view.per_minute_min,
        per_minute_max=view.per_minute_max,
        places_left=view.places_left,
        wait_ms=waiting * _MINUTE_MS // pace if phase is RoomPhase.OPEN and pace else -1,
        join_opens_at_ms=config.join_opens_at_ms,
        opens_at_ms=config.opens_at_ms,
        closes_at_ms=config.closes_at_ms,
        opened_at_ms=view.opened_at_ms,
        ended_at_ms=(view.closed_at_ms or config.closes_at_ms) if phase is RoomPhase.CLOSED else 0,
        entropy_source=config.entropy_source,
        epoch=view.epoch,
    )


def room_opening_times(views: Iterable[DayView], now_ms: int) -> list[int]:
    """Return the opening times at which an office can have a waiting room that operators want to see.

    These are the last opening before ``now_ms``, if its room can still be open, and the next one after it.

    Args:
        views: Days of one office.
        now_ms: The store's time, in milliseconds since 1970 (UTC).

    Returns:
        At most two moments in milliseconds since 1970 (UTC), in ascending order.
    """
    opening_times = sorted({view.opens_at_ms for view in views})
    last = [at_ms for at_ms in opening_times if now_ms - OPEN_MS_MAX < at_ms <= now_ms][-1:]
    following = [at_ms for at_ms in opening_times if at_ms > now_ms][:1]
    return [*last, *following]


def _rate_per_minute(view: RoomView) -> int:
    """Return the tickets that the room called in the last minute.

    A view lists the calls of the last ``turn_ms`` only, as of the room's last change. A shorter turn, or an opening
    less than a minute ago, shortens the time span, and the result is scaled to a minute.
    """
    if not view.seed or view.is_closed:
        return 0
    span_ms = min(_MINUTE_MS, view.config.turn_ms, max(view.now_ms - view.opened_at_ms, view.config.step_ms))
    before = [call.called_count for call in view.calls if call.at_ms <= view.now_ms - span_ms]
    called = view.called_count - (before[-1] if before else view.turns_ended)
    return called * _MINUTE_MS // span_ms
