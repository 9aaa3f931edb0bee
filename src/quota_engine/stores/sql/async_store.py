"""The store for asyncio. Tasks that call at the same time share transactions."""

from __future__ import annotations

__all__ = ["AsyncSqlStore"]

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from quota_engine.generators import drive_async
from quota_engine.ports import StoreRequest
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
from quota_engine.stores.sql.transactions import Results
from quota_engine.stores.task_batching import SentBatch, TaskBatchingStore, TaskCall

T = TypeVar("T")

_log = logging.getLogger("quota_engine")


class _SharedBatch(SentBatch[str]):
    """A batch that waits for a shared transaction by a callback, without a task. A task carries out all other steps."""

    __slots__ = ("_has_waited", "_part", "steps")

    def start(self) -> None:
        """Send the batch beside its callers."""
        self._has_waited = False
        store = self._store
        try:
            # This is the ledger's only batch in flight, and it has not begun.
            is_left = store._refuse_sold_out(self.key, self)  # noqa: SLF001 - a part of the store
            if is_left:
                self.steps: Steps[Results] = store._steps(self.key, self)  # noqa: SLF001
        except BaseException as error:
            self.fail(error)
            return
        if is_left:
            self._resume(self.steps.send, None)
        else:
            self.finish(None)

    def begin_sending(self, now_ms: float) -> None:
        """See :class:`SentBatch`. Calls that have arrived while the batch waited for its transaction join it.

        If one of them ends earlier than the batch, none joins, because it would end the attempt of all. A batch that
        did not wait has all calls of its iteration of the loop.
        """
        queue = self._queue
        if (
            self._has_waited
            and self._is_waiting
            and all(one.end is None or one.end.ends_at_ms >= self.ends_at_ms for one in queue.waiting)
        ):
            room = queue.limits.batch_max - len(self.calls)
            joined = [call for call in queue.take(room) if not call.future.done()]
            if joined:
                self.set_calls([*self.calls, *joined])
                self._all_calls = [*self._all_calls, *joined]
        super().begin_sending(now_ms)

    def _resume(self, resume: Callable[[Any], Any], value: Any) -> None:
        """Continue the steps, and carry out the next one: in a shared transaction, or in a task with all others."""
        try:
            step = resume(value)
        except StopIteration as end:
            self._finish(end.value)
        except BaseException as error:
            self.fail(error)
        else:
            if type(step) is SharedTransaction:
                self._part = Part(step, self, self._proceed)
                self._has_waited = not self._store._submit(self._part)  # noqa: SLF001
            else:
                self.steps = _remaining(self.steps, step)
                super().start()

    def _proceed(self) -> None:
        """Take the answer of the shared transaction."""
        part = self._part
        del self._part  # it refers to this object, and so only the garbage collector would find both
        if part.error is None:
            self._resume(self.steps.send, part.answer)
        else:
            self._resume(self.steps.throw, part.error)

    def _finish(self, results: Results) -> None:
        """Give the callers their results."""
        try:
            self._store._resolve(results)  # noqa: SLF001
        except BaseException as error:
            self.fail(error)
        else:
            self.finish(None)


def _remaining(steps: Steps[T], step: Any) -> Steps[T]:
    """Return the remaining steps. They have yielded the first one already, and wait for its answer."""
    try:
        while True:
            try:
                rows = yield step
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


