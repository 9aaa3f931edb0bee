"""The login page of the operators, and signing out."""

from __future__ import annotations

__all__ = ["LoginPages", "own_address"]

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.service.pages.forms import read_form
from quota_engine.service.pages.i18n import OPERATOR_TEXTS
from quota_engine.service.pages.operator.sessions import OperatorSessions
from quota_engine.service.pages.rendering import PageRenderer, path_with_query

_START: Final = "/operator"
_is_own_address = re.compile(r"/operator(/[a-z-]+)*(\.csv)?(\?[A-Za-z0-9=&%_.~:+-]*)?").fullmatch


class LoginPages:
    """Handlers of signing in and out."""

    def __init__(self, renderer: PageRenderer, sessions: OperatorSessions) -> None:
        self._renderer = renderer
        self._sessions = sessions

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        return [
            Route("/operator/login", self.redirect_to_start, methods=["GET"]),
            Route("/operator/login", self.login, methods=["POST"]),
            Route("/operator/logout", self.logout, methods=["POST"]),
        ]

    def login_page(self, request: Request, status: int, error: str = "", next_url: str = "") -> Response:
        """Render the login form.

        Args:
            request: Request that needs a session.
            status: HTTP status.
            error: Key of the error's text, or ``""``.
            next_url: Address to open after signing in; ``""`` for the start page.
        """
        translator = self._renderer.translator(request, OPERATOR_TEXTS)
        csrf_token, cookie = self._sessions.login_form(request)
        response = self._renderer.render(
            request,
            "operator/login.html",
            translator,
            status,
            error=error and translator(error),
            csrf_token=csrf_token,
            next_url=next_url,
            here=f"{next_url or _START}{'&' if '?' in next_url else '?'}",
        )
        if cookie:
            self._sessions.set_login_cookie(request, response, cookie)
        return response

    async def login(self, request: Request) -> Response:
        """Check the submitted token, and start a session."""
        fields = dict(await read_form(request) or ())
        next_url = fields.get("next", "")
        if not _is_own_address(next_url):
            next_url = ""
        if not self._sessions.is_own_login_form(request, fields):
            return self.login_page(request, 403, "form_expired", next_url)
        found = self._sessions.try_token(request, fields.get("token", "").strip())
        if isinstance(found, int):
            response = self.login_page(request, 429, "too_many_attempts", next_url)
            response.headers["retry-after"] = str(-(-found // 1000))
            return response
        if found is None:
            return self.login_page(request, 401, "token_wrong", next_url)
        response = RedirectResponse(next_url or _START, 303)
        self._sessions.start(request, response, found)
        return response

    async def redirect_to_start(self, request: Request) -> Response:
        """Redirect a browser that reloads after a wrong token."""
        return RedirectResponse(_START, 303)

    async def logout(self, request: Request) -> Response:
        """End the session."""
        fields = dict(await read_form(request) or ())
        if not self._sessions.is_own_form(request, fields):
            return self.login_page(request, 403, "form_expired")
        response = RedirectResponse(_START, 303)
        self._sessions.end(request, response)
        return response


def own_address(request: Request) -> str:
    """Return path and query of a request, or the start page for an address that no operators' page has."""
    text = path_with_query(request)
    return text if _is_own_address(text) else _START
