"""A waiting room for operators: its figures, its pace, and opening or closing it."""

from __future__ import annotations

__all__ = ["RoomPages"]

from typing import Any

from starlette.responses import Response

from quota_engine.domain.errors import InvalidRequest
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.fields import is_count, refusal_reason
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest, PageError
from quota_engine.waiting_room.commands import PER_MINUTE_MAX
from quota_engine.waiting_room.results import RoomResult, RoomStatus
from quota_engine.waiting_room.summary import RoomPhase, RoomSummary

_ENTROPY_SHOWN_MAX = 300


class RoomPages:
    """Handlers of a waiting room's page. A wrong field is reported beside it, with the submitted value."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def room(self, request: OperatorRequest) -> Response:
        """Render a waiting room, and the forms that control it."""
        return await self._render(request)

    async def figures(self, request: OperatorRequest) -> Response:
        """Render the figures alone, which the page's script refreshes."""
        return await self._render(request, template="room_figures.html")

    async def set_pace(self, request: OperatorRequest) -> Response:
        """Set the limits between which the room chooses its pace."""
        translator = request.translator
        room = await self._known_room(request)
        values = {name: request.field(name) for name in ("per_minute_min", "per_minute_max")}
        for name, value in values.items():
            if not is_count(value) or not 1 <= int(value) <= PER_MINUTE_MAX:
                text = translator("pace_wrong", most=translator.number(PER_MINUTE_MAX))
                return await self._render(request, 422, error=FieldError(name, text, value), values=values)
        low, high = (int(value) for value in values.values())
        if low > high:
            error = FieldError("per_minute_max", translator("pace_order"), values["per_minute_max"])
            return await self._render(request, 422, error=error, values=values)
        before = room.per_minute_min, room.per_minute_max
        result = await self._engine.room(room.room).set_pace(low, high)
        if result.ok:
            changed = f"per_minute_min:{before[0]}:{low},per_minute_max:{before[1]}:{high}"
            return self._pages.redirect(request, "/operator/room", room=room.room, done="pace", changed=changed)
        return await self._finish(request, room, result, "pace", "per_minute_min", values)

    async def open(self, request: OperatorRequest) -> Response:
        """Open a room with the text of its public source."""
        room = await self._known_room(request)
        entropy = request.field("entropy")
        wrong = request.translator("entropy_wrong")
        if not entropy:
            return await self._render(request, 422, error=FieldError("entropy", wrong))
        epoch = request.field("epoch")
        found = self._engine.room(room.room)
        publications = self._pages.service.publications
        try:
            if publications.is_other_entropy("room", room.room, (await found.view()).config.commitment, entropy):
                result = RoomResult(RoomStatus.CONFLICT)
            else:
                result = await found.open(entropy, epoch=int(epoch) if epoch.isascii() and epoch.isdigit() else 0)
        except InvalidRequest:
            return await self._render(request, 422, error=FieldError("entropy", wrong, entropy[:_ENTROPY_SHOWN_MAX]))
        # The form that explains the failover has the epoch, so that the next attempt names it.
        values = {"entropy": entropy, "epoch": str(result.room_epoch or "")}
        return await self._finish(request, room, result, "room-opened", "entropy", values)

    async def close(self, request: OperatorRequest) -> Response:
        """Close a room if the operator has confirmed it; otherwise ask."""
        room = await self._known_room(request)
        if not request.is_confirmed:
            return self._pages.redirect(request, "/operator/room", room=room.room, ask="close")
        result = await self._engine.room(room.room).close()
        return await self._finish(request, room, result, "room-closed", "close", {})

    @property
    def _engine(self) -> Any:
        return self._pages.service.engine

    async def _known_room(self, request: OperatorRequest) -> RoomSummary:
        room = await self._pages.room(request)
        if room is None or not request.fields.get("room"):
            raise PageError(404, "room_unknown")
        return room

    async def _finish(
        self,
        request: OperatorRequest,
        room: RoomSummary,
        result: RoomResult,
        done: str,
        field: str,
        values: dict[str, str],
    ) -> Response:
        """Redirect to the room, or render the reason of a refusal beside ``field``."""
        if not result.ok:
            error = FieldError(field, refusal_reason(request.translator, result.status), values.get(field, ""))
            return await self._render(request, 409, error=error, values=values)
        return self._pages.redirect(request, "/operator/room", room=room.room, done=done)

    async def _render(
        self,
        request: OperatorRequest,
        status: int = 200,
        *,
        template: str = "room.html",
        error: FieldError | None = None,
        values: dict[str, str] | None = None,
    ) -> Response:
        pages, translator, office = self._pages, request.translator, request.office
        room = await pages.room(request)
        room_id = request.field("room")
        if room is None and room_id:
            status, error = 404, FieldError("room", translator("room_unknown"), room_id)
        return pages.render(
            request,
            template,
            "waiting_room",
            status,
            room=room,
            room_id=room_id,
            query=request.query("room"),
            can_open=room is not None and bool(room.entropy_source) and room.phase is RoomPhase.OPENING,
            can_close=room is not None and room.phase is not RoomPhase.CLOSED,
            asks_close=request.fields.get("ask") == "close",
            moment=lambda at_ms: translator.moment(pages.local_time(at_ms, office)),
            updated_at=pages.updated_at(request, pages.service.now_ms()),
            values=values or {},
            changed=request.changes("changed"),
            error=error,
            done=request.done("pace", "room-opened", "room-closed"),
        )
