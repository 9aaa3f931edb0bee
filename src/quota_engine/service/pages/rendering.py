"""Render templates into HTTP responses with the headers of every page, and serve the static files."""

from __future__ import annotations

__all__ = ["LANGUAGE_COOKIE", "PageRenderer", "path_with_query"]

import functools
import hashlib
import importlib.resources
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quota_engine.service.pages.i18n import LANGUAGES, Texts, Translator, preferred_language

LANGUAGE_COOKIE: Final = "lang"
"""Name of the query parameter and of the cookie that choose a language."""
_LANGUAGE_COOKIE_S: Final = 120 * 86_400
_FOLDER: Final = importlib.resources.files(__package__)
_MEDIA_TYPES: Final = {
    "site.css": "text/css; charset=utf-8",
    "operator.css": "text/css; charset=utf-8",
    "site.js": "text/javascript; charset=utf-8",
    "verify.js": "text/javascript; charset=utf-8",
    "scan.js": "text/javascript; charset=utf-8",
}
_PAGE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def path_with_query(request: Request) -> str:
    """Return the address of a request without scheme and host, which a client may choose freely."""
    path: str = request.scope["path"]
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


@functools.cache
def _static_files() -> dict[str, bytes]:
    return {name: _without_comments((_FOLDER / "static" / name).read_text(encoding="utf-8")) for name in _MEDIA_TYPES}


def _without_comments(text: str) -> bytes:
    """Return a file without its indentation and the lines of its comments, which take a fifth of its size."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//")).encode()


@functools.cache
def _environment(staging: bool) -> jinja2.Environment:
    """Return the template environment of this process, which compiles each template once, on first use."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_FOLDER / "templates" / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The address of a file changes with its content, so that browsers may cache it forever.
    versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _static_files().items()}
    environment.globals.update(staging=staging, versions=versions)
    return environment


class PageRenderer:
    """Renders pages in the language of a request, and serves the files that pages load."""

    def __init__(self, *, staging: bool) -> None:
        """``staging``: show on every page that this is a test site."""
        self._files, self._environment = _static_files(), _environment(staging)

    def translator(self, request: Request, texts: Texts) -> Translator:
        """Return the texts in the language that the request chooses or accepts."""
        chosen = request.query_params.get(LANGUAGE_COOKIE) or request.cookies.get(LANGUAGE_COOKIE, "")
        return Translator(preferred_language(chosen, request.headers.get("accept-language", "")), texts)

    def render(
        self, request: Request, template: str, translator: Translator, status: int = 200, /, **values: Any
    ) -> Response:
        """Render a page, and remember the language that the request chooses.

        Args:
            request: Request that the page answers.
            template: Path below ``templates/``.
            translator: Texts, as ``t`` in the template.
            status: HTTP status.
            **values: Variables of the template. ``here`` is the address that the language links extend, up to and
                with ``?`` or ``&``; without it, the links lead to the address of the request.
        """
        here = values.pop("here", "")
        if not here:
            query = [(name, value) for name, value in request.query_params.items() if name != LANGUAGE_COOKIE]
            here = f"{request.scope['path']}?{urlencode(query)}{'&' if query else ''}"
        return self.respond(request, self.render_text(template, translator, here=here, **values), status)

    def render_text(self, template: str, translator: Translator, /, **values: Any) -> str:
        """Return the text of a page, which may be shared by requests; see :meth:`render`."""
        return self._environment.get_template(template).render(t=translator, **values)

    def respond(self, request: Request, text: str, status: int = 200) -> Response:
        """Return the response with the text of a page, and remember the language that the request chooses."""
        response = Response(text, status, headers=_PAGE_HEADERS, media_type="text/html")
        chosen = request.query_params.get(LANGUAGE_COOKIE, "")
        if chosen in LANGUAGES and chosen != request.cookies.get(LANGUAGE_COOKIE):
            is_secure = request.scope["scheme"] == "https"
            response.set_cookie(LANGUAGE_COOKIE, chosen, max_age=_LANGUAGE_COOKIE_S, samesite="lax", secure=is_secure)
        return response

    def routes(self) -> list[Route]:
        """Return the routes of the static files."""
        return [Route("/static/{version}/{name}", self._static_file)]

    async def _static_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return Response(status_code=404)
        headers = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
        return Response(self._files[name], headers=headers, media_type=_MEDIA_TYPES[name])
