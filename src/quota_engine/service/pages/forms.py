"""Read submitted forms with limits, and only from pages of this site."""

from __future__ import annotations

__all__ = ["is_same_origin", "read_form"]

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from quota_engine.service.http.hosts import ORIGIN_KEY

FORM_BYTES_MAX: Final = 16_384
_FIELDS_MAX: Final = 200


async def read_form(request: Request) -> list[tuple[str, str]] | None:
    """Return the fields of a form in their order.

    Returns:
        ``None`` if the form comes from another site, is malformed, or exceeds :data:`FORM_BYTES_MAX` or 200 fields.
    """
    if not is_same_origin(request):
        return None
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > FORM_BYTES_MAX:
            return None
    try:
        return parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        return None


def is_same_origin(request: Request) -> bool:
    """Return True unless the ``Origin`` or ``Sec-Fetch-Site`` header names another site. Some browsers send neither.

    Without a configured public origin the host decides alone, because a proxy may hide the scheme.
    """
    origin = request.headers.get("origin", "")
    own = request.scope.get(ORIGIN_KEY)
    if not origin:
        return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    if own is not None:
        return bool(origin == own)
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and host == request.headers.get("host", "").lower()
