"""Waiting rooms: making one, joining, polls and streams of how it stands, entering, and what operators do.

A poll is answered from the look that this process has, which is at most half a second old: it costs no call of the
store. Identities are in bodies only; a ticket names nobody.
"""

from __future__ import annotations

__all__ = ["ROOMS"]

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from quota_engine.api_schema import rooms as wire
from quota_engine.domain.errors import UnknownName
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom
from quota_engine.service.api.common import AUDITORS, OPERATORS, SERVICES, get, post, put
from quota_engine.service.api.room_response_cache import RoomSummary
from quota_engine.service.http.endpoint import Call, Reply, tagged_reply
from quota_engine.service.http.problems import OF_ROOM_STATUS, Problem
from quota_engine.service.http.sse import Stream, StreamEvent
from quota_engine.waiting_room.machine import RoomResult, RoomStatus, RoomView
from quota_engine.waiting_room.polling import ticket_poll_after_ms
from quota_engine.waiting_room.summary import RoomSummary as OperatorsLook
from quota_engine.waiting_room.summary import summarize_room
from quota_engine.waiting_room.transcript import RoomTranscript

if TYPE_CHECKING:
    from quota_engine.service.app import Service

S = RoomStatus
_WATCHED_MS: Final = 200
"""Streams look at a room four times a second, for all who listen, and each time anew: what another process changes
is told as soon as what this one does.
"""
_ROOM: Final = "/v1/rooms/{room}"
_TICKET: Final = _ROOM + "/tickets/{ticket}"


def _of(service: Service, call: Call) -> AsyncWaitingRoom:
    return service.engine.room(call.path["room"])


async def _allowed(service: Service, call: Call) -> AsyncWaitingRoom:
    """The room, if the caller's token is good for its office."""
    room = _of(service, call)
    service.access.check_office(call.grant, (await room.view()).config.office)
    return room


def _checked(status: RoomStatus, service: Service, retry_at_ms: int = 0) -> None:
    """Raise what a refusal is."""
    if status is S.NOT_FOUND:
        raise UnknownName("room", "there is none of this name, or it has been forgotten", "one that has been made")
    if status in OF_ROOM_STATUS:
        raise Problem.of_room(status, retry_at_ms, service.now_ms())


def _told(call: Call, view: RoomView) -> Reply:
    return Reply(200, wire.room_body(call.path["room"], view))


async def create(service: Service, call: Call) -> Reply:
    body: wire.CreateRoomBody = call.body
    service.access.check_office(call.grant, body.office)
    room = _of(service, call)
    was_there = True
    try:
        await room.view()
    except UnknownName:
        was_there = False
    status = await room.create(
        body.office,
        body.first_day,
        body.last_day,
        opens_at=body.opens_at_ms,
        closes_at=body.closes_at_ms,
        join_opens_at=body.join_opens_at_ms,
        entropy_source=body.entropy_source,
        channel=body.channel,
        group=body.group,
        settings=body.settings.settings(),
    )
    _checked(status, service)
    reply = _told(call, await room.view())
    return reply if was_there else Reply(201, reply.body)


async def room(service: Service, call: Call) -> Reply:
    return service.room_looks.reply(call.path["room"], await _of(service, call).view())


async def room_stream(service: Service, call: Call) -> Stream:
    async def show(look: RoomSummary) -> StreamEvent:
        return StreamEvent("room", look.content)

    return await _listen(service, call, show)


async def join(service: Service, call: Call) -> Reply:
    body: wire.JoinBody = call.body
    room = await _allowed(service, call)
    found = await room.join(body.identity, replaces_ticket=body.replaces_ticket)
    _checked(found.status, service, found.retry_at_ms)
    view, standing = await room.view(), await room.status(found.ticket)
    poll_after_ms = ticket_poll_after_ms(view, standing)
    answer = wire.TicketBody(ticket=found.ticket, replayed=found.replayed, poll_after_ms=poll_after_ms)
    return Reply(200 if found.replayed else 201, answer)


async def _standing(service: Service, call: Call) -> wire.TicketStatusBody:
    room = _of(service, call)
    standing = await room.status(call.path["ticket"])
    return wire.ticket_status_body(await room.view(), standing)


async def standing(service: Service, call: Call) -> Reply:
    return tagged_reply(await _standing(service, call))


async def standing_stream(service: Service, call: Call) -> Stream:
    async def show(look: RoomSummary) -> StreamEvent:
        return StreamEvent("ticket_status", msgspec.json.encode(await _standing(service, call)))

    return await _listen(service, call, show)


async def _listen(service: Service, call: Call, show: Callable[[RoomSummary], Awaitable[StreamEvent]]) -> Stream:
    name, room = call.path["room"], _of(service, call)

    async def look() -> RoomSummary:
        return service.room_looks.look(name, await room.view(max_age_ms=_WATCHED_MS))

    return await service.streams.listen(("room", name), look, show)


