"""Send the requests of calls over a connection, synchronously and under asyncio."""

from __future__ import annotations

__all__ = ["AsyncTransport", "Transport"]

import asyncio
import random
import time
from typing import Any, Final

import httpx

from quota_engine.client.call_protocol import Delay, HttpRequest, HttpResponse, NoResponse

_RESPONSE_TIME_MS: Final = 2_000
"""Time for the way to the service and back, beyond the time that the service has for a call."""
_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.ProxyError,
)


class Transport:
    """Answers the steps of calls over ``http``."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def handle(self, step: HttpRequest | Delay) -> HttpResponse | None:
        """Send a request and return its response, or wait.

        Raises:
            NoResponse: no response arrived.
        """
        if isinstance(step, Delay):
            time.sleep(_delay_s(step))
            return None
        try:
            return _response(self.http.request(**_arguments(step)))
        except httpx.RequestError as error:
            raise _no_response(error) from error


class AsyncTransport:
    """:class:`Transport` for asyncio."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def handle(self, step: HttpRequest | Delay) -> HttpResponse | None:
        """See :meth:`Transport.handle`."""
        if isinstance(step, Delay):
            await asyncio.sleep(_delay_s(step))
            return None
        try:
            return _response(await self.http.request(**_arguments(step)))
        except httpx.RequestError as error:
            raise _no_response(error) from error


def _delay_s(delay: Delay) -> float:
    # Up to a quarter longer, so that clients that failed at the same moment do not return at the same moment.
    return delay.duration_ms / 1000 * random.uniform(1, 1.25)


def _arguments(request: HttpRequest) -> dict[str, Any]:
    headers = dict(request.headers)
    if request.body is not None:
        headers["content-type"] = "application/json"
    arguments: dict[str, Any] = {}
    if request.timeout_ms is not None:
        arguments["timeout"] = (request.timeout_ms + _RESPONSE_TIME_MS) / 1000
    return {
        **arguments,
        "method": request.method,
        "url": request.path,
        "params": request.query,
        "content": request.body,
        "headers": headers,
    }


def _response(response: httpx.Response) -> HttpResponse:
    return HttpResponse(response.status_code, response.headers, response.content)


def _no_response(error: httpx.RequestError) -> NoResponse:
    return NoResponse(str(error) or type(error).__name__, sent=not isinstance(error, _NOT_SENT))
