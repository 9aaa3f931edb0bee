"""The parts of a Redis store that neither wait nor do I/O; shared by the sync and the async store."""

from __future__ import annotations

__all__ = [
    "CALL_TIMEOUT_MS",
    "CLOSED_ERROR",
    "CONNECT_ERRORS",
    "REJECTIONS",
    "PendingCall",
    "QueueKey",
    "RedisStoreBase",
]

import abc
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from redis.exceptions import AuthenticationError, BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.forks import call_in_child
from quota_engine.ports import Audit, Clock, Describe, Reconcile, StoreObserver, StoreRequest
from quota_engine.stores.batching import BATCH_QUEUES_MAX, BatchLimits, BatchQueue, copy_error
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.observer_adapter import ObserverAdapter
from quota_engine.stores.redis.executor import Executor
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.office_requests import OfficeRequests
from quota_engine.stores.redis.retrying_calls import Node, RetryPolicy, Router
from quota_engine.stores.redis.script_runner import ScriptRunner
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.sold_out_cache import SoldOutCache

QueueKey = tuple[LedgerHandle, Script]
"""The ledger and the script that the calls of one batch share."""

CLOSED_ERROR: Final = "the engine has been closed: open it again to make calls"
UNKNOWN_ERROR: Final = (
    "the command was sent and its answer was lost, so it may have been applied: repeat the call with the same key"
)
CALL_TIMEOUT_MS: Final = 5_000
"""The time that a call has, with all attempts, unless its caller gives another end."""
_LONG_REQUESTS: Final = (Audit, Describe, Reconcile)
REJECTIONS: Final = (AuthenticationError, BusyLoadingError)
"""The server answered, and rejects the connection."""
CONNECT_ERRORS: Final = (RedisConnectionError, RedisTimeoutError, OSError)
"""The server was not reached. ``AuthenticationError`` is a subclass, so handle ``REJECTIONS`` first."""


class PendingCall(abc.ABC):
    """A caller's command or question in a batch queue.

    Attributes:
        command: The command or question.
        line: The same as a line for the script.
        token: The observer's correlation token.
        end: The end of the call, if it has one besides the attempts of the policy.
    """

    __slots__ = ("command", "end", "line", "token")

    def __init__(self, command: Any, line: str, token: Any, end: CallEnd | None) -> None:
        self.command = command
        self.line = line
        self.token = token
        self.end = end

    @abc.abstractmethod
    def is_done(self) -> bool:
        """Return True if the caller has a result or an error, or has given up."""

    @abc.abstractmethod
    def set_result(self, result: Any) -> None:
        """Give the caller its result."""

    @abc.abstractmethod
    def set_error(self, error: BaseException) -> None:
        """Give the caller an error to raise."""


P = TypeVar("P", bound=PendingCall)


class RedisStoreBase(abc.ABC, Generic[P]):
    """State and decisions of a store: connection pools by node, batch queues by ledger, sold-out answers."""

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
        self.call_timeout_ms = call_timeout_ms
        self._pools: dict[Node | None, Any] = {None: pool}
        self._pool_to = pool_to
        self._on_close = on_close
        self._limits = limits
        self._sold_out_cache = sold_out_cache or SoldOutCache(0)
        self._executor = Executor(
            ScriptRunner(clock, policy, namespace, router, monotonic, second_clock), self._sold_out_cache
        )
        self._monotonic_ms = monotonic
        self._requests = OfficeRequests(self._executor, self._sold_out_cache)
        self._observer: ObserverAdapter | None = None
        self._queues: dict[QueueKey, BatchQueue[P]] = {}
        self._calls = 0
        self._closed = False
        self._prepare_waiting()
        call_in_child(self._after_fork)

    @abc.abstractmethod
    def _prepare_waiting(self) -> None:
        """Create the locks, events and tasks by which the callers of this store wait."""

    @abc.abstractmethod
    def _after_fork(self) -> None:
        """Make the store usable in a forked child, or make it refuse calls there."""

    def attach(self, observer: StoreObserver) -> None:
        """See :meth:`quota_engine.ports.Observable.attach`."""
        self._observer = ObserverAdapter(observer)

    def _end_of(self, request: StoreRequest[Any], ends_at_ms: float | None) -> CallEnd | None:
        """Return the end of a call. Requests for a whole ledger have one only if the caller gives it."""
        return None if ends_at_ms is None and isinstance(request, _LONG_REQUESTS) else self._new_end(ends_at_ms)

    def _new_end(self, ends_at_ms: float | None) -> CallEnd:
        """Return the end of a call: the caller's, or that of the store's time-out."""
        return CallEnd(self._monotonic_ms() + self.call_timeout_ms if ends_at_ms is None else ends_at_ms)

    def _token(self) -> Any:
        """Return the observer's correlation token for a call that is about to be queued."""
        return None if self._observer is None else self._observer.on_enqueue()

    def _queue(self, key: QueueKey) -> BatchQueue[P]:
        """Return the batch queue of a ledger and script."""
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= BATCH_QUEUES_MAX:
                self._queues = {key: queue for key, queue in self._queues.items() if not queue.is_idle()}
            queue = self._queues[key] = BatchQueue(self._limits)
        return queue

    def _pool(self, node: Node | None) -> Any:
        """Return the pool of connections to a node."""
        pool = self._pools.get(node)
        if pool is None:
            assert node is not None
            assert self._pool_to is not None
            pool = self._pools.setdefault(node, self._pool_to(node))
        return pool

    def _resolve(self, key: QueueKey, batch: Sequence[P], replies: Sequence[str]) -> None:
        """Give each caller of a batch its result."""
        decode = self._executor.decoder_of(*key)
        for call, reply in zip(batch, replies, strict=True):
            if not call.is_done():
                call.set_result(decode(call.command, reply))

    def _fail(self, key: QueueKey, batch: Sequence[P], error: BaseException, sender: P | None = None) -> None:
        """Give each caller of a batch that has no result an error: the sender this one, all other callers a copy."""
        abandoned = self._executor.abandoned_error(*key)
        for call in batch:
            if call.is_done():
                continue
            if call.end is not None and call.end.was_lost and isinstance(error, BackendUnavailable):
                call.set_error(OutcomeUnknown(f"{UNKNOWN_ERROR}; now {error}"))
            else:
                call.set_error(error if call is sender else copy_error(error, abandoned))

    def _report(self, key: QueueKey, batch: Sequence[P], began_ns: int, error: BaseException | None) -> None:
        """Notify the observer of a finished batch."""
        if self._observer is not None:
            handle, script = key
            reads = script is handle.format.queries
            self._observer.on_batch(handle.address, began_ns, (call.token for call in batch), error, reads=reads)

    def _take_on_close(self) -> Callable[[], None] | None:
        """Return the callback for closing the first time, and ``None`` later."""
        on_close, self._on_close = self._on_close, None
        return on_close
