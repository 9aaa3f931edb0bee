"""The connections of the stores: bounded, waited for until a call's end, and opened again if the server closed them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from quota_engine.clocks import monotonic_ms
from quota_engine.stores.redis.async_connections import AsyncConnectionPool, get_ready_connection, read_replies
from quota_engine.stores.redis.ending_connections import EndingConnectionPool, read_reply, set_end, write_bytes
from quota_engine.stores.redis.request_packing import pack_requests
from tests.support.servers import Server

pytestmark = pytest.mark.store

WAIT_S = 60.0
PING = [pack_requests([("PING",)])]


@pytest.fixture
def pool(valkey_server: Server) -> Iterator[EndingConnectionPool]:
    pool = EndingConnectionPool.from_url(
        valkey_server.url, decode_responses=True, max_connections=2, timeout=WAIT_S, retry=Retry(NoBackoff(), 0)
    )
    set_end(math.inf)
    yield pool
    set_end(math.inf)
    pool.disconnect()


@pytest.fixture
async def async_pool(valkey_server: Server) -> AsyncIterator[AsyncConnectionPool]:
    pool = AsyncConnectionPool.from_url(
        valkey_server.url, decode_responses=True, max_connections=2, timeout=WAIT_S, retry=AsyncRetry(NoBackoff(), 0)
    )
    yield pool
    await pool.disconnect()


def ping(connection: Any) -> str:
    write_bytes(connection, PING[0])
    return str(read_reply(connection))


async def ping_async(connection: Any) -> str:
    await connection.send_packed_command(PING)
    return str(await connection.read_response())


def test_a_connection_serves_one_caller_after_the_other(pool: EndingConnectionPool) -> None:
    first = pool.get_connection()
    assert ping(first) == "PONG"
    pool.release(first)
    assert pool.get_connection() is first
    assert pool.open_connections() == 1
    pool.release(first)
    pool.disconnect()
    assert pool.open_connections() == 0


@pytest.mark.parametrize("has_poll", [True, False])
def test_a_connection_that_the_server_closed_is_opened_again(
    pool: EndingConnectionPool, valkey_server: Server, has_poll: bool
) -> None:
    connection = pool.get_connection()
    if not has_poll:
        connection._input = None
    pool.release(connection)
    valkey_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert pool.get_connection() is connection
    assert ping(connection) == "PONG"
    pool.release(connection)


@pytest.mark.parametrize("has_reader", [True, False])
def test_replies_are_read_as_by_the_client_library(pool: EndingConnectionPool, has_reader: bool) -> None:
    """With hiredis and without it: several replies of one write, one of many reads, and error replies."""
    connection = pool.get_connection()
    if not has_reader:
        connection.reply_reader = None
    text = "é" * 200_000
    write_bytes(connection, pack_requests([("ECHO", text), ("EVALSHA", "ab" * 20, "0"), ("LPUSH",), ("PING",)]))
    assert read_reply(connection) == text
    assert isinstance(read_reply(connection), NoScriptError)
    error = read_reply(connection)
    assert isinstance(error, ResponseError)
    assert "wrong number of arguments" in str(error)
    assert read_reply(connection) == "PONG"


@pytest.mark.parametrize("has_reader", [True, False])
def test_a_rejected_or_closed_connection_is_an_error(
    pool: EndingConnectionPool, valkey_server: Server, has_reader: bool
) -> None:
    connection = pool.get_connection()
    if not has_reader:
        connection.reply_reader = None
    write_bytes(connection, pack_requests([("AUTH", "someone", "wrong")]))
    with pytest.raises(AuthenticationError):
        read_reply(connection)
    connection.disconnect()
    connection = pool.get_connection()
    valkey_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises((RedisConnectionError, OSError)):
        read_reply(connection)


def test_a_caller_waits_for_a_connection_and_gets_the_next_one(pool: EndingConnectionPool) -> None:
    held = [pool.get_connection(), pool.get_connection()]
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(pool.get_connection()), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert not got
    pool.release(held[0])
    waiting.join(WAIT_S)
    assert got == [held[0]]


def test_a_caller_waits_no_longer_than_its_end(pool: EndingConnectionPool) -> None:
    held = [pool.get_connection(), pool.get_connection()]
    set_end(monotonic_ms() + 20)
    with pytest.raises(RedisConnectionError, match="all 2 connections are in use"):
        pool.get_connection()
    pool.release(held[0])
    assert pool.get_connection() is held[0]


def test_a_connection_that_cannot_be_opened_is_free_for_the_next_caller(valkey_server: Server) -> None:
    pool = EndingConnectionPool.from_url(
        "redis://127.0.0.1:1", max_connections=1, timeout=0, retry=Retry(NoBackoff(), 0)
    )
    for _ in range(2):
        with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1"):
            pool.get_connection()


@pytest.mark.parametrize("pools", [EndingConnectionPool, AsyncConnectionPool])
def test_a_pool_has_at_least_one_connection(pools: Any) -> None:
    with pytest.raises(ValueError, match="max_connections"):
        pools.from_url("redis://127.0.0.1?max_connections=0")


async def test_a_task_gets_an_idle_connection_again(async_pool: AsyncConnectionPool) -> None:
    first = await async_pool.get_connection()
    assert await ping_async(first) == "PONG"
    await async_pool.release(first)
    assert await async_pool.get_connection() is first
    assert async_pool.open_connections() == 1


async def test_a_task_opens_a_connection_again_that_the_server_closed(
    async_pool: AsyncConnectionPool, valkey_server: Server
) -> None:
    connection = await async_pool.get_connection()
    await async_pool.release(connection)
    await asyncio.to_thread(valkey_server.ask, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    async with asyncio.timeout(WAIT_S):
        while not await connection.has_input():  # the loop must see it first
            await asyncio.sleep(0)
    assert await async_pool.get_connection() is connection
    assert await ping_async(connection) == "PONG"


async def test_a_task_waits_for_a_connection_and_one_that_gives_up_takes_none(async_pool: AsyncConnectionPool) -> None:
    held = [await async_pool.get_connection() for _ in range(2)]
    waiting = [asyncio.create_task(async_pool.get_connection()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await async_pool.release(held[0])
    assert await waiting[1] is held[0]
    async_pool.timeout = 0.01
    with pytest.raises(RedisConnectionError, match="all 2 connections are in use"):
        await async_pool.get_connection()
    await async_pool.release(held[1])
    assert await async_pool.get_connection() is held[1]


async def test_a_connection_that_the_server_closed_is_not_ready(
    async_pool: AsyncConnectionPool, valkey_server: Server
) -> None:
    assert get_ready_connection(async_pool) is None, "none is open"
    connection = await async_pool.get_connection()
    assert get_ready_connection(async_pool) is None, "it is in use"
    async_pool.take_back(connection)
    assert get_ready_connection(async_pool) is connection
    async_pool.take_back(connection)
    await asyncio.to_thread(valkey_server.ask, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    async with asyncio.timeout(WAIT_S):
        while connection.is_ready():
            await asyncio.sleep(0)
    assert get_ready_connection(async_pool) is None


async def test_replies_are_read_as_they_arrive(async_pool: AsyncConnectionPool, valkey_server: Server) -> None:
    connection = await async_pool.get_connection()
    connection.write(pack_requests([("PING",), ("NONSENSE",), ("ECHO", "x" * 200_000)]))
    replies: list[Any] = []
    while len(replies) < 3:
        replies += await read_replies(connection, 3 - len(replies))
    assert replies[0] == "PONG"
    assert isinstance(replies[1], ResponseError)
    assert len(replies[2]) == 200_000
    connection.socket_timeout = 0.02
    valkey_server.pause()
    connection.write(pack_requests([("PING",)]))
    with pytest.raises(RedisTimeoutError, match="Timeout reading"):
        await read_replies(connection, 1)
    valkey_server.resume()


class Receiver:
    """Keeps the replies of a write, and what the connection notes meanwhile."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.replies: list[Any] = []
        self.parts: list[int] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def replies_left(self) -> int:
        return self.count - len(self.replies)

    def take_reply(self, reply: Any) -> None:
        if isinstance(reply, RedisConnectionError):
            raise reply
        self.replies.append(reply)

    def deliver(self) -> None:
        self.parts.append(len(self.replies))

    def finish_reading(self) -> None:
        self.ended.set_result(None)

    def fail_reading(self, error: BaseException) -> None:
        self.ended.set_exception(error)


