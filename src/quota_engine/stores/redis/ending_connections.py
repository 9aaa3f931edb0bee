"""Connections of the sync store that never wait beyond the end of the call that uses them.

redis-py's time-outs are settings of a connection or of a pool. A call that has an end needs shorter ones, so it sets
the end for its thread. The waits for a free connection, for the server to accept one, and for its greeting end there.
A time-out of a socket costs a system call, so it is changed only if the end is nearer than the setting.
"""

from __future__ import annotations

__all__ = ["EndingConnectionPool", "limit_socket", "set_end"]

import math
import threading
from typing import Any, Final

from redis.connection import BlockingConnectionPool, Connection

from quota_engine.clocks import monotonic_ms

_LEFT_S_MIN: Final = 0.001
"""A time-out of 0 would make a socket non-blocking."""


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


def _limited(timeout_s: float | None, left_ms: float) -> float | None:
    """Return a time-out in seconds that is not above the time that is left; ``None`` is no time-out."""
    if left_ms == math.inf:
        return timeout_s
    left_s = max(_LEFT_S_MIN, left_ms / 1000)
    return left_s if timeout_s is None else min(timeout_s, left_s)


def _left_ms() -> float:
    """Return the time that is left for the call of this thread."""
    return _thread_end.ends_at_ms - monotonic_ms()


class EndingConnectionPool(BlockingConnectionPool):
    """A pool whose callers wait for a connection, and for its opening, until their own end at most."""

    def __init__(self, *, connection_class: type[Any] = Connection, **settings: Any) -> None:
        """See redis-py's ``BlockingConnectionPool``."""
        super().__init__(connection_class=_ending(connection_class), **settings)  # type: ignore[no-untyped-call]

    @property
    def timeout(self) -> float | None:
        """The time that a caller waits for a free connection, in seconds."""
        timeout_s, ends_at_ms = self._timeout_s, _thread_end.ends_at_ms
        return timeout_s if ends_at_ms == math.inf else _limited(timeout_s, ends_at_ms - monotonic_ms())

    @timeout.setter
    def timeout(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s

    @property
    def wait_s_max(self) -> float | None:
        """The longest time that a caller waits for a free connection, in seconds."""
        return self._timeout_s


class _EndingConnection:
    """Opens a connection until the end of the thread's call at most."""

    socket_connect_timeout: float | None
    socket_timeout: float | None

    def _connect(self) -> Any:
        connect_s, read_s = self.socket_connect_timeout, self.socket_timeout
        self.socket_connect_timeout = _limited(connect_s, _left_ms())
        self.socket_timeout = _limited(read_s, _left_ms())  # of the TLS handshake
        try:
            sock = super()._connect()  # type: ignore[misc]
        finally:
            self.socket_connect_timeout, self.socket_timeout = connect_s, read_s
        sock.settimeout(_limited(read_s, _left_ms()))  # of the greeting
        return sock


def _ending(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections that keep the end of a call."""
    if issubclass(connection_class, _EndingConnection):
        return connection_class
    return type(f"Ending{connection_class.__name__}", (_EndingConnection, connection_class), {})
