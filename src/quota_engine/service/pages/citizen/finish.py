"""Finish on this computer: end a visit, so that the next person at a shared computer sees nothing of it."""

from __future__ import annotations

__all__ = ["FinishPages"]

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from quota_engine.service.pages.citizen.base import NO_STORE_HEADERS, CitizenPages
from quota_engine.service.pages.forms import read_form

_DOT: Final = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


class FinishPages:
    """Handlers of the end of a visit. Nothing is given up: the same NIK leads back."""

    def __init__(self, pages: CitizenPages) -> None:
        self._pages = pages

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        guarded = self._pages.guarded
        return [
            Route("/finish", guarded(self.finish, is_sheddable=False), methods=["POST"]),
            Route("/finished", guarded(self.finished, is_sheddable=False)),
            Route("/finished/dot.svg", guarded(self.dot, is_sheddable=False)),
        ]

    async def finish(self, request: Request) -> Response:
        """End the visit of this browser."""
        if await read_form(request) is None:
            return RedirectResponse("/", 303)
        response = RedirectResponse("/finished", 303)
        self._pages.forget_visit(request, response)
        return response

    async def finished(self, request: Request) -> Response:
        """Render the page that says that the visit has ended."""
        return self._pages.render(request, "finished.html", self._pages.translator(request))

    async def dot(self, request: Request) -> Response:
        """Return an invisible picture, and let the browser drop the pages that its Back button would show.

        Chromium keeps pages in memory although they are marked as not to be stored. It drops them if it gets this
        header after it has left them, so the last page of a visit and the operators' login load this picture. A page of
        another site gets no header.
        """
        response = Response(_DOT, headers=NO_STORE_HEADERS, media_type="image/svg+xml")
        if request.headers.get("sec-fetch-site", "same-origin") == "same-origin":
            response.headers["clear-site-data"] = '"cache"'
        return response
