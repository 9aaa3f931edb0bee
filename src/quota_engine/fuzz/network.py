"""A network of the simulation, in the place of redis-py's connections.

It allows what TCP allows. A request may arrive at any later time, also after its client has given the connection up
and has sent the request again on another one. Requests of one connection keep their order, those of several do not. A
request may arrive twice in a row, and the client gets the reply to the first copy. A copy may also arrive after the
last moment of the request. A proxy that sends a copy earlier, by itself, is not simulated: the protocol has no request
numbers, so no client could be safe behind it.

Last moments are times of the server's clock. If that is set back, they come later by as much, as ``docs/backends.md``
says. So the network loses the late requests whose last moments may come later.
"""

from __future__ import annotations

__all__ = ["Client", "VirtualConnection", "VirtualNetwork", "VirtualPool"]

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import AskError, BusyLoadingError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.clocks import MARGIN_MS, USABLE_MS
from quota_engine.fuzz.faults import FaultSource, held_delay_ms, late_delay_ms, usual_delay_ms
from quota_engine.fuzz.script_server import SCRIPT_TEXTS, ScriptServer
from quota_engine.fuzz.slot_moves import SlotMoves
from quota_engine.fuzz.virtual_loop import VirtualLoop
from quota_engine.stores.call_end import TIME_LEFT_MS_MIN
from quota_engine.stores.redis.retrying_calls import Node

_TEXTS: Final[dict[int, list[tuple[bytes, str]]]] = {}
"""The texts of scripts, by their length in bytes."""
for _text in SCRIPT_TEXTS:
    _TEXTS.setdefault(len(_text.encode()), []).append((_text.encode(), _text))
_LONG_WRITE_BYTES: Final = 8_000
"""The length from which the words of a write are compared with the texts of scripts."""
_VALID_MS_MIN: Final = TIME_LEFT_MS_MIN - MARGIN_MS
"""The least time that an attempt has: its call may end long before ``attempt_valid_ms`` has passed."""
_REDIRECTIONS: Final = {MovedError: "redirected", AskError: "asked", TryAgainError: "try_again"}
Requests = Sequence[Sequence[str]]


class Client:
    """A process of the simulation.

    Attributes:
        is_dead: True if it has died: it sends nothing any more, and hears nothing.
    """

    __slots__ = ("is_dead",)

    def __init__(self) -> None:
        self.is_dead = False