async def received(connection: Any, count: int, data: bytes) -> Receiver:
    """Write, and receive the replies."""
    receiver = Receiver(count)
    connection.write(data)
    connection.receive(receiver)
    async with asyncio.timeout(WAIT_S):
        await receiver.ended
    assert not connection.has_receiver()
    return receiver


async def test_a_receiver_gets_replies_as_they_arrive(async_pool: AsyncConnectionPool) -> None:
    """Bytes go to the receiver while there is one, and otherwise to the stream of redis-py."""
    connection = await async_pool.get_connection()
    requests = [("PING",), ("NONSENSE",), ("ECHO", "x" * 900_000)]
    receiver = await received(connection, 3, pack_requests(requests))
    pong, error, text = receiver.replies
    assert (pong, len(text)) == ("PONG", 900_000)
    assert isinstance(error, ResponseError)
    assert receiver.parts
    assert set(receiver.parts) <= {0, 1, 2}
    assert await ping_async(connection) == "PONG"
    assert (await received(connection, 1, PING[0])).replies == ["PONG"]
    assert connection.is_ready()


async def test_a_receiver_gets_an_error_if_the_server_closes_or_rejects_the_connection(
    async_pool: AsyncConnectionPool, valkey_server: Server
) -> None:
    connection = await async_pool.get_connection()
    with pytest.raises(AuthenticationError):
        await received(connection, 1, pack_requests([("AUTH", "someone", "wrong")]))
    with pytest.raises(RedisConnectionError, match="the server closed the connection"):
        await received(connection, 3, pack_requests([("PING",), ("QUIT",)]))
    assert not connection.is_ready()
    async_pool.take_back(connection)
    again = await async_pool.get_connection()
    assert (await received(again, 1, PING[0])).replies == ["PONG"]
    receiver = Receiver(1)
    again.receive(receiver)
    await again.disconnect()
    with pytest.raises(RedisConnectionError, match="the server closed the connection"):
        await receiver.ended


