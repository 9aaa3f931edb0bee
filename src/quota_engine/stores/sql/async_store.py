"""The store for asyncio. Tasks that call at the same time share transactions."""

from __future__ import annotations

__all__ = ["AsyncSqlStore"]

import asyncio
import logging
from collections.abc import Coroutine
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive_async
from quota_engine.ports import StoreRequest
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.call_end import BatchEnd, CallEnd
from quota_engine.stores.sql.requests import Call, as_call, command_call
from quota_engine.stores.sql.steps import Rows, Step, Steps, ThreadWork
from quota_engine.stores.sql.store_base import CLOSED_ERROR, SOLD_OUT, QueuedCall, SqlStoreBase

T = TypeVar("T")

_FORKED_ERROR: Final = (
    "this engine was opened before the process was forked, and works in the parent only: open another one in the child "
    "with AsyncQuotaEngine.open"
)
_OTHER_LOOP_ERROR: Final = (
    "this engine belongs to another event loop: open one engine in each loop with AsyncQuotaEngine.open"
)
_REFUSED_IN_A_ROW_MAX: Final = 64
_log = logging.getLogger("quota_engine")


class _TaskCall(QueuedCall):
    """A task's call. The task awaits the future."""

    __slots__ = ("future",)

    def __init__(self, call: Call, token: Any, end: CallEnd | None, future: asyncio.Future[Any]) -> None:
        super().__init__(call, token, end)
        self.future = future

    def is_done(self) -> bool:
        return self.future.done()

    def set_result(self, result: Any) -> None:
        self.future.set_result(result)

    def set_error(self, error: BaseException) -> None:
        self.future.set_exception(error)


class AsyncSqlStore(SqlStoreBase[_TaskCall]):
    """A store in a SQL database, for one event loop."""

    def _prepare_waiting(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_writing_snapshots = False
        self._refused_in_a_row = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first call. Futures, connections and tasks of one loop do not work in another."""
        self._is_forked = False

    def _after_fork(self) -> None:
        """Refuse all calls: the connections belong to the parent's loop."""
        self._is_forked = True

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.apply`. Waiting calls share a transaction.

        A call that is cancelled in the queue has no effect. A call that is cancelled later may have one, which the same
        id finds.
        """
        return await self._send(command_call(address, command), ends_at_ms)

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.AsyncStore.execute`."""
        call = as_call(request)
        if call is not None:
            answer: T = await self._send(call, ends_at_ms)
        elif ends_at_ms is None:
            answer = await self._execute(request, None)
        else:
            end = CallEnd(ends_at_ms)
            answer = await self._run_until(end, self._execute(request, end))
        return answer

    async def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        self._closed = True
        await self._idle.wait()
        while self._tasks:  # the batches of cancelled calls
            await asyncio.wait(self._tasks)
        await self._connections.close()
        on_close = self._take_on_close()
        if on_close is not None:
            await asyncio.to_thread(on_close)

    async def _send(self, call: Call, ends_at_ms: float | None) -> Any:
        self._begin_call()
        try:
            if ends_at_ms is None:
                return await self._enqueue(call, None)
            end = CallEnd(ends_at_ms)
            return await self._run_until(end, self._enqueue(call, end))
        finally:
            self._end_call()

    async def _execute(self, request: StoreRequest[Any], end: CallEnd | None) -> Any:
        self._begin_call()
        try:
            return await self._drive(self._requests.execute(request, end))
        finally:
            self._end_call()

    async def _run_until(self, end: CallEnd, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call that has an end, and cancel it there.

        Raises:
            BackendUnavailable: The end has come, and no commit was sent.
            OutcomeUnknown: The end has come, and a commit was sent.
        """
        try:
            async with asyncio.timeout((end.ends_at_ms - monotonic_ms()) / 1000):
                return await call
        except TimeoutError:
            raise end.error() from None

    async def _enqueue(self, call: Call, end: CallEnd | None) -> Any:
        """Queue a command or question; return its result when a batch with it is done."""
        address = call.address
        queue = self._queue(address)
        if queue.is_idle() and self._is_sold_out(address, call.reserve):
            await self._let_others_run()
            return SOLD_OUT
        if queue.is_full():
            queue.drop_abandoned(_TaskCall.is_done)
            if queue.is_full():
                return self._overloaded(call)
        loop = asyncio.get_running_loop()
        pending = _TaskCall(call, self._token(), end, loop.create_future())
        queue.waiting.append(pending)
        if len(queue.waiting) == 1:
            # Calls of the same iteration of the loop join the batch; a lone call waits for no other.
            loop.call_soon(self._send_batches, address, queue)
        try:
            return await pending.future
        except asyncio.CancelledError:
            queue.has_abandoned = True
            raise

    async def _let_others_run(self) -> None:
        """Run other tasks of the loop after some refusals: a call that is answered at once awaits nothing."""
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= _REFUSED_IN_A_ROW_MAX:
            self._refused_in_a_row = 0
            await asyncio.sleep(0)

    def _send_batches(self, address: str, queue: BatchQueue[_TaskCall]) -> None:
        """Start a task for each batch that may be in flight."""
        while queue.can_send():
            batch = [call for call in queue.take_batch() if not call.is_done()]  # cancelled calls are dropped
            batch = self._refuse_sold_out(address, batch)
            if not batch:
                queue.batch_done()
                continue
            self._start(self._send_batch(address, queue, batch))

    async def _send_batch(self, address: str, queue: BatchQueue[_TaskCall], batch: list[_TaskCall]) -> None:
        """Send one batch, and give each caller its result."""
        failure = None
        began_ns = perf_counter_ns()
        try:
            end = BatchEnd(batch)
            self._resolve(await self._drive(self._steps(address, end)))
        except BaseException as error:
            failure = error
            self._fail(batch, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._report(address, batch, began_ns, failure)
            failure = None  # its traceback refers to this frame
            queue.batch_done()
            self._send_batches(address, queue)
        if self._transactions.snapshots and not self._is_writing_snapshots and not self._closed:
            self._is_writing_snapshots = True
            self._start(self._write_snapshots())

    async def _write_snapshots(self) -> None:
        """Write the snapshots that are due, beside the callers."""
        snapshots = self._transactions.snapshots
        try:
            while snapshots:
                try:
                    await self._drive(self._requests.write_snapshot(snapshots[0]))
                except Exception:
                    _log.exception("a snapshot of %s was not written; a later one will be", snapshots[0].address)
                snapshots.pop(0)
        finally:
            self._is_writing_snapshots = False

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the callers; :meth:`close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_call(self) -> None:
        """Count a call in flight, for :meth:`close`."""
        if self._closed:
            raise BackendUnavailable(CLOSED_ERROR)
        if self._is_forked:
            raise BackendUnavailable(_FORKED_ERROR)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise BackendUnavailable(_OTHER_LOOP_ERROR)
            self._loop = loop
        self._calls += 1
        self._idle.clear()

    def _end_call(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def _drive(self, steps: Steps[T]) -> T:
        """Carry out all steps of a call; returns its result."""
        async with self._connections.session() as session:

            async def handle(step: Step | ThreadWork) -> list[Rows]:
                if isinstance(step, ThreadWork):
                    await asyncio.to_thread(step.run)
                    return []
                rows: list[Rows] = await session(step)
                return rows

            return await drive_async(steps, handle)