class VirtualNetwork:
    """Carries requests to one server, and its replies back.

    Attributes:
        faults: decides about faults.
        epoch_ms: the time of the server's clock at the virtual time 0; :meth:`set_clock` sets it.
        timeout_ms: how long a client waits for a reply.
        attempt_valid_ms: how long after its sending the server may accept a request.
        is_down: True while no connection is accepted and no request arrives.
        slots: the slots of a cluster; ``None`` for a single server.
    """

    def __init__(
        self, loop: VirtualLoop, server: ScriptServer, faults: FaultSource, *, epoch_ms: int, timeout_ms: int
    ) -> None:
        """
        Args:
            loop: runs the simulation.
            server: answers the requests.
            faults: decides about faults.
            epoch_ms: the time of the server's clock at the beginning.
            timeout_ms: how long a client waits for a reply.
        """
        self.loop = loop
        self.faults = faults
        self.timeout_ms = timeout_ms
        self.attempt_valid_ms = 1_000
        self.random = faults.random
        self.is_down = False
        self._server = server
        self._connections: list[VirtualConnection] = []
        self._sent = self._last_arrived = 0
        self.epoch_ms = epoch_ms
        self.slots: SlotMoves | None = None
        self._set_back_at_ms = -math.inf

    def set_clock(self, epoch_ms: int) -> None:
        """Set the server's clock, which shows ``epoch_ms`` at the virtual time 0."""
        if epoch_ms < self.epoch_ms:
            self._set_back_at_ms = self.loop.now_ms()
        self.epoch_ms = epoch_ms

    def server_ms(self) -> int:
        """Return the time of the server's clock."""
        return self.epoch_ms + int(self.loop.now_ms())

    def pool(self, client: Client | None = None, node: Node | None = None) -> VirtualPool:
        """Return the connections of one client to the server, or to a node of a cluster."""
        return VirtualPool(self, client or Client(), node)

    def cut_all(self) -> None:
        """Break all connections, as a restart of the server does."""
        for connection in self._connections:
            connection.cut()
        self._connections.clear()

    def opened(self, connection: VirtualConnection) -> VirtualConnection:
        """Note a new connection."""
        if len(self._connections) > 64:
            self._connections = [one for one in self._connections if not one.is_broken]
        self._connections.append(connection)
        return connection

    def transmit(self, connection: VirtualConnection, requests: Requests) -> list[asyncio.Future[Any]]:
        """Send requests; returns the futures of their replies, which may never come."""
        random = self.random
        replies = [self.loop.create_future() for _ in requests]
        self.loop.call_later(self.timeout_ms / 1000, _time_out, replies)
        if self.faults.happens("cut"):
            self.loop.call_later(late_delay_ms(random) / 1000, connection.cut)
        if self.faults.happens("request_lost"):
            return replies
        sent_ms = self.loop.now_ms()
        arrives_ms = sent_ms
        self._sent += 1
        for request, reply in zip(requests, replies, strict=True):
            if self.faults.happens("held_back"):
                delay_ms = held_delay_ms(random, self.timeout_ms)
            else:
                delay_ms = late_delay_ms(random) if self.faults.happens("request_late") else usual_delay_ms(random)
            arrives_ms = connection.request_arrives_ms = max(
                arrives_ms, connection.request_arrives_ms, sent_ms + delay_ms
            )
            self.loop.call_at(arrives_ms / 1000, self._deliver, connection, request, reply, self._sent, sent_ms)
            if self.faults.happens("copied_late"):
                copy_ms = sent_ms + self.attempt_valid_ms + 1 + late_delay_ms(random)
                copy_at_ms = max(arrives_ms, copy_ms)
                self.loop.call_at(copy_at_ms / 1000, self._deliver_copy, connection.node, request, sent_ms)
        return replies

    def _deliver_copy(self, node: Node | None, request: Sequence[str], sent_ms: float) -> None:
        """Let the server answer a copy for which no client waits any more."""
        if not self.is_down and not self._may_be_valid_for_longer(sent_ms):
            self._carry_out(node, request, asking=False)

    def _may_be_valid_for_longer(self, sent_ms: float) -> bool:
        """Return True if a request is late, and the server's clock was set back after its client last asked for it."""
        is_late = self.loop.now_ms() > sent_ms + _VALID_MS_MIN
        return is_late and sent_ms <= self._set_back_at_ms + USABLE_MS

    def _deliver(
        self,
        connection: VirtualConnection,
        request: Sequence[str],
        reply: asyncio.Future[Any],
        sent: int,
        sent_ms: float,
    ) -> None:
        """Let the server answer a request, and send the reply."""
        if self.is_down or self._may_be_valid_for_longer(sent_ms):
            return
        if sent < self._last_arrived:
            self.faults.fired["reordered"] += 1
        else:
            self._last_arrived = sent
        asking, connection.is_asking = connection.is_asking, request[0] == "ASKING"
        answer = self._answer(connection.node, request, asking=asking)
        # A copy behind a rejected one would run after its client has learned that nothing did.
        if not isinstance(answer, BusyLoadingError) and self.faults.happens("doubled"):
            copied = self._carry_out(connection.node, request, asking=asking)
            if isinstance(answer, list) and isinstance(copied, list) and len(copied) > 1:
                answer = copied
        if self.faults.happens("reply_lost"):
            return
        random = self.random
        delay_ms = late_delay_ms(random) if self.faults.happens("reply_late") else usual_delay_ms(random)
        if self.faults.happens("server_slow"):
            delay_ms += 1000 * random.random()
        arrives_ms = connection.reply_arrives_ms = max(connection.reply_arrives_ms, self.loop.now_ms() + delay_ms)
        self.loop.call_at(arrives_ms / 1000, _settle, reply, answer)

    def _answer(self, node: Node | None, request: Sequence[str], *, asking: bool) -> Any:
        if self.faults.happens("scripts_forgotten"):
            self._server.forget_scripts()
        if self.faults.happens("server_busy"):
            return BusyLoadingError("Redis is loading the dataset in memory")
        return self._carry_out(node, request, asking=asking)

    def _carry_out(self, node: Node | None, request: Sequence[str], *, asking: bool) -> Any:
        """Let the server carry a request out, or a node of a cluster redirect it."""
        if self.slots is not None and node is not None:
            if request[0] == "ASKING":
                return "OK"
            redirection = self.slots.redirection(node, request, asking=asking)
            if redirection is not None:
                if isinstance(redirection, Exception):
                    self.faults.fired[_REDIRECTIONS[type(redirection)]] += 1
                return redirection
        return self._server.answer(request, self.server_ms())


