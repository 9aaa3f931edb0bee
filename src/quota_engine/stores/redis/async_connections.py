"""Connections of the asyncio store.

redis-py starts a task for each write, to limit its time, and its pool waits at locks that are free. Both together take
more processor time than the rest of a lone call. It sets a timer for each reply, also for one that has arrived.

The transport gives replies to the write that waits for them, without a stream, a task or a timer for each write.
"""

from __future__ import annotations

__all__ = ["AsyncConnectionPool", "get_ready_connection", "read_replies"]

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol, Self

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.stores.redis.ending_connections import READ_BYTES_MAX, new_reply_reader

_UNSENT_BYTES_MAX: Final = 65_536
"""Unsent bytes up to which a writer of asyncio does not wait."""


def get_ready_connection(pool: Any) -> Any:
    """Return a connection of any pool that is open and idle, or ``None`` if the caller must await one."""
    return pool.get_ready_connection() if isinstance(pool, AsyncConnectionPool) else None


async def read_replies(connection: Any, replies_max: int) -> list[Any]:
    """Read the replies that arrive next on a connection of any pool: at least one, and ``replies_max`` at most.

    An error reply is returned. The server may reject the connection with it, or this function raises it then.

    Raises:
        RedisError: The connection is lost or rejected, or the bytes are no reply, or none arrived in time.
        OSError: The connection is lost.
    """
    if getattr(connection, "reply_reader", None) is not None:
        replies: list[Any] = await connection.read_replies(replies_max)
        return replies
    try:
        return [await connection.read_response()]
    except ResponseError as error:
        return [error]


class _Slots(asyncio.Semaphore):
    """The connections that may still be taken."""

    def try_take(self) -> bool:
        """Take one without waiting; return False if there is none, or if others wait for it."""
        if self.locked():
            return False
        self._value -= 1
        return True


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
        self._free = _Slots(max_connections)
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
        if not self._free.try_take():
            try:
                async with asyncio.timeout(self.timeout):
                    await self._free.acquire()
            except TimeoutError:
                raise RedisConnectionError(f"all {len(self._connections)} connections are in use") from None
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

    def get_ready_connection(self) -> Any:
        """Return a connection that is open and idle, or ``None`` if the caller must await one."""
        if not self._idle or not self._idle[-1].is_ready() or not self._free.try_take():
            return None
        return self._idle.pop()

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        self.take_back(connection)

    def take_back(self, connection: Any) -> None:
        """Take a connection back at once; :meth:`release` is for pools of all kinds."""
        self._idle.append(connection)
        self._free.release()

    async def disconnect(self) -> None:
        """Close all connections. The pool can still be used."""
        for connection in list(self._connections):
            await connection.disconnect()

    def open_connections(self) -> int:
        """Return the number of connections that are open."""
        return sum(one.is_connected for one in self._connections)


class ReplyReceiver(Protocol):
    """Gets the replies of one write as they arrive."""

    def replies_left(self) -> int:
        """Return the number of replies that it waits for."""
        ...

    def take_reply(self, reply: Any) -> None:
        """Take the next reply. An error that it raises ends the reading."""
        ...

    def deliver(self) -> None:
        """Note that no further reply has arrived yet."""
        ...

    def finish_reading(self) -> None:
        """Note that all replies have been taken."""
        ...

    def fail_reading(self, error: BaseException) -> None:
        """Take the error after which no reply arrives any more."""
        ...


