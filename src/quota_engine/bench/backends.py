"""A store that is measured: the engine on it, plain clients beside it, and an end that leaves nothing behind."""

from __future__ import annotations

__all__ = ["HANDWRITTEN_CONNECTIONS", "Store"]

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

from quota_engine.bench.cluster_cleanup import create_cleanup_client
from quota_engine.bench.host_info import pinned
from quota_engine.bench.plan import BackendKind
from quota_engine.bench.target_url import EMBEDDED_SCHEME, ENGINE_OPTIONS, SOLD_OUT_MS, BenchTarget, with_sold_out_ms
from quota_engine.clocks import SystemClock
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import AsyncStore, Store
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore

if TYPE_CHECKING:
    import redis
    import redis.asyncio

T = TypeVar("T")

HANDWRITTEN_CONNECTIONS: Final = 50
_POOL_WAIT_S: Final = 60


class BenchStore:
    """One target, opened for the whole measurement. Use it as a context manager.

    Attributes:
        target: what was asked for.
        is_pinned: whether the server runs on the core that it was given.
        server: what answers there, such as ``valkey 9.1.2``; "" if that is not known.
        left_behind: why keys stay in the store, "" if none do.
    """

    def __init__(self, target: BenchTarget, server_core: int | None) -> None:
        self.target = target
        self.is_pinned = False
        self.server = ""
        self.left_behind = ""
        self._server_core = server_core
        self._undo = contextlib.ExitStack()
        self._runner = asyncio.Runner()
        self._url = ""
        self._opened: dict[bool, tuple[Store, AsyncStore]] = {}
        self._client: redis.Redis | None = None
        self._async_client: redis.asyncio.Redis | None = None
        self._cleaner: Any = None
        self._offices: set[str] = set()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            # What is entered last is undone first: offices go while the clients are there, then clients, then server.
            undo.enter_context(self._runner)
            url, client_url = self._start_server(undo)
            if self.target.kind is not BackendKind.MEMORY:
                self._url = url
                self._open(undo, remembering=False)
            if self.target.kind is BackendKind.REDIS:
                self._open_clients(undo, client_url)
                self._cleaner = self._client
            elif self.target.has_several_servers:
                self._cleaner = create_cleanup_client(self.target.url, ENGINE_OPTIONS)
                undo.callback(self._cleaner.close)
            elif self.target.kind is BackendKind.OTHER:
                self.left_behind = "nothing is known of how to remove them there"
            undo.callback(lambda: self.remove(sorted(self._offices)))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def open_stores(self, *, remembering: bool = False) -> tuple[Store, AsyncStore]:
        """The store, called synchronously and from asyncio; by an engine that remembers what is sold out if that is
        what is measured. In memory it is a new, empty one each time.
        """
        if self.target.kind is BackendKind.MEMORY:
            memory = MemoryStore(SystemClock())
            return memory, AsyncMemoryStore(memory)
        if remembering not in self._opened:
            self._open(self._undo, remembering=remembering)
        return self._opened[remembering]

    @property
    def client(self) -> redis.Redis:
        """A client as a user would make it."""
        assert self._client is not None
        return self._client

    @property
    def async_client(self) -> redis.asyncio.Redis:
        """A client as a user would make it, for asyncio."""
        assert self._async_client is not None
        return self._async_client

    def run_coroutine(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in the loop that all asyncio clients of this store live in."""
        return self._runner.run(call)

    def note_offices(self, offices: list[str]) -> None:
        """Remember that these will have keys: whatever happens from now on, they are removed at the end."""
        self._offices.update(offices)

    def remove(self, offices: list[str]) -> None:
        """Remove all keys of these offices. Where that is not allowed, :attr:`left_behind` says so."""
        if self._cleaner is None or self.left_behind:
            return
        import redis

        from quota_engine.stores.redis.keys import keys_of, offices_key

        try:
            for office in offices:
                self._cleaner.unlink(*keys_of(self.target.namespace, office))
                self._cleaner.zrem(offices_key(self.target.namespace), office)
                self._offices.discard(office)
        except redis.RedisError as error:
            self.left_behind = str(error) or type(error).__name__

    def _open(self, undo: contextlib.ExitStack, *, remembering: bool) -> None:
        url = self._url
        if self.target.kind is BackendKind.REDIS or self.target.has_several_servers:
            url = with_sold_out_ms(url, SOLD_OUT_MS if remembering else 0)
        factory = store_factory(url)
        backend = factory.open_store(url, None)
        undo.callback(backend.close)
        async_backend = self.run_coroutine(factory.open_async_store(url, None))
        undo.callback(lambda: self.run_coroutine(async_backend.close()))
        self._opened[remembering] = backend, async_backend

    def _start_server(self, undo: contextlib.ExitStack) -> tuple[str, str]:
        """Start or join the embedded server, if it is one; the URLs for the engine and for the plain clients."""
        if not self.target.is_embedded:
            return self.target.url, self.target.client_url
        try:
            from quota_engine.stores.embedded import open_embedded
        except ImportError as error:
            raise BackendUnavailable(
                f"the embedded server needs {error.name}: pip install 'quota-engine[embedded]' brings it"
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

    def _open_clients(self, undo: contextlib.ExitStack, url: str) -> None:
        import redis
        import redis.asyncio

        options: dict[str, Any] = {
            "max_connections": HANDWRITTEN_CONNECTIONS,
            "timeout": _POOL_WAIT_S,
            "decode_responses": True,
        }
        pool = redis.BlockingConnectionPool.from_url(url, **options)
        self._client = redis.Redis(connection_pool=pool)
        undo.callback(pool.disconnect)
        async_pool = redis.asyncio.BlockingConnectionPool.from_url(url, **options)
        self._async_client = redis.asyncio.Redis(connection_pool=async_pool)
        undo.callback(lambda: self.run_coroutine(async_pool.disconnect()))
        told: Any = self._client.execute_command("HELLO")
        if not isinstance(told, dict):
            told = dict(zip(told[::2], told[1::2], strict=True))
        self.server = f"{told['server']} {told['version']}"
