"""A request that is whole, on a connection of our own, and the answer to it: as bytes, in one write, or part by part as
ASGI has it.
"""

from __future__ import annotations

__all__ = ["END_CLOSE", "STATUS_LINES", "Carrier", "Incoming"]

import asyncio
import http
import logging
import re
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Scope

from quota_engine.service.http.problems import Problem
from quota_engine.service.http.responses import head_of, problem_reply, request_id_of

_logger = logging.getLogger("quota_engine.service")

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}
_END: Final = b"\r\n"
END_CLOSE: Final = b"connection: close\r\n\r\n"
_NO_SCOPE: Final[Scope] = {}
_is_no_header = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


class Carrier(Protocol):
    """The connection, as a request knows it."""

    transport: asyncio.Transport
    is_stuck: bool
    is_half_closed: bool

    def own_head(self) -> bytes:
        """The server's header lines."""
        ...

    def finished(self, incoming: Incoming) -> None:
        """Is told that a request has been answered."""
        ...

    async def writable(self) -> None:
        """Until more can be written, or nobody is there any more."""
        ...


class Incoming:
    """A request that is whole, and the answer to it. It is the ASGI application's ``receive`` and ``send``, too."""

    __slots__ = (
        "_connection",
        "_gone",
        "_head",
        "_is_chunked",
        "_is_head",
        "_is_read",
        "_left",
        "body",
        "headers",
        "is_complete",
        "is_gone",
        "is_one_too_many",
        "is_written",
        "keep_alive",
        "scope",
    )

    def __init__(
        self, connection: Carrier, scope: Scope, headers: dict[bytes, bytes], body: bytes, keep_alive: bool
    ) -> None:
        self.scope = scope
        self.headers = headers
        """By their names in small letters; of several of one name, the last."""
        self.body = body
        self.keep_alive = keep_alive
        self.is_complete = False
        self.is_gone = False
        self.is_one_too_many = False
        """Whether as many as may be were being answered when it came."""
        self._connection = connection
        self._gone: asyncio.Event | None = None
        self._is_head = scope["method"] == "HEAD"
        self._is_read = False
        self.is_written = False
        self._is_chunked = False
        self._left: int | None = None
        self._head = b""

    def answer(self, status: int, head: bytes, content: bytes) -> None:
        """Answer at once. ``head``: header lines, each with its line end, that are known to be well formed."""
        self.is_complete = True
        if self.is_gone:
            return
        connection = self._connection
        end = _END if self.keep_alive else END_CLOSE
        if self._is_head:
            content = b""
        connection.transport.write(b"".join((STATUS_LINES[status], connection.own_head(), head, end, content)))
        connection.finished(self)

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.lose()  # not a word: nobody knows what came of it
            raise
        except Exception:
            _logger.exception("a request failed")
        finally:
            self.scope = _NO_SCOPE  # which holds this request, too: a ring that only the collector would find
            if not self.is_complete:
                self._fail()

    def _fail(self) -> None:
        """The application has ended without having said all."""
        if self.is_gone or self.is_written:
            self.is_gone = True
            self._connection.transport.abort()
            return
        request_id = request_id_of(self.headers)
        reply = problem_reply(Problem("internal", f"the log has more under {request_id}"), request_id)
        self.keep_alive = False
        self.answer(reply.http, *head_of(reply, request_id))

    def lose(self) -> None:
        """Nobody is there any more who could be answered."""
        self.is_gone = True
        if self._gone is not None:
            self._gone.set()

    async def receive(self) -> Message:
        """The body, and then nothing until the other side has gone."""
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        if not (self.is_gone or self.is_complete):
            self._gone = asyncio.Event()
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """A part of the answer."""
        if self._connection.is_stuck:
            await self._connection.writable()
        if self.is_gone:
            return
        if self.is_complete:
            raise RuntimeError("the answer is complete")
        if message["type"] == "http.response.start":
            self._begin(message)
        elif self._head or self.is_written:
            self._go_on(message.get("body", b""), bool(message.get("more_body", False)))
        else:
            raise RuntimeError("a body without a head")

    def _begin(self, message: Message) -> None:
        status: int = message["status"]
        parts = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._connection.own_head()]
        for name, value in message.get("headers", ()):
            if _is_no_header(value) or _is_no_header(name):
                raise ValueError("not a header")
            name = name.lower()
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            elif name == b"transfer-encoding":
                continue  # is for us to say
            parts.append(b"%b: %b\r\n" % (name, value))
        if self._is_head or status in (204, 304):
            self._left, self._is_head = None, True
        elif self._left is None:
            if self.scope["http_version"] == "1.0":
                self.keep_alive = False  # the end of the connection is the end of the answer
            else:
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(_END if self.keep_alive else END_CLOSE)
        self._head = b"".join(parts)  # goes out with what comes first

    def _go_on(self, body: bytes, is_more: bool) -> None:
        if self._is_head:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if is_more else b"0\r\n\r\n")
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not is_more):
                raise RuntimeError("an answer of another length than it says")
        self._connection.transport.write(self._head + body)
        self._head = b""
        self.is_written = True
        if not is_more:
            self.is_complete = True
            self._connection.finished(self)
        elif self._connection.is_half_closed:
            self.lose()  # whoever reads a stream keeps their own side open
