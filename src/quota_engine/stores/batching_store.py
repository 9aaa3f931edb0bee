"""Stores whose callers share calls to a server: the part that neither waits nor does I/O.

:mod:`~quota_engine.stores.thread_batching` adds how threads wait, :mod:`~quota_engine.stores.task_batching` how tasks
do. The stores of a server add the calls.
"""

from __future__ import annotations

__all__ = ["CLOSED_ERROR", "LONG_REQUESTS", "BatchingStore", "QueuedCall"]

import abc
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Generic, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.forks import call_in_child
from quota_engine.ports import Audit, Describe, Reconcile, StoreObserver, StoreRequest
from quota_engine.stores.batching import BATCH_QUEUES_MAX, BatchLimits, BatchQueue, copy_error
from quota_engine.stores.call_end import CALL_TIMEOUT_MS, CallEnd
from quota_engine.stores.observer_adapter import ObserverAdapter

CLOSED_ERROR: Final = "the engine has been closed: open it again to make calls"
_LOST_ERROR: Final = (
    "the command was sent and its answer was lost, so it may have been applied: repeat the call with the same key"
)
LONG_REQUESTS: Final = (Audit, Describe, Reconcile)
"""Requests for a whole ledger. They have an end only if their caller gives one."""


class QueuedCall(abc.ABC):
    """A caller's command or question in a batch queue.

    Attributes:
        request: The command or question, as the store needs it.
        line: The same as a line for a script, or ``""``.
        token: The observer's correlation token.
        end: The end of the call, if it has one.
    """

    __slots__ = ("end", "line", "request", "token")

    request: Any
    line: str
    token: Any
    end: CallEnd | None

    @abc.abstractmethod
    def is_done(self) -> bool:
        """Return True if the caller has a result or an error, or has given up."""

    @abc.abstractmethod
    def set_result(self, result: Any) -> None:
        """Give the caller its result."""

    @abc.abstractmethod
    def set_error(self, error: BaseException) -> None:
        """Give the caller an error to raise."""

    def take_reply(self, decode: Callable[[Any, Any], Any], reply: Any) -> None:
        """Give the caller the result of its request and this reply, unless it is done."""
        if not self.is_done():
            self.set_result(decode(self.request, reply))


K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound=QueuedCall)


class BatchingStore(abc.ABC, Generic[K, P]):
    """Batch queues by key, the ends of calls, and the observer.

    Calls with the same key share a batch. A key names the ledger, and the kind of call where kinds are not mixed.

    Attributes:
        call_timeout_ms: See :class:`quota_engine.ports.TimedStore`.
    """

    def __init__(
        self,
        *,
        limits: BatchLimits,
        on_close: Callable[[], None] | None = None,
        call_timeout_ms: int = CALL_TIMEOUT_MS,
        monotonic: Callable[[], float] = monotonic_ms,
    ) -> None:
        """Create the queues.

        Args:
            limits: Limits of each batch queue.
            on_close: Called once, after the connections are closed.
            call_timeout_ms: The time that a call without another end has, in milliseconds (200 to 3,600,000).
            monotonic: This process's monotonic clock in milliseconds, by which attempts and calls end.
        """
        self.call_timeout_ms = call_timeout_ms
        self._limits = limits
        self._on_close = on_close
        self._monotonic_ms = monotonic
        self._observer: ObserverAdapter | None = None
        self._queues: dict[K, BatchQueue[P]] = {}
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

    @abc.abstractmethod
    def _address_of(self, key: K) -> str:
        """Return the ledger of a batch."""

    @abc.abstractmethod
    def _reads(self, key: K, batch: Sequence[P]) -> bool:
        """Return True if the calls of a batch are questions only."""

    @abc.abstractmethod
    def _abandoned_error(self, key: K, call: P) -> type[Exception]:
        """Return the type of a caller's error if the thread or task that sent its call was interrupted."""

    @abc.abstractmethod
    def _overloaded(self, key: K, request: Any) -> Any:
        """Return the outcome of a command that finds its queue full.

        Raises:
            BackendUnavailable: The call is a question, which has no such outcome.
        """

    def attach(self, observer: StoreObserver) -> None:
        """See :meth:`quota_engine.ports.Observable.attach`."""
        self._observer = ObserverAdapter(observer)

    def _end_of(self, request: StoreRequest[Any], ends_at_ms: float | None) -> CallEnd | None:
        """Return the end of a call. Requests for a whole ledger have one only if the caller gives it."""
        return None if ends_at_ms is None and isinstance(request, LONG_REQUESTS) else self._new_end(ends_at_ms)

    def _new_end(self, ends_at_ms: float | None) -> CallEnd:
        """Return the end of a call: the caller's, or that of the store's time-out."""
        return CallEnd(self._monotonic_ms() + self.call_timeout_ms if ends_at_ms is None else ends_at_ms)

    def _token(self) -> Any:
        """Return the observer's correlation token for a call that is about to be queued."""
        return None if self._observer is None else self._observer.on_enqueue()

    def _queue(self, key: K) -> BatchQueue[P]:
        """Return the batch queue of a key."""
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= BATCH_QUEUES_MAX:
                self._queues = {key: queue for key, queue in self._queues.items() if not queue.is_idle()}
            queue = self._queues[key] = BatchQueue(self._limits)
        return queue

    def _fail(self, key: K, batch: Sequence[P], error: BaseException, sender: P | None = None) -> None:
        """Give each caller of a batch that has no result an error: the sender this one, all other callers a copy."""
        for call in batch:
            if call.is_done():
                continue
            if call.end is not None and call.end.was_lost and isinstance(error, BackendUnavailable):
                call.set_error(OutcomeUnknown(f"{_LOST_ERROR}; now {error}"))
            else:
                call.set_error(error if call is sender else copy_error(error, self._abandoned_error(key, call)))

    def _report(self, key: K, batch: Sequence[P], began_ns: int, error: BaseException | None) -> None:
        """Notify the observer of a finished batch."""
        if self._observer is not None:
            tokens = (call.token for call in batch)
            self._observer.on_batch(self._address_of(key), began_ns, tokens, error, reads=self._reads(key, batch))

    def _take_on_close(self) -> Callable[[], None] | None:
        """Return the callback for closing the first time, and ``None`` later."""
        on_close, self._on_close = self._on_close, None
        return on_close
