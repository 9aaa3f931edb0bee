"""Endpoints for waiting rooms: create, join, poll or stream, enter, and the operators' controls.

A poll is answered from this process's view of the room, which is at most half a second old, so it calls no store.
Identities are in bodies only; a ticket identifies no person.
"""

from __future__ import annotations

__all__ = ["ROOMS"]

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from quota_engine.api_schema.rooms import (
    CreateRoomBody,
    EnterBody,
    EnterResultBody,
    JoinBody,
    OpenRoomBody,
    PaceBody,
    RoomBody,
    TicketBody,
    room_body,
)
from quota_engine.api_schema.tickets import TicketStatusBody, ticket_status_body
from quota_engine.domain.errors import UnknownName
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom
from quota_engine.service.api.common import AUDITORS, OPERATORS, SERVICES, get, post, put
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.problems import ROOM_STATUS_PROBLEMS, Problem
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse, etag_response
from quota_engine.service.http.sse import EventStream, StreamEvent
from quota_engine.service.room_response_cache import RoomStreamState
from quota_engine.waiting_room.polling import ticket_poll_after_ms
from quota_engine.waiting_room.results import RoomResult, RoomStatus, RoomView
from quota_engine.waiting_room.summary import RoomSummary, summarize_room
from quota_engine.waiting_room.transcript import RoomTranscript

S = RoomStatus
_STREAM_MAX_AGE_MS: Final = 200
"""Age above which a stream reads the room again.

Streams read four times a second, so a change by another process shows as soon as one by this process.
"""
_ROOM: Final = "/v1/rooms/{room}"
_TICKET: Final = _ROOM + "/tickets/{ticket}"


def _room(context: ServiceContext, request: ApiRequest) -> AsyncWaitingRoom:
    return context.engine.room(request.path["room"])


async def _authorized_room(context: ServiceContext, request: ApiRequest) -> AsyncWaitingRoom:
    """Return the room, after checking that the caller's token covers its office."""
    room = _room(context, request)
    context.access.authorize_office(request.grant, (await room.view()).config.office)
    return room


def _raise_refusal(context: ServiceContext, status: RoomStatus, retry_at_ms: int = 0, epoch: int = 0) -> None:
    """Raise the problem of a refusal; return if ``status`` is a success."""
    if status is S.NOT_FOUND:
        raise UnknownName("room", "no such room, or its retention has ended", "the id of an existing room")
    if status in ROOM_STATUS_PROBLEMS:
        raise Problem.from_room_status(status, retry_at_ms, context.now_ms(), epoch)


def _room_response(request: ApiRequest, view: RoomView, status: int = 200) -> ApiResponse:
    return ApiResponse(status, room_body(request.path["room"], view))


async def create_room(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: CreateRoomBody = request.body
    context.access.authorize_office(request.grant, body.office)
    room = _room(context, request)
    existed = True
    try:
        await room.view()
    except UnknownName:
        existed = False
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
        settings=body.settings.to_settings(),
    )
    _raise_refusal(context, status)
    return _room_response(request, await room.view(), 200 if existed else 201)


