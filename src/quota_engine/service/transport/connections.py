"""HTTP/1.1 connections, for uvicorn's server: the application gets requests that are whole, and all that a sender may
do on the way there is bounded.

uvicorn's own protocol hands a request over when its head is complete, and waits for a head, a body or a reader for as
long as the other side likes. Here each of them has a time and a size: whoever exceeds it gets a problem document where
HTTP allows for one, and the connection ends. So neither a task nor memory is spent on a request that never becomes one,
and handlers find the body there. That also makes the usual answer cheap: :class:`Exchange` takes headers and body from
the :class:`Incoming` in the scope and gives its answer back as bytes, in one write. Everything else (pages, streams)
goes through ASGI as ever.

Time is looked at from outside, ten times a second (:meth:`Connection.expire`): a timer for each request would cost more
than all else here.
"""

from __future__ import annotations

__all__ = ["Connection", "Terms"]

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Scope

from quota_engine.service.http.endpoint import INCOMING, Limits
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.request import END_CLOSE, STATUS_LINES, Incoming
from quota_engine.service.http.responses import head_of, problem_reply, request_id_of

LINGER_S: Final = 1.0
"""After its last word the connection still takes what the other side is sending, and drops it: if it closed at once,
the answer would be lost with what nobody has read (RFC 9112, 9.6)."""
TURNED_AWAY_S: Final = 0.3
"""A connection that was turned away is not read for so long. Otherwise there is time only for those who come back at
once: the loop reads as long as there is something to be read, and nobody's answer goes on meanwhile."""
FRAMING_MAX: Final = 8
"""A body in chunks may take so many times the bytes that count."""
_NOTHING, _HEAD, _BODY = 0, 1, 2
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class Terms:
    """What all connections of a server have in common."""

    def __init__(
        self,
        limits: Limits,
        refused: Callable[[int], None],
        streams: Callable[[], int],
        turned_away: Callable[[Incoming], bool],
    ) -> None:
        """``refused``: is told the status of each answer to what was no request. ``streams``: how many are open.
        ``turned_away``: answers a request that is one too many, unless it has to be heard all the same.
        """
        self.limits = limits
        self.refused = refused
        self.turned_away = turned_away
        self._streams = streams
        self.header_timeout_s = limits.header_timeout_ms / 1000
        self.body_timeout_s = limits.body_timeout_ms / 1000
        self.write_timeout_s = limits.write_timeout_ms / 1000
        self._lines: list[tuple[bytes, bytes]] | None = None
        self._head = b""

    def are_enough(self, running: int) -> bool:
        """Whether so many requests are as many as may be answered at a time; a stream that is open is none of them."""
        most = self.limits.requests_max
        return running >= most and running - self._streams() >= most

    def head(self, lines: list[tuple[bytes, bytes]]) -> bytes:
        """The server's own header lines (the date), which it makes anew once a second."""
        if lines is not self._lines:
            self._lines = lines
            self._head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return self._head


