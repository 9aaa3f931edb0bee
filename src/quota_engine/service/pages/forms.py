"""Forms of the pages: read with bounds, and only from this site."""

from __future__ import annotations

__all__ = ["form_of", "is_same_origin"]

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

FORM_BYTES_MAX: Final = 16_384
_FIELDS_MAX: Final = 200


async def form_of(request: Request) -> list[tuple[str, str]] | None:
    """The fields of a form of this site; ``None`` if it is another's, or no form."""
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
    """Whether a form comes from this site, as far as the browser says."""
    origin = request.headers.get("origin", "")
    return not origin or urlsplit(origin).netloc == request.headers.get("host", "")
