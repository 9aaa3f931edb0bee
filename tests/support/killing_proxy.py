"""A proxy that kills the server between two chosen messages of a call, and starts it again."""

from __future__ import annotations

__all__ = ["KillingProxy"]

import contextlib
import socket

from tests.support.lossy_proxy import LossyProxy
from tests.support.postgresql_servers import PostgresqlServer


class KillingProxy(LossyProxy):
    """Kills a PostgreSQL server instead of forwarding one write, and cuts the connection when it runs again.

    Attributes:
        passes: The writes of either side to forward before the kill. None: the server lives.
    """

    passes: int | None = None

    def __init__(self, server: PostgresqlServer) -> None:
        """Lead to a running server, which keeps its socket when it starts again."""
        super().__init__(server.directory / f".s.PGSQL.{server.port}")
        self._killed = server

    def _kills(self) -> bool:
        with self._lock:
            if self.passes is None:
                return False
            if self.passes:
                self.passes -= 1
                return False
            self.passes = None
            self._killed.kill()
            self._killed.start()
            return True

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if self._kills():
                    break
                target.sendall(data)
        self._cut(source, target)

    def _forward(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        self._pass_on(client, server)

    def _back(self, server: socket.socket, client: socket.socket, state: dict[str, bool]) -> None:
        self._pass_on(server, client)
