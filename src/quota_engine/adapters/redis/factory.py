"""Opens ``redis://``, ``rediss://``, ``unix://`` and ``valkey+embedded://`` stores."""

from __future__ import annotations

__all__ = ["open_async_backend", "open_backend"]

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_engine.adapters.embedded import open_embedded
from quota_engine.adapters.redis.async_backend import AsyncRedisBackend
from quota_engine.adapters.redis.calls import Policy
from quota_engine.adapters.redis.sync_backend import RedisBackend
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.values import check_name
from quota_engine.ports import Clock

_EMBEDDED: Final = "valkey+embedded"
_CONNECTIONS_MAX: Final = 8
"""Of one backend. Batches make few connections enough; a pool that is used up waits, it does not fail."""
_POOL_WAIT_S: Final = 5
_SOCKET_TIMEOUT_S: Final = 5.0


def _settings(url: str) -> tuple[str, dict[str, Any], Policy, str]:
    """The URL for redis-py, what it is told besides, how long calls are tried, and the namespace."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise InvalidRequest("url", f"{parts.scheme}:// is not served here", "redis://, rediss:// or unix://")
    if parts.scheme == "unix" and not parts.path:
        raise InvalidRequest("url", "a unix:// without a path", "unix:///path/to/socket")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    timeout_ms = _integer(options, "timeout_ms", round(_SOCKET_TIMEOUT_S * 1000), 1, 600_000)
    attempts_max = _integer(options, "attempts_max", Policy().attempts_max, 1, 1000)
    namespace = options.pop("namespace", "")
    if namespace:
        check_name(namespace, "url, option namespace")
    rest = url.partition("?")[0] + (f"?{urlencode(options)}" if options else "")
    settings = {
        "decode_responses": True,
        "max_connections": _CONNECTIONS_MAX,
        "timeout": _POOL_WAIT_S,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "protocol": 2,
    }
    return rest, settings, Policy(attempts_max=attempts_max), namespace


def _integer(options: dict[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = options.pop(name, str(default))
    if not text.isdigit() or not minimum <= int(text) <= maximum:
        raise InvalidRequest(f"url, option {name}", repr(text[:40]), f"an integer from {minimum} to {maximum}")
    return int(text)


def _pool(make: Callable[..., Any], url: str, settings: dict[str, Any], retry: object) -> Any:
    try:
        pool = make(url, retry=retry, **settings)
        pool.connection_class(**pool.connection_kwargs)  # not connected: it only has to know all the options
        return pool
    except (ValueError, TypeError) as error:
        expected = "redis://[user:password@]host:port/db, with options that redis-py knows"
        raise InvalidRequest("url", str(error), expected) from error


def open_backend(url: str, clock: Clock | None) -> RedisBackend:
    """Open the store at ``url``, and see that it answers and is new enough. ``clock`` ``None`` is the server's time.

    Options in the URL: ``namespace`` in front of all keys, ``timeout_ms`` for a reply (5000), ``attempts_max`` of a
    call
    (8), and redis-py's own.

    Raises:
        InvalidRequest: the URL is not of that form.
        BackendUnavailable: nothing answers there, or something that is too old or may not be used.
    """
    embedded = open_embedded(url) if urlsplit(url).scheme == _EMBEDDED else None
    try:
        rest, settings, policy, namespace = _settings(embedded.url if embedded else url)
        make = redis.connection.BlockingConnectionPool.from_url
        pool = _pool(make, rest, settings, Retry(NoBackoff(), 0))
        backend = RedisBackend(
            pool, clock, policy=policy, namespace=namespace, on_close=embedded.close if embedded else None
        )
        backend.check_server()
    except BaseException:
        if embedded is not None:
            embedded.close()
        raise
    return backend


async def open_async_backend(url: str, clock: Clock | None) -> AsyncRedisBackend:
    """Open the store at ``url`` for asyncio; see :func:`open_backend`."""
    embedded = await asyncio.to_thread(open_embedded, url) if urlsplit(url).scheme == _EMBEDDED else None
    try:
        rest, settings, policy, namespace = _settings(embedded.url if embedded else url)
        make = redis.asyncio.connection.BlockingConnectionPool.from_url
        pool = _pool(make, rest, settings, AsyncRetry(NoBackoff(), 0))
        backend = AsyncRedisBackend(
            pool, clock, policy=policy, namespace=namespace, on_close=embedded.close if embedded else None
        )
        await backend.check_server()
    except BaseException:
        if embedded is not None:
            embedded.close()
        raise
    return backend
