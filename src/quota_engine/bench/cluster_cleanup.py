"""redis-py client of a cluster or of a store behind Sentinels, which removes the keys of a benchmark."""

from __future__ import annotations

__all__ = ["create_cleanup_client"]

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_SENTINEL_PORT = 26379


def create_cleanup_client(url: str, engine_options: tuple[str, ...]) -> Any:
    """Return a client for ``redis+sentinel://`` or ``redis+cluster://``.

    Args:
        url: URL of the store.
        engine_options: Options of the URL that redis-py does not know.
    """
    from redis.cluster import RedisCluster
    from redis.connection import parse_url
    from redis.sentinel import Sentinel

    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    login, at, hosts = parts.netloc.rpartition("@")
    options = {name: value for name, value in parse_qsl(parts.query) if name not in engine_options}
    for_sentinels = {
        name: options.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in options
    }
    first = hosts.partition(",")[0]
    if kind == "cluster":
        return RedisCluster.from_url(f"{scheme}://{login}{at}{first}?{urlencode(options)}", decode_responses=True)
    service, _, db = parts.path.removeprefix("/").partition("/")
    settings: dict[str, Any] = {**parse_url(f"{scheme}://{login}{at}{first}/{db}?{urlencode(options)}")}
    for name in ("host", "port", "connection_class"):
        settings.pop(name, None)
    if scheme == "rediss":
        settings["ssl"] = True
    plain = {name: value for name, value in settings.items() if name not in ("db", "username", "password")}
    each = [urlsplit(f"//{host}") for host in hosts.split(",")]
    sentinel = Sentinel(
        [(one.hostname, one.port or _SENTINEL_PORT) for one in each],
        sentinel_kwargs={**plain, **for_sentinels},
        decode_responses=True,
        **settings,
    )
    return sentinel.master_for(unquote(service))
