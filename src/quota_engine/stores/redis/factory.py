"""Opens ``redis://``, ``rediss://``, ``unix://`` and ``valkey+embedded://`` stores, and those behind Sentinels or in a
cluster: ``redis+sentinel://`` and ``redis+cluster://``, with ``rediss`` instead of ``redis`` for TLS.
"""

from __future__ import annotations

__all__ = ["open_async_store", "open_store"]

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name
from quota_engine.ports import Clock
from quota_engine.stores.embedded import open_embedded
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.retrying_calls import Durability, Fence, Node, RetryPolicy, Router
from quota_engine.stores.redis.routing import ClusterRouter, SentinelRouter
from quota_engine.stores.redis.sold_out_cache import BOUND_MS_DEFAULT, BOUND_MS_MAX, SoldOutCache
from quota_engine.stores.redis.sync_store import RedisStore

_EMBEDDED: Final = "valkey+embedded"
_FORMS: Final = {
    "": "redis://[user:password@]host:port/db, with options that redis-py knows",
    "sentinel": "redis+sentinel://[user:password@]host:port,host:port/service[/db], with options that redis-py knows",
    "cluster": "redis+cluster://[user:password@]host:port,host:port, with options that redis-py knows",
}
_OURS: Final = frozenset(
    {"namespace", "timeout_ms", "attempts_max", "durability", "replicas", "wait_ms", "sold_out_ms", "fence"}
)
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_ATTEMPTS_MAX_OF_MANY: Final = 16
"""With pauses of about five seconds in all: longer than a failover usually takes."""
_CONNECTIONS_MAX: Final = 8
"""Of one backend, to each server. Batches make few connections enough; a pool that is used up waits, it does not fail.
"""
_POOL_WAIT_S: Final = 5
_SOCKET_TIMEOUT_S: Final = 5.0


class _Store(NamedTuple):
    """What a URL says. ``url`` is redis-py's, for the only server or any; ``url_to`` gives the one of a node."""

    url: str
    url_to: Callable[[Node], str]
    router: Router
    settings: dict[str, Any]
    policy: RetryPolicy
    namespace: str
    sold_out: SoldOutCache
    form: str


def _store(url: str, clock: Clock | None = None) -> _Store:
    try:
        parts = urlsplit(url)
    except ValueError:  # whose text might have a part of the password
        raise InvalidRequest("url", "not a URL", _FORMS[""]) from None
    scheme, _, kind = parts.scheme.partition("+")
    if kind not in _FORMS or scheme not in ("redis", "rediss", "unix") or (scheme == "unix" and kind):
        expected = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        raise InvalidRequest("url", f"{parts.scheme}:// is not served here", expected)
    if scheme == "unix" and not parts.path:
        raise InvalidRequest("url", "a unix:// without a path", "unix:///path/to/socket")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    attempts_max_default = _ATTEMPTS_MAX_OF_MANY if kind else RetryPolicy().attempts_max
    timeout_ms = _integer(options, "timeout_ms", round(_SOCKET_TIMEOUT_S * 1000), 1, 600_000)
    attempts_max = _integer(options, "attempts_max", attempts_max_default, 1, 1000)
    durability = _durability(options)
    replicas = _integer(options, "replicas", 1, 1, 100) if durability is Durability.REPLICATED else 0
    wait_ms = _integer(options, "wait_ms", RetryPolicy().wait_ms, 1, 600_000)
    sold_out_ms = _integer(options, "sold_out_ms", BOUND_MS_DEFAULT if clock is None else 0, 0, BOUND_MS_MAX)
    fence = _fence(options, durability)
    namespace = options.pop("namespace", "")
    if namespace:
        check_name(namespace, "url, option namespace")
    if kind:
        first, url_to, router = _many(scheme, kind, parts.netloc, parts.path, options)
    else:
        first, url_to, router = _one(url.partition("?")[0], options)
    settings = {
        "decode_responses": True,
        "max_connections": _CONNECTIONS_MAX,
        "timeout": _POOL_WAIT_S,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "protocol": 2,
    }
    policy = RetryPolicy(
        attempts_max=attempts_max, durability=durability, replicas=replicas, wait_ms=wait_ms, fence=fence
    )
    sold_out = SoldOutCache(sold_out_ms) if clock is None else SoldOutCache(sold_out_ms, lambda: clock.now_ms() / 1000)
    return _Store(first, url_to, router, settings, policy, namespace, sold_out, _FORMS[kind])


def _durability(options: dict[str, str]) -> Durability:
    given = options.pop("durability", Durability.MEMORY)
    if given not in set(Durability):
        raise InvalidRequest("url, option durability", repr(given[:40]), f"one of {', '.join(Durability)}")
    return Durability(given)


def _fence(options: dict[str, str], durability: Durability) -> Fence:
    given = options.pop("fence", Fence.AUTO if durability is Durability.REPLICATED else Fence.OFF)
    if given not in set(Fence):
        raise InvalidRequest("url, option fence", repr(given[:40]), f"one of {', '.join(Fence)}")
    return Fence(given)


def _split(url: str) -> tuple[str, str]:
    """The URL of an embedded server, and the options behind it that are not the server's but ours."""
    base, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    ours = [(name, value) for name, value in pairs if name in _OURS]
    theirs = [(name, value) for name, value in pairs if name not in _OURS]
    if ("durability", Durability.FSYNC) in ours and "appendfsync" not in dict(theirs):
        theirs.append(("appendfsync", "always"))
    return base + (f"?{urlencode(theirs)}" if theirs else ""), (f"?{urlencode(ours)}" if ours else "")


def _one(url: str, options: dict[str, str]) -> tuple[str, Callable[[Node], str], Router]:
    first = _with_options(url, options)
    return first, lambda _: first, Router()


