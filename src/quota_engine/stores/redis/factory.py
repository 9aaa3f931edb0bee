"""Opens stores by URL: ``redis://``, ``rediss://``, ``unix://``, ``valkey+embedded://``, and several servers.

``redis+sentinel://`` names Sentinels and ``redis+cluster://`` nodes of a cluster, with ``rediss`` for TLS.
"""

from __future__ import annotations

__all__ = ["open_async_store", "open_store"]

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.clocks import SteadyClock
from quota_engine.domain.clock_check import LEAP_MS_DEFAULT, LEAP_MS_LIMIT, LEAP_MS_MIN
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_name
from quota_engine.ports import Clock
from quota_engine.stores.call_end import CALL_TIMEOUT_MS, CALL_TIMEOUT_MS_BOUNDS, CALL_TIMEOUT_MS_WITH_FAILOVER
from quota_engine.stores.embedded import EmbeddedServer, open_embedded
from quota_engine.stores.redis.async_connections import AsyncConnectionPool
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.ending_connections import EndingConnectionPool
from quota_engine.stores.redis.retrying_calls import Durability, Fence, Node, RetryPolicy, Router
from quota_engine.stores.redis.routing import ClusterRouter, EmbeddedRouter, SentinelRouter
from quota_engine.stores.redis.sold_out_cache import BOUND_MS_DEFAULT, BOUND_MS_MAX, SoldOutCache
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.stores.redis.url_options import STORE_OPTIONS

S = TypeVar("S", RedisStore, AsyncRedisStore)

_EMBEDDED: Final = "valkey+embedded"
_UNKNOWN_OPTION: Final = re.compile(r"unexpected keyword argument '(\w+)'")
_FORMS: Final = {
    "": "redis://[user:password@]host:port/db with options of redis-py",
    "sentinel": "redis+sentinel://[user:password@]host:port,host:port/service[/db] with options of redis-py",
    "cluster": "redis+cluster://[user:password@]host:port,host:port with options of redis-py",
}
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_ATTEMPTS_MAX_WITH_FAILOVER: Final = 16
"""With pauses of about five seconds in total, which outlasts most failovers."""
_CONNECTIONS_MAX: Final = 8
"""Connections of one store to each server. Batches need few. A caller waits when all of them are in use."""
_POOL_WAIT_S: Final = 5
_TIMEOUT_MS: Final = 3_000


class _Target(NamedTuple):
    """The settings of a URL.

    Attributes:
        url: redis-py's URL of the only server, or of any of them.
        url_to: Returns the URL of a node.
        router: Finds the server of a key.
        settings: Settings of redis-py's connections.
        policy: Retries and acknowledgment of calls.
        namespace: Precedes all keys.
        sold_out_cache: Remembers what is sold out.
        call_timeout_ms: The time that a call has.
        form: The form of such URLs, for errors.
    """

    url: str
    url_to: Callable[[Node], str]
    router: Router
    settings: dict[str, Any]
    policy: RetryPolicy
    namespace: str
    sold_out_cache: SoldOutCache
    call_timeout_ms: int
    form: str


def _target(url: str, clock: Clock | None = None) -> _Target:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may contain a part of the password
        raise InvalidRequest("url", "not a URL", _FORMS[""]) from None
    scheme, _, kind = parts.scheme.partition("+")
    if kind not in _FORMS or scheme not in ("redis", "rediss", "unix") or (scheme == "unix" and kind):
        expected = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        raise InvalidRequest("url", f"this store has no scheme {parts.scheme}://", expected)
    if scheme == "unix" and not parts.path:
        raise InvalidRequest("url", "a unix:// URL without a path", "unix:///path/to/socket")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    attempts_max_default = _ATTEMPTS_MAX_WITH_FAILOVER if kind else RetryPolicy().attempts_max
    timeout_ms = _integer(options, "timeout_ms", _TIMEOUT_MS, 1, 600_000)
    call_timeout_ms_default = CALL_TIMEOUT_MS_WITH_FAILOVER if kind else CALL_TIMEOUT_MS
    call_timeout_ms = _integer(options, "call_timeout_ms", call_timeout_ms_default, *CALL_TIMEOUT_MS_BOUNDS)
    attempts_max = _integer(options, "attempts_max", attempts_max_default, 1, 1000)
    attempt_valid_ms = _integer(options, "attempt_valid_ms", RetryPolicy().attempt_valid_ms, 1, 600_000)
    clock_leap_max_ms = _integer(options, "clock_leap_max_ms", LEAP_MS_DEFAULT, 0, LEAP_MS_LIMIT)
    if 0 < clock_leap_max_ms < LEAP_MS_MIN:
        expected = f"0 to check nothing, or an integer from {LEAP_MS_MIN}"
        raise InvalidRequest("url, option clock_leap_max_ms", str(clock_leap_max_ms), expected)
    durability = _durability(options)
    replicas = _integer(options, "replicas", 1, 1, 100) if durability is Durability.REPLICATED else 0
    wait_ms = _integer(options, "wait_ms", RetryPolicy().wait_ms, 1, 600_000)
    sold_out_ms = _integer(options, "sold_out_ms", BOUND_MS_DEFAULT if clock is None else 0, 0, BOUND_MS_MAX)
    fence = _fence(options, may_fail_over=bool(kind) or durability is Durability.REPLICATED)
    functions = options.pop("functions", "auto")
    if functions not in ("auto", "off"):
        raise InvalidRequest("url, option functions", repr(functions[:40]), "auto or off")
    namespace = options.pop("namespace", "")
    if namespace:
        check_name(namespace, "url, option namespace")
    if kind:
        first, url_to, router = _several_servers(scheme, kind, parts.netloc, parts.path, options)
    else:
        first, url_to, router = _single_server(url.partition("?")[0], options)
    settings = {
        "decode_responses": True,
        "max_connections": _CONNECTIONS_MAX,
        "timeout": _POOL_WAIT_S,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "protocol": 2,
    }
    policy = RetryPolicy(
        attempts_max=attempts_max,
        durability=durability,
        replicas=replicas,
        wait_ms=wait_ms,
        fence=fence,
        attempt_valid_ms=min(attempt_valid_ms, timeout_ms),
        functions=functions == "auto",
        clock_leap_max_ms=clock_leap_max_ms,
    )
    cache = SoldOutCache(sold_out_ms) if clock is None else SoldOutCache(sold_out_ms, lambda: clock.now_ms() / 1000)
    return _Target(first, url_to, router, settings, policy, namespace, cache, call_timeout_ms, _FORMS[kind])


