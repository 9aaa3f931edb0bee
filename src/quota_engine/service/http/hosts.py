"""Hosts of requests: their syntax, and the public origins of the pages."""

from __future__ import annotations

__all__ = ["ORIGIN_KEY", "PublicOrigins", "is_host"]

import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from quota_engine.service.http.problems import Problem
from quota_engine.service.http.responses import problem_response, request_id_from, send_response

ORIGIN_KEY: Final = "quota_engine.public_origin"
"""Key of the public origin in the scope of a page's request; absent if none is configured."""
_HOST_BYTES_MAX: Final = 261
"""A name of 255 bytes and a port."""
_PORT_MAX: Final = 65_535
_match_host = re.compile(
    rb"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::(?P<port>[0-9]{0,5}))?"
).fullmatch
"""``uri-host [ ":" port ]`` of RFC 9110, section 7.2, without literals of address versions that do not exist."""
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def is_host(value: bytes) -> bool:
    """Return True if ``value`` is a valid value of ``Host``, with a host that is not empty.

    The empty value stands for a target without an authority. A target of the schemes http and https always has one.
    """
    return len(value) <= _HOST_BYTES_MAX and _is_host(value)


@functools.lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    found = _match_host(value)
    if found is None or int(found["port"] or 0) > _PORT_MAX:
        return False
    if found["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(found["ipv6"].decode())
        except ValueError:
            return False
    return True


class PublicOrigins:
    """ASGI application in front of the pages that answers for the configured origins only.

    A request for another host gets 421. Pages read their origin from the scope: it decides on the scheme, and so on
    secure cookies, and forms are accepted from it alone. Without a configured origin, every host is served.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        """``origins`` are like ``https://booking.example``, each with another host."""
        self._app = app
        self._by_host: dict[str, str] = {}
        for origin in origins:
            scheme, _, host = origin.partition("://")
            self._by_host |= {host: origin, host + _DEFAULT_PORTS[scheme]: origin}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._by_host:
            headers = dict(scope["headers"])
            origin = self._by_host.get(headers.get(b"host", b"").decode("latin-1").lower())
            if origin is None:
                request_id = request_id_from(headers)
                problem = Problem("misdirected-request", "public_origins of the service does not have this host")
                is_head = scope["method"] == "HEAD"
                await send_response(send, problem_response(problem, request_id), request_id, is_head=is_head)
                return
            scope["scheme"] = origin.partition(":")[0]
            scope[ORIGIN_KEY] = origin
        await self._app(scope, receive, send)
