"""A proxy that leads each transaction of a PostgreSQL connection to another server than the one before.

A pooler that mixes two primaries behind one address does so. The proxy reads the messages of the protocol: it passes
the requests up to a ``Sync`` to one server, and its answer to the client. When the answer says that no transaction is
open, the next requests go to the other server. Nothing may be prepared, because a name belongs to one server.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from tests.support.postgresql_servers import PostgresqlServer
from tests.support.servers import HOST

_READY: Final = b"Z"
_IDLE: Final = b"I"
_REQUEST_ENDS: Final = (b"S", b"Q")


class AlternatingProxy:
    """Listens on a port of 127.0.0.1 until its ``with`` block ends.

    Attributes:
        port: The port.
        is_alternating: False to lead everything to the first server.
    """

    def __init__(self, servers: Sequence[PostgresqlServer]) -> None:
        """Take the running servers, which accept the same role and database without a password."""
        self._paths = [str(server.directory / f".s.PGSQL.{server.port}") for server in servers]
        self._listener = socket.create_server((HOST, 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]
        self.port = int(self._listener.getsockname()[1])
        self.is_alternating = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
            stack.enter_context(client)
            start = _read_start(client)
            servers: list[socket.socket] = []
            for path in self._paths:
                server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                self._sockets.append(server)
                server.connect(path)
                server.sendall(start)
                answer, _ = _read_answer(server)
                if not servers:
                    client.sendall(answer)
                servers.append(server)
            number = 0
            for request in _requests(client):
                servers[number].sendall(request)
                answer, is_idle = _read_answer(servers[number])
                client.sendall(answer)
                if is_idle and self.is_alternating:
                    number = (number + 1) % len(servers)


def _read_exactly(one: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = one.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _read_start(client: socket.socket) -> bytes:
    """Read the first message; requests for encryption are refused."""
    while True:
        head = _read_exactly(client, 4)
        body = _read_exactly(client, struct.unpack("!I", head)[0] - 4)
        if len(body) > 4:
            return head + body
        client.sendall(b"N")


def _read_message(one: socket.socket) -> tuple[bytes, bytes]:
    head = _read_exactly(one, 5)
    return head[:1], head + _read_exactly(one, struct.unpack("!I", head[1:])[0] - 4)


def _requests(client: socket.socket) -> Iterator[bytes]:
    """Yield the messages up to each end of a request."""
    request = b""
    while True:
        kind, message = _read_message(client)
        request += message
        if kind in _REQUEST_ENDS:
            yield request
            request = b""


def _read_answer(server: socket.socket) -> tuple[bytes, bool]:
    """Return an answer, and True if no transaction is open after it."""
    answer = b""
    while True:
        kind, message = _read_message(server)
        answer += message
        if kind == _READY:
            return answer, message[5:6] == _IDLE