async def test_a_receiver_that_fails_at_its_end_leaves_the_connection_open(async_pool: AsyncConnectionPool) -> None:
    """Another write may use the connection already, so it stays as it is, and the loop reports the error."""
    loop = asyncio.get_running_loop()
    reported: asyncio.Future[BaseException] = loop.create_future()
    loop.set_exception_handler(lambda _, context: reported.set_result(context["exception"]))
    connection = await async_pool.get_connection()
    receiver = Receiver(1)
    receiver.ended.set_result(None)
    connection.write(PING[0])
    connection.receive(receiver)
    async with asyncio.timeout(WAIT_S):
        assert isinstance(await reported, asyncio.InvalidStateError)
    assert (await received(connection, 1, PING[0])).replies == ["PONG"]


async def test_a_receiver_waits_for_the_time_out_of_the_socket(
    async_pool: AsyncConnectionPool, valkey_server: Server
) -> None:
    """The time counts from the last bytes. A timer of earlier replies does not end it.

    On a machine that delays a reply for longer, the time is longer.
    """
    loop = asyncio.get_running_loop()
    for timeout_s in (0.03, 0.3, 3.0):
        connection = await async_pool.get_connection()
        connection.socket_timeout = timeout_s
        with contextlib.suppress(RedisTimeoutError):
            for _ in range(3):
                await received(connection, 1, PING[0])
                await asyncio.sleep(timeout_s * 2 / 3)
            break
        async_pool.take_back(connection)
    valkey_server.pause()
    try:
        began_s = loop.time()
        with pytest.raises(RedisTimeoutError, match="Timeout reading"):
            await received(connection, 1, PING[0])
        assert loop.time() - began_s >= timeout_s
    finally:
        valkey_server.resume()


async def test_replies_to_a_large_write_wait_until_the_server_reads_it(
    async_pool: AsyncConnectionPool, valkey_server: Server
) -> None:
    """The bytes that were written without waiting are sent first, within the socket's time-out."""
    connection = await async_pool.get_connection()
    large = pack_requests([("ECHO", "x" * 20_000_000)])
    connection.write(large)
    (reply,) = await read_replies(connection, 1)
    assert len(reply) == 20_000_000
    transport = connection._writer.transport
    valkey_server.pause()
    try:
        connection.socket_timeout = 0.05
        connection.write(large)
        with pytest.raises(RedisTimeoutError, match="Timeout writing"):
            await read_replies(connection, 1)
    finally:
        transport.abort()
        valkey_server.resume()


async def test_a_large_write_waits_until_the_server_reads_it(
    async_pool: AsyncConnectionPool, valkey_server: Server
) -> None:
    """The bytes that a paused server does not read are limited by the socket's time-out."""
    connection = await async_pool.get_connection()
    text = "x" * 20_000_000
    await connection.send_packed_command([pack_requests([("ECHO", text)])])
    assert len(await connection.read_response()) == len(text)
    transport = connection._writer.transport
    valkey_server.pause()
    try:
        connection.socket_timeout = 0.05
        with pytest.raises(Exception, match="Timeout writing"):
            await connection.send_packed_command([pack_requests([("ECHO", text)])])
    finally:
        transport.abort()
        valkey_server.resume()
