"""Anyone can check: a page that verifies the record of a waiting room, or a draw's files, in the browser alone."""

from __future__ import annotations

__all__ = ["VerifyPages"]

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quota_engine.service.pages.citizen.base import CitizenPages

_TEXTS: Final = tuple(
    (name, f"verify_{name}")
    for name in (
        "right", "wrong", "unreadable", "checked", "position", "unknown", "won", "lost", "fault_seed", "fault_digest",
        "fault_contradiction", "fault_windows", "fault_order", "fault_choice", "fault_noted",
    )
)  # fmt: skip
"""Texts that the page's script shows, and their keys."""


class VerifyPages:
    """Handler of the page. It sends no file: the script reads them, and the page says which command does the same."""

    def __init__(self, pages: CitizenPages) -> None:
        self._pages = pages

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [Route("/check", self._pages.guarded(self.show))]

    async def show(self, request: Request) -> Response:
        """Render the page."""
        return self._pages.render(request, "verify.html", self._pages.translator(request), verify_texts=_TEXTS)
