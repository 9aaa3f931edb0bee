"""HTTP/1.1 connections for uvicorn's server. The application gets complete requests only.

uvicorn's own protocol starts the application when the headers are complete, and waits without a limit for a header, a
body or a slow reader. Here each of them has a timeout and a size limit. A client that exceeds one gets a problem
document where HTTP allows it, and the connection closes. So an incomplete request costs neither a task nor much memory,
and a handler finds the body already read. That also makes the usual response cheap: the endpoint takes headers and body
from the :class:`BufferedRequest` in the scope and writes its response as bytes at once. Pages and event streams use the
ASGI messages.

Timeouts are checked from outside, ten times a second (:meth:`HttpConnection.expire`): one timer for each request would
cost more than the rest of this module.
"""

from __future__ import annotations

__all__ = ["ConnectionConfig", "HttpConnection"]

import asyncio
import enum
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Scope

from quota_engine.service.http.buffered_request import END_CLOSE, SCOPE_KEY, STATUS_LINES, BufferedRequest
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.load_shedding import LoadShedder
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.responses import problem_response, render_head, request_id_from
from quota_engine.service.transport.target import check_host, split_target

LINGER_S: Final = 1.0
"""Time after a final response during which the connection reads and drops further bytes.

Closing at once with unread bytes would make the kernel reset the connection and lose the response (RFC 9112, section
9.6).
"""
SHED_PAUSE_S: Final = 0.3
"""Time during which a connection is not read after its request was refused by load shedding.

Without the pause, clients that retry at once keep the event loop reading, and no response makes progress.
"""
FRAMING_MAX: Final = 8
"""Most bytes that a chunked body may use for each byte of content."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class _ReadState(enum.IntEnum):
    """The part of a request that the connection is reading."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class ConnectionConfig:
    """The limits, the load shedder and the header lines that all connections of a server share."""

    def __init__(self, limits: RequestLimits, shedder: LoadShedder, record_rejected: Callable[[int], None]) -> None:
        """``record_rejected`` gets the HTTP status of each response to bytes that are not a valid request."""
        self.limits = limits
        self.shedder = shedder
        self.record_rejected = record_rejected
        self.header_timeout_s = limits.header_timeout_ms / 1000
        self.body_timeout_s = limits.body_timeout_ms / 1000
        self.write_timeout_s = limits.write_timeout_ms / 1000
        self._lines: list[tuple[bytes, bytes]] | None = None
        self._head = b""

    def server_head(self, lines: list[tuple[bytes, bytes]]) -> bytes:
        """Return the server's header lines as bytes. uvicorn replaces the list once a second, with a new date."""
        if lines is not self._lines:
            self._lines = lines
            self._head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return self._head


