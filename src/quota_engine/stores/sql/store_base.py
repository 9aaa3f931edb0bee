"""The parts of a SQL store that neither wait nor do I/O; shared by the sync and the async store."""

from __future__ import annotations

__all__ = ["DEFAULT_LIMITS", "SOLD_OUT", "SqlStoreBase"]

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from quota_engine.admission.token_bucket import TakeOutcome
from quota_engine.clocks import SteadyClock
from quota_engine.domain.commands import Reserve
from quota_engine.domain.cross_office_registry import RegistryResult, RegistryStatus
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.ledger_kinds import BUCKETS, DRAW, OFFICE, REGISTRY, ROOM, kind_of
from quota_engine.ports import Clock
from quota_engine.stores.batching import BatchLimits
from quota_engine.stores.batching_store import BatchingStore, QueuedCall
from quota_engine.stores.call_end import CALL_TIMEOUT_MS, BatchEnd
from quota_engine.stores.sql.ledger_cache import CACHE_BYTES_MAX, LedgerCache
from quota_engine.stores.sql.requests import Call, Requests
from quota_engine.stores.sql.steps import Steps
from quota_engine.stores.sql.transactions import Attempts, Failure, Results, Transactions
from quota_engine.waiting_room.results import RoomResult, RoomStatus

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


P = TypeVar("P", bound=QueuedCall)


class SqlStoreBase(BatchingStore[str, P]):
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
        call_timeout_ms: int = CALL_TIMEOUT_MS,
        notifies: bool = False,
        transactions_max: int = 1,
    ) -> None:
        """Create a store.

        Args:
            connections: The connections of a dialect, sync or async as the store. ``session(end)`` gives a context
                manager with a function that answers one step before the end of a call, if it has one. ``close()``
                closes all connections.
            clock: Source of the time; ``None`` for the database's time.
            limits: Limits of each batch queue.
            attempts: Bounds of the attempts of a call.
            cache_bytes_max: Bound of the ledgers in memory, in estimated bytes.
            sold_out_ms: A reserve that was sold out within this time is refused without the database; 0 for never.
            on_close: Called once, after the connections are closed.
            second_clock: This process's own clock, against which the time is checked; ``None`` checks the database's
                time against the system's clock, and trusts ``clock``.
            call_timeout_ms: The time that a call without another end has, in milliseconds (200 to 3,600,000).
            notifies: True to notify waiting consumers of new events; the dialect must have the statement ``notify``.
            transactions_max: Shared transactions at a time. Batches of ledgers that come meanwhile share the next one.
        """
        if second_clock is None and clock is None:
            second_clock = SteadyClock()
        self._connections = connections
        self._sold_out_ms = sold_out_ms
        self._transactions = Transactions(
            LedgerCache(cache_bytes_max), clock, attempts, second_clock, notifies=notifies
        )
        self._requests = Requests(self._transactions)
        self._transactions_max = transactions_max
        super().__init__(limits=limits, on_close=on_close, call_timeout_ms=call_timeout_ms)

    def _address_of(self, key: str) -> str:
        return key

    def _reads(self, key: str, batch: Sequence[P]) -> bool:
        return not any(call.request.writes for call in batch)

    def _abandoned_error(self, key: str, call: P) -> type[Exception]:
        return OutcomeUnknown if call.request.writes else BackendUnavailable

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

    def _refuse_sold_out(self, address: str, end: BatchEnd[P]) -> bool:
        """Refuse the calls of a batch that are sold out, and return True if others are left. Conditions as above.

        The transaction also answers the calls behind the first one that is left: to check each takes as long.
        """
        calls, refused = end.calls, 0
        while refused < len(calls) and self._is_sold_out(address, calls[refused].request.reserve):
            calls[refused].set_result(SOLD_OUT)
            refused += 1
        end.calls = calls[refused:]
        return bool(end.calls)

    def _overloaded(self, key: str, request: Call) -> Any:
        if not request.writes:
            raise BackendUnavailable(f"too many questions to {key} are queued: ask again in a moment")
        return _OVERLOADED[kind_of(key).prefix]

    def _steps(self, address: str, end: BatchEnd[P]) -> Steps[Results]:
        """Return the steps of a batch."""
        if any(call.request.writes for call in end.calls):
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