class Connection(asyncio.Protocol):
    """One connection. Made by uvicorn's server, which also tells it to shut down."""

    __slots__ = (
        "_app",
        "_body",
        "_client",
        "_fed_max",
        "_fed_min",
        "_fields",
        "_headers",
        "_is_deaf",
        "_is_paused",
        "_keep_alive_s",
        "_last_word",
        "_loop",
        "_now_fed",
        "_parser",
        "_phase",
        "_running",
        "_scheme",
        "_scope",
        "_server",
        "_state",
        "_terms",
        "_until_s",
        "_url",
        "_waiting",
        "_writable",
        "deadline_s",
        "is_half_closed",
        "is_stuck",
        "transport",
    )

    def __init__(
        self,
        terms: Terms,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """``config``, ``server_state``: uvicorn's. ``app_state``: of the application's life; ours has none."""
        if not config.loaded:
            config.load()
        self._app: ASGIApp = config.loaded_app
        self._keep_alive_s: float = config.timeout_keep_alive
        self._loop = _loop or asyncio.get_event_loop()
        self._terms = terms
        self._state = server_state
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport
        self.deadline_s = math.inf
        """When to call :meth:`expire`, by the loop's clock."""
        self.is_stuck = False
        """Whether the other side does not take what is written."""
        self.is_half_closed = False
        self._writable: asyncio.Future[None] | None = None
        # What comes in
        self._phase = _NOTHING
        self._is_deaf = False
        self._is_paused = False
        self._now_fed = self._fed_min = self._fed_max = 0
        self._until_s = 0.0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._scope: Scope = {}
        self._fields: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        # What is being answered, what has to wait for that, and what is said at the end.
        self._running: Incoming | None = None
        self._waiting: deque[Incoming] = deque()
        self._last_word: Problem | None = None

    # ------------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins; the first request has to come."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._state.connections.add(self)
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.deadline_s = self._loop.time() + self._terms.header_timeout_s

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended."""
        self._state.connections.discard(self)
        self.deadline_s = math.inf
        self._is_deaf = True
        self._waiting.clear()
        if self._running is not None:
            self._running.lose()
        self._wake_writer()

    def eof_received(self) -> bool:
        """The other side sends no more. Returns whether it is still to be answered."""
        self.is_half_closed = True
        if self._running is None:
            if self._phase == _NOTHING or self._is_deaf:
                return False
            self._refuse(Problem("bad-request", "the request is cut off"))
            return True
        if self._running.is_written:
            self._running.lose()
        return True

    def shutdown(self) -> None:
        """The server stops: end after what is being answered."""
        self._waiting.clear()  # they were not begun
        if self._running is None:
            self._close()
        else:
            self._is_deaf = True
            self._running.keep_alive = False

    def expire(self) -> None:
        """The deadline is over."""
        self.deadline_s = math.inf
        if self.is_stuck or self._is_deaf or self.transport.is_closing():
            self.transport.abort()
        elif self._phase == _HEAD:
            self._refuse(
                Problem("request-timeout", f"the head took longer than {self._terms.limits.header_timeout_ms} ms")
            )
        elif self._phase == _BODY:
            self._refuse(
                Problem("request-timeout", f"the body took longer than {self._terms.limits.body_timeout_ms} ms")
            )
        else:
            self._close()

    def _close(self) -> None:
        self._is_deaf = True
        self.transport.close()  # when all is written ...
        self.deadline_s = self._loop.time() + self._terms.write_timeout_s  # ... or when this is over

    # ------------------------------------------------------------------ writing

    def own_head(self) -> bytes:
        """The server's header lines."""
        return self._terms.head(self._state.default_headers)

    def pause_writing(self) -> None:
        """The other side does not take what is written."""
        self.is_stuck = True
        self.deadline_s = self._loop.time() + self._terms.write_timeout_s

    def resume_writing(self) -> None:
        """It does again."""
        self.is_stuck = False
        self._wake_writer()
        if self._running is None and not self.transport.is_closing():
            self._next()
        else:
            self.deadline_s = math.inf

    async def writable(self) -> None:
        """Until more can be written, or nobody is there any more."""
        self._writable = self._loop.create_future()
        await self._writable

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # ------------------------------------------------------------------ one request after the other

    def finished(self, incoming: Incoming) -> None:
        """A request has been answered."""
        self._running = None
        self._state.total_requests += 1
        if not incoming.keep_alive:
            self._close()
        elif not self.is_stuck:
            self._next()

    def _next(self) -> None:
        """Go on with the next request that is here, say the last word, or wait for more."""
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._last_word is not None:
            self._say(self._last_word)
        elif self.is_half_closed:
            self._close()
        else:
            now_s = self._loop.time()
            if self._phase == _NOTHING:
                self.deadline_s = now_s + self._keep_alive_s
            else:
                self.deadline_s = self._until_s = now_s + self._time_for_phase_s()
            if self._is_paused:
                self._is_paused = False
                self.transport.resume_reading()

    def _start(self, incoming: Incoming) -> None:
        self._running = incoming
        self.deadline_s = math.inf
        tasks: set[asyncio.Task[None]] = self._state.tasks
        # All that have come are here already, whether or not they have begun: a flood is seen when it comes. Only a
        # refusal that costs much less than an answer makes it pass, hence no task for it.
        if self._terms.are_enough(len(tasks)):
            incoming.is_one_too_many = True
            if not self._waiting and self._terms.turned_away(incoming):
                if not self._is_deaf:
                    self._is_paused = True
                    self.transport.pause_reading()
                    self._loop.call_later(TURNED_AWAY_S, self._read_again)
                return
        task = self._loop.create_task(incoming.run(self._app))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _read_again(self) -> None:
        if self._is_paused and self._running is None and not self._is_deaf and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def _refuse(self, problem: Problem) -> None:
        """End with a problem, once what came before has been answered."""
        self._is_deaf = True
        self._phase = _NOTHING
        self._forget()
        self._last_word = problem
        if self._running is None and not self.is_stuck:
            self._next()

    def _say(self, problem: Problem) -> None:
        self._last_word = None
        request_id = request_id_of({})
        reply = problem_reply(problem, request_id)
        head, content = head_of(reply, request_id)
        self.transport.write(b"".join((STATUS_LINES[reply.http], self.own_head(), head, END_CLOSE, content)))
        self._terms.refused(reply.http)
        if self.is_half_closed or not self.transport.can_write_eof():
            self._close()
            return
        self.transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        self.deadline_s = self._loop.time() + LINGER_S

    def _forget(self) -> None:
        """Keep nothing of what has come in."""
        self._url, self._headers, self._fields, self._scope, self._body = b"", [], {}, {}, b""

    def _time_for_phase_s(self) -> float:
        return self._terms.header_timeout_s if self._phase == _HEAD else self._terms.body_timeout_s

    # ------------------------------------------------------------------ what comes in

    def data_received(self, data: bytes) -> None:
        """Bytes, of any part of any request."""
        if self._is_deaf:
            return
        size = self._now_fed = len(data)
        self._fed_min += size
        self._fed_max += size
        phase = self._phase
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It wants to speak another protocol from here on; the request itself is answered in this one.
            last = self._waiting[-1] if self._waiting else self._running
            if last is None:
                self._refuse(Problem("bad-request", "this is not HTTP/1.1"))
            else:
                self._is_deaf = True
                last.keep_alive = False
            return
        except httptools.HttpParserError as error:
            found = error.__context__
            self._refuse(found if isinstance(found, Problem) else Problem("bad-request", "this is not HTTP/1.1"))
            return
        if self._phase == _NOTHING:
            return
        limits = self._terms.limits
        if self._phase == _HEAD:
            if self._fed_min > limits.header_bytes_max:
                self._refuse(_too_much_head(limits))
                return
        elif self._fed_min > limits.header_bytes_max + FRAMING_MAX * limits.body_bytes_max:
            self._refuse(_too_much_body(limits))
            return
        if self._phase != phase or self._fed_min < size:  # it has just come to this
            self._until_s = self._loop.time() + self._time_for_phase_s()
        if self._running is None:
            self.deadline_s = self._until_s

    def on_message_begin(self) -> None:
        """A request begins."""
        self._phase = _HEAD
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A part of its address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what comes behind a body in chunks is nothing that we would listen to."""
        if self._phase == _HEAD:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        limits, headers, parser, url = self._terms.limits, self._headers, self._parser, self._url
        if self._fed_max > limits.header_bytes_max:
            size = len(url) + sum(len(name) + len(value) for name, value in headers)
            if size > limits.header_bytes_max:
                raise _too_much_head(limits)
        self._phase = _BODY
        self._body = b""
        fields = self._fields = dict(headers)
        length = fields.get(b"content-length")
        if length is not None and int(length[:20]) > limits.body_bytes_max:
            raise _too_much_body(limits)
        if not url.startswith(b"/"):
            url = _origin_form(url)
        raw_path, _, query = url.partition(b"#")[0].partition(b"?")
        path = raw_path.decode("ascii")
        self._scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": parser.get_http_version(),
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
        }
        if b"expect" in fields and fields[b"expect"].lower() == b"100-continue" and self._running is None:
            self.transport.write(_CONTINUE)

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        if len(self._body) + len(chunk) > self._terms.limits.body_bytes_max:
            raise _too_much_body(self._terms.limits)
        if not self._body:
            self._body = chunk
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += chunk

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._is_deaf:
            return
        self._phase = _NOTHING
        self._fed_min, self._fed_max = 0, self._now_fed
        scope = self._scope
        incoming = Incoming(self, scope, self._fields, bytes(self._body), self._parser.should_keep_alive())
        scope[INCOMING] = incoming
        self._forget()
        if self._running is None and not self.is_stuck and not self._waiting:
            self._start(incoming)
            return
        self._waiting.append(incoming)
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()


def _too_much_head(limits: Limits) -> Problem:
    return Problem("headers-too-large", f"at most {limits.header_bytes_max} bytes of headers")


def _too_much_body(limits: Limits) -> Problem:
    return Problem("too-large", f"at most {limits.body_bytes_max} bytes")


def _origin_form(url: bytes) -> bytes:
    """The path and query of an address that names its host, too; of ``*`` as it is."""
    if url == b"*":
        return url
    parsed = httptools.parse_url(url)
    path: bytes = parsed.path or b"/"
    return path if parsed.query is None else b"%b?%b" % (path, parsed.query)


def _address(address: Any) -> tuple[str, int] | None:
    """Host and port; ``None`` for a socket that has none."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
