"""The waiting room: join it, follow the ticket, and choose a place when it is called."""

from __future__ import annotations

__all__ = ["TURN_CODES_MAX", "WaitingRoomPages"]

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.domain.errors import InvalidRequest, QuotaEngineError, UnknownName
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.model import Reservation
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.sse import StreamEvent
from quota_engine.service.pages.citizen.base import (
    NO_STORE_HEADERS,
    STORE_UNAVAILABLE,
    CitizenPages,
    RoomSession,
)
from quota_engine.service.pages.citizen.day_choice import DayChoice
from quota_engine.service.pages.citizen.selection import BookingSelection
from quota_engine.service.pages.citizen.status_texts import ticket_texts
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.registration_codes import code_of
from quota_engine.waiting_room.results import RoomStatus, RoomView
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus

TURN_CODES_MAX: Final = 2
"""Codes to try for the reservation of a turn, because another reservation may have the first one."""
_STREAM_EVERY_MS: Final = 1_000
_RELOAD_S: Final = 10
_RELOAD_S_MAX: Final = 60
_KEPT_AFTER_CLOSING_MS: Final = 86_400_000
"""Time after the room closes in which its page still explains what comes next."""
_CALLED_BEFORE: Final = (TicketPhase.CALLED, TicketPhase.TURN_MISSED)