class _DirectConnection:
    """Writes without a separate task, unless the server does not read, and reads several replies at a time."""

    _reader: Any
    _writer: Any
    socket_timeout: float | None
    reply_reader: Any = None
    _receiver: ReplyReceiver | None = None
    _direct_transport: Any = None
    _reads_until_s: float = 0
    _read_timer: asyncio.TimerHandle | None = None

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[misc]
        # redis-py reads the greeting with its own reader, which has nothing left then.
        self.reply_reader = new_reply_reader(self)

    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = True) -> None:
        """See redis-py's connection. A write of asyncio waits only while many bytes are unsent."""
        if self._writer is not None and not self.health_check_interval:  # type: ignore[attr-defined]
            self._writer.writelines(command)
            if not self.has_unsent():
                return
            command = ()
        await super().send_packed_command(command, check_health)  # type: ignore[misc]

    def is_ready(self) -> bool:
        """Return True if the connection is open, has nothing to read, and may be written to without waiting."""
        reader, writer = self._reader, self._writer
        return (
            reader is not None
            and writer is not None
            and not reader.at_eof()
            and not reader._buffer  # noqa: SLF001 - asyncio has no public way, and redis-py does the same
            and not writer.is_closing()
            and self.reply_reader is not None
            and not self.health_check_interval  # type: ignore[attr-defined]
        )

    def write(self, data: bytes) -> None:
        """Write without waiting, on a connection that is ready."""
        self._writer.write(data)

    def receive(self, receiver: ReplyReceiver) -> None:
        """Hand the next replies to a receiver. The connection must be ready, and its receiver must wait for some."""
        transport = self._writer.transport
        if transport is not self._direct_transport:
            transport.set_protocol(_DirectProtocol(self, transport.get_protocol()))
            self._direct_transport = transport
        self._receiver = receiver
        self._limit_reading()

    def _limit_reading(self) -> None:
        """Let the receiver wait for ``socket_timeout`` from now: one timer, which runs again if it was early."""
        timeout_s = self.socket_timeout
        if timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._reads_until_s = loop.time() + timeout_s
            if self._read_timer is None:
                self._read_timer = loop.call_at(self._reads_until_s, self._end_reading, loop)

    def _end_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        self._read_timer = None
        if self._receiver is None:
            return
        if loop.time() < self._reads_until_s:
            self._read_timer = loop.call_at(self._reads_until_s, self._end_reading, loop)
        else:
            self.fail_reading(RedisTimeoutError(f"Timeout reading from {self._host_error()}"))  # type: ignore[attr-defined]

    def has_receiver(self) -> bool:
        """Return True if a receiver waits for replies."""
        return self._receiver is not None

    def fail_reading(self, error: BaseException) -> None:
        """Give the receiver an error, if there is one."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.fail_reading(error)

    def take_bytes(self, data: bytes) -> None:
        """Give the receiver the replies in these bytes."""
        receiver, reader = self._receiver, self.reply_reader
        assert receiver is not None
        try:
            reader.feed(data)
            left = receiver.replies_left()
            while left:
                reply = reader.gets()
                if reply is False:  # it is not complete
                    self._limit_reading()
                    receiver.deliver()
                    return
                receiver.take_reply(reply)
                left -= 1
        except BaseException as error:
            self.fail_reading(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._receiver = None
            receiver.finish_reading()

    def has_unsent(self) -> bool:
        """Return True if more bytes are unsent than a writer of asyncio keeps without waiting."""
        size: int = self._writer.transport.get_write_buffer_size()
        return size > _UNSENT_BYTES_MAX

    async def read_replies(self, replies_max: int) -> list[Any]:
        """See :func:`read_replies`."""
        if self.has_unsent():
            await super().send_packed_command(())  # type: ignore[misc]
        reader = self.reply_reader
        replies: list[Any] = []
        while len(replies) < replies_max:
            reply = reader.gets()
            if reply is not False:
                replies.append(reply)
            elif replies:
                break
            else:
                reader.feed(await self._read_bytes())
        return replies

    async def _read_bytes(self) -> bytes:
        try:
            async with asyncio.timeout(self.socket_timeout):
                data: bytes = await self._reader.read(READ_BYTES_MAX)
        except TimeoutError:
            raise RedisTimeoutError(f"Timeout reading from {self._host_error()}") from None  # type: ignore[attr-defined]
        if not data:
            raise RedisConnectionError("the server closed the connection")
        return data

    async def has_input(self) -> bool:
        """Return True if there is something to read between two calls: the server has closed the connection."""
        can_read = getattr(self, "can_read", None) or self.can_read_destructive  # type: ignore[attr-defined]
        try:
            return bool(await can_read())
        except RedisError:
            return True


class _DirectProtocol(asyncio.Protocol):
    """Gives bytes to the receiver of a connection, and to the stream of redis-py while there is none."""

    def __init__(self, connection: _DirectConnection, stream: Any) -> None:
        """Take the place of the stream's protocol."""
        self._connection, self._stream = connection, stream

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def data_received(self, data: bytes) -> None:
        if not self._connection.has_receiver():
            self._stream.data_received(data)
            return
        try:
            self._connection.take_bytes(data)
        except Exception as error:  # a receiver failed after its last reply; raised here, it would close the transport
            context = {"message": "replies were read and not delivered", "exception": error, "protocol": self}
            asyncio.get_running_loop().call_exception_handler(context)

    def eof_received(self) -> bool | None:
        stays_open: bool | None = self._stream.eof_received()
        self._connection.fail_reading(RedisConnectionError("the server closed the connection"))
        return stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.connection_lost(exc)
        self._connection.fail_reading(exc or RedisConnectionError("the server closed the connection"))
