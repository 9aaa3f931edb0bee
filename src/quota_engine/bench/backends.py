"""A store under measurement: opened for the engine and for plain clients, and cleaned up at the end."""

from __future__ import annotations

__all__ = ["BenchStore"]

import asyncio
import contextlib
import itertools
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

from quota_engine.bench.host_info import pinned
from quota_engine.bench.plain_sql import remove_offices
from quota_engine.bench.plan import BackendKind
from quota_engine.bench.target_url import (
    EMBEDDED_SCHEME,
    SOLD_OUT_MS,
    SQLITE_SCHEME,
    BenchTarget,
    with_sold_out_ms,
)
from quota_engine.clocks import SystemClock
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import AsyncStore, Store
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore

if TYPE_CHECKING:
    from quota_engine.bench.plain_clients import PlainClients
    from quota_engine.bench.plain_postgresql import PlainPostgresql

T = TypeVar("T")

_POSTGRESQL_CONNECTIONS: Final = 50


class BenchStore:
    """One target, opened for the whole measurement. Use it as a context manager.

    Attributes:
        target: The target.
        is_pinned: True if the server is pinned to its core.
        server: Name, version and topology of the server, such as ``valkey 9.1.2``; "" if unknown.
        primaries: Number of servers that keep keys: more than 1 in a cluster only.
        cleanup_problem: Reason why keys stay in the store; "" if none do.
    """

    def __init__(self, target: BenchTarget, server_core: int | None) -> None:
        self.target = target
        self.is_pinned = False
        self.server = ""
        self.primaries = 1
        self.cleanup_problem = ""
        self._server_core = server_core
        self._undo = contextlib.ExitStack()
        self._runner = asyncio.Runner()
        self._url = ""
        self._opened: dict[bool, tuple[Store, AsyncStore]] = {}
        self._clients: PlainClients | None = None
        self._postgresql: PlainPostgresql | None = None
        self._offices: set[str] = set()
        self._plain_keys: dict[str, None] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            # The last resource is closed first: offices are removed by the clients, then clients and server are closed.
            undo.enter_context(self._runner)
            url, client_url = self._start_server(undo)
            if self.target.kind is not BackendKind.MEMORY:
                self._url = url
                self._open(undo, sold_out_cache=False)
            if self.target.kind is BackendKind.REDIS:
                self._open_clients(undo, client_url)
            elif self.target.kind is BackendKind.SQL:
                self.server = f"sqlite {sqlite3.sqlite_version}"
            elif self.target.kind is BackendKind.POSTGRESQL:
                self._open_postgresql(undo)
            elif self.target.kind is BackendKind.OTHER:
                self.cleanup_problem = "the benchmark has no client for this backend"
            undo.callback(lambda: self.remove(sorted(self._offices)))
            undo.callback(lambda: self.remove_keys([*self._plain_keys]))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def open_stores(self, *, sold_out_cache: bool = False) -> tuple[Store, AsyncStore]:
        """Return the store for synchronous calls and for asyncio. In memory both are new and empty each time.

        Args:
            sold_out_cache: Use a sold-out cache, which only the case ``sold-out`` measures.
        """
        if self.target.kind is BackendKind.MEMORY:
            memory = MemoryStore(SystemClock())
            return memory, AsyncMemoryStore(memory)
        if sold_out_cache not in self._opened:
            self._open(self._undo, sold_out_cache=sold_out_cache)
        return self._opened[sold_out_cache]

    @property
    def clients(self) -> PlainClients:
        """Plain redis-py clients of the store."""
        assert self._clients is not None
        return self._clients

    @property
    def postgresql(self) -> PlainPostgresql:
        """Plain connections to the PostgreSQL server."""
        assert self._postgresql is not None
        return self._postgresql

    def run_coroutine(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of this store's asyncio clients, and return its result."""
        return self._runner.run(call)

    def new_offices(self, count: int) -> list[str]:
        """Return ids of offices that no earlier measurement has used.

        In a cluster, the first office is always on the same primary, and several are spread evenly over all primaries.
        """
        from quota_engine.stores.redis.keys import keys_of

        tag = secrets.token_hex(4)
        every = (f"bench-{tag}-{number}" for number in itertools.count())
        if self._clients is None or self.primaries == 1:
            return [*itertools.islice(every, count)]
        offices: list[str] = []
        while len(offices) < count:
            office = next(every)
            if self._clients.primary_of(keys_of(self.target.namespace, office)[0]) == len(offices) % self.primaries:
                offices.append(office)
        return offices

    def register_offices(self, offices: list[str]) -> None:
        """Register offices before their first key is written, so that they are removed even after an error."""
        self._offices.update(offices)

    def register_keys(self, keys: list[str]) -> None:
        """Register keys of a yardstick before they are written, so that they are removed even after an error."""
        self._plain_keys.update(dict.fromkeys(keys))

    @property
    def url(self) -> str:
        """URL that the engine uses: the one of the target, with the path of a temporary file."""
        return self._url

    def remove(self, offices: list[str]) -> None:
        """Remove all data of these offices. If the store does not allow it, set :attr:`cleanup_problem`."""
        if self.target.kind is BackendKind.SQL:
            remove_offices(self._url, offices)
            self._offices.difference_update(offices)
            return
        from quota_engine.stores.redis.keys import keys_of, offices_key

        with self._cleaning_up() as client:
            for office in offices if client is not None else ():
                client.unlink(*keys_of(self.target.namespace, office))
                client.zrem(offices_key(self.target.namespace), office)
                self._offices.discard(office)

    def remove_keys(self, keys: list[str]) -> None:
        """Remove these keys of a yardstick. If the store does not allow it, set :attr:`cleanup_problem`."""
        with self._cleaning_up() as client:
            if client is not None and keys:
                client.unlink(*keys)
                for key in keys:
                    self._plain_keys.pop(key, None)

    @contextlib.contextmanager
    def _cleaning_up(self) -> Iterator[Any]:
        """Yield the client that removes keys, or ``None`` if none can. Keep the reason of an error."""
        if self._clients is None or self.cleanup_problem:
            yield None
            return
        import redis

        try:
            yield self._clients.client
        except redis.RedisError as error:
            self.cleanup_problem = str(error) or type(error).__name__

    def _open(self, undo: contextlib.ExitStack, *, sold_out_cache: bool) -> None:
        url = self._url
        if self.target.kind in (BackendKind.REDIS, BackendKind.SQL, BackendKind.POSTGRESQL):
            url = with_sold_out_ms(url, SOLD_OUT_MS if sold_out_cache else 0)
        factory = store_factory(url)
        backend = factory.open_store(url, None)
        undo.callback(backend.close)
        async_backend = self.run_coroutine(factory.open_async_store(url, None))
        undo.callback(lambda: self.run_coroutine(async_backend.close()))
        self._opened[sold_out_cache] = backend, async_backend

    def _start_server(self, undo: contextlib.ExitStack) -> tuple[str, str]:
        """Start or join the embedded server, if it is one. Return the URLs for the engine and for the plain clients."""
        if self.target.kind is BackendKind.SQL and self.target.is_temporary:
            _, _, query = self.target.url.partition("?")
            directory = tempfile.mkdtemp(prefix="quota-bench-")
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            return f"{SQLITE_SCHEME}{quote(directory)}/bench.db{query and f'?{query}'}", ""
        if self.target.url.startswith("postgresql+embedded://"):
            return self._start_postgresql(undo), ""
        if not self.target.is_embedded:
            return self.target.url, self.target.client_url
        try:
            from quota_engine.stores.embedded import open_embedded
        except ImportError as error:
            raise BackendUnavailable(
                f"the embedded server needs {error.name}: pip install 'quota-engine[embedded]'"
            ) from None
        url = self.target.url
        if self.target.is_temporary:
            directory = tempfile.mkdtemp(prefix="quota-bench-")
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            url = f"{EMBEDDED_SCHEME}{quote(directory)}"
        if self.target.durability == "fsync":
            server = undo.enter_context(open_embedded(f"{url.partition('?')[0]}?appendfsync=always"))
            url = f"{url.partition('?')[0]}?durability=fsync"
        else:
            server = undo.enter_context(open_embedded(url))
        self.is_pinned = undo.enter_context(pinned(server.pid, self._server_core))
        return url, server.url

    def _start_postgresql(self, undo: contextlib.ExitStack) -> str:
        """Start or join the embedded PostgreSQL, and return a URL of it with the schema of this run."""
        from quota_engine.stores.sql.postgresql.embedded import SCHEME, open_embedded_postgresql

        base, _, query = self.target.url.partition("?")
        if base == f"{SCHEME}://":
            directory = tempfile.mkdtemp(prefix="quota-bench-")
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            Path(directory).chmod(0o755)
            base += quote(f"{directory}/data")
        server = undo.enter_context(open_embedded_postgresql(base))
        self.is_pinned = undo.enter_context(pinned(server.pid, self._server_core))
        return f"{server.url}&{query}"

    def _open_postgresql(self, undo: contextlib.ExitStack) -> None:
        from quota_engine.bench.plain_postgresql import PlainPostgresql

        self._postgresql = PlainPostgresql(self._url, _POSTGRESQL_CONNECTIONS, self.run_coroutine)
        undo.callback(self._postgresql.close)
        self.server = self._postgresql.server

    def _open_clients(self, undo: contextlib.ExitStack, url: str) -> None:
        from quota_engine.bench.plain_clients import open_clients

        clients = self._clients = self.run_coroutine(open_clients(url))
        undo.callback(clients.close)
        undo.callback(lambda: self.run_coroutine(clients.aclose()))
        self.server, self.primaries = clients.server, clients.primaries
