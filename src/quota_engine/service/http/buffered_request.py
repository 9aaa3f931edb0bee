"""A complete request on one of our connections, and its response.

The response is either sent at once as bytes, or part by part through the ASGI messages that Starlette's pages and the
event streams send.
"""

from __future__ import annotations

__all__ = ["END_CLOSE", "SCOPE_KEY", "STATUS_LINES", "BufferedRequest", "RequestConnection"]

import asyncio
import http
import logging
import re
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Scope

from quota_engine.service.http.problems import Problem
from quota_engine.service.http.responses import problem_response, render_head, request_id_from

_logger = logging.getLogger("quota_engine.service")

SCOPE_KEY: Final = "quota_engine.buffered_request"
"""Key of the request in its ASGI scope."""
STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}
_END: Final = b"\r\n"
END_CLOSE: Final = b"connection: close\r\n\r\n"
_NO_SCOPE: Final[Scope] = {}
_has_forbidden_bytes = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


class RequestConnection(Protocol):
    """The connection as a request needs it."""

    transport: asyncio.Transport
    is_write_paused: bool
    is_half_closed: bool

    def server_head(self) -> bytes:
        """Return the server's own header lines."""
        ...

    def request_finished(self, request: BufferedRequest) -> None:
        """Continue after the response is complete."""
        ...

    async def wait_writable(self) -> None:
        """Wait until the transport takes data again, or the connection is lost."""
        ...


class BufferedRequest:
    """A request with its whole body, and the response to it. Serves as ASGI's ``receive`` and ``send``."""

    __slots__ = (
        "_bytes_left",
        "_connection",
        "_disconnected",
        "_head",
        "_is_chunked",
        "_is_read",
        "_omits_body",
        "body",
        "headers",
        "is_complete",
        "is_disconnected",
        "is_over_limit",
        "is_written",
        "keep_alive",
        "scope",
    )

    def __init__(
        self,
        connection: RequestConnection,
        scope: Scope,
        headers: dict[bytes, bytes],
        body: bytes,
        keep_alive: bool,
    ) -> None:
        """``headers`` has lower-case names; of repeated headers it has the last."""
        self.scope = scope
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.is_complete = False
        self.is_disconnected = False
        self.is_over_limit = False
        """True if the process was at capacity when the request arrived."""
        self.is_written = False
        self._connection = connection
        self._disconnected: asyncio.Event | None = None
        self._omits_body = scope["method"] == "HEAD"
        self._is_read = False
        self._is_chunked = False
        self._bytes_left: int | None = None
        self._head = b""

    def respond(self, status: int, head: bytes, content: bytes) -> None:
        """Send the whole response. ``head`` has well-formed header lines, each with its line end."""
        self.is_complete = True
        if self.is_disconnected:
            return
        connection = self._connection
        end = _END if self.keep_alive else END_CLOSE
        if self._omits_body:
            content = b""
        connection.transport.write(b"".join((STATUS_LINES[status], connection.server_head(), head, end, content)))
        connection.request_finished(self)

    async def run(self, app: ASGIApp) -> None:
        """Let the ASGI application respond."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.disconnect()  # no response: the outcome is unknown
            raise
        except Exception:
            _logger.exception("a request failed")
        finally:
            self.drop_scope()
            if not self.is_complete:
                self._fail()

    def drop_scope(self) -> None:
        """Break the reference cycle between the request and its scope, so that no garbage collection is needed."""
        self.scope = _NO_SCOPE

    def _fail(self) -> None:
        """End a response that the application left incomplete."""
        if self.is_disconnected or self.is_written:
            self.is_disconnected = True
            self._connection.transport.abort()
            return
        request_id = request_id_from(self.headers)
        response = problem_response(Problem("internal", f"see the log for {request_id}"), request_id)
        self.keep_alive = False
        self.respond(response.status, *render_head(response, request_id))

    def disconnect(self) -> None:
        """Note that the client has gone, and wake a waiting :meth:`receive`."""
        self.is_disconnected = True
        if self._disconnected is not None:
            self._disconnected.set()

    async def receive(self) -> Message:
        """Return the body first; afterwards wait until the client has gone."""
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        if not (self.is_disconnected or self.is_complete):
            self._disconnected = asyncio.Event()
            await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the response.

        Raises:
            RuntimeError: the parts do not make one well-formed response.
            ValueError: a header has a forbidden byte.
        """
        if self._connection.is_write_paused:
            await self._connection.wait_writable()
        if self.is_disconnected:
            return
        if self.is_complete:
            raise RuntimeError("the response is already complete")
        if message["type"] == "http.response.start":
            self._start_response(message)
        elif self._head or self.is_written:
            self._send_body(message.get("body", b""), bool(message.get("more_body", False)))
        else:
            raise RuntimeError("a response body without a response start")

    def _start_response(self, message: Message) -> None:
        status: int = message["status"]
        parts = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._connection.server_head()]
        for name, value in message.get("headers", ()):
            if _has_forbidden_bytes(value) or _has_forbidden_bytes(name):
                raise ValueError("a response header has a control character")
            name = name.lower()
            if name == b"content-length":
                self._bytes_left = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            elif name == b"transfer-encoding":
                continue  # decided below
            parts.append(b"%b: %b\r\n" % (name, value))
        if self._omits_body or status in (204, 304):
            self._bytes_left, self._omits_body = None, True
        elif self._bytes_left is None:
            if self.scope["http_version"] == "1.0":
                self.keep_alive = False  # HTTP/1.0 has no chunks: closing the connection ends the body
            else:
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(_END if self.keep_alive else END_CLOSE)
        self._head = b"".join(parts)  # written with the first part of the body

    def _send_body(self, body: bytes, has_more: bool) -> None:
        if self._omits_body:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if has_more else b"0\r\n\r\n")
        elif self._bytes_left is not None:
            self._bytes_left -= len(body)
            if self._bytes_left < 0 or (self._bytes_left and not has_more):
                raise RuntimeError("the body is not as long as its Content-Length")
        self._connection.transport.write(self._head + body)
        self._head = b""
        self.is_written = True
        if not has_more:
            self.is_complete = True
            self._connection.request_finished(self)
        elif self._connection.is_half_closed:
            self.disconnect()  # a reader of a stream keeps its own side open