def _durability(options: dict[str, str]) -> Durability:
    given = options.pop("durability", Durability.MEMORY)
    if given not in set(Durability):
        raise InvalidRequest("url, option durability", repr(given[:40]), f"one of {', '.join(Durability)}")
    return Durability(given)


def _fence(options: dict[str, str], *, may_fail_over: bool) -> Fence:
    given = options.pop("fence", Fence.AUTO if may_fail_over else Fence.OFF)
    if given not in set(Fence):
        raise InvalidRequest("url, option fence", repr(given[:40]), f"one of {', '.join(Fence)}")
    return Fence(given)


def _split_embedded(url: str) -> tuple[str, str]:
    """Return the URL of an embedded server, and the store's own options as the query of another URL."""
    base, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    of_store = [(name, value) for name, value in pairs if name in STORE_OPTIONS]
    of_server = [(name, value) for name, value in pairs if name not in STORE_OPTIONS]
    if ("durability", Durability.FSYNC) in of_store and "appendfsync" not in dict(of_server):
        of_server.append(("appendfsync", "always"))
    return _with_options(base, of_server), _with_options("", of_store)


def _single_server(url: str, options: dict[str, str]) -> tuple[str, Callable[[Node], str], Router]:
    first = _with_options(url, options)
    return first, lambda _: first, Router()


def _several_servers(
    scheme: str, kind: str, netloc: str, path: str, options: dict[str, str]
) -> tuple[str, Callable[[Node], str], Router]:
    """Return the URL of one of several servers, the URL of each, and the router between them."""
    form = _FORMS[kind]
    login, at, hosts = netloc.rpartition("@")
    nodes = [_node(host, number, kind) for number, host in enumerate(hosts.split(","), 1)]
    service, _, db = path.removeprefix("/").partition("/")
    if db and not db.isdigit():
        raise InvalidRequest("url", "the database is not a number", form)
    router: Router
    if kind == "sentinel":
        if not service:
            raise InvalidRequest("url", "no service, the name under which the Sentinels watch the primary", form)
        router = SentinelRouter(nodes, unquote(service))
    else:
        if service or "db" in options:
            raise InvalidRequest("url", "a path or a database, which a cluster does not have", form)
        router = ClusterRouter(nodes)
    user, password = (quote(options.pop(f"sentinel_{name}", ""), safe="") for name in ("username", "password"))
    sentinel_login = f"{user}:{password}@" if password else ""

    def url_to(node: Node) -> str:
        host = f"[{node.host}]" if ":" in node.host else node.host
        if node.is_sentinel:  # has a separate login and no databases
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
        # By its number: with an unencoded slash in the password, this text is a part of the password.
        raise InvalidRequest("url", f"server {number} is not a host and port", _FORMS[kind])
    return Node(host, port or _PORTS[kind], is_sentinel=kind == "sentinel")


def _with_options(url: str, options: dict[str, str] | list[tuple[str, str]]) -> str:
    return url + (f"?{urlencode(options)}" if options else "")


