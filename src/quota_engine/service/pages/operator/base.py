"""Shared parts of the operators' pages: access, the office of a request, rendering, and error pages."""

from __future__ import annotations

__all__ = ["Handler", "OperatorPages"]

import datetime
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from quota_engine.catalog import ResolvedOffice
from quota_engine.domain.errors import InvalidRequest, JobTimeout, OutcomeUnknown, QuotaEngineError
from quota_engine.draws.queries import DrawView
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.observability.audit_log import recorded
from quota_engine.service.pages.dashboard_cache import DashboardCache
from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import OPERATOR_TEXTS, Translator
from quota_engine.service.pages.operator.login import LoginPages, own_address
from quota_engine.service.pages.operator.request import (
    CHANGE_ROLES,
    READ_ROLES,
    STAFF_ROLES,
    OperatorRequest,
    PageError,
    is_allowed,
)
from quota_engine.service.pages.operator.sessions import OperatorSessions
from quota_engine.service.pages.rendering import PageRenderer
from quota_engine.waiting_room.summary import RoomSummary

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext
    from quota_engine.service.http.sse import EventStream

_ALL_ROLES: Final = frozenset(Role)
_OFFICES_PATH: Final = "/offices"
_TABS: Final = (
    ("", "dashboard", READ_ROLES),
    (_OFFICES_PATH, "offices", READ_ROLES),
    ("/room", "waiting_room", READ_ROLES),
    ("/queue", "queue", STAFF_ROLES),
    ("/call", "call", STAFF_ROLES),
    ("/walk-in", "walk_in", STAFF_ROLES),
    ("/opening", "opening", READ_ROLES),
    ("/report", "report", READ_ROLES),
    ("/catalog", "catalog", READ_ROLES),
    ("/audit", "audit", READ_ROLES),
)
_RETRY_S: Final = 5
_LOGGED_FIELDS: Final = (
    "day",
    "room",
    "per_minute_min",
    "per_minute_max",
    "reference",
    "number",
    "targets",
    "place",
    "to",
    "session",
    "channel",
    "kind",
    "first",
    "last",
    "change",
)
"""Fields of a form that the audit log records beside the name of the operator."""

_is_field_name: Final = re.compile(r"(?!.*[0-9]{16})[a-zA-Z0-9_-]{1,80}").fullmatch

Handler = Callable[[OperatorRequest], Awaitable["Response | EventStream"]]


