"""Connections of the sync store that never wait beyond the end of the call that uses them.

redis-py's time-outs are settings of a connection or of a pool. A call that has an end needs shorter ones, so it sets
the end for its thread. The waits for a free connection, for the server to accept one, and for its greeting end there.
A time-out of a socket costs a system call, so it is changed only if the end is nearer than the setting.
"""

from __future__ import annotations

__all__ = [
    "READ_BYTES_MAX",
    "EndingConnectionPool",
    "limit_socket",
    "new_reply_reader",
    "read_reply",
    "set_end",
    "write_bytes",
]

import math
import select
import threading
import time
from typing import Any, Final, Self

from redis.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from quota_engine.clocks import monotonic_ms

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

READ_BYTES_MAX: Final = 65_536
_LEFT_S_MIN: Final = 0.001
"""A time-out of 0 would make a socket non-blocking."""
_HAS_POLL: Final = hasattr(select, "poll")  # not on Windows


class _ThreadEnd(threading.local):
    """The end of the call that a thread runs."""

    ends_at_ms = math.inf


_thread_end = _ThreadEnd()


def set_end(ends_at_ms: float) -> None:
    """Set the end of the call that this thread runs, by the monotonic clock in milliseconds; infinite without one."""
    _thread_end.ends_at_ms = ends_at_ms


def limit_socket(connection: Any, left_ms: float) -> None:
    """Let no read or write of a connection wait for more than the time that is left, in milliseconds."""
    sock = getattr(connection, "_sock", None)  # redis-py has no public way to change the time-out of a connection
    if sock is None:
        return
    timeout_s = connection.socket_timeout
    if timeout_s is None or left_ms < timeout_s * 1000:
        timeout_s = _limited(timeout_s, left_ms)
    if sock.gettimeout() != timeout_s:
        sock.settimeout(timeout_s)


def write_bytes(connection: Any, data: bytes) -> None:
    """Send bytes on a connection of any pool.

    Raises:
        RedisError: They were not sent, or only a part of them.
        OSError: The same.
    """
    if getattr(connection, "reply_reader", None) is None:
        connection.send_packed_command([data])
    else:
        connection._sock.sendall(data)  # noqa: SLF001 - as in limit_socket


def read_reply(connection: Any) -> Any:
    """Read one reply. An error reply is returned, unless the server rejects the connection with it.

    On the connections of this module, hiredis reads it directly: redis-py's own layers take a tenth of a lone call.

    Raises:
        RedisError: The connection is lost or rejected, or the bytes are no reply.
        OSError: The reply did not arrive in time.
    """
    reader = getattr(connection, "reply_reader", None)
    if reader is None:
        try:
            return connection.read_response()
        except ResponseError as error:
            return error
    reply = reader.gets()
    while reply is False:  # it is not complete
        data = connection._sock.recv(READ_BYTES_MAX)  # noqa: SLF001 - as in limit_socket
        if not data:
            raise RedisConnectionError("the server closed the connection")
        reader.feed(data)
        reply = reader.gets()
    if isinstance(reply, RedisConnectionError):  # the server is loading its data, or requires a password
        raise reply
    return reply


def _limited(timeout_s: float | None, left_ms: float) -> float | None:
    """Return a time-out in seconds that is not above the time that is left; ``None`` is no time-out."""
    if left_ms == math.inf:
        return timeout_s
    left_s = max(_LEFT_S_MIN, left_ms / 1000)
    return left_s if timeout_s is None else min(timeout_s, left_s)


def _left_ms() -> float:
    """Return the time that is left for the call of this thread."""
    return _thread_end.ends_at_ms - monotonic_ms()


