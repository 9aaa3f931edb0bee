"""The waiting room's pages: take a ticket, see how it stands. Whoever is called chooses a place."""

from __future__ import annotations

__all__ = ["WaitingRooms", "turn_key"]

import asyncio
import base64
import datetime
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.domain.errors import InvalidRequest, QuotaEngineError, UnknownName
from quota_engine.domain.lifecycle import State
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.sse import StreamEvent
from quota_engine.service.pages.citizen.base import AWAY, NO_STORE, Asked, Seat, Site, is_nik
from quota_engine.service.pages.citizen.status_texts import told
from quota_engine.service.pages.forms import form_of
from quota_engine.service.pages.i18n import Words
from quota_engine.waiting_room.machine import RoomConfig, RoomStatus, RoomView
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatus

_LOOK_EVERY_MS: Final = 1_000
_PAUSE_S_MAX: Final = 60
_KEPT_MS: Final = 86_400_000
"""So long after its end whoever reopens the page is told that the room has ended, and how it goes on."""
_RETURNING: Final = (TicketPhase.CALLED, TicketPhase.TURN_MISSED)
_CLOSING_MS: Final = 30_000
_LOOKED_AT_MAX: Final = 100

Choice = Callable[..., Awaitable[dict[str, Any]]]
"""What the page with the days of an office needs; see ``citizens``."""


