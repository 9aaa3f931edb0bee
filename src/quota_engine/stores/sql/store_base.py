"""The parts of a SQL store that neither wait nor do I/O; shared by the sync and the async store."""

from __future__ import annotations

__all__ = ["CLOSED_ERROR", "DEFAULT_LIMITS", "SOLD_OUT", "QueuedCall", "SqlStoreBase"]

import abc
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from quota_engine.admission.token_bucket import TakeOutcome
from quota_engine.clocks import SteadyClock
from quota_engine.domain.commands import Reserve
from quota_engine.domain.cross_office_registry import RegistryResult, RegistryStatus
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.draws.ledger import DrawOutcome, DrawStatus
from quota_engine.forks import call_in_child
from quota_engine.ledger_kinds import BUCKETS, DRAW, OFFICE, REGISTRY, ROOM, kind_of
from quota_engine.ports import Clock, StoreObserver
from quota_engine.stores.batching import BATCH_QUEUES_MAX, BatchLimits, BatchQueue, copy_error
from quota_engine.stores.call_end import BatchEnd, CallEnd
from quota_engine.stores.observer_adapter import ObserverAdapter
from quota_engine.stores.sql.ledger_cache import CACHE_BYTES_MAX, LedgerCache
from quota_engine.stores.sql.requests import Call, Requests
from quota_engine.stores.sql.steps import Steps
from quota_engine.stores.sql.transactions import Attempts, Failure, Results, Transactions
from quota_engine.waiting_room.machine import RoomResult, RoomStatus

CLOSED_ERROR: Final = "the engine has been closed: open it again to make calls"
DEFAULT_LIMITS: Final = BatchLimits(batch_max=1024, in_flight_max=1)
"""One batch of a ledger is in flight at a time, because the database runs them one after the other in any case."""

SOLD_OUT: Final = Outcome(Status.SOLD_OUT)
_OVERLOADED: Final[dict[str, Any]] = {
    OFFICE.prefix: Outcome(Status.OVERLOADED),
    ROOM.prefix: RoomResult(RoomStatus.OVERLOADED),
    DRAW.prefix: DrawOutcome(DrawStatus.OVERLOADED),
    BUCKETS.prefix: TakeOutcome(0, 0),
    REGISTRY.prefix: RegistryResult(RegistryStatus.OVERLOADED),
}
"""The outcome of a command that finds its ledger's queue full, by the kind of ledger."""


class QueuedCall(abc.ABC):
    """A caller's command or question in a batch queue.

    Attributes:
        run, writes, creates: See :class:`~quota_engine.stores.sql.transactions.Work`.
        reserve: The command, if it is a plain reserve.
        token: The observer's correlation token.
        end: The end of the call, if it has one.
        line: Unused here.
    """

    __slots__ = ("creates", "end", "line", "reserve", "run", "token", "writes")

    def __init__(self, call: Call, token: Any, end: CallEnd | None) -> None:
        _, self.run, self.writes, self.creates, self.reserve = call
        self.token = token
        self.end = end
        self.line = ""

    @abc.abstractmethod
    def is_done(self) -> bool:
        """Return True if the caller has a result or an error, or has given up."""

    @abc.abstractmethod
    def set_result(self, result: Any) -> None:
        """Give the caller its result."""

    @abc.abstractmethod
    def set_error(self, error: BaseException) -> None:
        """Give the caller an error to raise."""


P = TypeVar("P", bound=QueuedCall)


