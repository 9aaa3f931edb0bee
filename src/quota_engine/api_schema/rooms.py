"""Waiting rooms over the wire."""

from __future__ import annotations

__all__ = [
    "CreateRoomBody",
    "EnterBody",
    "EnterResultBody",
    "JoinBody",
    "OpenRoomBody",
    "PaceBody",
    "RoomBody",
    "RoomSettingsBody",
    "TicketBody",
    "TicketStatusBody",
    "room_body",
    "ticket_status_body",
]

import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from quota_engine.api_schema.base import Id, Identity, MaybeId, Moment, RequestBody, ResponseBody
from quota_engine.api_schema.tickets import PollAfter, TicketStatusBody, ticket_status_body
from quota_engine.waiting_room.machine import (
    OPEN_MS_MAX,
    PER_MINUTE_MAX,
    RETENTION_MS_MAX,
    TICKETS_MAX,
    TICKETS_PER_CALL_MAX,
    RoomView,
)
from quota_engine.waiting_room.polling import room_poll_after_ms
from quota_engine.waiting_room.summary import RoomPhase, room_phase
from quota_engine.workflows.waiting_rooms import RoomSettings

Entropy = Annotated[
    str,
    Meta(
        pattern="^([!-~]([ -~]{0,254}[!-~])?)?$",
        description="Up to 256 printable ASCII characters, with no space at either end.",
    ),
]
Ticket = Annotated[str, Meta(min_length=1, max_length=512, description="A ticket as it was given, unchanged.")]
_DEFAULT = RoomSettings()


class RoomSettingsBody(RequestBody, frozen=True, kw_only=True):
    """How a room works; 0 stands for what fits the office."""

    window_ms: Annotated[int, Meta(ge=1_000, le=OPEN_MS_MAX)] = _DEFAULT.window_ms
    step_ms: Annotated[int, Meta(ge=100, le=60_000)] = _DEFAULT.step_ms
    turn_ms: Annotated[int, Meta(ge=100, le=60_000 * 512)] = _DEFAULT.turn_ms
    pass_grace_ms: Annotated[int, Meta(ge=0, le=OPEN_MS_MAX)] = _DEFAULT.pass_grace_ms
    per_minute_min: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)] = _DEFAULT.per_minute_min
    per_minute_max: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)] = _DEFAULT.per_minute_max
    burst: Annotated[int, Meta(ge=0, le=TICKETS_PER_CALL_MAX)] = _DEFAULT.burst
    latency_max_ms: Annotated[int, Meta(ge=1, le=60_000)] = _DEFAULT.latency_max_ms
    calls_per_100_places: Annotated[int, Meta(ge=1, le=100_000)] = _DEFAULT.calls_per_100_places
    units_max: Annotated[int, Meta(ge=0, le=100)] = _DEFAULT.units_max
    tickets_max: Annotated[int, Meta(ge=1, le=TICKETS_MAX)] = _DEFAULT.tickets_max
    retention_ms: Annotated[int, Meta(ge=0, le=RETENTION_MS_MAX)] = _DEFAULT.retention_ms

    def settings(self) -> RoomSettings:
        """As the engine takes them."""
        return RoomSettings(**msgspec.structs.asdict(self))


class CreateRoomBody(RequestBody, frozen=True, kw_only=True):
    """What is promised when a room is made. Days without a last one are one day; without ``closes_at_ms`` it closes two
    hours after its opening, and without ``join_opens_at_ms`` people may join at once.
    """

    office: Id
    first_day: datetime.date
    last_day: datetime.date | None = None
    opens_at_ms: Moment
    closes_at_ms: Moment | None = None
    join_opens_at_ms: Moment | None = None
    entropy_source: Entropy = ""
    channel: Id = "online"
    group: MaybeId = ""
    settings: RoomSettingsBody = RoomSettingsBody()


class JoinBody(RequestBody, frozen=True, kw_only=True):
    """Who wants a ticket. ``instead_of``: one that has lost its turn, for a new one behind."""

    identity: Identity
    replaces_ticket: Ticket | None = None


class EnterBody(RequestBody, frozen=True, kw_only=True):
    """Whose turn it is."""

    ticket: Ticket
    identity: Identity


class OpenRoomBody(RequestBody, frozen=True, kw_only=True):
    """What the public source of chance has said."""

    entropy: Entropy


class PaceBody(RequestBody, frozen=True, kw_only=True):
    """Between which bounds the pace goes, in tickets a minute; the first is not the larger one."""

    per_minute_min: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]
    per_minute_max: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]


class RoomBody(ResponseBody, frozen=True, kw_only=True):
    """A room as it stands. ``mark``: so many tickets have been called; ``left``: places left, -1 as long as nobody has
    counted. ``per_minute`` is the pace, between the bounds. Moments are 0 until they have come. ``commitment`` is what
    the order can be checked with.
    """

    room: str
    office: str
    first_day: datetime.date
    last_day: datetime.date
    channel: str
    group: str
    phase: RoomPhase
    tickets: int
    called_count: int
    places_left: int
    per_minute: int
    per_minute_min: int
    per_minute_max: int
    join_opens_at_ms: int
    opens_at_ms: int
    closes_at_ms: int
    opened_at_ms: int
    closed_at_ms: int
    commitment: str
    entropy_source: str
    poll_after_ms: PollAfter


class TicketBody(ResponseBody, frozen=True, kw_only=True):
    """A ticket: a text of ``A-Z a-z 0-9 - _``, to keep as it is. ``replayed``: the identity had it already."""

    ticket: str
    replayed: bool
    poll_after_ms: PollAfter


class EnterResultBody(ResponseBody, frozen=True, kw_only=True):
    """A pass: reserve with it as ``admission_pass``, until ``until_at_ms``."""

    admission_pass: str
    until_at_ms: int
    ticket_status: TicketStatusBody


def room_body(room: str, view: RoomView) -> RoomBody:
    """A room as it goes out: the same for the same state, whenever that is asked for."""
    terms = view.config
    return RoomBody(
        room=room,
        office=terms.office,
        first_day=datetime.date.fromordinal(terms.first_day),
        last_day=datetime.date.fromordinal(terms.last_day),
        channel=terms.channel,
        group=terms.group,
        phase=room_phase(view),
        tickets=view.tickets,
        called_count=view.called_count,
        places_left=view.places_left,
        per_minute=view.per_minute,
        per_minute_min=view.per_minute_min,
        per_minute_max=view.per_minute_max,
        join_opens_at_ms=terms.join_opens_at_ms,
        opens_at_ms=terms.opens_at_ms,
        closes_at_ms=terms.closes_at_ms,
        opened_at_ms=view.opened_at_ms,
        closed_at_ms=view.closed_at_ms,
        commitment=terms.commitment,
        entropy_source=terms.entropy_source,
        poll_after_ms=room_poll_after_ms(view),
    )
