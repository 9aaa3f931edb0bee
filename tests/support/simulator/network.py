"""A network of the simulation, in the place of redis-py's connections.

It allows what TCP allows. A request may arrive at any later time, also after its client has given the connection up
and has sent the request again on another one. Requests of one connection keep their order, those of several do not. A
request may arrive twice in a row, and the client gets the reply to the first copy. A proxy that sends a copy later, by
itself, is not simulated: the protocol has no request numbers, so no client could be safe behind it.
"""

from __future__ import annotations

__all__ = ["VirtualConnection", "VirtualNetwork", "VirtualPool"]

import asyncio
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.support.simulator.faults import Faults, late_delay_ms, usual_delay_ms
from tests.support.simulator.script_server import ScriptServer
from tests.support.simulator.virtual_loop import VirtualLoop

Requests = Sequence[Sequence[str | int]]


class VirtualNetwork:
    """Carries requests to one server, and its replies back.

    Attributes:
        faults: the rates of faults; they may be set at any time.
        epoch_ms: the time of the server's clock at the virtual time 0; tests may set it.
        fired: how often each fault has happened.
        timeout_ms: how long a client waits for a reply.
    """

    def __init__(
        self, loop: VirtualLoop, server: ScriptServer, random: Random, faults: Faults, *, epoch_ms: int, timeout_ms: int
    ) -> None:
        """
        Args:
            loop: runs the simulation.
            server: answers the requests.
            random: decides about the faults.
            faults: their rates.
            epoch_ms: the time of the server's clock at the beginning.
            timeout_ms: how long a client waits for a reply.
        """
        self.loop = loop
        self.faults = faults
        self.fired: dict[str, int] = {}
        self.timeout_ms = timeout_ms
        self.random = random
        self._server = server
        self.epoch_ms = epoch_ms

    def server_ms(self) -> int:
        """Return the time of the server's clock."""
        return self.epoch_ms + int(self.loop.now_ms())

    def pool(self) -> VirtualPool:
        """Return the connections of one client."""
        return VirtualPool(self)

    def happens(self, fault: str) -> bool:
        """Decide whether a fault happens now, and count it."""
        if self.random.random() >= getattr(self.faults, fault):
            return False
        self.fired[fault] = self.fired.get(fault, 0) + 1
        return True

    def transmit(self, connection: VirtualConnection, requests: Requests) -> list[asyncio.Future[Any]]:
        """Send requests; returns the futures of their replies, which may never come."""
        random = self.random
        replies = [self.loop.create_future() for _ in requests]
        if self.happens("cut"):
            self.loop.call_later(late_delay_ms(random) / 1000, connection.cut)
        if self.happens("request_lost"):
            return replies
        sent_ms = self.loop.now_ms()
        arrives_ms = sent_ms
        for request, reply in zip(requests, replies, strict=True):
            delay_ms = late_delay_ms(random) if self.happens("request_late") else usual_delay_ms(random)
            arrives_ms = connection.request_arrives_ms = max(
                arrives_ms, connection.request_arrives_ms, sent_ms + delay_ms
            )
            self._at(arrives_ms, self._deliver, connection, request, reply)
        return replies

    def _deliver(self, connection: VirtualConnection, request: Sequence[str | int], reply: asyncio.Future[Any]) -> None:
        """Let the server answer a request, and send the reply."""
        answer = self._answer(request)
        if self.happens("doubled"):
            self._answer(request)
        if self.happens("reply_lost"):
            return
        delay_ms = late_delay_ms(self.random) if self.happens("reply_late") else usual_delay_ms(self.random)
        arrives_ms = connection.reply_arrives_ms = max(connection.reply_arrives_ms, self.loop.now_ms() + delay_ms)
        self._at(arrives_ms, _settle, reply, answer)

    def _answer(self, request: Sequence[str | int]) -> Any:
        if self.happens("scripts_forgotten"):
            self._server.forget_scripts()
        return self._server.answer(request, self.server_ms())

    def _at(self, at_ms: float, function: Any, *arguments: Any) -> None:
        self.loop.call_at(at_ms / 1000, function, *arguments)


def _settle(reply: asyncio.Future[Any], answer: Any) -> None:
    if not reply.done():
        reply.set_result(answer)


class VirtualPool:
    """The connections of one client, with the part of redis-py's interface that the store uses."""

    def __init__(self, network: VirtualNetwork) -> None:
        self._network = network
        self._idle: list[VirtualConnection] = []

    async def get_connection(self) -> VirtualConnection:
        """Return an idle connection, or make one.

        Raises:
            RedisConnectionError: The connection was refused.
        """
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_broken:
                return connection
        await asyncio.sleep(usual_delay_ms(self._network.random) / 1000)
        if self._network.happens("refused"):
            raise RedisConnectionError("the network refuses the connection")
        return VirtualConnection(self._network)

    async def release(self, connection: VirtualConnection) -> None:
        """Take a connection back."""
        self._idle.append(connection)

    async def disconnect(self) -> None:
        """Forget all connections."""
        self._idle.clear()


class VirtualConnection:
    """A connection, with the part of redis-py's interface that the store uses.

    Attributes:
        is_broken: True if it was cut or closed.
        request_arrives_ms: the time at which the last request on it arrives at the server.
        reply_arrives_ms: the time at which the last reply on it arrives at the client.
    """

    def __init__(self, network: VirtualNetwork) -> None:
        self.is_broken = False
        self.request_arrives_ms = self.reply_arrives_ms = 0.0
        self._network = network
        self._replies: deque[asyncio.Future[Any]] = deque()

    async def send_packed_command(self, packed: Sequence[bytes]) -> None:
        """Send requests, in the form in which they travel.

        Raises:
            RedisConnectionError: The connection is broken.
        """
        self._check()
        self._replies.extend(self._network.transmit(self, _unpack(b"".join(packed))))

    async def read_response(self) -> Any:
        """Return the next reply, or raise it if it is an error.

        Raises:
            RedisConnectionError: The connection is broken.
            RedisTimeoutError: No reply has come in time.
        """
        self._check()
        reply = self._replies[0]
        try:
            async with asyncio.timeout(self._network.timeout_ms / 1000):
                answer = await reply
        except TimeoutError:
            raise RedisTimeoutError("no reply in time") from None
        self._replies.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the connection. Requests in flight arrive nevertheless."""
        self.is_broken = True
        self._replies.clear()

    def cut(self) -> None:
        """Break the connection. Requests in flight arrive nevertheless."""
        self.is_broken = True
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(RedisConnectionError("the connection is cut"))
                reply.exception()  # no task need read it

    def _check(self) -> None:
        if self.is_broken:
            raise RedisConnectionError("the connection is cut")


def _unpack(data: bytes) -> list[list[str]]:
    """Return the requests of a write, each as words."""
    requests: list[list[str]] = []
    start = 0
    while start < len(data):
        end = data.index(b"\r\n", start)
        left, start = int(data[start + 1 : end]), end + 2
        words: list[str] = []
        for _ in range(left):
            end = data.index(b"\r\n", start)
            length, start = int(data[start + 1 : end]), end + 2
            words.append(data[start : start + length].decode())
            start += length + 2
        requests.append(words)
    return requests
