"""The store for synchronous callers. Threads that call at the same time share transactions."""

from __future__ import annotations

__all__ = ["SqlStore"]

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive
from quota_engine.ports import StoreRequest
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.batching_store import CLOSED_ERROR, LONG_REQUESTS
from quota_engine.stores.call_end import BatchEnd, CallEnd, seconds_until
from quota_engine.stores.sql.requests import Call, as_call, command_call
from quota_engine.stores.sql.shared_transactions import Part, PartQueue, SharedEnd, run_together
from quota_engine.stores.sql.steps import (
    LedgerLoad,
    NotStarted,
    Rows,
    SharedTransaction,
    Step,
    Steps,
    StoreStep,
    ThreadWork,
)
from quota_engine.stores.sql.store_base import SOLD_OUT, SqlStoreBase
from quota_engine.stores.sql.transactions import Failure
from quota_engine.stores.thread_batching import LoneCallStore, ThreadCall

T = TypeVar("T")

_log = logging.getLogger("quota_engine")
_NO_TURN: Final = "the transactions of other ledgers took the time of the call"


class _Reading:
    """The reading of a ledger in a separate thread."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.answer: list[Rows] = []
        self.error: BaseException | None = None


class SqlStore(SqlStoreBase[ThreadCall], LoneCallStore[str]):
    """A store in a SQL database. Safe to use from several threads."""

    def _prepare_waiting(self) -> None:
        super()._prepare_waiting()
        self._snapshot_thread: threading.Thread | None = None
        self._readings: dict[str, _Reading] = {}
        self._parts = PartQueue(self._transactions_max)

    def _after_fork(self) -> None:
        """Forget the parent's calls and ledgers: they belong to its threads."""
        super()._after_fork()
        self._transactions.cache.clear()
        self._transactions.snapshots.clear()

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`. Waiting calls share a transaction."""
        return self._send(command_call(address, command), self._new_end(ends_at_ms))

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`."""
        end, call = self._end_of(request, ends_at_ms), as_call(request)
        answer: T
        if end is not None and isinstance(request, LONG_REQUESTS):
            answer = self._run_until(end, lambda: self._execute(request, call, end))
        else:
            answer = self._execute(request, call, end)
        return answer

    def _send(self, call: Call, end: CallEnd | None) -> Any:
        address = call.address
        if self._sold_out_ms and call.reserve is not None:
            with self._lock:  # it keeps a batch from starting, which would change the state
                if not self._closed and self._queue(address).is_idle() and self._is_sold_out(address, call.reserve):
                    return SOLD_OUT
        return self._ask(address, call, "", end)

    def _execute(self, request: StoreRequest[Any], call: Call | None, end: CallEnd | None) -> Any:
        if call is not None:
            return self._ask(call.address, call, "", end)
        with self._call():
            return self._drive(self._requests.execute(request, end), end)

    def _run_until(self, end: CallEnd, function: Callable[[], Any]) -> Any:
        """Run a call that computes for long in a separate thread, and return at its end.

        Raises:
            BackendUnavailable: The end has come, and no commit was sent.
            OutcomeUnknown: The end has come, and a commit was sent.
        """
        ended = threading.Event()
        results: list[Any] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(function())
            except BaseException as error:  # raised again in the caller's thread
                errors.append(error)
            finally:
                ended.set()

        # In the caller's context, which an observer's correlation token may depend on.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), daemon=True, name="quota-engine-call").start()
        ended.wait(seconds_until(end.ends_at_ms))
        if results:
            return results[0]
        raise errors[0] if errors else end.error()

    def _send_one(self, key: str, request: Call, line: str, end: CallEnd | None) -> Any:
        call = ThreadCall(request, line, None, end)
        run = self._transactions.write if request.writes else self._transactions.read
        ((_, result),) = self._drive(run(key, lambda: (call,), end), end)
        if self._transactions.snapshots:
            self._start_snapshots()
        if type(result) is Failure:
            raise result.error
        return result

    def _run_batch(self, key: str, end: BatchEnd[ThreadCall]) -> None:
        # This is the ledger's only batch in flight, and it has not begun.
        if self._refuse_sold_out(key, end):
            self._resolve(self._drive(self._steps(key, end), end))

    def _send_batch(self, key: str, queue: BatchQueue[ThreadCall], batch: list[ThreadCall], sender: ThreadCall) -> None:
        super()._send_batch(key, queue, batch, sender)
        if self._transactions.snapshots:
            self._start_snapshots()

    def _start_snapshots(self) -> None:
        """Write the snapshots that are due in a separate thread, unless one does so already."""
        with self._lock:
            if self._closed or (self._snapshot_thread is not None and self._snapshot_thread.is_alive()):
                return
            self._snapshot_thread = threading.Thread(
                target=self._write_snapshots, daemon=True, name="quota-engine-snapshot"
            )
            self._snapshot_thread.start()

    def _write_snapshots(self) -> None:
        snapshots = self._transactions.snapshots
        while snapshots:
            try:
                self._drive(self._requests.write_snapshot(snapshots[0]))
            except Exception:
                _log.exception("a snapshot of %s was not written; a later one will be", snapshots[0].address)
            snapshots.pop(0)

    def _disconnect(self) -> None:
        thread = self._snapshot_thread
        if thread is not None:
            thread.join()
        for reading in list(self._readings.values()):
            reading.ended.wait()
        self._connections.close()

    def _drive(self, steps: Steps[T], end: CallEnd | None = None) -> T:
        """Carry out all steps of a call before its end; returns its result."""
        with self._connections.session(end) as session:

            def handle(step: Step | StoreStep) -> list[Rows]:
                if isinstance(step, ThreadWork):
                    step.run()
                    return []
                if isinstance(step, LedgerLoad):
                    return self._load(step, end)
                if isinstance(step, SharedTransaction):
                    return self._share(step, session, end)
                rows: list[Rows] = session(step)
                return rows

            return drive(steps, handle)

    def _share(self, step: SharedTransaction, session: Callable[[Step], list[Rows]], end: CallEnd | None) -> list[Rows]:
        """Carry out a ledger's transaction at once, or with those of other ledgers when a transaction ends.

        The first of the threads that wait carries out the next transaction for all of them.

        Raises:
            NotStarted: The end has come before the transaction began.
        """
        queue, part = self._parts, None
        with self._lock:
            if not queue.begin():
                woken = threading.Event()
                part = Part(step, end, woken.set)
                queue.waiting.append(part)
        if part is None:
            try:
                return drive(step.steps(), session)
            finally:
                self._end_transaction()
        try:
            if not woken.wait(None if end is None else seconds_until(end.cut_at_ms)):
                self._leave(part)
                woken.wait()  # a transaction that has begun ends before the earliest end of its parts
            if part.leads:
                self._run_together(part)
        except BaseException:
            self._abandon(part)
            raise
        if part.error is not None:
            raise part.error
        return part.answer

    def _leave(self, part: Part) -> None:
        """Take a part out of the queue, unless its transaction has begun.

        Raises:
            NotStarted: It was in the queue.
        """
        with self._lock:
            if part not in self._parts.waiting:
                return
            self._parts.waiting.remove(part)
        raise NotStarted(_NO_TURN)

    def _abandon(self, part: Part) -> None:
        """Let other threads carry out what an interrupted one has not begun."""
        with self._lock:
            if part in self._parts.waiting:
                self._parts.waiting.remove(part)
            parts, part.leads = [one for one in part.leads if one is not part], []
        if parts:
            self._appoint(parts)

    def _run_together(self, leader: Part) -> None:
        parts, leader.leads = leader.leads, []
        try:
            end = SharedEnd(parts)
            with self._connections.session(end) as session:
                drive(run_together(end), session)
        finally:
            self._end_transaction()
            for part in parts:
                if part is not leader:
                    part.wake()

    def _end_transaction(self) -> None:
        """Count a transaction as ended, and let waiting threads begin the next ones."""
        with self._lock:
            self._parts.end()
        while True:
            with self._lock:
                parts = self._parts.take()
            if not parts:
                return
            self._appoint(parts)

    def _appoint(self, parts: list[Part]) -> None:
        """Let the thread of the first part carry out a transaction."""
        parts[0].leads = parts
        parts[0].wake()

    def _load(self, step: LedgerLoad, end: CallEnd | None) -> list[Rows]:
        """Read a ledger in a separate thread, which continues when the call of this thread ends.

        Raises:
            NotStarted: The end has come. A later call waits for the same reading.
        """
        if end is None:
            return self._drive(step.steps())
        with self._lock:
            reading = self._readings.get(step.address)
            if reading is None:
                reading = self._readings[step.address] = _Reading()
                threading.Thread(
                    target=self._read, args=(step, reading), daemon=True, name="quota-engine-reading"
                ).start()
        if not reading.ended.wait(seconds_until(end.cut_at_ms)):
            raise NotStarted(f"the ledger of {step.address} is still being read; ask again in a moment")
        if reading.error is not None:
            raise reading.error
        return reading.answer

    def _read(self, step: LedgerLoad, reading: _Reading) -> None:
        def check_open(request: Step | StoreStep) -> list[Rows]:
            if self._closed and not self._calls:
                raise BackendUnavailable(CLOSED_ERROR)
            rows: list[Rows] = session(request)
            return rows

        try:
            with self._connections.session(None) as session:
                reading.answer = drive(step.steps(), check_open)
        except BaseException as error:  # raised again in the thread that waits for the ledger
            reading.error = error
        finally:
            with self._lock:
                self._readings.pop(step.address, None)
            reading.ended.set()