class WaitingRooms:
    """The handlers."""

    def __init__(self, site: Site, choice: Choice) -> None:
        self._site = site
        self._choice = choice

    def routes(self) -> list[Route]:
        """The addresses of the waiting room's pages."""
        guarded = self._site.guarded
        return [
            Route("/room", guarded(self.room)),
            Route("/room/join", guarded(self.join), methods=["POST"]),
            Route("/room/state", guarded(self.state)),
            Route("/room/stream", guarded(self.stream)),
        ]

    async def is_waiting(self, request: Request) -> bool:
        """Whether this browser has a ticket that is good for something."""
        found = await self._standing(request)
        return found is not None and found[2].phase is not TicketPhase.ROOM_CLOSED

    async def join(self, request: Request) -> Response:
        """Take a ticket, or find the one that this identity has; or the place, if it has come that far already."""
        site = self._site
        words = site.words(request)
        fields = dict(await form_of(request) or ())
        asked = site.asked(fields)
        found = await site.room_of(asked.office)
        if not fields or found is None:
            return RedirectResponse(asked.query if fields else "/", 303)
        room, view = found
        nik = fields.get("nik", "").replace(" ", "")
        if not is_nik(nik):
            return await self._mistaken(request, words, asked, fields, words("nik_wrong"))
        behind = site.seat(request) if fields.get("behind") == "yes" else None
        try:
            joined = await site.room(room).join(nik, replaces_ticket=behind.ticket if behind else None)
        except InvalidRequest as error:
            if error.where == "replaces_ticket":  # sent twice: there is a newer ticket already
                return RedirectResponse("/room", 303)
            return await self._mistaken(request, words, asked, fields, words("nik_other"))
        if not joined.ok:
            if joined.status is RoomStatus.ROOM_CLOSED:
                return RedirectResponse(asked.query, 303)
            when = words.moment(site.moment(joined.retry_at_ms, asked.office))
            return await self._mistaken(request, words, asked, fields, words(f"join_{joined.status}", when=when))
        terms = view.config
        seat = Seat(room, asked.service, asked.group, joined.ticket)
        if joined.replayed and (await site.room(room).status(joined.ticket)).phase in _RETURNING:
            reference = await self.place_of(asked, terms, seat, nik)
            if reference:
                response: Response = RedirectResponse("/place", 303)
                site.remember(request, response, reference)
                return response
        response = RedirectResponse("/room", 303)
        site.seat_taken(request, response, seat, terms.closes_at_ms + terms.turn_ms + _KEPT_MS)
        return response

    async def place_of(self, asked: Asked, terms: RoomConfig, seat: Seat, nik: str) -> str:
        """The place that somebody has taken with their ticket, from another browser perhaps: the reference, or ``""``.

        A place is taken under the ticket's own key. Asked for once more under that key and without a pass, it is found,
        whatever has become of it; and nothing else can come of it, as long as the room asks for passes. So nobody is
        looked for when it is about to close.
        """
        engine, now_ms = self._site.service.engine, self._site.service.now_ms()
        if now_ms >= terms.closes_at_ms - _CLOSING_MS:
            return ""
        _, views = await self._site.board.days(asked.office)
        days = [view.day for view in views if terms.first_day <= view.day <= terms.last_day]
        needs_session = bool(asked.office.sessions) and asked.office.services[asked.service].needs_session
        sessions = list(asked.office.sessions) if needs_session else [""]
        outcomes = await asyncio.gather(
            *(
                engine.reserve(
                    asked.office.id,
                    datetime.date.fromordinal(day),
                    nik,
                    service=asked.service,
                    session=session,
                    group=asked.group,
                    idempotency_key=turn_key(seat),
                )
                for day, session in list(itertools.product(days, sessions))[:_LOOKED_AT_MAX]
            )
        )
        for outcome in outcomes:
            if outcome.ok and (outcome.resumed or outcome.replayed):
                return outcome.reference
        return ""

    async def _mistaken(
        self, request: Request, words: Words, asked: Asked, fields: Mapping[str, str], mistake: str
    ) -> Response:
        """The form again, with what is wrong."""
        nik = fields.get("nik", "")
        if fields.get("behind") == "yes":
            return await self.turn(request, words, 422, nik=nik, mistakes=[("nik", mistake)])
        page = await self._choice(words, asked, request, joining_nik=nik, joining_mistake=mistake)
        return self._site.page(request, "choose.html", words, 422, here=f"{asked.query}&", **page)

    async def room(self, request: Request) -> Response:
        """How the ticket of this browser stands; the choice of days, if it is called."""
        return await self.turn(request, self._site.words(request))

    async def turn(self, request: Request, words: Words, status: int = 200, **more: Any) -> Response:
        """The same, with what somebody filled in wrongly."""
        site = self._site
        found = await self._standing(request)
        if found is None:
            return site.leave("/")
        seat, view, standing = found
        record = await site.record(request)
        if record is not None and record.state in (State.HELD, State.WAITING):
            return RedirectResponse("/place", 303)
        terms = view.config
        asked = site.asked({"office": terms.office, "service": seat.service, "group": seat.group})
        now_ms = site.service.now_ms()
        deadline_ms = standing.enter_until_ms if standing.phase is TicketPhase.CALLED else standing.opens_at_ms
        values: dict[str, Any] = {
            "asked": asked,
            "standing": standing,
            "told": told(words, standing),
            "now_ms": now_ms,
            "deadline_ms": deadline_ms,
            "deadline": words.moment(site.moment(deadline_ms, asked.office)),
            "until": words.time(site.moment(deadline_ms, asked.office)),
            "room_days": words.dates(_days(terms)),
            "pause_s": min(_PAUSE_S_MAX, max(2, (standing.opens_at_ms - now_ms) // 1000 + 1))
            if standing.phase is TicketPhase.NOT_OPEN
            else 10,
            "commitment": terms.commitment,
            "nik": "",
            "mistakes": [],
            "here": "/room?",
            **more,
        }
        if standing.phase is TicketPhase.CALLED:
            values = {**await self._choice(words, asked, None, is_turn=True), **values}
            return site.page(request, "turn.html", words, status, **values)
        if standing.phase in (TicketPhase.TURN_MISSED, TicketPhase.ROOM_CLOSED):
            values |= await self._last_words(words, asked)
        return site.page(request, "room.html", words, status, **values)

    async def _last_words(self, words: Words, asked: Asked) -> dict[str, Any]:
        page = await self._choice(words, asked, None)
        return {name: page[name] for name in ("release", "release_days", "has_wait_list", "free_days")}

    async def state(self, request: Request) -> Response:
        """The same as JSON, for a page that keeps itself up to date by polls."""
        found = await self._standing(request)
        if found is None:
            return Response(b'{"phase":"","texts":{}}', headers=NO_STORE, media_type="application/json")
        _, _, standing = found
        return Response(_state(self._site.words(request), standing), headers=NO_STORE, media_type="application/json")

    async def stream(self, request: Request) -> Any:
        """The same as server-sent events."""
        found = await self._standing(request)
        if found is None:
            return Response(status_code=204)  # tells an event source to come no more
        seat, _, _ = found
        words = self._site.words(request)
        room = self._site.room(seat.room)

        async def look() -> RoomView | None:
            try:
                return await room.view()
            except UnknownName:
                raise
            except QuotaEngineError:
                return None

        async def show(view: RoomView | None) -> StreamEvent:
            if view is None:
                return AWAY
            try:
                return StreamEvent("standing", _state(words, await room.status(seat.ticket)))
            except UnknownName:
                raise
            except QuotaEngineError:
                return AWAY

        try:
            return await self._site.service.streams.open(
                ("page of a room", seat.room), look, show, interval_ms=_LOOK_EVERY_MS
            )
        except Problem:
            return Response(status_code=503, headers=NO_STORE)

    async def _standing(self, request: Request) -> tuple[Seat, RoomView, TicketStatus] | None:
        """The ticket of this browser, and how it stands; ``None`` if it has none that is good."""
        seat = self._site.seat(request)
        if seat is None:
            return None
        room = self._site.room(seat.room)
        try:
            return seat, await room.view(), await room.status(seat.ticket)
        except InvalidRequest:
            return None


def turn_key(seat: Seat) -> str:
    """The idempotency key of the place that is taken with a ticket: from whatever browser, it is one wish."""
    digest = hashlib.blake2b(seat.ticket.encode(), digest_size=12, person=b"qe turn").digest()
    return base64.urlsafe_b64encode(digest).decode()


def _state(words: Words, standing: TicketStatus) -> bytes:
    return msgspec.json.encode({"phase": standing.phase, "texts": told(words, standing)})


def _days(terms: RoomConfig) -> list[datetime.date]:
    return [datetime.date.fromordinal(day) for day in range(terms.first_day, terms.last_day + 1)]
