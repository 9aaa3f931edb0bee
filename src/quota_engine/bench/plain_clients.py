"""redis-py clients of the yardsticks: for one server, for a primary behind Sentinels, and for a cluster.

They use nothing of this library. Only :meth:`PlainClients.in_turn` is added, which bounds the connections to a node.
redis-py's ``BlockingConnectionPool`` would do so, too. Its queue makes the yardstick slower: 50 callers by an eighth,
and 500 by a fifth, with a p99 that is seven times as long.
"""

from __future__ import annotations

__all__ = ["CONNECTIONS", "PlainClients", "open_clients"]

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.connection import parse_url

Item = TypeVar("Item")

CONNECTIONS: Final = 50
"""Connections of each client to each primary."""
_SENTINEL_PORT: Final = 26379


class PlainClients:
    """Clients of one server, or of the primary that Sentinels name.

    Attributes:
        client: Client for threads and for a single caller.
        async_client: Client for asyncio.
    """

    topology = ""
    """Words that follow the version of the server in a report."""

    def __init__(self, client: Any, async_client: Any, primaries: int = 1) -> None:
        self.client = client
        self.async_client = async_client
        self._turns = [asyncio.Semaphore(CONNECTIONS) for _ in range(primaries)]

    @property
    def primaries(self) -> int:
        """Number of primaries that keep keys."""
        return len(self._turns)

    @property
    def server(self) -> str:
        """Name, version and topology of the server, such as ``valkey 9.1.2``."""
        hello = self._hello()
        if not isinstance(hello, dict):
            hello = dict(zip(hello[::2], hello[1::2], strict=True))
        return f"{hello['server']} {hello['version']}{self.topology}"

    def primary_of(self, key: str) -> int:
        """Return the number of the primary that has a key, 0 or more."""
        return 0

    def run_on_primaries(self, script: str, *arguments: Any) -> None:
        """Run a script without keys on each primary, which keeps it for later calls by its digest."""
        self.client.eval(script, 0, *arguments)

    def in_turn(
        self, call: Callable[[Item], Awaitable[Any]], items: Sequence[Item], key_of: Callable[[Item], str]
    ) -> tuple[Callable[[Any], Awaitable[Any]], Sequence[Any]]:
        """Return an asyncio call and its arguments, so that calls wait for a free connection.

        The pools of redis-py raise an error if all connections are in use.

        Args:
            call: The call.
            items: Argument of each call.
            key_of: Returns the key that a call of this argument uses.
        """

        async def wait_and_call(arguments: tuple[asyncio.Semaphore, Item]) -> Any:
            turn, item = arguments
            async with turn:
                return await call(item)

        return wait_and_call, [(self._turns[self.primary_of(key_of(item))], item) for item in items]

    @contextlib.asynccontextmanager
    async def connection_to(self, key: str) -> AsyncIterator[Any]:
        """Borrow a connection of the asyncio client to the primary that has a key."""
        pool = self.async_client.connection_pool
        connection = await pool.get_connection()
        try:
            yield connection
        finally:
            await pool.release(connection)

    def close(self) -> None:
        """Close the client for threads."""
        self.client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close the client for asyncio."""
        await self.async_client.connection_pool.disconnect()

    def _hello(self) -> Any:
        return self.client.execute_command("HELLO")


class _SentinelClients(PlainClients):
    """Clients of the primary that Sentinels name."""

    topology = " behind Sentinels"

    def __init__(self, sentinel: Any, async_sentinel: Any, service: str) -> None:
        super().__init__(sentinel.master_for(service), async_sentinel.master_for(service))
        self._sentinel = sentinel
        self._async_sentinel = async_sentinel

    def close(self) -> None:
        super().close()
        for each in self._sentinel.sentinels:
            each.close()

    async def aclose(self) -> None:
        await super().aclose()
        for each in self._async_sentinel.sentinels:
            await each.aclose()


class _ClusterClients(PlainClients):
    """Clients of a cluster."""

    def __init__(self, client: Any, async_client: Any) -> None:
        owners = {nodes[0].name for nodes in client.nodes_manager.slots_cache.values()}
        super().__init__(client, async_client, len(owners))
        self._numbers = {name: number for number, name in enumerate(sorted(owners))}
        self.topology = f" in a cluster of {len(owners)} primaries"

    def primary_of(self, key: str) -> int:
        return self._numbers.get(self.client.get_node_from_key(key).name, 0)

    def run_on_primaries(self, script: str, *arguments: Any) -> None:
        self.client.execute_command("EVAL", script, 0, *arguments, target_nodes=redis.cluster.RedisCluster.PRIMARIES)

    @contextlib.asynccontextmanager
    async def connection_to(self, key: str) -> AsyncIterator[Any]:
        node = self.async_client.get_node_from_key(key)
        connection = node.acquire_connection()
        try:
            yield connection
        finally:
            # Earlier versions of redis-py have no method for this.
            getattr(node, "release", node._free.append)(connection)  # noqa: SLF001

    def close(self) -> None:
        self.client.close()

    async def aclose(self) -> None:
        await self.async_client.aclose()

    def _hello(self) -> Any:
        return self.client.execute_command("HELLO", target_nodes=self.client.get_default_node())


async def open_clients(url: str) -> PlainClients:
    """Open the clients of a store. The asyncio client belongs to the running event loop.

    Args:
        url: URL without the options of the engine: one that redis-py knows, ``redis+sentinel://``,
            ``redis+cluster://``, or one of these with TLS.
    """
    scheme, _, kind = urlsplit(url).scheme.partition("+")
    if kind == "cluster":
        return await _open_cluster(scheme, url)
    if kind == "sentinel":
        return _open_sentinels(scheme, url)
    options: dict[str, Any] = {"max_connections": CONNECTIONS, "decode_responses": True}
    return PlainClients(redis.Redis.from_url(url, **options), redis.asyncio.Redis.from_url(url, **options))


async def _open_cluster(scheme: str, url: str) -> PlainClients:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    first = f"{scheme}://{login}{at}{hosts.partition(',')[0]}?{parts.query}"
    options: dict[str, Any] = {"max_connections": CONNECTIONS, "decode_responses": True}
    client = redis.cluster.RedisCluster.from_url(first, **options)
    return _ClusterClients(client, await redis.asyncio.cluster.RedisCluster.from_url(first, **options).initialize())


def _open_sentinels(scheme: str, url: str) -> PlainClients:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query))
    for_sentinels = {
        name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
    }
    service, _, db = parts.path.removeprefix("/").partition("/")
    first = f"{scheme}://{login}{at}{hosts.partition(',')[0]}/{db}?{urlencode(options)}"
    settings: dict[str, Any] = {**parse_url(first)}
    for name in ("host", "port", "connection_class"):
        settings.pop(name, None)
    if scheme == "rediss":
        settings["ssl"] = True
    plain = {name: value for name, value in settings.items() if name not in ("db", "username", "password")}
    each = [urlsplit(f"//{host}") for host in hosts.split(",")]
    addresses = [(one.hostname, one.port or _SENTINEL_PORT) for one in each]
    settings |= {"max_connections": CONNECTIONS, "decode_responses": True}
    sentinel, async_sentinel = (
        make(addresses, sentinel_kwargs={**plain, **for_sentinels}, **settings)
        for make in (redis.sentinel.Sentinel, redis.asyncio.sentinel.Sentinel)
    )
    return _SentinelClients(sentinel, async_sentinel, unquote(service))
