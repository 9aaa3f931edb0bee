"""What all citizens' pages share: who looks (by what their cookies say), in which language, at which office."""

from __future__ import annotations

__all__ = ["AWAY", "NO_STORE", "VISIT_MS", "Asked", "Seat", "Site", "is_nik"]

import contextlib
import dataclasses
import datetime
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from quota_engine.catalog import ResolvedOffice
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError, UnknownName
from quota_engine.domain.model import Reservation
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom
from quota_engine.service.http.load_shedding import over_limit
from quota_engine.service.http.sse import StreamEvent
from quota_engine.service.pages.dashboard_cache import Board
from quota_engine.service.pages.i18n import LANGUAGES, Words, language_of
from quota_engine.service.pages.rendering import Pages
from quota_engine.service.pages.signed_cookies import Visits
from quota_engine.waiting_room.machine import RoomView

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext

AWAY: Final = StreamEvent("away", b"{}")
"""What a page that listens is sent while the store does not answer."""
NO_STORE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
VISIT_MS: Final = 120 * 86_400_000
_PLACE: Final = "place"
_SEAT: Final = "ticket"
_LANGUAGE: Final = "lang"
_RETRY_S: Final = 10
is_nik = re.compile(r"[0-9]{16}").fullmatch


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for, as far as the catalog knows it."""

    office: ResolvedOffice
    service: str
    group: str

    @property
    def query(self) -> str:
        """The address of the choice."""
        return f"/?office={self.office.id}&service={self.service}&group={self.group}"


@dataclasses.dataclass(frozen=True, slots=True)
class Seat:
    """Somebody's ticket in a waiting room, and what they came for. Nothing in it tells who they are."""

    room: str
    service: str
    group: str
    ticket: str


Handler = Callable[[Request], Awaitable[Response]]


class Site:
    """The service, as pages see it."""

    def __init__(self, service: ServiceContext, pages: Pages, board: Board) -> None:
        self.service = service
        self.board = board
        self._pages = pages
        self._visits = Visits(bytes(service.config.identity_key))

    # --- Answers ---

    def page(self, request: Request, template: str, words: Words, status: int = 200, /, **values: Any) -> Response:
        """A page. Its links for another language lead to where it is, and the language chosen is remembered."""
        here = values.pop("here", "")
        if not here:
            query = [(name, value) for name, value in request.query_params.items() if name != _LANGUAGE]
            here = f"{request.url.path}?{urlencode(query)}{'&' if query else ''}"
        response = self._pages.page(template, words, status, here=here, **values)
        chosen = request.query_params.get(_LANGUAGE, "")
        if chosen in LANGUAGES and chosen != request.cookies.get(_LANGUAGE):
            response.set_cookie(_LANGUAGE, chosen, max_age=VISIT_MS // 1000, samesite="lax")
        return response

    def guarded(self, handler: Handler, *, gives_way: bool = True) -> Handler:
        """A handler that says so if the store is away, or too many are being answered, with a page that tries again by
        itself. Whoever goes on with a place does not give way.
        """

        async def handle(request: Request) -> Response:
            if gives_way and over_limit(request.scope):
                return self._away(request)
            try:
                return await handler(request)
            except InvalidRequest:
                return RedirectResponse("/", 303)  # nobody was given a link or a form for this
            except QuotaEngineError:
                return self._away(request)

        return handle

    def _away(self, request: Request) -> Response:
        again = f"{request.url.path}?{request.url.query}" if request.method == "GET" else "/"
        response = self.page(request, "away.html", self.words(request), 503, again=again, here="/?")
        response.headers["retry-after"] = str(_RETRY_S)
        return response

    async def missing(self, request: Request, error: Exception) -> Response:
        """The page for an address that there is not, or that takes forms only."""
        status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (404, None)
        response = self.page(request, "missing.html", self.words(request), status, here="/?")
        response.headers.update(headers or {})  # which methods it takes
        return response

    # --- What is asked for ---

    def words(self, request: Request) -> Words:
        """The language of whoever asks."""
        chosen = request.query_params.get(_LANGUAGE) or request.cookies.get(_LANGUAGE, "")
        return Words(language_of(chosen, request.headers.get("accept-language", "")))

    def asked(self, fields: Mapping[str, str]) -> Asked:
        """The office, service and group of these fields; what the catalog does not know is the first that it does."""
        catalog = self.service.catalog
        office = catalog.offices.get(fields.get("office", "")) or next(iter(catalog.offices.values()))
        service = fields.get("service", "")
        group = fields.get("group", "")
        return Asked(
            office,
            service if service in office.services else next(iter(office.services)),
            group if group in catalog.groups else "",
        )

    def moment(self, at_ms: int, office: ResolvedOffice) -> datetime.datetime:
        """A moment at an office."""
        return datetime.datetime.fromtimestamp(at_ms / 1000, tz=office.zone)

    # --- A place ---

    def remember(self, request: Request, response: Response, reference: str) -> None:
        """Let this browser find its place again. Whoever has a place has no ticket any more."""
        self._seal(request, response, _PLACE, reference, self.service.now_ms() + VISIT_MS)
        response.delete_cookie(_SEAT)

    def reference(self, request: Request) -> str:
        """The place of this browser, or ``""``."""
        return self._visits.read(request.cookies.get(_PLACE, ""), self.service.now_ms())

    async def record(self, request: Request) -> Reservation | None:
        """The same, as it stands now."""
        reference = self.reference(request)
        with contextlib.suppress(InvalidRequest):  # its office has left the catalog
            return await self.service.engine.lookup(reference) if reference else None
        return None

    # --- A waiting room ---

    async def room_of(self, office: ResolvedOffice) -> tuple[str, RoomView] | None:
        """The waiting room of an office's next or running release, if it has one that is not over."""
        room = self.service.current_room(office.id)
        if room is None:
            return None
        try:
            view = await self.room(room).view()
        except UnknownName:
            return None
        is_over = view.is_closed or self.service.now_ms() >= view.config.closes_at_ms
        return None if is_over else (room, view)

    def room(self, room: str) -> AsyncWaitingRoom:
        """A waiting room."""
        return self.service.engine.room(room)

    def seat_taken(self, request: Request, response: Response, seat: Seat, until_ms: int) -> None:
        """Let this browser find its ticket again."""
        text = "|".join((seat.room, seat.service, seat.group, seat.ticket))
        self._seal(request, response, _SEAT, text, until_ms)

    def seat(self, request: Request) -> Seat | None:
        """The ticket of this browser."""
        parts = self._visits.read(request.cookies.get(_SEAT, ""), self.service.now_ms()).split("|")
        return Seat(*parts) if len(parts) == 4 else None

    def leave(self, to: str) -> Response:
        """Go somewhere else, without the ticket."""
        response = RedirectResponse(to, 303)
        response.delete_cookie(_SEAT)
        return response

    def _seal(self, request: Request, response: Response, name: str, text: str, until_ms: int) -> None:
        now_ms = self.service.now_ms()
        response.set_cookie(
            name,
            self._visits.seal(text, until_ms),
            max_age=max(0, until_ms - now_ms) // 1000,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