def _settle(reply: asyncio.Future[Any], answer: Any) -> None:
    if not reply.done():
        reply.set_result(answer)


def _time_out(replies: Sequence[asyncio.Future[Any]]) -> None:
    """Let the reads of replies end that have not come in time."""
    for reply in replies:
        if not reply.done():
            reply.set_exception(RedisTimeoutError("no reply in time"))
            reply.exception()  # no task need read it


class VirtualPool:
    """The connections of one client, with the part of redis-py's interface that the store uses."""

    def __init__(self, network: VirtualNetwork, client: Client, node: Node | None = None) -> None:
        self._network = network
        self._client = client
        self._node = node
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
        network = self._network
        await network.loop.pause(usual_delay_ms(network.random) / 1000)
        if self._client.is_dead:
            await network.loop.create_future()
        if network.is_down or network.faults.happens("refused"):
            raise RedisConnectionError("the network refuses the connection")
        return network.opened(VirtualConnection(network, self._client, self._node))

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
        is_asking: True if the last request on it was ASKING.
        node: the node of a cluster that it leads to.
        request_arrives_ms: the time at which the last request on it arrives at the server.
        reply_arrives_ms: the time at which the last reply on it arrives at the client.
    """

    def __init__(self, network: VirtualNetwork, client: Client, node: Node | None = None) -> None:
        self.is_broken = self.is_asking = False
        self.node = node
        self.request_arrives_ms = self.reply_arrives_ms = 0.0
        self._network = network
        self._client = client
        self._replies: deque[asyncio.Future[Any]] = deque()

    async def send_packed_command(self, packed: Sequence[bytes]) -> None:
        """Send requests, in the form in which they travel.

        Raises:
            RedisConnectionError: The connection is broken.
        """
        self._check()
        if self._client.is_dead:
            await self._network.loop.create_future()
        self._replies.extend(self._network.transmit(self, _unpack(b"".join(packed))))

    async def read_response(self) -> Any:
        """Return the next reply, or raise it if it is an error.

        Raises:
            RedisConnectionError: The connection is broken.
            RedisTimeoutError: No reply has come in time.
        """
        self._check()
        answer = await self._replies[0]
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
    """Return the requests of a write, each as words. No word has a line break."""
    if len(data) >= _LONG_WRITE_BYTES:
        return _unpack_texts(data)
    tokens = data.decode().split("\r\n")
    requests: list[list[str]] = []
    at, end = 0, len(tokens) - 1
    while at < end:
        words = int(tokens[at][1:])  # behind the asterisk
        requests.append(tokens[at + 2 : at + 1 + 2 * words : 2])
        at += 1 + 2 * words
    return requests


def _unpack_texts(data: bytes) -> list[list[str]]:
    """Return the requests of a write. The texts of scripts are compared, and not copied: they have up to 300 kB."""
    requests: list[list[str]] = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        words: list[str] = []
        requests.append(words)
        count, at = int(data[at + 1 : end]), end + 2
        while len(words) < count:
            end = data.index(b"\r\n", at)
            size, at = int(data[at + 1 : end]), end + 2
            known = None
            if size in _TEXTS:
                known = next((text for code, text in _TEXTS[size] if data.startswith(code, at)), None)
            words.append(data[at : at + size].decode() if known is None else known)
            at += size + 2
    return requests
