"""Templates to answers, with the headers that every page has."""

from __future__ import annotations

__all__ = ["Pages"]

import functools
import hashlib
import importlib.resources
from typing import Any, Final

import jinja2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quota_engine.service.pages.i18n import Words

_FOLDER = importlib.resources.files(__package__)
_STATIC: Final = {
    "site.css": "text/css; charset=utf-8",
    "operator.css": "text/css; charset=utf-8",
    "site.js": "text/javascript; charset=utf-8",
}
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


@functools.cache
def _files() -> dict[str, bytes]:
    return {name: (_FOLDER / "static" / name).read_bytes() for name in _STATIC}


@functools.cache
def _environment(staging: bool) -> jinja2.Environment:
    """The templates, for all applications of this process: each is compiled once, when it is first shown."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_FOLDER / "templates" / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A file's address changes with its content, so that browsers may keep it.
    versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _files().items()}
    environment.globals.update(staging=staging, versions=versions)
    return environment


class Pages:
    """Renders the pages, and serves the files that they need."""

    def __init__(self, *, staging: bool) -> None:
        self._files, self._environment = _files(), _environment(staging)

    def page(self, template: str, words: Words, status: int = 200, /, **values: Any) -> Response:
        """A page in the words' language."""
        text = self._environment.get_template(template).render(w=words, **values)
        return Response(text, status, headers=_HEADERS, media_type="text/html")

    def routes(self) -> list[Route]:
        """The addresses of the files."""
        return [Route("/static/{version}/{name}", self._file)]

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return Response(status_code=404)
        headers = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
        return Response(self._files[name], headers=headers, media_type=_STATIC[name])