class SqlStoreBase(abc.ABC, Generic[P]):
    """State and decisions of a store: ledgers in memory, and batch queues by ledger."""

    def __init__(
        self,
        connections: Any,
        clock: Clock | None = None,
        *,
        limits: BatchLimits = DEFAULT_LIMITS,
        attempts: Attempts = Attempts(),  # noqa: B008 - immutable
        cache_bytes_max: int = CACHE_BYTES_MAX,
        sold_out_ms: float = 0,
        on_close: Callable[[], None] | None = None,
        second_clock: Clock | None = None,
    ) -> None:
        """Create a store.

        Args:
            connections: The connections of a dialect, sync or async as the store. ``session()`` gives a context manager
                with a function that answers one step, and ``close()`` closes all connections.
            clock: Source of the time; ``None`` for the database's time.
            limits: Limits of each batch queue.
            attempts: Bounds of the attempts of a call.
            cache_bytes_max: Bound of the ledgers in memory, in estimated bytes.
            sold_out_ms: A reserve that was sold out within this time is refused without the database; 0 for never.
            on_close: Called once, after the connections are closed.
            second_clock: This process's own clock, against which the time is checked; ``None`` checks the database's
                time against the system's clock, and trusts ``clock``.
        """
        if second_clock is None and clock is None:
            second_clock = SteadyClock()
        self._connections = connections
        self._limits = limits
        self._sold_out_ms = sold_out_ms
        self._on_close = on_close
        self._transactions = Transactions(LedgerCache(cache_bytes_max), clock, attempts, second_clock)
        self._requests = Requests(self._transactions)
        self._observer: ObserverAdapter | None = None
        self._queues: dict[str, BatchQueue[P]] = {}
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

    def _token(self) -> Any:
        """Return the observer's correlation token for a call that is about to be queued."""
        return None if self._observer is None else self._observer.on_enqueue()

    def _queue(self, address: str) -> BatchQueue[P]:
        """Return the batch queue of a ledger."""
        queue = self._queues.get(address)
        if queue is None:
            if len(self._queues) >= BATCH_QUEUES_MAX:
                self._queues = {key: queue for key, queue in self._queues.items() if not queue.is_idle()}
            queue = self._queues[address] = BatchQueue(self._limits)
        return queue

    def _is_sold_out(self, address: str, reserve: Reserve | None) -> bool:
        """Return True if a call is refused without the database, and notify the observer.

        No batch of the ledger may be in flight, and none may begin meanwhile.
        """
        if not self._sold_out_ms or reserve is None:
            return False
        if not self._transactions.is_sold_out(address, reserve, self._sold_out_ms):
            return False
        if self._observer is not None:
            self._observer.on_sold_out(address)
        return True

    def _refuse_sold_out(self, address: str, batch: list[P]) -> list[P]:
        """Refuse the calls of a batch that are sold out, and return the rest. Conditions as above."""
        if not self._sold_out_ms:
            return batch
        rest = []
        for call in batch:
            if self._is_sold_out(address, call.reserve):
                call.set_result(SOLD_OUT)
            else:
                rest.append(call)
        return rest

    def _overloaded(self, call: Call) -> Any:
        """Return the outcome of a command that finds the ledger's queue full.

        Raises:
            BackendUnavailable: The call is a question, which has no such outcome.
        """
        if not call.writes:
            raise BackendUnavailable(f"too many questions to {call.address} are queued: ask again in a moment")
        return _OVERLOADED[kind_of(call.address).prefix]

    def _steps(self, address: str, end: BatchEnd[P]) -> Steps[Results]:
        """Return the steps of a batch."""
        if any(call.writes for call in end.calls):
            return self._transactions.write(address, lambda: end.calls, end)
        return self._transactions.read(address, lambda: end.calls, end)

    def _resolve(self, results: Results) -> None:
        """Give each caller of a batch its result."""
        for call, result in results:
            if not call.is_done():
                if type(result) is Failure:
                    call.set_error(result.error)
                else:
                    call.set_result(result)

    def _fail(self, batch: Sequence[P], error: BaseException, sender: P | None = None) -> None:
        """Give each caller of a batch that has no result an error: the sender this one, all other callers a copy."""
        for call in batch:
            if not call.is_done():
                abandoned = OutcomeUnknown if call.writes else BackendUnavailable
                call.set_error(error if call is sender else copy_error(error, abandoned))

    def _report(self, address: str, batch: Sequence[P], began_ns: int, error: BaseException | None) -> None:
        """Notify the observer of a finished batch."""
        if self._observer is not None:
            reads = not any(call.writes for call in batch)
            self._observer.on_batch(address, began_ns, (call.token for call in batch), error, reads=reads)

    def _take_on_close(self) -> Callable[[], None] | None:
        """Return the callback for closing the first time, and ``None`` later."""
        on_close, self._on_close = self._on_close, None
        return on_close
