"""The store for asyncio. Tasks that call at the same time share transactions."""

from __future__ import annotations

__all__ = ["AsyncSqlStore"]

import asyncio
import logging
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
from quota_engine.stores.task_batching import TaskBatchingStore, TaskCall

T = TypeVar("T")

_log = logging.getLogger("quota_engine")


class AsyncSqlStore(SqlStoreBase[TaskCall], TaskBatchingStore[str]):
    """A store in a SQL database, for one event loop."""

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
        # This is the ledger's only batch in flight, and it has not begun.
        if self._refuse_sold_out(key, end):
            self._resolve(await self._drive(self._steps(key, end), end))
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
                    return await self._share(step, end)
                rows: list[Rows] = await session(step)
                return rows

            return await drive_async(steps, handle)

    async def _share(self, step: SharedTransaction, end: CallEnd | None) -> list[Rows]:
        """Carry out a ledger's transaction at once, or with those of other ledgers when a transaction ends."""
        queue = self._parts
        if queue.begin():
            try:
                answer: list[Rows] = await self._connections.run(step.steps(), end)
            finally:
                self._end_transaction()
            return answer
        done = asyncio.Event()
        part = Part(step, end, done.set)
        queue.waiting.append(part)
        try:
            await done.wait()
        except asyncio.CancelledError:
            if part in queue.waiting:
                queue.waiting.remove(part)
            raise
        if part.error is not None:
            raise part.error
        return part.answer

    def _end_transaction(self) -> None:
        """Count a transaction as ended, and begin the next ones."""
        self._parts.end()
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
            self._end_transaction()
            for part in parts:
                part.wake()