class OperatorPages:
    """The service for handlers of the operators' pages."""

    def __init__(self, service: ServiceContext, renderer: PageRenderer, cache: DashboardCache) -> None:
        self.service = service
        self.cache = cache
        self._renderer = renderer
        self._sessions = OperatorSessions(service)
        self.login = LoginPages(renderer, self._sessions)

    # --- Access ---

    def guarded(self, handle: Handler, roles: frozenset[Role]) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler for signed-in operators with one of the roles.

        Refusals and an unavailable store become error pages. A submitted form is recorded in the audit log.
        """

        async def respond(request: Request) -> Any:
            grant = self._sessions.grant(request)
            if grant is None:
                next_url = own_address(request) if request.method != "POST" else ""
                return self.login.login_page(request, 401, next_url=next_url)
            translator = self._renderer.translator(request, OPERATOR_TEXTS)
            office: ResolvedOffice | None = None
            try:
                fields = await self._fields(request)
                office = self._office(grant, fields.get("office", ""))
                operator_request = OperatorRequest(request, translator, grant, office, fields)
                if not operator_request.has_role(roles):
                    raise PageError(403, "not_allowed")
                if fields.get("done"):
                    # Another worker may have made the change, and this one still caches the figures before it.
                    self.cache.invalidate(office.id, self.day(operator_request))
                if request.method != "POST":
                    return await handle(operator_request)
                named = (name for name in fields if name in _LOGGED_FIELDS or name.startswith("capacity-"))
                logged = {"office": office.id} | {name: fields[name] for name in named if _is_field_name(name)}
                commands = self.service.command_log
                return await recorded(commands, grant.name, request.url.path, logged, handle(operator_request))
            except PageError as error:
                return self._error_page(request, translator, grant, office, error)
            except InvalidRequest:
                return self._error_page(request, translator, grant, office, PageError(400, "bad_request"))
            except (JobTimeout, OutcomeUnknown):
                return self._error_page(request, translator, grant, office, PageError(503, "outcome_unknown"))
            except QuotaEngineError:
                unavailable = PageError(503, "store_unavailable")
                response = self._error_page(request, translator, grant, office, unavailable, is_retried=True)
                response.headers["retry-after"] = str(_RETRY_S)
                return response

        return respond

    async def _fields(self, request: Request) -> Mapping[str, str]:
        if request.method != "POST":
            return request.query_params
        fields = dict(await read_form(request) or ())
        if not self._sessions.is_own_form(request, fields):
            raise PageError(403, "form_expired")
        return fields

    def _office(self, grant: Grant, office: str) -> ResolvedOffice:
        """Return the named office, or for ``""`` the first one that the grant covers."""
        offices = self.service.catalog.offices
        if office:
            if office not in offices:
                raise PageError(404, "unknown_office")
            return offices[office]
        own = [name for name in grant.offices if name in offices]
        return offices[own[0]] if own else next(iter(offices.values()))

    def offices(self, grant: Grant) -> list[ResolvedOffice]:
        """Return the offices that a grant covers."""
        return [one for one in self.service.catalog.offices.values() if is_allowed(grant, _ALL_ROLES, one.id)]

    # --- Responses ---

    def render(
        self, request: OperatorRequest, template: str, tab: str, status: int = 200, /, **values: Any
    ) -> Response:
        """Render a template of ``templates/operator``, a whole page or a refreshed part.

        Args:
            request: Request of the operator.
            template: Path below ``templates/operator/``.
            tab: Key of the tab that the page belongs to.
            status: HTTP status.
            **values: Variables of the template.
        """
        return self._render(
            request.request, request.translator, request.grant, request.office, template, tab, status, **values
        )

    def _render(
        self,
        request: Request,
        translator: Translator,
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
        return self._renderer.render(
            request,
            f"operator/{template}",
            translator,
            status,
            here=here,
            tab=tab,
            tabs=[
                (path, text)
                for path, text, roles in _TABS
                if grant.role in roles and (path != _OFFICES_PATH or len(offices) > 1)
            ],
            office=office,
            offices=offices,
            operator_name=grant.name,
            csrf_token=self._sessions.csrf_token(request),
            can_change=grant.role in CHANGE_ROLES,
            is_staff=grant.role in STAFF_ROLES,
            today=self.today(office),
            **{"done": "", "error": None, **values},
        )

    def _error_page(
        self,
        request: Request,
        translator: Translator,
        grant: Grant,
        office: ResolvedOffice | None,
        error: PageError,
        *,
        is_retried: bool = False,
    ) -> Response:
        if office is None or not is_allowed(grant, _ALL_ROLES, office.id):
            office = self._office(grant, "")
        return self._render(
            request,
            translator,
            grant,
            office,
            "error.html",
            "operators",
            error.status,
            text=translator(error.text, **error.gaps),
            retry_url=own_address(request) if is_retried and request.method != "POST" else "",
            here=f"/operator?office={office.id}&",
        )

    def redirect(self, request: OperatorRequest, path: str, **query: object) -> Response:
        """Redirect after a form, so that a reload does not submit it again."""
        return RedirectResponse(f"{path}?{urlencode({'office': request.office.id} | query)}", 303)

    # --- Fields ---

    async def room(self, request: OperatorRequest) -> RoomSummary | None:
        """Return the named waiting room, or that of the current or next release.

        Returns:
            ``None`` if there is no such room, or it belongs to another office.
        """
        room = request.field("room") or self.service.current_room(request.office.id)
        found = await self.cache.room(room) if room else None
        return found if found is not None and found.office == request.office.id else None

    async def draw(self, request: OperatorRequest) -> DrawView | None:
        """Return the named draw, or ``None`` for no name or an unknown one."""
        name = request.field("draw")
        return await self.cache.draw(name) if name else None

    def day(self, request: OperatorRequest) -> datetime.date:
        """Return the day of the request, or today. Raises :class:`PageError` for an invalid date."""
        text = request.fields.get("day", "")
        if not text:
            return self.today(request.office)
        try:
            return datetime.date.fromisoformat(text)
        except ValueError:
            raise PageError(404, "unknown_day") from None

    # --- Times ---

    @staticmethod
    def date(ordinal: int) -> datetime.date:
        """Return the date of an ordinal."""
        return datetime.date.fromordinal(ordinal)

    def local_time(self, at_ms: int, office: ResolvedOffice) -> datetime.datetime:
        """Convert milliseconds since 1970 (UTC) to the time zone of an office."""
        return datetime.datetime.fromtimestamp(at_ms / 1000, tz=office.zone)

    def updated_at(self, request: OperatorRequest, at_ms: int) -> str:
        """Format the time of some figures, to the second."""
        moment = self.local_time(at_ms, request.office)
        text = f"{moment:%H:%M:%S}"
        return f"{text.replace(':', '.') if request.translator.language == 'id' else text} {moment.tzname()}"

    def today(self, office: ResolvedOffice) -> datetime.date:
        """Return the present date at an office."""
        return self.local_time(self.service.now_ms(), office).date()
