"""Batches of the tasks of one event loop: a separate task sends each batch."""

from __future__ import annotations

__all__ = ["TaskBatchingStore", "TaskCall"]

import abc
import asyncio
from collections import deque
from collections.abc import Coroutine
from time import perf_counter_ns
from typing import Any, Final

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.batching_store import CLOSED_ERROR, BatchingStore, K, QueuedCall
from quota_engine.stores.call_end import BatchEnd, CallEnd

_KNOWN_IN_A_ROW_MAX: Final = 64
"""Outcomes without the server in a row before other tasks of the loop run: such a call awaits nothing."""
_WATCHED_MAX: Final = 1024
"""Watched calls from which those that have ended are removed."""
_FORKED_ERROR: Final = (
    "this engine was opened before the process was forked, and works in the parent only: open another one in the child "
    "with AsyncQuotaEngine.open"
)
_OTHER_LOOP_ERROR: Final = (
    "this engine belongs to another event loop: open one engine in each loop with AsyncQuotaEngine.open"
)


class TaskCall(QueuedCall):
    """A task's call. The task awaits the future."""

    __slots__ = ("future",)

    def __init__(self, request: Any, line: str, token: Any, end: CallEnd | None, future: asyncio.Future[Any]) -> None:
        self.request, self.line, self.token = request, line, token
        self.end, self.future = end, future

    def is_done(self) -> bool:
        return self.future.done()

    def set_result(self, result: Any) -> None:
        self.future.set_result(result)

    def set_error(self, error: BaseException) -> None:
        self.future.set_exception(error)


class TaskBatchingStore(BatchingStore[K, TaskCall]):
    """A store whose callers are tasks of one event loop."""

    def _prepare_waiting(self) -> None:
        self._known_in_a_row = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first call. Futures, connections and tasks of one loop do not work in another."""
        self._is_forked = False
        self._watched: deque[tuple[TaskCall, CallEnd]] = deque()
        self._watched_max = _WATCHED_MAX
        self._watch_timer: asyncio.TimerHandle | None = None

    def _after_fork(self) -> None:
        """Refuse all calls: the connections belong to the parent's loop."""
        self._is_forked = True

    @abc.abstractmethod
    async def _run_batch(self, key: K, end: BatchEnd[TaskCall]) -> None:
        """Send the calls of a batch, and give each that is not done its result."""

    @abc.abstractmethod
    async def _disconnect(self) -> None:
        """Close the connections."""

    def _may_join(self, key: K) -> bool:
        """Return True if calls may join a batch of this key until it is sent."""
        return True

    async def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        self._closed = True
        await self._idle.wait()
        while self._tasks:  # the batches of cancelled calls
            await asyncio.wait(self._tasks)
        await self._disconnect()
        on_close = self._take_on_close()
        if on_close is not None:
            await asyncio.to_thread(on_close)

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

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the callers; :meth:`close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _must_let_others_run(self) -> bool:
        """Return True after some outcomes without the server: the caller must await something then."""
        self._known_in_a_row += 1
        if self._known_in_a_row < _KNOWN_IN_A_ROW_MAX:
            return False
        self._known_in_a_row = 0
        return True

    async def _run_until(self, end: CallEnd, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call that has an end, and cancel it there.

        Raises:
            BackendUnavailable: The end has come, and nothing was sent.
            OutcomeUnknown: The end has come, and something was sent.
        """
        try:
            async with asyncio.timeout((end.ends_at_ms - self._monotonic_ms()) / 1000):
                return await call
        except TimeoutError:
            raise end.error() from None

    def _watch(self, call: TaskCall, end: CallEnd, loop: asyncio.AbstractEventLoop) -> None:
        """Answer a call at its end, with one timer for all calls: a timer for each would cost as much as the call.

        The calls have the same time-out, so they end in the order in which they came.
        """
        watched = self._watched
        while watched and watched[0][0].is_done():
            watched.popleft()
        if len(watched) >= self._watched_max:  # calls behind one that is stuck
            watched = self._watched = deque(one for one in watched if not one[0].is_done())
            self._watched_max = max(_WATCHED_MAX, 2 * len(watched))
        watched.append((call, end))
        if self._watch_timer is None:
            self._watch_timer = loop.call_later((end.ends_at_ms - self._monotonic_ms()) / 1000, self._end_watched, loop)

    def _end_watched(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer the calls whose end has come, and set the timer for the next end."""
        self._watch_timer = None
        watched, now_ms = self._watched, self._monotonic_ms()
        while watched:
            call, end = watched[0]
            if not call.is_done():
                if end.ends_at_ms > now_ms:
                    self._watch_timer = loop.call_later((end.ends_at_ms - now_ms) / 1000, self._end_watched, loop)
                    return
                call.set_error(end.error())
                for queue in self._queues.values():
                    queue.has_abandoned = True
            watched.popleft()

    async def _enqueue(self, key: K, request: Any, line: str, end: CallEnd | None, *, watches: bool = False) -> Any:
        """Queue a command or question; return its result when a batch with it has been answered.

        Args:
            key: The key of its queue.
            request: The command or question.
            line: The same as a line for a script, or ``""``.
            end: The end of the call, if it has one.
            watches: True to answer the call at its end; otherwise the caller does so.
        """
        queue = self._queue(key)
        if queue.is_full():
            queue.drop_abandoned(TaskCall.is_done)
            if queue.is_full():
                return self._overloaded(key, request)
        loop = asyncio.get_running_loop()
        call = TaskCall(request, line, self._token(), end, loop.create_future())
        if watches and end is not None:
            self._watch(call, end, loop)
        queue.waiting.append(call)
        if len(queue.waiting) == 1:
            # Calls of the same iteration of the loop join the batch; a lone call waits for no other.
            loop.call_soon(self._send_batches, key, queue)
        try:
            return await call.future
        except asyncio.CancelledError:
            queue.has_abandoned = True
            raise

    def _send_batches(self, key: K, queue: BatchQueue[TaskCall]) -> None:
        """Start a task for each batch that may be in flight."""
        while queue.can_send():
            batch = [call for call in queue.take_batch() if not call.is_done()]  # cancelled calls are dropped
            if not batch:
                queue.batch_done()
                continue
            queue.is_holding = True
            self._start(self._send_batch(key, queue, batch))

    async def _send_batch(self, key: K, queue: BatchQueue[TaskCall], batch: list[TaskCall]) -> None:
        """Send one batch, and give each caller its result. Commands that arrive before it is sent join it."""
        is_held, failure = True, None

        def on_sending() -> list[TaskCall]:
            nonlocal is_held
            more = queue.take_more(len(batch)) if self._may_join(key) else []
            joined = [call for call in more if not call.is_done()]
            batch.extend(joined)
            is_held = queue.is_holding = False
            self._send_batches(key, queue)
            return joined

        began_ns = perf_counter_ns()
        try:
            await self._run_batch(key, BatchEnd([*batch], on_sending))
        except BaseException as error:
            failure = error
            self._fail(key, batch, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._report(key, batch, began_ns, failure)
            failure = None  # its traceback refers to this frame
            if is_held:
                queue.is_holding = False
            queue.batch_done()
            self._send_batches(key, queue)
