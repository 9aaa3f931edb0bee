"""What all operators' pages share: who looks, at which office, what they may, and how a page says that it can not."""

from __future__ import annotations

__all__ = ["CHANGES", "READERS", "STAFF", "Look", "Mistake", "OperatorSite", "Refused"]

import dataclasses
import datetime
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from quota_engine.catalog import ResolvedOffice
from quota_engine.domain.errors import InvalidRequest, OutcomeUnknown, QuotaEngineError
from quota_engine.draws.ledger import DrawView
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.observability.audit_log import recorded
from quota_engine.service.pages.citizen.base import Site
from quota_engine.service.pages.dashboard_cache import Board
from quota_engine.service.pages.forms import form_of
from quota_engine.service.pages.i18n import Words
from quota_engine.service.pages.operator.sessions import SigningIn
from quota_engine.service.pages.rendering import Pages
from quota_engine.waiting_room.summary import RoomSummary

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext
    from quota_engine.service.http.sse import EventStream

CHANGES: Final = frozenset({Role.OPERATOR})
STAFF: Final = frozenset({Role.OFFICE, Role.OPERATOR})
READERS: Final = frozenset({Role.AUDITOR, Role.OPERATOR})

_OFFICES: Final = "/offices"
_TABS: Final = (
    ("", "op_board", READERS),
    (_OFFICES, "op_offices", READERS),
    ("/room", "op_room", READERS),
    ("/queue", "op_list", STAFF),
    ("/opening", "op_opening", READERS),
    ("/audit", "op_audit", READERS),
)
_RETRY_S: Final = 5
_WRITTEN_DOWN: Final = ("day", "quota", "capacity", "room", "per_minute_min", "per_minute_max", "reference", "number")
"""Of a form, what stands in the log beside who has sent it."""
_is_own_address = re.compile(r"/operator(/[a-z-]+)*(\.csv)?(\?[A-Za-z0-9=&%_.~:+-]*)?").fullmatch


class Refused(Exception):
    """A page that says why not: an HTTP status and a text of the pages."""

    def __init__(self, status: int, text: str, **gaps: object) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.gaps = gaps


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a field of a form, and what somebody had typed into it."""

    field: str
    text: str
    typed: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Somebody who has signed in, and what they look at or send. ``fields`` are the form's, or else the address's."""

    request: Request
    words: Words
    grant: Grant
    office: ResolvedOffice
    fields: Mapping[str, str]

    def may(self, roles: frozenset[Role]) -> bool:
        """Whether they have one of these roles here."""
        return _allows(self.grant, roles, self.office.id)


Handler = Callable[[Look], Awaitable["Response | EventStream"]]