class HttpConnection(asyncio.Protocol):
    """One connection. uvicorn's server creates it and shuts it down."""

    __slots__ = (
        "_app",
        "_body",
        "_bytes_max",
        "_bytes_min",
        "_client",
        "_config",
        "_feed_bytes",
        "_fields",
        "_final_problem",
        "_headers",
        "_is_closing",
        "_is_read_paused",
        "_keep_alive_s",
        "_loop",
        "_parser",
        "_pipelined",
        "_read_deadline_s",
        "_running",
        "_scheme",
        "_scope",
        "_server",
        "_server_state",
        "_state",
        "_url",
        "_writable",
        "deadline_s",
        "is_half_closed",
        "is_write_paused",
        "transport",
    )

    def __init__(
        self,
        connection_config: ConnectionConfig,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take uvicorn's arguments, which it passes by name, after ``connection_config``.

        Args:
            app_state: state of ASGI's lifespan; this service has none.
        """
        if not config.loaded:
            config.load()
        self._app: ASGIApp = config.loaded_app
        self._keep_alive_s: float = config.timeout_keep_alive
        self._loop = _loop or asyncio.get_event_loop()
        self._config = connection_config
        self._server_state = server_state
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport
        self.deadline_s = math.inf
        """Time of the loop's clock at which :meth:`expire` is due."""
        self.is_write_paused = False
        """True while the client does not take data."""
        self.is_half_closed = False
        """True after the client has closed its sending side."""
        self._writable: asyncio.Future[None] | None = None
        # The request that is being read.
        self._state = _ReadState.IDLE
        self._is_closing = False
        self._is_read_paused = False
        # Bounds of the current request's bytes: several requests may share the first and the last packet.
        self._feed_bytes = self._bytes_min = self._bytes_max = 0
        self._read_deadline_s = 0.0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._scope: Scope = {}
        self._fields: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        # The request in progress, complete ones behind it, and the problem that ends the connection after them.
        self._running: BufferedRequest | None = None
        self._pipelined: deque[BufferedRequest] = deque()
        self._final_problem: Problem | None = None

    # ------------------------------------------------------------------ connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout of the first request's headers."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's class is not a subclass of asyncio's
        self._server_state.connections.add(self)
        self._client = _host_and_port(transport.get_extra_info("peername"))
        self._server = _host_and_port(transport.get_extra_info("sockname"))
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.deadline_s = self._loop.time() + self._config.header_timeout_s

    def connection_lost(self, error: Exception | None) -> None:
        """Drop waiting requests, and mark the running one as disconnected."""
        self._server_state.connections.discard(self)
        self.deadline_s = math.inf
        self._is_closing = True
        self._pipelined.clear()
        if self._running is not None:
            self._running.disconnect()
        self._wake_writer()

    def eof_received(self) -> bool:
        """Handle the end of the client's sending side. Return True to keep the connection open for a response."""
        self.is_half_closed = True
        if self._running is None:
            if self._state is _ReadState.IDLE or self._is_closing:
                return False
            self._reject(Problem("bad-request", "the request is incomplete"))
            return True
        if self._running.is_written:
            self._running.disconnect()
        return True

    def shutdown(self) -> None:
        """Close after the running request. Pipelined requests have not started, and get no response."""
        self._pipelined.clear()
        if self._running is None:
            self._close()
        else:
            self._is_closing = True
            self._running.keep_alive = False

    def expire(self) -> None:
        """Handle the passed deadline: abort, reject the incomplete request, or close the idle connection."""
        self.deadline_s = math.inf
        limits = self._config.limits
        if self.is_write_paused or self._is_closing or self.transport.is_closing():
            self.transport.abort()
        elif self._state is _ReadState.HEAD:
            detail = f"the headers took longer than {limits.header_timeout_ms} ms"
            self._reject(Problem("request-timeout", detail))
        elif self._state is _ReadState.BODY:
            self._reject(Problem("request-timeout", f"the body took longer than {limits.body_timeout_ms} ms"))
        else:
            self._close()

    def _close(self) -> None:
        """Close when all data is written, or abort after the write timeout."""
        self._is_closing = True
        self.transport.close()
        self.deadline_s = self._loop.time() + self._config.write_timeout_s

    # ------------------------------------------------------------------ writing

    def server_head(self) -> bytes:
        """Return the server's own header lines."""
        return self._config.server_head(self._server_state.default_headers)

    def pause_writing(self) -> None:
        """Start the write timeout: the client does not take data."""
        self.is_write_paused = True
        self.deadline_s = self._loop.time() + self._config.write_timeout_s

    def resume_writing(self) -> None:
        """Continue: the client takes data again."""
        self.is_write_paused = False
        self._wake_writer()
        if self._running is None and not self.transport.is_closing():
            self._continue()
        else:
            self.deadline_s = math.inf

    async def wait_writable(self) -> None:
        """Wait until the transport takes data again, or the connection is lost."""
        self._writable = self._loop.create_future()
        await self._writable

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # ------------------------------------------------------------------ requests in order

    def request_finished(self, request: BufferedRequest) -> None:
        """Continue after a complete response."""
        self._running = None
        self._server_state.total_requests += 1
        if not request.keep_alive:
            self._close()
        elif not self.is_write_paused:
            self._continue()

    def _continue(self) -> None:
        """Start the next pipelined request, send the final problem, close, or read on."""
        if self._pipelined:
            self._start(self._pipelined.popleft())
        elif self._final_problem is not None:
            self._send_final(self._final_problem)
        elif self.is_half_closed:
            self._close()
        else:
            now_s = self._loop.time()
            if self._state is _ReadState.IDLE:
                self.deadline_s = now_s + self._keep_alive_s
            else:
                self.deadline_s = self._read_deadline_s = now_s + self._read_timeout_s()
            self._resume_reading()

    def _start(self, request: BufferedRequest) -> None:
        """Run a complete request in a task, or refuse it if the process is at capacity."""
        self._running = request
        self.deadline_s = math.inf
        tasks: set[asyncio.Task[None]] = self._server_state.tasks
        work = None
        # A task counts from its creation, so a flood is seen as it arrives. Refusing is so cheap only without a task.
        shedder = self._config.shedder
        if shedder.at_capacity(len(tasks)):
            request.is_over_limit = True
            endpoint = shedder.find_sheddable(request)
            if endpoint is not None and self._pipelined:
                work = shedder.shed_later(request, endpoint)
            elif endpoint is not None:
                shedder.shed(request, endpoint)
                self._pause_after_shedding()
                return
        task = self._loop.create_task(request.run(self._app) if work is None else work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _pause_after_shedding(self) -> None:
        if not self._is_closing:
            self._pause_reading()
            self._loop.call_later(SHED_PAUSE_S, self._resume_after_shedding)

    def _resume_after_shedding(self) -> None:
        if self._running is None and not self._is_closing and not self.transport.is_closing():
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._is_read_paused:
            self._is_read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_read_paused:
            self._is_read_paused = False
            self.transport.resume_reading()

    def _reject(self, problem: Problem) -> None:
        """End the connection with a problem, after the responses to earlier requests."""
        self._is_closing = True
        self._state = _ReadState.IDLE
        self._clear_request()
        self._final_problem = problem
        if self._running is None and not self.is_write_paused:
            self._continue()

    def _send_final(self, problem: Problem) -> None:
        self._final_problem = None
        request_id = request_id_from({})
        response = problem_response(problem, request_id)
        head, content = render_head(response, request_id)
        self.transport.write(b"".join((STATUS_LINES[response.status], self.server_head(), head, END_CLOSE, content)))
        self._config.record_rejected(response.status)
        if self.is_half_closed or not self.transport.can_write_eof():
            self._close()
            return
        self.transport.write_eof()
        self._resume_reading()
        self.deadline_s = self._loop.time() + LINGER_S

    def _clear_request(self) -> None:
        """Drop the parts of the request that was read."""
        self._url, self._headers, self._fields, self._scope, self._body = b"", [], {}, {}, b""

    def _read_timeout_s(self) -> float:
        return self._config.header_timeout_s if self._state is _ReadState.HEAD else self._config.body_timeout_s

    # ------------------------------------------------------------------ reading

    def data_received(self, data: bytes) -> None:
        """Parse bytes of one or more requests, and check timeouts and sizes of the last one."""
        if self._is_closing:
            return
        size = self._feed_bytes = len(data)
        self._bytes_min += size
        self._bytes_max += size
        state_before = self._state
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The client asks for another protocol. The request itself is answered in HTTP/1.1, and is the last one.
            last = self._pipelined[-1] if self._pipelined else self._running
            if last is None:
                self._reject(Problem("bad-request", "this is not HTTP/1.1"))
            else:
                self._is_closing = True
                last.keep_alive = False
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._reject(cause if isinstance(cause, Problem) else Problem("bad-request", "this is not HTTP/1.1"))
            return
        if self._state is _ReadState.IDLE:
            return
        limits = self._config.limits
        if self._state is _ReadState.HEAD:
            if self._bytes_min > limits.header_bytes_max:
                self._reject(_headers_too_large(limits))
                return
        elif self._bytes_min > limits.header_bytes_max + FRAMING_MAX * limits.body_bytes_max:
            self._reject(_body_too_large(limits))
            return
        if self._state is not state_before or self._bytes_min < size:  # this state has just begun
            self._read_deadline_s = self._loop.time() + self._read_timeout_s()
        if self._running is None:
            self.deadline_s = self._read_deadline_s

    def on_message_begin(self) -> None:
        """Start a request."""
        self._state = _ReadState.HEAD
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers, which follow a chunked body, are ignored."""
        if self._state is _ReadState.HEAD:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the sizes and ``Host``, and build the ASGI scope.

        Raises:
            Problem: 431, 413 or 400. httptools raises its own error with this one as context.
        """
        limits, headers, parser, url = self._config.limits, self._headers, self._parser, self._url
        if self._bytes_max > limits.header_bytes_max:
            size = len(url) + sum(len(name) + len(value) for name, value in headers)
            if size > limits.header_bytes_max:
                raise _headers_too_large(limits)
        self._state = _ReadState.BODY
        self._body = b""
        fields = self._fields = dict(headers)
        length = fields.get(b"content-length")
        if length is not None and int(length[:20]) > limits.body_bytes_max:
            raise _body_too_large(limits)
        http_version = parser.get_http_version()
        check_host(headers, fields, http_version)
        if not url.startswith(b"/"):
            url, authority = split_target(url, parser.get_method())
            if authority:
                fields[b"host"] = authority
                headers = [line for line in headers if line[0] != b"host"]
                headers.append((b"host", authority))
        raw_path, _, query = url.partition(b"#")[0].partition(b"?")
        path = raw_path.decode("ascii")
        self._scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": http_version,
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
        """Add a part of the body.

        Raises:
            Problem: 413.
        """
        if len(self._body) + len(chunk) > self._config.limits.body_bytes_max:
            raise _body_too_large(self._config.limits)
        if not self._body:
            self._body = chunk
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += chunk

    def on_message_complete(self) -> None:
        """Start the complete request, or queue it behind the running one and stop reading."""
        if self._is_closing:
            return
        self._state = _ReadState.IDLE
        self._bytes_min, self._bytes_max = 0, self._feed_bytes
        scope = self._scope
        request = BufferedRequest(self, scope, self._fields, bytes(self._body), self._parser.should_keep_alive())
        scope[SCOPE_KEY] = request
        self._clear_request()
        if self._running is None and not self.is_write_paused and not self._pipelined:
            self._start(request)
            return
        self._pipelined.append(request)
        self._pause_reading()


def _headers_too_large(limits: RequestLimits) -> Problem:
    return Problem("headers-too-large", f"at most {limits.header_bytes_max} bytes of headers")


def _body_too_large(limits: RequestLimits) -> Problem:
    return Problem("too-large", f"at most {limits.body_bytes_max} bytes")


def _host_and_port(address: Any) -> tuple[str, int] | None:
    """Return host and port; ``None`` for a socket without them, such as a Unix socket."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