def _many(
    scheme: str, kind: str, netloc: str, path: str, options: dict[str, str]
) -> tuple[str, Callable[[Node], str], Router]:
    """The URL of one of several servers, the URL of each, and the router between them."""
    form = _FORMS[kind]
    login, at, hosts = netloc.rpartition("@")
    nodes = [_node(host, number, kind) for number, host in enumerate(hosts.split(","), 1)]
    service, _, db = path.removeprefix("/").partition("/")
    if db and not db.isdigit():
        raise InvalidRequest("url", "the database is no number", form)
    router: Router
    if kind == "sentinel":
        if not service:
            raise InvalidRequest("url", "no service, by whose name the Sentinels watch the primary", form)
        router = SentinelRouter(nodes, unquote(service))
    else:
        if service or "db" in options:
            raise InvalidRequest("url", "a path or database: a cluster has none to choose", form)
        router = ClusterRouter(nodes)
    user, password = (quote(options.pop(f"sentinel_{name}", ""), safe="") for name in ("username", "password"))
    sentinel_login = f"{user}:{password}@" if password else ""

    def url_to(node: Node) -> str:
        host = f"[{node.host}]" if ":" in node.host else node.host
        if node.is_sentinel:  # has a login of its own, and no databases
            rest = {name: value for name, value in options.items() if name not in ("db", "username", "password")}
            return _with_options(f"{scheme}://{sentinel_login}{host}:{node.port}", rest)
        return _with_options(f"{scheme}://{login}{at}{host}:{node.port}/{db}", options)

    return url_to(nodes[0]._replace(is_sentinel=False)), url_to, router


def _node(host_and_port: str, number: int, kind: str) -> Node:
    try:
        parts = urlsplit(f"//{host_and_port}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        # By its number: if a password with a slash was not encoded, what stands here is a part of it.
        raise InvalidRequest("url", f"server {number} is not a host and port", _FORMS[kind])
    return Node(host, port or _PORTS[kind], is_sentinel=kind == "sentinel")


def _with_options(url: str, options: dict[str, str]) -> str:
    return url + (f"?{urlencode(options)}" if options else "")


def _integer(options: dict[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = options.pop(name, str(default))
    if not text.isdigit() or not minimum <= int(text) <= maximum:
        raise InvalidRequest(f"url, option {name}", repr(text[:40]), f"an integer from {minimum} to {maximum}")
    return int(text)


def _pools(make: Callable[..., Any], store: _Store, retry: object) -> tuple[Any, Callable[[Node], Any]]:
    """Connections to the server of the URL, and what makes them to others."""

    def pool_to(node: Node) -> Any:
        return make(store.url_to(node), retry=retry, **store.settings)

    try:
        pool = make(store.url, retry=retry, **store.settings)
        pool.connection_class(**pool.connection_kwargs)  # not connected: it only has to know all the options
    except TypeError as error:  # an option by a name that redis-py does not have
        raise InvalidRequest("url", str(error), store.form) from error
    except ValueError:  # whose text might have a part of the password
        raise InvalidRequest("url", "a value that redis-py does not take", store.form) from None
    return pool, pool_to


def _is_embedded(url: str) -> bool:
    return url.partition("://")[0] == _EMBEDDED


def open_store(url: str, clock: Clock | None) -> RedisStore:
    """Open the store at ``url``, and see that it answers and is new enough. ``clock`` ``None`` is the server's time.

    Options in the URL: ``durability`` (``memory``, ``fsync`` or ``replicated``, with ``replicas`` and the ``wait_ms``
    for them), ``fence`` (``off``, ``auto`` or ``manual``: what happens to an office after a failover), ``namespace`` in
    front of all keys, ``timeout_ms`` for a reply (5000), ``attempts_max`` of a call (8, and 16 where there can be a
    failover), ``sold_out_ms`` (250; with a clock 0, and counted by it) for which the client remembers what is sold out,
    ``sentinel_username`` and ``sentinel_password`` for the Sentinels, and redis-py's own.

    Raises:
        InvalidRequest: the URL is not of that form.
        BackendUnavailable: nothing answers there, or something that is too old or may not be used.
    """
    theirs, ours = _split(url)
    embedded = open_embedded(theirs) if _is_embedded(url) else None
    try:
        store = _store(embedded.url + ours if embedded else url, clock)
        make = redis.connection.BlockingConnectionPool.from_url
        pool, pool_to = _pools(make, store, Retry(NoBackoff(), 0))
        backend = RedisStore(
            pool,
            clock,
            policy=store.policy,
            namespace=store.namespace,
            router=store.router,
            pool_to=pool_to,
            on_close=embedded.close if embedded else None,
            sold_out=store.sold_out,
        )
        backend.check_server()
    except BaseException:
        if embedded is not None:
            embedded.close()
        raise
    return backend


async def open_async_store(url: str, clock: Clock | None) -> AsyncRedisStore:
    """Open the store at ``url`` for asyncio; see :func:`open_store`."""
    theirs, ours = _split(url)
    embedded = await asyncio.to_thread(open_embedded, theirs) if _is_embedded(url) else None
    try:
        store = _store(embedded.url + ours if embedded else url, clock)
        make = redis.asyncio.connection.BlockingConnectionPool.from_url
        pool, pool_to = _pools(make, store, AsyncRetry(NoBackoff(), 0))
        backend = AsyncRedisStore(
            pool,
            clock,
            policy=store.policy,
            namespace=store.namespace,
            router=store.router,
            pool_to=pool_to,
            on_close=embedded.close if embedded else None,
            sold_out=store.sold_out,
        )
        await backend.check_server()
    except BaseException:
        if embedded is not None:
            embedded.close()
        raise
    return backend
