"""Shared parts of the citizens' pages: cookies, the waiting room of an office, and error pages."""

from __future__ import annotations

__all__ = ["NO_STORE_HEADERS", "STORE_UNAVAILABLE", "CitizenPages", "RoomSession", "Visit"]

import contextlib
import dataclasses
import datetime
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from quota_engine.catalog import ResolvedOffice, departed_office, next_release, wall_time_ms
from quota_engine.domain.errors import InvalidRequest, QuotaEngineError, UnknownName
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom
from quota_engine.service.http.load_shedding import over_limit
from quota_engine.service.http.sse import StreamEvent
from quota_engine.service.pages.citizen.block_notice import BlockNotice, read_notice
from quota_engine.service.pages.citizen.selection import BookingSelection, read_selection
from quota_engine.service.pages.dashboard_cache import DashboardCache
from quota_engine.service.pages.i18n import CITIZEN_TEXTS, Translator
from quota_engine.service.pages.rendering import PageRenderer, path_with_query
from quota_engine.service.pages.signed_cookies import CookieSigner
from quota_engine.service.shared_cache import SharedCache
from quota_engine.waiting_room.results import RoomView

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext

STORE_UNAVAILABLE: Final = StreamEvent("unavailable", b"{}")
"""Event of a stream while the store does not answer."""
NO_STORE_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
SHARED_TEXT_MS: Final = 1_000
"""Age at which a page that visitors share is rendered again, because it shows the time."""
_TEXTS_MAX: Final = 256
_DIGITS_ONLY: Final = re.compile(r"\\d\{([0-9]+)\}")
"""A pattern of identities that have a fixed number of digits."""
_RESERVATION_COOKIE: Final = "reservation"
_FOUND: Final = "found|"
"""Begins the text of a reservation's cookie in a browser that knows only the NIK."""
_KEPT_AFTER_DAY: Final = datetime.timedelta(days=1)
"""Time after the booked day in which the reservation's cookie still leads to its page."""
_RESERVATION_COOKIE_MS_MIN: Final = 3_600_000
_TICKET_COOKIE: Final = "ticket"
_NOTICE_COOKIE: Final = "notice"
_DRAW_COOKIE: Final = "draw"
_NOTICE_COOKIE_MS: Final = 86_400_000
_RETRY_S: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class RoomSession:
    """A visitor's ticket of a waiting room, and the selection of the booking. Contains no identity.

    ``origin`` is ``first`` if this browser made the ticket, and ``found`` if the NIK led it to a ticket that was there.
    """

    room: str
    service: str
    group: str
    origin: str
    ticket: str

    @property
    def is_first(self) -> bool:
        """True if this browser made the ticket."""
        return self.origin == "first"


class Visit(NamedTuple):
    """A browser's reservation, by its reference; ``""`` without one.

    ``is_owner`` is True for the browser that made the reservation, and for one that had its registration code. Another
    browser found it by the NIK alone: it may see and finish it, but neither change it nor give it up.
    """

    reference: str
    is_owner: bool


Handler = Callable[[Request], Awaitable[Response]]


