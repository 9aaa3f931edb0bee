"""Connections of the asyncio store.

redis-py starts a task for each write, to limit its time, and its pool waits at locks that are free. Both together take
more processor time than the rest of a lone call.
"""

from __future__ import annotations

__all__ = ["AsyncConnectionPool"]

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Self

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

_UNSENT_BYTES_MAX: Final = 65_536
"""Unsent bytes up to which a writer of asyncio does not wait."""


class AsyncConnectionPool:
    """A bounded stack of connections of one event loop.

    Attributes:
        connection_class: The class of its connections.
        connection_kwargs: Their settings.
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
        """Make an empty pool of ``max_connections`` at most.

        Raises:
            ValueError: ``max_connections`` is below 1.
        """
        if max_connections < 1:
            raise ValueError("max_connections is below 1")
        self.connection_class = type(f"Direct{connection_class.__name__}", (_DirectConnection, connection_class), {})
        self.connection_kwargs = settings
        self.timeout = timeout
        self._free = asyncio.Semaphore(max_connections)
        self._idle: list[Any] = []
        self._connections: list[Any] = []

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """Make a pool of connections to the server of a redis-py URL, whose options take precedence over settings.

        Raises:
            ValueError: The URL is not valid.
        """
        return cls(**{**settings, **parse_url(url)})

    async def get_connection(self) -> Any:
        """Return a connection that is open and has nothing to read.

        Raises:
            ConnectionError: No connection became free in time, or the server was not reached.
        """
        if self._free.locked():
            try:
                async with asyncio.timeout(self.timeout):
                    await self._free.acquire()
            except TimeoutError:
                raise RedisConnectionError(f"all {len(self._connections)} connections are in use") from None
        else:
            await self._free.acquire()
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = self.connection_class(**self.connection_kwargs)
            self._connections.append(connection)
        try:
            if connection.is_connected and await connection.has_input():
                await connection.disconnect()  # the server has closed it
            if not connection.is_connected:
                await connection.connect()
        except BaseException:
            self._idle.append(connection)
            self._free.release()
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        self._idle.append(connection)
        self._free.release()

    async def disconnect(self) -> None:
        """Close all connections. The pool can still be used."""
        for connection in list(self._connections):
            await connection.disconnect()

    def open_connections(self) -> int:
        """Return the number of connections that are open."""
        return sum(one.is_connected for one in self._connections)


class _DirectConnection:
    """Writes without a separate task, unless the server does not read."""

    _writer: Any

    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = True) -> None:
        """See redis-py's connection. A write of asyncio waits only while many bytes are unsent."""
        writer = self._writer
        if writer is not None and not self.health_check_interval:  # type: ignore[attr-defined]
            writer.writelines(command)
            if writer.transport.get_write_buffer_size() <= _UNSENT_BYTES_MAX:
                return
            command = ()
        await super().send_packed_command(command, check_health)  # type: ignore[misc]

    async def has_input(self) -> bool:
        """Return True if there is something to read between two calls: the server has closed the connection."""
        can_read = getattr(self, "can_read", None) or self.can_read_destructive  # type: ignore[attr-defined]
        try:
            return bool(await can_read())
        except RedisError:
            return True
