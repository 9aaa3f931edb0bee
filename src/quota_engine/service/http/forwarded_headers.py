"""Headers in which proxies report a client's address and scheme: trusted from configured addresses only."""

from __future__ import annotations

__all__ = ["ForwardedHeaders", "untrusted_proxy"]

import logging
from collections.abc import Iterable
from typing import Any, Final, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_logger = logging.getLogger("quota_engine.service")
_PROXY_KEY: Final = "quota_engine.untrusted_proxy"
_ADDRESS_HEADERS: Final = frozenset({b"forwarded", b"x-forwarded-for"})


class ForwardedHeaders:
    """ASGI application in front of the pages that applies ``X-Forwarded-For`` and ``-Proto`` of trusted proxies.

    The first request that carries such a header from another address is logged. Behind a proxy that is not trusted,
    all visitors have its address, and their cookies are not marked secure.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str]) -> None:
        """``trusted`` has addresses and networks, or ``*`` alone for all."""
        self._middleware = ProxyHeadersMiddleware(cast("Any", app), trusted_hosts=list(trusted))
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        client = scope.get("client")
        if client and any(name in _ADDRESS_HEADERS for name, _ in scope["headers"]):
            address = client[0]
            if address not in self._middleware.trusted_hosts:
                scope[_PROXY_KEY] = address
                if not self._has_warned:
                    self._has_warned = True
                    _logger.warning(
                        "%s sent X-Forwarded-For or Forwarded and is not in trusted_proxies: the pages ignore it. "
                        "If it is your proxy, add it to trusted_proxies; until then all its visitors have one address",
                        address,
                    )
        await cast("ASGIApp", self._middleware)(scope, receive, send)


def untrusted_proxy(scope: Scope) -> str:
    """Return the address that sent a request as a proxy without being trusted; ``""`` if none did."""
    address: str = scope.get(_PROXY_KEY, "")
    return address