class CitizenPages:
    """The service for handlers of the citizens' pages."""

    def __init__(self, service: ServiceContext, renderer: PageRenderer, cache: DashboardCache) -> None:
        self.service = service
        self.cache = cache
        self.texts: SharedCache[str] = SharedCache(_TEXTS_MAX, service.now_ms)
        """Texts of pages, and parts of them, that contain nothing of a visitor."""
        self._renderer = renderer
        self._signer = CookieSigner(bytes(service.config.identity_key))

    # --- Responses ---

    def translator(self, request: Request) -> Translator:
        """Return the texts in the language of the request."""
        return self._renderer.translator(request, CITIZEN_TEXTS)

    def render(
        self, request: Request, template: str, translator: Translator, status: int = 200, /, **values: Any
    ) -> Response:
        """Render a template of ``templates/citizen``; see :meth:`PageRenderer.render`."""
        values = {"nik_expected": self._nik_expected(translator), "site": self.service.catalog.site, **values}
        return self._renderer.render(request, f"citizen/{template}", translator, status, **values)

    def render_shared(
        self,
        request: Request,
        template: str,
        translator: Translator,
        key: Hashable,
        sources: tuple[object, ...],
        values: Callable[[], dict[str, Any]],
        fresh: Mapping[str, str] = MappingProxyType({}),
    ) -> Response:
        """Render a template that is the same for all visitors, at most once a second.

        Args:
            request: Request that the page answers.
            template: Path below ``templates/citizen/``.
            translator: Texts of the page.
            key: All that the values depend on besides ``sources``, the language and the time.
            sources: Figures that the page shows. Newer ones render it again.
            values: Returns the variables of the template, with nothing of a visitor.
            fresh: Marks in the text, and what replaces them in this response.
        """

        def make() -> tuple[str, float]:
            made = {"nik_expected": self._nik_expected(translator), "site": self.service.catalog.site, **values()}
            text = self._renderer.render_text(f"citizen/{template}", translator, **made)
            return text, self.service.now_ms() + SHARED_TEXT_MS

        text = self.texts.get((template, translator.language, key), sources, make)
        for mark, value in fresh.items():
            text = text.replace(mark, value)
        return self._renderer.respond(request, text)

    def guarded(self, handler: Handler, *, is_sheddable: bool = True, form_retry_path: str = "/") -> Handler:
        """Return a handler that renders a retrying page if the store is unavailable or the service is overloaded.

        Args:
            handler: Handler of the route.
            is_sheddable: False for pages of a reservation, which are answered above the concurrency limit too.
            form_retry_path: Path that the 503 page of a form loads. A page with script sends the form again instead.
        """

        async def handle(request: Request) -> Response:
            if is_sheddable and over_limit(request.scope):
                return self.unavailable(request, form_retry_path)
            try:
                return await handler(request)
            except InvalidRequest:
                return RedirectResponse("/", 303)  # no link and no form of these pages leads here
            except QuotaEngineError:
                return self.unavailable(request, form_retry_path)

        return handle

    def unavailable(self, request: Request, form_retry_path: str) -> Response:
        """Render the 503 page that loads again. The path is for a form; see :meth:`guarded`."""
        retry_url = path_with_query(request) if request.method == "GET" else form_retry_path
        translator = self.translator(request)
        response = self.render(request, "unavailable.html", translator, 503, retry_url=retry_url, here="/?")
        response.headers["retry-after"] = str(_RETRY_S)
        return response

    async def not_found(self, request: Request, error: Exception) -> Response:
        """Render the 404 or 405 page; redirect an address that has only a slash too many."""
        path, _, query = path_with_query(request).partition("?")
        own = path.rstrip("/")
        if own != path and any(getattr(route, "path", "") == own for route in request.app.routes):
            return RedirectResponse(f"{own}?{query}" if query else own)
        status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (404, None)
        response = self.render(request, "not_found.html", self.translator(request), status, here="/?")
        response.headers.update(headers or {})  # a 405 lists the methods that it allows
        return response

    # --- Applicants ---

    def is_nik(self, nik: str) -> bool:
        """Return True if the catalog's format of identities accepts a NIK. The engine normalizes it by that format."""
        return self.normalized(nik) != ""

    def normalized(self, nik: str) -> str:
        """Return the one spelling of a NIK, to compare it with others; ``""`` if it does not fit."""
        try:
            return self.service.catalog.identity_format.normalize(nik)
        except InvalidRequest:
            return ""

    def nik_errors(self, translator: Translator, niks: Sequence[str]) -> list[tuple[str, str]]:
        """Return the errors of a party's NIKs as field and text. In a party, each names its applicant."""
        if not niks:
            return [("nik", self.nik_error(translator, ""))]
        errors: list[tuple[str, str]] = []
        seen: dict[str, int] = {}
        for number, nik in enumerate(niks, 1):
            field, normalized, error = f"nik{number}" if number > 1 else "nik", self.normalized(nik), ""
            if not normalized:
                error = self.nik_error(translator, nik)
            elif normalized in seen:
                error = translator("error_nik_repeated", first=seen[normalized])
            if error and len(niks) > 1:
                error = translator("error_of_applicant", number=number, error=error[0].lower() + error[1:])
            if error:
                errors.append((field, error))
            seen.setdefault(normalized, number)
        return errors

    def nik_error(self, translator: Translator, nik: str) -> str:
        """Return the text beside a NIK that does not fit. It counts the digits, if the catalog asks for a number."""
        expected = self._nik_expected(translator)
        length = _DIGITS_ONLY.fullmatch(self.service.catalog.identity_format.pattern)
        digits = sum(one.isdecimal() for one in nik)
        if not nik.strip() or not expected:
            return translator("error_nik_missing")
        if length is not None and not any(one.isalpha() for one in nik) and digits != int(length[1]):
            return translator.count("error_nik_digits", digits, needed=length[1])
        return translator("error_nik_form", expected=expected)

    def _nik_expected(self, translator: Translator) -> str:
        """Return the catalog's words for a valid NIK; ``""`` if any text is valid."""
        return self.service.catalog.identity_format.expected_in(translator.language)

    # --- The office ---

    def selection(self, fields: Mapping[str, str]) -> BookingSelection:
        """Return the selection of a query or a form."""
        return read_selection(self.service.catalog, fields)

    def local_time(self, at_ms: int, office: ResolvedOffice) -> datetime.datetime:
        """Convert milliseconds since 1970 (UTC) to the time zone of an office."""
        return datetime.datetime.fromtimestamp(at_ms / 1000, tz=office.zone)

    def next_release_texts(self, translator: Translator, office: ResolvedOffice) -> dict[str, str]:
        """Return the time and the days of the office's next release, empty if there is none."""
        catalog = self.service.catalog
        release = next_release(catalog, office.id, self.service.now_ms()) if office.id in catalog.offices else None
        if release is None:
            return {"release": "", "release_days": ""}
        opens_at_ms, days = release
        return {
            "release": translator.moment(self.local_time(opens_at_ms, office)),
            "release_days": translator.dates(days),
        }

    # --- The reservation of a browser ---

    def remember_reservation(
        self, request: Request, response: Response, reservation: Reservation, *, is_owner: bool
    ) -> None:
        """Set the cookie that leads this browser back to its reservation, and delete its ticket.

        The cookie is valid until a day after the booked day, so that a shared computer forgets soon.

        Args:
            request: Request that the response answers. A browser that owned the reservation before keeps it.
            response: Response that sets the cookie.
            reservation: The reservation.
            is_owner: See :class:`Visit`.
        """
        is_owner = is_owner or self.visit(request) == Visit(reservation.reference, is_owner=True)
        text = self._reservation_text(reservation, is_owner=is_owner)
        self.set_signed_cookie(request, response, _RESERVATION_COOKIE, text, self._kept_until_ms(reservation))
        self.delete_cookie(request, response, _TICKET_COOKIE)

    def renew_reservation(self, request: Request, response: Response, reservation: Reservation) -> None:
        """Set the reservation's cookie again if it ends at another time, because the booked day has changed."""
        is_owner = self.visit(request).is_owner
        text = self._reservation_text(reservation, is_owner=is_owner)
        value = self._signer.sign(text, self._kept_until_ms(reservation))
        if value != request.cookies.get(_RESERVATION_COOKIE):
            self.remember_reservation(request, response, reservation, is_owner=is_owner)

    def _reservation_text(self, reservation: Reservation, *, is_owner: bool) -> str:
        """Return the text of the reservation's cookie. It hides the registration code from a browser without it."""
        return reservation.reference if is_owner else _FOUND + self._signer.seal(reservation.reference)

    def _kept_until_ms(self, reservation: Reservation) -> int:
        next_day = datetime.date.fromordinal(reservation.day + 1)
        office = self.service.catalog.offices.get(reservation.office) or departed_office(reservation.office)
        at_ms = wall_time_ms(next_day + _KEPT_AFTER_DAY, datetime.time.min, office.zone)
        return max(at_ms, self.service.now_ms() + _RESERVATION_COOKIE_MS_MIN)

    def forget_visit(self, request: Request, response: Response) -> None:
        """Delete every cookie that leads this browser to a reservation or a ticket, and let it drop what it stored.

        The cookies are signed, and no process stores anything about them: a copy made before stays valid until its end.
        """
        for name in (_RESERVATION_COOKIE, _TICKET_COOKIE, _NOTICE_COOKIE, _DRAW_COOKIE):
            self.delete_cookie(request, response, name)
        response.headers.update(NO_STORE_HEADERS)
        response.headers["clear-site-data"] = '"cache", "storage"'

    def remember_notice(self, request: Request, response: Response, outcome: Outcome) -> None:
        """Set the cookie of the block that an outcome announces, or delete that of an earlier outcome."""
        notice = BlockNotice.of_outcome(outcome, self.mark(outcome.reference))
        if notice is not None:
            expires_at_ms = max(notice.until_ms, self.service.now_ms() + _NOTICE_COOKIE_MS)
            self.set_signed_cookie(request, response, _NOTICE_COOKIE, notice.text(), expires_at_ms)
        elif _NOTICE_COOKIE in request.cookies:
            self.delete_cookie(request, response, _NOTICE_COOKIE)

    def notice(self, request: Request, reservation: Reservation) -> BlockNotice | None:
        """Return the block that the last outcome for this reservation announced, or ``None``."""
        text = self._signer.read(request.cookies.get(_NOTICE_COOKIE, ""), self.service.now_ms())
        return read_notice(text, self.mark(reservation.reference))

    def mark(self, reference: str) -> str:
        """Return a text that stands for a reservation in a cookie or in a browser's storage, without its code."""
        return self._signer.fingerprint(reference)

    def secret_digest(self, text: str) -> bytes:
        """Return a hash of a text, as 16 bytes. Only the service can compute it."""
        return self._signer.secret_digest(text)

    def visit(self, request: Request) -> Visit:
        """Return this browser's reservation."""
        text = self._signer.read(request.cookies.get(_RESERVATION_COOKIE, ""), self.service.now_ms())
        if text.startswith(_FOUND):
            return Visit(self._signer.unseal(text.removeprefix(_FOUND)), is_owner=False)
        return Visit(text, is_owner=text != "")

    def reference(self, request: Request) -> str:
        """Return the reference of this browser's reservation, or ``""``."""
        return self.visit(request).reference

    def signed_cookie(self, request: Request, name: str) -> str:
        """Return the text of a cookie that :meth:`set_signed_cookie` has set, or ``""``."""
        return self._signer.read(request.cookies.get(name, ""), self.service.now_ms())

    def belongs_to(self, reservation: Reservation, nik: str) -> bool:
        """Return True if a NIK is one of a reservation's applicants."""
        catalog, key = self.service.catalog, bytes(self.service.config.identity_key)
        try:
            return Pseudonyms(key, catalog.identity_format).of(nik) in reservation.applicants
        except InvalidRequest:
            return False

    async def reservation(self, request: Request) -> Reservation | None:
        """Return this browser's reservation, or ``None``."""
        reference = self.reference(request)
        with contextlib.suppress(InvalidRequest):  # a reference of an earlier form
            return await self.service.engine.lookup(reference) if reference else None
        return None

    async def is_day_closed(self, reservation: Reservation) -> bool:
        """Return True if the office has closed the reservation's day."""
        if reservation.office not in self.service.catalog.offices:
            return False
        day = datetime.date.fromordinal(reservation.day)
        return any(view.closed for view in await self.service.engine.availability(reservation.office, day))

    async def can_change(self, reservation: Reservation) -> bool:
        """Return True if the pages offer to change a reservation: it is confirmed, and may be moved once more.

        From a closed day it may always be moved.
        """
        office = self.service.catalog.offices.get(reservation.office)
        return (
            reservation.state is State.CONFIRMED
            and office is not None
            and reservation.choice.service in office.services
            and (
                reservation.moves - reservation.forced_moves < office.rules.reschedules_max
                or await self.is_day_closed(reservation)
            )
        )

    # --- The waiting room ---

    async def current_room(self, office: ResolvedOffice) -> tuple[str, RoomView] | None:
        """Return the id and the view of the waiting room of an office's current or next release.

        Returns:
            ``None`` if the release has no waiting room, or its room has closed.
        """
        room = self.service.current_room(office.id)
        if room is None:
            return None
        try:
            view = await self.waiting_room(room).view()
        except UnknownName:
            return None
        is_closed = view.is_closed or self.service.now_ms() >= view.config.closes_at_ms
        return None if is_closed else (room, view)

    def waiting_room(self, room: str) -> AsyncWaitingRoom:
        """Return the engine's interface to a waiting room."""
        return self.service.engine.room(room)

    def remember_room_session(
        self, request: Request, response: Response, session: RoomSession, expires_at_ms: int
    ) -> None:
        """Set the cookie that leads this browser back to its ticket."""
        text = "|".join((session.room, session.service, session.group, session.origin, session.ticket))
        self.set_signed_cookie(request, response, _TICKET_COOKIE, text, expires_at_ms)

    def room_session(self, request: Request) -> RoomSession | None:
        """Return this browser's ticket, or ``None``."""
        parts = self._signer.read(request.cookies.get(_TICKET_COOKIE, ""), self.service.now_ms()).split("|")
        return RoomSession(*parts) if len(parts) == 5 else None

    def redirect_without_ticket(self, request: Request, url: str) -> Response:
        """Redirect, and delete this browser's ticket."""
        response = RedirectResponse(url, 303)
        self.delete_cookie(request, response, _TICKET_COOKIE)
        return response

    def delete_cookie(self, request: Request, response: Response, name: str) -> None:
        """Delete a cookie, with the attributes with which it was set."""
        response.delete_cookie(name, httponly=True, samesite="lax", secure=request.scope["scheme"] == "https")

    def set_signed_cookie(self, request: Request, response: Response, name: str, text: str, expires_at_ms: int) -> None:
        """Set a cookie that only this service can have made."""
        response.set_cookie(
            name,
            self._signer.sign(text, expires_at_ms),
            max_age=max(0, expires_at_ms - self.service.now_ms()) // 1000,
            httponly=True,
            samesite="lax",
            secure=request.scope["scheme"] == "https",
        )