class AsyncSqlStore(SqlStoreBase[TaskCall], TaskBatchingStore[str]):
    """A store in a SQL database, for one event loop."""

    _batch_type = _SharedBatch

    def _prepare_waiting(self) -> None:
        super()._prepare_waiting()
        self._is_writing_snapshots = False
        self._parts = PartQueue(self._transactions_max)

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.apply`. Waiting calls share a transaction.

        A call that is cancelled in the queue has no effect. A call that is cancelled later may have one, which the same
        id finds.
        """
        call, end = command_call(address, command), self._new_end(ends_at_ms)
        if ends_at_ms is None:
            return await self._send(call, end, watches=True)
        return await self._run_until(end, self._send(call, end))

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.AsyncStore.execute`."""
        end, call = self._end_of(request, ends_at_ms), as_call(request)
        answer: T
        if call is not None and (end is None or ends_at_ms is None):
            answer = await self._send(call, end, watches=True)
        elif call is not None and end is not None:
            answer = await self._run_until(end, self._send(call, end))
        else:
            answer = await self._execute(request, end)
        return answer

    async def _send(self, call: Call, end: CallEnd | None, *, watches: bool = False) -> Any:
        self._begin_call()
        try:
            address = call.address
            if self._sold_out_ms and self._queue(address).is_idle() and self._is_sold_out(address, call.reserve):
                if self._known_left <= 0:
                    await self._wait_for_turn()
                self._known_left -= 1
                return SOLD_OUT
            return await self._enqueue(address, call, "", end, watches=watches)
        finally:
            self._end_call()

    async def _execute(self, request: StoreRequest[Any], end: CallEnd | None) -> Any:
        """Carry out a request of several steps. At its end it is cancelled, which may take a while in a thread.

        Raises:
            BackendUnavailable: The end has come, and no commit was sent.
            OutcomeUnknown: The end has come, and a commit was sent.
        """
        self._begin_call()
        try:
            steps = self._requests.execute(request, end)
            if end is None:
                return await self._drive(steps, None)
            task = asyncio.create_task(self._drive(steps, end))
            try:
                await asyncio.wait([task], timeout=seconds_until(end.ends_at_ms))
            finally:
                if not task.done():
                    task.cancel()
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            if not task.done():
                raise end.error()
            return task.result()
        finally:
            self._end_call()

    async def _run_batch(self, key: str, end: BatchEnd[TaskCall]) -> None:
        assert isinstance(end, _SharedBatch)
        self._resolve(await self._drive(end.steps, end))

    def _resolve(self, results: Results) -> None:
        super()._resolve(results)
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

    async def _disconnect(self) -> None:
        await self._connections.close()

    async def _drive(self, steps: Steps[T], end: CallEnd | None = None) -> T:
        """Carry out all steps of a call before its end; returns its result."""
        async with self._connections.session(end) as session:

            async def handle(step: Step | StoreStep) -> list[Rows]:
                if isinstance(step, ThreadWork):
                    await asyncio.to_thread(step.run)
                    return []
                if isinstance(step, LedgerLoad):
                    return await self._drive(step.steps())
                if isinstance(step, SharedTransaction):
                    return await self._wait_for_transaction(step, end)
                rows: list[Rows] = await session(step)
                return rows

            return await drive_async(steps, handle)

    async def _wait_for_transaction(self, step: SharedTransaction, end: CallEnd | None) -> list[Rows]:
        """Carry out a ledger's part of a transaction, and return its answer."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():  # else its caller was cancelled
                done.set_result(None)

        part = Part(step, end, wake)
        self._submit(part)
        try:
            await done
        except asyncio.CancelledError:
            if part in self._parts.waiting:
                self._parts.waiting.remove(part)
            raise
        if part.error is not None:
            raise part.error
        return part.answer

    def _submit(self, part: Part) -> bool:
        """Carry out a ledger's part at once, or with those of other ledgers when a transaction ends.

        Returns:
            True if a transaction for it has begun.
        """
        self._parts.waiting.append(part)
        self._begin_transactions()
        return not self._parts.waiting

    def _begin_transactions(self) -> None:
        """Begin as many transactions as may be in flight, for the parts that wait."""
        while parts := self._parts.take():
            self._start(self._run_together(parts))

    async def _run_together(self, parts: list[Part]) -> None:
        end = SharedEnd(parts)
        try:
            await self._connections.run(run_together(end), end)
        except NotStarted as error:
            for part in end.parts:
                part.error = NotStarted(str(error))
        finally:
            self._parts.end()
            self._begin_transactions()
            for part in parts:
                part.wake()
