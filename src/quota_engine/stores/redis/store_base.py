"""The parts of a Redis store that neither wait nor do I/O; shared by the sync and the async store."""

from __future__ import annotations

__all__ = ["CONNECT_ERRORS", "QueueKey", "RedisStoreBase"]

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.outcomes import Outcome
from quota_engine.ports import Clock, ReserveKind
from quota_engine.stores.batching import BatchLimits
from quota_engine.stores.batching_store import BatchingStore, QueuedCall
from quota_engine.stores.call_end import CALL_TIMEOUT_MS, CallEnd
from quota_engine.stores.redis.executor import Executor
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.office_requests import OfficeRequests
from quota_engine.stores.redis.request_packing import Requests
from quota_engine.stores.redis.retrying_calls import Attempt, Node, RetryPolicy, Router
from quota_engine.stores.redis.script_runner import ScriptRunner
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.sold_out_cache import SoldOutCache

QueueKey = tuple[LedgerHandle, Script]
"""The ledger and the script that the calls of one batch share."""

CONNECT_ERRORS: Final = (RedisConnectionError, RedisTimeoutError, OSError)
"""The server was not reached. ``AuthenticationError`` is a subclass, so handle ``REJECTIONS`` first."""


P = TypeVar("P", bound=QueuedCall)


class RedisStoreBase(BatchingStore[QueueKey, P]):
    """State and decisions of a store: connection pools by node, batches by ledger and script, sold-out answers."""

    def __init__(
        self,
        pool: Any,
        clock: Clock | None = None,
        *,
        limits: BatchLimits = BatchLimits(),  # noqa: B008 - immutable
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        namespace: str = "",
        router: Router = Router(),  # noqa: B008 - immutable
        pool_to: Callable[[Node], Any] | None = None,
        on_close: Callable[[], None] | None = None,
        sold_out_cache: SoldOutCache | None = None,
        monotonic: Callable[[], float] = monotonic_ms,
        call_timeout_ms: int = CALL_TIMEOUT_MS,
        second_clock: Clock | None = None,
    ) -> None:
        """Create a store on connections that decode responses and do not retry.

        Args:
            pool: A redis-py pool, sync or async as the store, of connections to the only server. Unused with a router
                that names nodes.
            clock: Where the time comes from; ``None`` is the server's time.
            limits: Limits of each batch queue.
            policy: Retries and acknowledgment of calls.
            namespace: Precedes all keys.
            router: Finds the server of a key.
            pool_to: Makes a pool of connections to a node that the router names.
            on_close: Called once, after the connections are closed.
            sold_out_cache: Remembers what is sold out; ``None`` remembers nothing.
            monotonic: This process's monotonic clock in milliseconds, by which attempts and calls end.
            call_timeout_ms: The time that a call without another end has, in milliseconds (200 to 3,600,000).
            second_clock: This process's own clock, against which the server's time is checked; ``None`` trusts the
                server.
        """
        self._pools: dict[Node | None, Any] = {None: pool}
        self._pool_to = pool_to
        self._sold_out_cache = sold_out_cache or SoldOutCache(0)
        self._executor = Executor(
            ScriptRunner(clock, policy, namespace, router, monotonic, second_clock), self._sold_out_cache
        )
        self._runner = self._executor.runner
        self._handle = self._runner.handle
        self._requests = OfficeRequests(self._executor, self._sold_out_cache)
        super().__init__(limits=limits, on_close=on_close, call_timeout_ms=call_timeout_ms, monotonic=monotonic)

    def known_refusal(self, address: str, kind: ReserveKind, id_: str, applicants: tuple[str, ...]) -> Outcome | None:
        """See :class:`quota_engine.ports.KnownRefusal`.

        A caller who finds that a refresh is due is left to ``apply``, which knows by when the call ends.
        """
        cache = self._sold_out_cache
        if not cache.offices:
            return None
        refusal = cache.find(address, kind, id_, applicants)
        if refusal is None or cache.due_offices:
            return None
        if self._observer is not None:
            self._observer.on_sold_out(address)
        return refusal

    def _address_of(self, key: QueueKey) -> str:
        return key[0].address

    def _reads(self, key: QueueKey, batch: Sequence[P]) -> bool:
        handle, script = key
        return script is handle.format.queries

    def _abandoned_error(self, key: QueueKey, call: P) -> type[Exception]:
        return self._executor.abandoned_error(*key)

    def _overloaded(self, key: QueueKey, request: Any) -> Any:
        return self._executor.overloaded(*key)

    def _pool(self, node: Node | None) -> Any:
        """Return the pool of connections to a node."""
        pool = self._pools.get(node)
        if pool is None:
            assert node is not None
            assert self._pool_to is not None
            pool = self._pools.setdefault(node, self._pool_to(node))
        return pool

    def _make_requests(self, attempt: Attempt, end: CallEnd | None) -> Requests:
        """Return the requests of an attempt that has a connection.

        Callers may have given up while it waited for one, and others may have joined its batch.
        """
        if end is not None:
            end.begin_sending(self._monotonic_ms())
        return attempt.requests(end)

    def _resolve(self, key: QueueKey, batch: Sequence[P], replies: Sequence[str]) -> None:
        """Give each caller of a batch its result."""
        decode = self._executor.decoder_of(key[0], key[1])
        for call, reply in zip(batch, replies, strict=True):
            call.take_reply(decode, reply)