class EndingConnectionPool:
    """A bounded stack of connections whose users wait for one, and for its opening, until their own end at most.

    redis-py's blocking pool takes a third of the processor time of a lone call: it counts for telemetry, and looks for
    notifications of maintenance. The store needs neither.

    Attributes:
        connection_class: The class of its connections.
        connection_kwargs: Their settings.
        max_connections: The most connections, at least 1.
        timeout: The time that a caller waits for a free connection, in seconds; ``None`` has no limit.
    """

    def __init__(
        self,
        *,
        connection_class: type[Any] = Connection,
        max_connections: int = 50,
        timeout: float | None = 20,
        **settings: Any,
    ) -> None:
        """Make an empty pool.

        Raises:
            ValueError: ``max_connections`` is below 1.
        """
        if max_connections < 1:
            raise ValueError("max_connections is below 1")
        self.connection_class = _ending(connection_class)
        self.connection_kwargs = settings
        self.max_connections = max_connections
        self.timeout = timeout
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)
        self._waiting = 0
        self._idle: list[Any] = []
        self._connections: list[Any] = []

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """Make a pool of connections to the server of a redis-py URL, whose options take precedence over settings.

        Raises:
            ValueError: The URL is not valid.
        """
        return cls(**{**settings, **parse_url(url)})

    def get_connection(self) -> Any:
        """Return a connection that is open and has nothing to read.

        Raises:
            ConnectionError: No connection became free in time, or the server was not reached.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else self._wait_for_connection()
        try:
            connection.prepare()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        with self._lock:
            self._idle.append(connection)
            if self._waiting:
                self._released.notify()

    def disconnect(self) -> None:
        """Close all connections. The pool can still be used."""
        for connection in list(self._connections):
            connection.disconnect()

    def open_connections(self) -> int:
        """Return the number of connections that are open."""
        return sum(one.is_open() for one in list(self._connections))

    def _wait_for_connection(self) -> Any:
        """Return an idle or a new connection. The caller holds the lock."""
        wait_s = _limited(self.timeout, _left_ms())
        deadline_s = math.inf if wait_s is None else time.monotonic() + wait_s
        while not self._idle:
            if len(self._connections) < self.max_connections:
                connection = self.connection_class(**self.connection_kwargs)
                self._connections.append(connection)
                return connection
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RedisConnectionError(f"all {self.max_connections} connections are in use")
            self._waiting += 1
            try:
                self._released.wait(None if left_s == math.inf else left_s)
            finally:
                self._waiting -= 1
        return self._idle.pop()


class _EndingConnection:
    """Opens a connection until the end of the thread's call at most."""

    socket_connect_timeout: float | None
    socket_timeout: float | None
    _sock: Any
    _input: Any = None
    reply_reader: Any = None

    def is_open(self) -> bool:
        """Return True if the connection was opened, and not closed by this side."""
        return self._sock is not None

    def prepare(self) -> None:
        """Open the connection, unless it is open and the server has not closed it."""
        if self._sock is not None and self.has_input():
            self.disconnect()  # type: ignore[attr-defined]
        if self._sock is None:
            self.connect()  # type: ignore[attr-defined]

    def _connect(self) -> Any:
        connect_s, read_s = self.socket_connect_timeout, self.socket_timeout
        self.socket_connect_timeout = _limited(connect_s, _left_ms())
        self.socket_timeout = _limited(read_s, _left_ms())  # of the TLS handshake
        try:
            sock = super()._connect()  # type: ignore[misc]
        finally:
            self.socket_connect_timeout, self.socket_timeout = connect_s, read_s
        sock.settimeout(_limited(read_s, _left_ms()))  # of the greeting
        if _HAS_POLL:
            self._input = select.poll()
            self._input.register(sock, select.POLLIN)
        # redis-py reads the greeting with its own reader, which has nothing left then.
        self.reply_reader = new_reply_reader(self)
        return sock

    def has_input(self) -> bool:
        """Return True if there is something to read between two calls: the server has closed the connection."""
        if self._input is not None:
            return bool(self._input.poll(0))
        try:
            return bool(self.can_read())  # type: ignore[attr-defined]
        except RedisError:
            return True


def new_reply_reader(connection: Any) -> Any:
    """Return a reader of hiredis with the settings of redis-py's own one; ``None`` without hiredis."""
    if hiredis is None:
        return None
    return hiredis.Reader(
        protocolError=InvalidResponse,
        replyError=connection._parser.parse_error,  # noqa: SLF001 - makes redis-py's errors of error replies
        encoding=connection.encoder.encoding if connection.encoder.decode_responses else None,
        errors=connection.encoder.encoding_errors,
    )


def _ending(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections that keep the end of a call."""
    if issubclass(connection_class, _EndingConnection):
        return connection_class
    return type(f"Ending{connection_class.__name__}", (_EndingConnection, connection_class), {})