async def enter(service: Service, call: Call) -> Reply:
    body: wire.EnterBody = call.body
    room = await _allowed(service, call)
    found = await room.enter(body.ticket, body.identity)
    told = wire.ticket_status_body(await room.view(), found.ticket_status)
    if not found.ok:
        raise Problem.of_standing(told, service.now_ms())
    return Reply(
        200, wire.EnterResultBody(admission_pass=found.admission_pass, until_at_ms=found.until_ms, ticket_status=told)
    )


async def _answered(service: Service, call: Call, room: AsyncWaitingRoom, answer: RoomResult) -> Reply:
    _checked(answer.status, service, answer.retry_at_ms)
    return _told(call, answer.view or await room.view())


async def open_room(service: Service, call: Call) -> Reply:
    room = await _allowed(service, call)
    return await _answered(service, call, room, await room.open(call.body.entropy))


async def set_pace(service: Service, call: Call) -> Reply:
    room = await _allowed(service, call)
    answer = await room.set_pace(call.body.per_minute_min, call.body.per_minute_max)
    return await _answered(service, call, room, answer)


async def close(service: Service, call: Call) -> Reply:
    room = await _allowed(service, call)
    return await _answered(service, call, room, await room.close())


async def look(service: Service, call: Call) -> Reply:
    room = await _allowed(service, call)
    return Reply(200, summarize_room(call.path["room"], await room.view()))


async def record(service: Service, call: Call) -> Reply:
    return Reply(200, await _of(service, call).transcript())


def _kinds(*statuses: RoomStatus, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("unknown-name", *(OF_ROOM_STATUS[status].type for status in statuses), *also)


_SEEN: Final = ("unknown-name",)
_OPERATES: Final[dict[str, Any]] = {"roles": OPERATORS, "checks_office": True}

ROOMS: Final = (
    put(_ROOM, "create-room", "Make a waiting room, before it opens. Safe to repeat.", create, wire.RoomBody,
        http=201, also_http=(200,), body=wire.CreateRoomBody, problems=_kinds(S.OVERLOADED, S.CONFLICT, S.ROOM_CLOSED),
        **_OPERATES),
    get(_ROOM, "room", "A waiting room as it stands.", room, wire.RoomBody, is_tagged=True, problems=_SEEN),
    get(_ROOM + "/stream", "room-stream", "The same as events (`room`): at once, and at each change.", room_stream,
        wire.RoomBody, streams=True, problems=_SEEN),
    post(_ROOM + "/tickets", "join", "Take a ticket, or get again the one that somebody has.", join, wire.TicketBody,
         http=201, also_http=(200,), roles=SERVICES, checks_office=True, body=wire.JoinBody,
         problems=_kinds(S.OVERLOADED, S.ROOM_CLOSED, S.NOT_OPEN, S.FULL)),
    get(_TICKET, "ticket", "How a ticket stands: position, time, and chances.", standing, wire.TicketStatusBody,
        is_tagged=True, problems=_SEEN),
    get(_TICKET + "/stream", "ticket-stream", "The same as events (`standing`).", standing_stream, wire.TicketStatusBody,  # noqa: E501
        streams=True, problems=_SEEN),
    post(_ROOM + "/admission", "enter", "Take the turn of a ticket that is called: the pass to reserve with.", enter,
         wire.EnterResultBody, roles=SERVICES, checks_office=True, body=wire.EnterBody, changes=False,
         problems=_kinds(S.ROOM_CLOSED, also=("room-not-called", "room-turn-lapsed"))),
    post(_ROOM + "/open", "open-room", "Open a room with what its public source of chance has said.", open_room,
         wire.RoomBody, body=wire.OpenRoomBody, problems=_kinds(S.OVERLOADED, S.CONFLICT, S.ROOM_CLOSED, S.NOT_OPEN),
         **_OPERATES),
    put(_ROOM + "/pace", "set-pace", "Let a room's pace go between these bounds from now on.", set_pace, wire.RoomBody,
        body=wire.PaceBody, problems=_kinds(S.OVERLOADED, S.ROOM_CLOSED), **_OPERATES),
    post(_ROOM + "/close", "close-room", "End a room now, for all at once.", close, wire.RoomBody,
         problems=_kinds(S.OVERLOADED), **_OPERATES),
    get(_ROOM + "/look", "room-look", "How a room goes, as the operators' board shows it.", look, OperatorsLook,
        roles=AUDITORS, checks_office=True, problems=_SEEN),
    get(_ROOM + "/record", "room-record", "The record to publish, with which anybody can check the order.", record,
        RoomTranscript, problems=_SEEN),
)  # fmt: skip