def _integer(options: dict[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = options.pop(name, str(default))
    if not text.isdigit() or not minimum <= int(text) <= maximum:
        raise InvalidRequest(f"url, option {name}", repr(text[:40]), f"an integer from {minimum} to {maximum}")
    return int(text)


def _pools(make: Callable[..., Any], target: _Target, retry: object) -> tuple[Any, Callable[[Node], Any]]:
    """Return connections to the server of the URL, and a function that makes them to other nodes."""

    def pool_to(node: Node) -> Any:
        return make(target.url_to(node), retry=retry, **target.settings)

    try:
        pool = make(target.url, retry=retry, **target.settings)
        pool.connection_class(**pool.connection_kwargs)  # without a connection, only to check the options
    except TypeError as error:  # an option that redis-py does not have
        option = _UNKNOWN_OPTION.search(str(error))
        problem = f"unknown option {option.group(1)!r}" if option else str(error)
        raise InvalidRequest("url", problem, target.form) from error
    except ValueError:  # its text may contain a part of the password
        raise InvalidRequest("url", "an option has a value that redis-py rejects", target.form) from None
    return pool, pool_to


def _is_embedded(url: str) -> bool:
    return url.partition("://")[0] == _EMBEDDED


def open_store(url: str, clock: Clock | None) -> RedisStore:
    """Open the store at a URL, and check that the server qualifies.

    Options of the URL, besides those of redis-py:

    - ``namespace``: precedes all keys;
    - ``call_timeout_ms``: how long a call may take with all attempts (5000; 10000 with Sentinels and in a cluster);
    - ``timeout_ms``: how long to wait for a reply (3000);
    - ``attempts_max``: attempts of a call (8; 16 with Sentinels and in a cluster);
    - ``attempt_valid_ms``: how long an attempt that writes may take to reach the server (1000; at most ``timeout_ms``);
    - ``clock_leap_max_ms``: by how much the server's clock may differ from this process's clock and from a ledger's
      last event (a day; 0 checks nothing, and so does an injected clock);
    - ``durability``: ``memory``, ``fsync`` or ``replicated``, with ``replicas`` and the ``wait_ms`` for them;
    - ``fence``: ``off``, ``auto`` or ``manual``, what happens to a ledger after a failover (``auto`` with Sentinels,
      in a cluster and with ``replicated``, otherwise ``off``);
    - ``sold_out_ms``: how long the process remembers what is sold out (250; 0 with a clock, which counts it then);
    - ``sentinel_username`` and ``sentinel_password``.

    Args:
        url: The URL.
        clock: Where the time comes from; ``None`` is the server's time.

    Raises:
        InvalidRequest: The URL is not of this form.
        BackendUnavailable: No server answers, or it is too old, or it denies a permission.
    """
    of_server, of_store = _split_embedded(url)
    embedded = open_embedded(of_server) if _is_embedded(url) else None
    with _closed_on_error(embedded):
        store = _new_store(RedisStore, EndingConnectionPool, Retry(NoBackoff(), 0), url, of_store, clock, embedded)
        store.check_server()
    return store


async def open_async_store(url: str, clock: Clock | None) -> AsyncRedisStore:
    """Open the store at a URL for asyncio; see :func:`open_store`."""
    of_server, of_store = _split_embedded(url)
    embedded = await asyncio.to_thread(open_embedded, of_server) if _is_embedded(url) else None
    with _closed_on_error(embedded):
        retry = AsyncRetry(NoBackoff(), 0)
        store = _new_store(AsyncRedisStore, AsyncConnectionPool, retry, url, of_store, clock, embedded)
        await store.check_server()
    return store


@contextlib.contextmanager
def _closed_on_error(embedded: EmbeddedServer | None) -> Iterator[None]:
    """Close the embedded server if the store cannot be opened."""
    try:
        yield
    except BaseException:
        if embedded is not None:
            embedded.close()
        raise


def _new_store(
    store_class: type[S],
    pool_class: Any,
    retry: object,
    url: str,
    of_store: str,
    clock: Clock | None,
    embedded: EmbeddedServer | None,
) -> S:
    """Make a store of a URL, without sending anything.

    Args:
        store_class: The sync or the async store.
        pool_class: The class of its pools of connections.
        retry: redis-py's object that allows no retries.
        url: The URL.
        of_store: The store's own options, if the server is embedded.
        clock: Where the time comes from.
        embedded: The embedded server, which the store closes.
    """
    target = _target(embedded.url + of_store if embedded else url, clock)
    pool, pool_to = _pools(pool_class.from_url, target, retry)
    return store_class(
        pool,
        clock,
        policy=target.policy,
        namespace=target.namespace,
        router=EmbeddedRouter(embedded) if embedded else target.router,
        pool_to=pool_to,
        on_close=embedded.close if embedded else None,
        sold_out_cache=target.sold_out_cache,
        call_timeout_ms=target.call_timeout_ms,
        second_clock=SteadyClock() if target.policy.clock_leap_max_ms else None,
    )
