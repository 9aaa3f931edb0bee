"""The store for synchronous callers. Threads that call at the same time share transactions."""

from __future__ import annotations

__all__ = ["SqlStore"]

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive
from quota_engine.ports import StoreRequest
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.call_end import BatchEnd, CallEnd
from quota_engine.stores.sql.requests import Call, as_call, command_call
from quota_engine.stores.sql.steps import Rows, Step, Steps, ThreadWork
from quota_engine.stores.sql.store_base import CLOSED_ERROR, SOLD_OUT, QueuedCall, SqlStoreBase

T = TypeVar("T")

_PENDING: Final = object()
"""Stands for a result that has not arrived, because ``None`` is a result."""
_log = logging.getLogger("quota_engine")


class _ThreadCall(QueuedCall):
    """A thread's call. The thread sleeps until it has a result, or until it is the next sender."""

    __slots__ = ("error", "result", "woken")

    def __init__(self, call: Call, token: Any, end: CallEnd | None) -> None:
        super().__init__(call, token, end)
        self.woken = threading.Event()
        self.result: Any = _PENDING
        self.error: BaseException | None = None

    def is_done(self) -> bool:
        return self.result is not _PENDING or self.error is not None

    def set_result(self, result: Any) -> None:
        self.result = result

    def set_error(self, error: BaseException) -> None:
        self.error = error


class SqlStore(SqlStoreBase[_ThreadCall]):
    """A store in a SQL database. Safe to use from several threads."""

    def _prepare_waiting(self) -> None:
        self._lock = threading.Lock()
        self._call_ended = threading.Condition(self._lock)
        self._snapshot_thread: threading.Thread | None = None

    def _after_fork(self) -> None:
        """Forget the parent's calls and ledgers: they belong to its threads."""
        self._prepare_waiting()
        self._calls = 0
        self._queues = {}
        self._transactions.cache.clear()
        self._transactions.snapshots.clear()

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`. Waiting calls share a transaction."""
        call = command_call(address, command)
        if ends_at_ms is None:
            return self._send(call, None)
        return self._run_until(CallEnd(ends_at_ms), lambda end: self._send(call, end))

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`."""
        answer: T
        if ends_at_ms is None:
            answer = self._execute(request, None)
        else:
            answer = self._run_until(CallEnd(ends_at_ms), lambda end: self._execute(request, end))
        return answer

    def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        with self._lock:
            self._closed = True
            self._call_ended.wait_for(lambda: not self._calls)
        thread = self._snapshot_thread
        if thread is not None:
            thread.join()
        self._connections.close()
        on_close = self._take_on_close()
        if on_close is not None:
            on_close()

    def _send(self, call: Call, end: CallEnd | None) -> Any:
        with self._call():
            return self._enqueue(call, end)

    def _execute(self, request: StoreRequest[Any], end: CallEnd | None) -> Any:
        call = as_call(request)
        with self._call():
            if call is not None:
                return self._enqueue(call, end)
            return self._drive(self._requests.execute(request, end))

    def _run_until(self, end: CallEnd, function: Callable[[CallEnd], Any]) -> Any:
        """Run a call that has an end in a separate thread, and return at the end.

        A thread that waits for the database, or that sends the calls of others, cannot return on time.

        Raises:
            BackendUnavailable: The end has come, and no commit was sent.
            OutcomeUnknown: The end has come, and a commit was sent.
        """
        done = threading.Event()
        results: list[Any] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                end.begin_attempt(monotonic_ms())
                results.append(function(end))
            except BaseException as error:  # raised again in the caller's thread
                errors.append(error)
            finally:
                done.set()

        # In the caller's context, which an observer's correlation token may depend on.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), daemon=True, name="quota-engine-call").start()
        done.wait(max(0.0, end.ends_at_ms - monotonic_ms()) / 1000)
        if results:
            return results[0]
        raise errors[0] if errors else end.error()

    def _enqueue(self, call: Call, end: CallEnd | None) -> Any:
        """Queue a command or question; return its result when a batch with it is done."""
        pending = _ThreadCall(call, self._token(), end)
        with self._lock:
            queue = self._queue(call.address)
            # The lock keeps a batch from starting, which would change the state.
            if queue.is_idle() and self._is_sold_out(call.address, call.reserve):
                return SOLD_OUT
            if queue.is_full():
                return self._overloaded(call)
            queue.waiting.append(pending)
        try:
            self._await_result(call.address, queue, pending)
        except BaseException:
            # An interrupt may come just after this thread was woken to send a batch: wake the next sender instead.
            with self._lock:
                if pending in queue.waiting:
                    queue.waiting.remove(pending)
                next_sender = queue.waiting[0] if queue.can_send() else None
            if next_sender is not None:
                next_sender.woken.set()
            raise
        if pending.error is not None:
            raise pending.error
        return pending.result

    def _await_result(self, address: str, queue: BatchQueue[_ThreadCall], call: _ThreadCall) -> None:
        """Send batches, or wait while other threads do, until the call is done."""
        while not call.is_done():
            with self._lock:
                batch = queue.take_batch() if queue.can_send() else None
                call.woken.clear()
            if batch is not None:
                self._send_batch(address, queue, batch, call)
            elif not call.is_done():
                call.woken.wait()

    def _send_batch(
        self, address: str, queue: BatchQueue[_ThreadCall], batch: list[_ThreadCall], sender: _ThreadCall
    ) -> None:
        """Send one batch; wake its callers, and the first waiting caller, which sends the next batch."""
        failure = None
        began_ns = perf_counter_ns()
        try:
            # This is the ledger's only batch in flight, and it has not begun.
            rest = self._refuse_sold_out(address, batch)
            if rest:
                end = BatchEnd(rest)
                self._resolve(self._drive(self._steps(address, end)))
        except BaseException as error:
            failure = error
            self._fail(batch, error, sender)
            if sender not in batch and not isinstance(error, Exception):
                raise  # an interrupt is for this thread, whichever calls it sent
        finally:
            with self._lock:
                queue.batch_done()
                next_sender = queue.waiting[0] if queue.can_send() else None
            for call in batch:
                call.woken.set()
            if next_sender is not None:
                next_sender.woken.set()
            self._report(address, batch, began_ns, failure)
            failure = None  # its traceback refers to this frame
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

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """Count a call in flight, for :meth:`close`."""
        with self._lock:
            if self._closed:
                raise BackendUnavailable(CLOSED_ERROR)
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    self._call_ended.notify_all()

    def _drive(self, steps: Steps[T]) -> T:
        """Carry out all steps of a call; returns its result."""
        with self._connections.session() as session:

            def handle(step: Step | ThreadWork) -> list[Rows]:
                if isinstance(step, ThreadWork):
                    step.run()
                    return []
                rows: list[Rows] = session(step)
                return rows

            return drive(steps, handle)