class WaitingRoomPages:
    """Handlers of the waiting room's pages."""

    def __init__(self, pages: CitizenPages, choice: DayChoice) -> None:
        self._pages = pages
        self._choice = choice

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        guarded = self._pages.guarded
        return [
            Route("/room", guarded(self.ticket)),
            Route("/room/join", guarded(self.join), methods=["POST"]),
            Route("/room/state", guarded(self.state)),
            Route("/room/stream", guarded(self.stream)),
        ]

    async def has_open_ticket(self, request: Request) -> bool:
        """Return True if this browser has a ticket of a room that has not closed."""
        found = await self._ticket_status(request)
        return found is not None and found[2].phase is not TicketPhase.ROOM_CLOSED

    async def join(self, request: Request) -> Response:
        """Give this browser the ticket of a NIK, and redirect to it.

        A NIK that has a ticket gets the same one. If its turn already led to a reservation, redirect to that.
        """
        pages = self._pages
        translator = pages.translator(request)
        fields = dict(await read_form(request) or ())
        selection = pages.selection(fields)
        room = await pages.current_room(selection.office)
        if not fields or room is None:
            return RedirectResponse(selection.url if fields else "/", 303)
        room_id, view = room
        nik = fields.get("nik", "")

        async def form_again(error: str) -> Response:
            if fields.get("rejoin") == "yes":
                return await self.render_ticket(request, translator, 422, nik=nik, errors=[("nik", error)])
            variables = await self._choice.variables(translator, selection, request, join_nik=nik, join_error=error)
            return pages.render(request, "start.html", translator, 422, here=f"{selection.url}&", **variables)

        if not pages.is_nik(nik):
            return await form_again(pages.nik_error(translator, nik))
        replaced = pages.room_session(request) if fields.get("rejoin") == "yes" else None
        try:
            joined = await pages.waiting_room(room_id).join(nik, replaces_ticket=replaced.ticket if replaced else None)
        except InvalidRequest as error:
            if error.where == "replaces_ticket":  # the form was sent twice: the new ticket exists
                return RedirectResponse("/room", 303)
            return await form_again(translator("error_nik_other"))
        if joined.status is RoomStatus.ROOM_CLOSED:
            return RedirectResponse(selection.url, 303)
        if not joined.ok:
            when = translator.moment(pages.local_time(joined.retry_at_ms, selection.office))
            return await form_again(translator(f"join_{joined.status}", when=when))
        own = pages.room_session(request)
        is_first = not joined.replayed or (own is not None and own.ticket == joined.ticket and own.is_first)
        origin = "first" if is_first else "found"
        session = RoomSession(room_id, selection.service, selection.group, origin, joined.ticket)
        if joined.replayed and (await pages.waiting_room(room_id).status(joined.ticket)).phase in _CALLED_BEFORE:
            reservation = await self.reservation_of_turn(selection, session, nik)
            if reservation is not None:
                response: Response = RedirectResponse("/reservation", 303)
                pages.remember_reservation(request, response, reservation, is_owner=is_first)
                return response
        response = RedirectResponse("/room", 303)
        expires_at_ms = view.config.closes_at_ms + view.config.turn_ms + _KEPT_AFTER_CLOSING_MS
        pages.remember_room_session(request, response, session, expires_at_ms)
        return response

    async def reservation_of_turn(
        self, selection: BookingSelection, session: RoomSession, nik: str
    ) -> Reservation | None:
        """Return the active reservation that a ticket led to, or ``None``.

        The reservation may have been made in another browser. Its code follows from the ticket, so a lookup finds it.
        Another applicant's reservation may have that code by chance.
        """
        for attempt in range(TURN_CODES_MAX):
            code = self.turn_code(session, attempt)
            reservation = await self._pages.service.engine.lookup(f"{selection.office.id}~{code}")
            if reservation is None:
                break
            if self._pages.belongs_to(reservation, nik):
                return reservation if reservation.state in ACTIVE else None
        return None

    def turn_code(self, session: RoomSession, attempt: int) -> str:
        """Return the idempotency key of the reservation that a ticket leads to: the same one in every browser.

        The key is also the reservation's registration code. A visitor knows the ticket, and must not compute the code
        from it.

        Args:
            session: The ticket.
            attempt: From 0, below :data:`TURN_CODES_MAX`.
        """
        return code_of(self._pages.secret_digest(f"{session.room}|{session.ticket}|{attempt}"))

    async def ticket(self, request: Request) -> Response:
        """Render the ticket of this browser, or the choice of days if it is called."""
        return await self.render_ticket(request, self._pages.translator(request))

    async def render_ticket(
        self, request: Request, translator: Translator, status: int = 200, **overrides: Any
    ) -> Response:
        """Render the ticket page with some variables replaced, such as the fields of a form with errors."""
        pages = self._pages
        found = await self._ticket_status(request)
        if found is None:
            return pages.redirect_without_ticket(request, "/")
        session, view, ticket = found
        reservation = await pages.reservation(request)
        if reservation is not None and reservation.state in (State.HELD, State.WAITING):
            return RedirectResponse("/reservation", 303)
        config = view.config
        selection = pages.selection({"office": config.office, "service": session.service, "group": session.group})
        now_ms = pages.service.now_ms()
        deadline_at_ms = ticket.enter_until_ms if ticket.phase is TicketPhase.CALLED else ticket.opens_at_ms
        deadline = pages.local_time(deadline_at_ms, selection.office)
        variables: dict[str, Any] = {
            "selection": selection,
            "ticket_status": ticket,
            "texts": ticket_texts(translator, ticket),
            "now_ms": now_ms,
            "deadline_at_ms": deadline_at_ms,
            "deadline": translator.moment(deadline),
            "until": translator.time(deadline),
            "reload_s": _reload_s(ticket, now_ms),
            "commitment": config.commitment,
            "record_url": f"/v1/rooms/{session.room}/transcript",
            "nik": "",
            "errors": [],
            "here": "/room?",
            **overrides,
        }
        if ticket.phase is TicketPhase.CALLED:
            choice = await self._choice.variables(translator, selection, None, is_turn=True)
            variables["is_change"] = (
                reservation is not None
                and reservation.office == config.office
                and pages.visit(request).is_owner
                and await pages.can_change(reservation)
            )
            return pages.render(request, "turn.html", translator, status, **{**choice, **variables})
        if ticket.phase in (TicketPhase.TURN_MISSED, TicketPhase.TICKET_LOST, TicketPhase.ROOM_CLOSED):
            choice = await self._choice.variables(translator, selection, None)
            variables |= {name: choice[name] for name in ("release", "release_days", "has_wait_list", "free_days")}
        return pages.render(request, "room.html", translator, status, **variables)

    async def state(self, request: Request) -> Response:
        """Return the ticket's phase and texts as JSON, for a page that polls."""
        found = await self._ticket_status(request)
        content = _state(self._pages.translator(request), found[2]) if found else b'{"phase":"","texts":{}}'
        return Response(content, headers=NO_STORE_HEADERS, media_type="application/json")

    async def stream(self, request: Request) -> Any:
        """Return the ticket's phase and texts as server-sent events."""
        found = await self._ticket_status(request)
        if found is None:
            return Response(status_code=204)  # makes an EventSource stop reconnecting
        session, _, _ = found
        translator = self._pages.translator(request)
        room = self._pages.waiting_room(session.room)

        async def read() -> RoomView | None:
            try:
                return await room.view()
            except UnknownName:
                raise
            except QuotaEngineError:
                return None

        async def event(view: RoomView | None) -> StreamEvent:
            if view is None:
                return STORE_UNAVAILABLE
            try:
                return StreamEvent("state", _state(translator, await room.status(session.ticket)))
            except UnknownName:
                raise
            except QuotaEngineError:
                return STORE_UNAVAILABLE

        try:
            return await self._pages.service.streams.open(
                ("room page", session.room), read, event, interval_ms=_STREAM_EVERY_MS
            )
        except Problem:
            return Response(status_code=503, headers=NO_STORE_HEADERS)

    async def _ticket_status(self, request: Request) -> tuple[RoomSession, RoomView, TicketStatus] | None:
        """Return this browser's ticket, its room and its status; ``None`` without a valid ticket."""
        session = self._pages.room_session(request)
        if session is None:
            return None
        room = self._pages.waiting_room(session.room)
        try:
            return session, await room.view(), await room.status(session.ticket)
        except InvalidRequest:
            return None


def _reload_s(ticket: TicketStatus, now_ms: int) -> int:
    """Return the seconds after which a page without script reloads: at the opening, if that is near."""
    if ticket.phase is not TicketPhase.NOT_OPEN:
        return _RELOAD_S
    return min(_RELOAD_S_MAX, max(2, (ticket.opens_at_ms - now_ms) // 1000 + 1))


def _state(translator: Translator, ticket: TicketStatus) -> bytes:
    return msgspec.json.encode({"phase": ticket.phase, "texts": ticket_texts(translator, ticket)})