class OperatorSite:
    """The service, as operators' pages see it."""

    def __init__(self, service: ServiceContext, pages: Pages, board: Board) -> None:
        self.service = service
        self.board = board
        self.signing_in = SigningIn(service)
        self._site = Site(service, pages, board)

    # --- Coming and going ---

    def door(self, request: Request, status: int, mistake: str = "", to: str = "") -> Response:
        """The page that asks for a token, and leads on to ``to``."""
        words = self._site.words(request)
        mark, cookie = self.signing_in.door(request)
        response = self._site.page(
            request,
            "operator_login.html",
            words,
            status,
            mistake=mistake and words(mistake),
            mark=mark,
            to=to,
            here=f"{to or '/operator'}{'&' if '?' in to else '?'}",
        )
        if cookie:
            self.signing_in.set_door(request, response, cookie)
        return response

    async def login(self, request: Request) -> Response:
        """Take a token, and keep who it belongs to in a signed cookie of this browser."""
        fields = dict(await form_of(request) or ())
        to = fields.get("to", "")
        if not _is_own_address(to):
            to = ""
        if not self.signing_in.is_at_door(request, fields):
            return self.door(request, 403, "op_form_old", to)
        found = self.signing_in.try_token(request, fields.get("token", "").strip())
        if isinstance(found, int):
            response = self.door(request, 429, "op_too_many_tries", to)
            response.headers["retry-after"] = str(-(-found // 1000))
            return response
        if found is None:
            return self.door(request, 401, "op_token_wrong", to)
        response = RedirectResponse(to or "/operator", 303)
        self.signing_in.remember(request, response, found)
        return response

    async def login_again(self, request: Request) -> Response:
        """Whoever reloads after a wrong token comes here."""
        return RedirectResponse("/operator", 303)

    async def logout(self, request: Request) -> Response:
        """Forget who this browser is."""
        fields = dict(await form_of(request) or ())
        if not self.signing_in.is_own(request, fields):
            return self.door(request, 403, "op_form_old")
        response = RedirectResponse("/operator", 303)
        self.signing_in.forget(response)
        return response

    # --- Handlers ---

    def shown(self, handle: Handler, roles: frozenset[Role]) -> Callable[[Request], Awaitable[Response]]:
        """A handler for those who have one of the roles. What it refuses, and that the store is away, are pages."""

        async def answer(request: Request) -> Any:
            grant = self.signing_in.grant_of(request)
            if grant is None:
                return self.door(request, 401, to=_address(request) if request.method != "POST" else "")
            words = self._site.words(request)
            office: ResolvedOffice | None = None
            try:
                fields = await self._fields(request)
                office = self._office(grant, fields.get("office", ""))
                look = Look(request, words, grant, office, fields)
                if not look.may(roles):
                    raise Refused(403, "op_not_allowed")
                if fields.get("done"):
                    self.board.forget(office.id, self.day(look))  # it may have been another process that did it
                if request.method != "POST":
                    return await handle(look)
                about = {"office": office.id} | {name: fields[name] for name in _WRITTEN_DOWN if name in fields}
                return await recorded(grant.name, request.url.path, about, handle(look))
            except Refused as refused:
                return self._said(request, words, grant, office, refused)
            except InvalidRequest:
                return self._said(request, words, grant, office, Refused(400, "op_bad_request"))
            except OutcomeUnknown:
                return self._said(request, words, grant, office, Refused(503, "op_unknown"))
            except QuotaEngineError:
                response = self._said(request, words, grant, office, Refused(503, "op_away"), tries_again=True)
                response.headers["retry-after"] = str(_RETRY_S)
                return response

        return answer

    async def _fields(self, request: Request) -> Mapping[str, str]:
        if request.method != "POST":
            return request.query_params
        fields = dict(await form_of(request) or ())
        if not self.signing_in.is_own(request, fields):
            raise Refused(403, "op_form_old")
        return fields

    def _office(self, grant: Grant, name: str) -> ResolvedOffice:
        offices = self.service.catalog.offices
        if name:
            if name not in offices:
                raise Refused(404, "op_no_office")
            return offices[name]
        own = [office for office in grant.offices if office in offices]
        return offices[own[0]] if own else next(iter(offices.values()))

    def offices(self, grant: Grant) -> list[ResolvedOffice]:
        """The offices that a token is good for."""
        return [one for one in self.service.catalog.offices.values() if _allows(grant, frozenset(Role), one.id)]

    # --- Answers ---

    def page(self, look: Look, template: str, tab: str, status: int = 200, /, **values: Any) -> Response:
        """A page with its tabs, or a part of one."""
        return self._page(look.request, look.words, look.grant, look.office, template, tab, status, **values)

    def _page(
        self,
        request: Request,
        words: Words,
        grant: Grant,
        office: ResolvedOffice,
        template: str,
        tab: str,
        status: int,
        /,
        **values: Any,
    ) -> Response:
        offices = self.offices(grant)
        here = values.pop("here", "") or ("" if request.method != "POST" else f"/operator?office={office.id}&")
        return self._site.page(
            request,
            template,
            words,
            status,
            here=here,
            tab=tab,
            tabs=[
                (path, text)
                for path, text, roles in _TABS
                if grant.role in roles and (path != _OFFICES or len(offices) > 1)
            ],
            office=office,
            offices=offices,
            who=grant.name,
            mark=self.signing_in.mark_of(request),
            may_change=grant.role in CHANGES,
            is_staff=grant.role in STAFF,
            today=self.today(office),
            **{"done": "", "mistake": None, **values},
        )

    def _said(
        self,
        request: Request,
        words: Words,
        grant: Grant,
        office: ResolvedOffice | None,
        refused: Refused,
        *,
        tries_again: bool = False,
    ) -> Response:
        if office is None or not _allows(grant, frozenset(Role), office.id):
            office = self._office(grant, "")
        return self._page(
            request,
            words,
            grant,
            office,
            "operator_refused.html",
            "op_title",
            refused.status,
            text=words(refused.text, **refused.gaps),
            again=_address(request) if tries_again and request.method != "POST" else "",
            here=f"/operator?office={office.id}&",
        )

    def go(self, look: Look, path: str, **query: object) -> Response:
        """Lead on after a form has been carried out, so that reloading does not send it again."""
        return RedirectResponse(f"{path}?{urlencode({'office': look.office.id, **query})}", 303)

    # --- What is named in fields ---

    async def room(self, look: Look) -> RoomSummary | None:
        """The waiting room that is named, or else that of the release that is running or next; ``None``: there is none,
        or it is another office's.
        """
        room = look.fields.get("room", "").strip() or self.service.current_room(look.office.id)
        found = await self.board.room(room) if room else None
        return found if found is not None and found.office == look.office.id else None

    async def draw(self, look: Look) -> DrawView | None:
        """The draw that is named; ``None``: none is, or there is none of this id."""
        name = look.fields.get("draw", "").strip()
        return await self.board.draw(name) if name else None

    def query(self, look: Look, *names: str) -> str:
        """The part of an address behind ``?``: the office, and those of the fields that are given."""
        given = {name: look.fields[name] for name in names if look.fields.get(name)}
        return urlencode({"office": look.office.id, **given})

    def done(self, look: Look, *names: str) -> str:
        """Which of these the form did that led here; ``""``: none of them."""
        name = look.fields.get("done", "") if look.request.method != "POST" else ""
        return name if name in names else ""

    # --- Times ---

    def moment(self, at_ms: int, office: ResolvedOffice) -> datetime.datetime:
        """A moment at an office."""
        return datetime.datetime.fromtimestamp(at_ms / 1000, tz=office.zone)

    def seen(self, look: Look, at_ms: int) -> str:
        """When the figures were so, to the second."""
        moment = self.moment(at_ms, look.office)
        text = f"{moment:%H:%M:%S}"
        return f"{text.replace(':', '.') if look.words.language == 'id' else text} {moment.tzname()}"

    def today(self, office: ResolvedOffice) -> datetime.date:
        """The day that it is at an office."""
        return self.moment(self.service.now_ms(), office).date()

    def day(self, look: Look) -> datetime.date:
        """The day that is asked for; today if none is. Raises :class:`Refused` for what is no day."""
        text = look.fields.get("day", "")
        if not text:
            return self.today(look.office)
        try:
            return datetime.date.fromisoformat(text)
        except ValueError:
            raise Refused(404, "op_no_day") from None


def _allows(grant: Grant, roles: frozenset[Role], office: str) -> bool:
    return grant.role in roles and (not grant.offices or office in grant.offices)


def _address(request: Request) -> str:
    text = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    return text if _is_own_address(text) else "/operator"
