"""Bodies of waiting rooms."""

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
    "room_body",
]

import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from quota_engine.api_schema.base import Id, Identity, OptionalId, RequestBody, ResponseBody, TimeMs
from quota_engine.api_schema.tickets import PollAfter, TicketStatusBody
from quota_engine.domain.epochs import EPOCH_MAX
from quota_engine.waiting_room.commands import (
    OPEN_MS_MAX,
    PER_MINUTE_MAX,
    RETENTION_MS_MAX,
    TICKETS_MAX,
    TICKETS_PER_CALL_MAX,
)
from quota_engine.waiting_room.polling import room_poll_after_ms
from quota_engine.waiting_room.results import RoomView
from quota_engine.waiting_room.summary import RoomPhase, room_phase
from quota_engine.workflows.room_config import RoomSettings

Entropy = Annotated[
    str,
    Meta(
        pattern="^([!-~]([ -~]{0,254}[!-~])?)?$",
        description="Up to 256 printable ASCII characters, with no space at either end.",
    ),
]
Ticket = Annotated[str, Meta(min_length=1, max_length=512, description="A ticket as the service issued it.")]
_DEFAULTS = RoomSettings()


class RoomSettingsBody(RequestBody, frozen=True, kw_only=True):
    """Settings of a room; 0 stands for a value that fits the office."""

    window_ms: Annotated[int, Meta(ge=1_000, le=OPEN_MS_MAX)] = _DEFAULTS.window_ms
    step_ms: Annotated[int, Meta(ge=100, le=60_000)] = _DEFAULTS.step_ms
    turn_ms: Annotated[int, Meta(ge=100, le=60_000 * 512)] = _DEFAULTS.turn_ms
    pass_grace_ms: Annotated[int, Meta(ge=0, le=OPEN_MS_MAX)] = _DEFAULTS.pass_grace_ms
    per_minute_min: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)] = _DEFAULTS.per_minute_min
    per_minute_max: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)] = _DEFAULTS.per_minute_max
    burst: Annotated[int, Meta(ge=0, le=TICKETS_PER_CALL_MAX)] = _DEFAULTS.burst
    latency_max_ms: Annotated[int, Meta(ge=1, le=60_000)] = _DEFAULTS.latency_max_ms
    calls_per_100_places: Annotated[int, Meta(ge=1, le=100_000)] = _DEFAULTS.calls_per_100_places
    units_max: Annotated[int, Meta(ge=0, le=100)] = _DEFAULTS.units_max
    tickets_max: Annotated[int, Meta(ge=1, le=TICKETS_MAX)] = _DEFAULTS.tickets_max
    retention_ms: Annotated[int, Meta(ge=0, le=RETENTION_MS_MAX)] = _DEFAULTS.retention_ms

    def to_settings(self) -> RoomSettings:
        """Return the engine's settings."""
        return RoomSettings(**msgspec.structs.asdict(self))


class CreateRoomBody(RequestBody, frozen=True, kw_only=True):
    """The values of a room, which cannot change after its creation.

    ``last_day`` defaults to ``first_day``, ``closes_at_ms`` to two hours after the opening, and ``join_opens_at_ms`` to
    now.
    """

    office: Id
    first_day: datetime.date
    last_day: datetime.date | None = None
    opens_at_ms: TimeMs
    closes_at_ms: TimeMs | None = None
    join_opens_at_ms: TimeMs | None = None
    entropy_source: Entropy = ""
    channel: Id = "online"
    group: OptionalId = ""
    settings: RoomSettingsBody = RoomSettingsBody()


class JoinBody(RequestBody, frozen=True, kw_only=True):
    """The identity that joins. ``replaces_ticket``: its ticket that missed its turn or was lost, for a new one."""

    identity: Identity
    replaces_ticket: Ticket | None = None


class EnterBody(RequestBody, frozen=True, kw_only=True):
    """A called ticket, and the identity that it was issued to."""

    ticket: Ticket
    identity: Identity


class OpenRoomBody(RequestBody, frozen=True, kw_only=True):
    """The text of the room's public entropy source. ``epoch``: the room's present epoch, after a failover."""

    entropy: Entropy
    epoch: Annotated[int, Meta(ge=0, le=EPOCH_MAX)] = 0


class PaceBody(RequestBody, frozen=True, kw_only=True):
    """Bounds of the pace in tickets a minute; the first must not exceed the second."""

    per_minute_min: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]
    per_minute_max: Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]


class RoomBody(ResponseBody, frozen=True, kw_only=True):
    """The state of a room.

    ``called_count`` is the number of positions called, ``places_left`` is -1 until the places are counted, and
    ``per_minute`` is the current pace. ``epoch`` grows with each failover of the room's store, which may have lost the
    last tickets. Times that have not come are 0. The order is verified with ``commitment``.
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
    epoch: int
    poll_after_ms: PollAfter


class TicketBody(ResponseBody, frozen=True, kw_only=True):
    """A ticket: characters of ``A-Z a-z 0-9 - _``. ``replayed``: the identity already had it.

    ``number`` counts tickets from 1 in the order of the joins. With it, anyone can verify the ticket's position after
    the opening.
    """

    ticket: str
    number: int
    replayed: bool
    poll_after_ms: PollAfter


class EnterResultBody(ResponseBody, frozen=True, kw_only=True):
    """A pass, to send as ``admission_pass`` of a reserve until ``until_at_ms``."""

    admission_pass: str
    until_at_ms: int
    ticket_status: TicketStatusBody


def room_body(room: str, view: RoomView) -> RoomBody:
    """Return the body of a room. It contains no clock-derived value, so its ETag stays stable between changes."""
    config = view.config
    return RoomBody(
        room=room,
        office=config.office,
        first_day=datetime.date.fromordinal(config.first_day),
        last_day=datetime.date.fromordinal(config.last_day),
        channel=config.channel,
        group=config.group,
        phase=room_phase(view),
        tickets=view.tickets,
        called_count=view.called_count,
        places_left=view.places_left,
        per_minute=view.per_minute,
        per_minute_min=view.per_minute_min,
        per_minute_max=view.per_minute_max,
        join_opens_at_ms=config.join_opens_at_ms,
        opens_at_ms=config.opens_at_ms,
        closes_at_ms=config.closes_at_ms,
        opened_at_ms=view.opened_at_ms,
        closed_at_ms=view.closed_at_ms,
        commitment=config.commitment,
        entropy_source=config.entropy_source,
        epoch=view.epoch,
        poll_after_ms=room_poll_after_ms(view),
    )