async def get_room(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return context.room_responses.response(request.path["room"], await _room(context, request).view())


async def stream_room(context: ServiceContext, request: ApiRequest) -> EventStream:
    async def render(snapshot: RoomStreamState) -> StreamEvent:
        return StreamEvent("room", snapshot.content)

    return await _open_stream(context, request, render)


async def join(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: JoinBody = request.body
    room = await _authorized_room(context, request)
    joined = await room.join(body.identity, replaces_ticket=body.replaces_ticket)
    _raise_refusal(context, joined.status, joined.retry_at_ms)
    ticket = TicketBody(
        ticket=joined.ticket,
        number=joined.number,
        replayed=joined.replayed,
        poll_after_ms=ticket_poll_after_ms(await room.view(), await room.status(joined.ticket)),
    )
    return ApiResponse(200 if joined.replayed else 201, ticket)


async def _ticket_status(context: ServiceContext, request: ApiRequest) -> TicketStatusBody:
    room = _room(context, request)
    ticket_status = await room.status(request.path["ticket"])
    return ticket_status_body(await room.view(), ticket_status)


async def get_ticket(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return etag_response(await _ticket_status(context, request))


async def stream_ticket(context: ServiceContext, request: ApiRequest) -> EventStream:
    async def render(_: RoomStreamState) -> StreamEvent:
        return StreamEvent("ticket_status", msgspec.json.encode(await _ticket_status(context, request)))

    return await _open_stream(context, request, render)


async def _open_stream(
    context: ServiceContext, request: ApiRequest, render: Callable[[RoomStreamState], Awaitable[StreamEvent]]
) -> EventStream:
    name, room = request.path["room"], _room(context, request)

    async def read() -> RoomStreamState:
        return context.room_responses.snapshot(name, await room.view(max_age_ms=_STREAM_MAX_AGE_MS))

    return await context.streams.open(("room", name), read, render)


async def enter(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: EnterBody = request.body
    room = await _authorized_room(context, request)
    entered = await room.enter(body.ticket, body.identity)
    ticket_status = ticket_status_body(await room.view(), entered.ticket_status)
    if not entered.ok:
        raise Problem.from_ticket_status(ticket_status, context.now_ms())
    result = EnterResultBody(
        admission_pass=entered.admission_pass, until_at_ms=entered.until_ms, ticket_status=ticket_status
    )
    return ApiResponse(200, result)


async def _operated(
    context: ServiceContext, request: ApiRequest, room: AsyncWaitingRoom, result: RoomResult
) -> ApiResponse:
    _raise_refusal(context, result.status, result.retry_at_ms, result.room_epoch)
    return _room_response(request, result.view or await room.view())


async def open_room(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    room = await _authorized_room(context, request)
    body: OpenRoomBody = request.body
    commitment = (await room.view()).config.commitment
    if context.publications.is_other_entropy("room", request.path["room"], commitment, body.entropy):
        raise Problem.from_room_status(S.CONFLICT, 0, context.now_ms())  # the order with another text is public
    return await _operated(context, request, room, await room.open(body.entropy, epoch=body.epoch))


async def set_pace(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    room = await _authorized_room(context, request)
    result = await room.set_pace(request.body.per_minute_min, request.body.per_minute_max)
    return await _operated(context, request, room, result)


async def close_room(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    room = await _authorized_room(context, request)
    return await _operated(context, request, room, await room.close())


async def get_summary(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    room = await _authorized_room(context, request)
    return ApiResponse(200, summarize_room(request.path["room"], await room.view()))


async def get_transcript(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return ApiResponse(200, context.publications.check_room(await _room(context, request).transcript()))


def _problems(*statuses: RoomStatus, others: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("unknown-name", *(ROOM_STATUS_PROBLEMS[status].name for status in statuses), *others)


_READ_PROBLEMS: Final = ("unknown-name",)
_OPERATION: Final[dict[str, Any]] = {"roles": OPERATORS, "handler_checks_office": True}

ROOMS: Final = (
    put(
        _ROOM, "create-room", "Create a waiting room before it opens. Safe to repeat.", create_room, RoomBody,
        status=201, other_statuses=(200,), body_type=CreateRoomBody,
        problems=_problems(S.OVERLOADED, S.CONFLICT, S.ROOM_CLOSED), **_OPERATION,
    ),
    get(
        _ROOM, "room", "Get the state of a waiting room.", get_room, RoomBody, has_etag=True, problems=_READ_PROBLEMS,
    ),
    get(
        _ROOM + "/stream", "room-stream", "Stream the state of a room: an event `room` at once and at each change.",
        stream_room, RoomBody, is_stream=True, problems=_READ_PROBLEMS,
    ),
    post(
        _ROOM + "/tickets", "join", "Join a room: get a ticket, or the one that the identity already has.", join,
        TicketBody, status=201, other_statuses=(200,), roles=SERVICES, handler_checks_office=True, body_type=JoinBody,
        problems=_problems(S.OVERLOADED, S.ROOM_CLOSED, S.NOT_OPEN, S.FULL),
    ),
    get(
        _TICKET, "ticket", "Get the status of a ticket: position, expected wait and chance.", get_ticket,
        TicketStatusBody, has_etag=True, problems=_READ_PROBLEMS,
    ),
    get(
        _TICKET + "/stream", "ticket-stream", "Stream the status of a ticket as events `ticket_status`.", stream_ticket,
        TicketStatusBody, is_stream=True, problems=_READ_PROBLEMS,
    ),
    post(
        _ROOM + "/enter", "enter", "Get the admission pass of a called ticket.", enter, EnterResultBody,
        roles=SERVICES, handler_checks_office=True, body_type=EnterBody, is_write=False,
        problems=_problems(S.ROOM_CLOSED, others=("room-not-called", "room-turn-missed", "room-ticket-lost")),
    ),
    post(
        _ROOM + "/open", "open-room", "Open a room with the text of its public entropy source.", open_room, RoomBody,
        body_type=OpenRoomBody,
        problems=_problems(S.OVERLOADED, S.CONFLICT, S.ROOM_CLOSED, S.NOT_OPEN, S.EPOCH_CHANGED), **_OPERATION,
    ),
    put(
        _ROOM + "/pace", "set-pace", "Set the bounds of a room's pace.", set_pace, RoomBody, body_type=PaceBody,
        problems=_problems(S.OVERLOADED, S.ROOM_CLOSED), **_OPERATION,
    ),
    post(
        _ROOM + "/close", "close-room", "Close a room now, for all its tickets.", close_room, RoomBody,
        problems=_problems(S.OVERLOADED), **_OPERATION,
    ),
    get(
        _ROOM + "/summary", "room-summary", "Get the summary of a room that the operators' page shows.", get_summary,
        RoomSummary, roles=AUDITORS, handler_checks_office=True, problems=_READ_PROBLEMS,
    ),
    get(
        _ROOM + "/transcript", "room-transcript", "Get the public transcript, from which anyone can verify the order.",
        get_transcript, RoomTranscript, problems=_READ_PROBLEMS,
    ),
)  # fmt: skip
