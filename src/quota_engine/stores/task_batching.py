"""Batches of the tasks of one event loop.

Calls of the same iteration of the loop share batches. A store sends each batch beside its callers: in a task, or by
callbacks.
"""

from __future__ import annotations

__all__ = ["SentBatch", "TaskBatchingStore", "TaskCall"]

import abc
import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any, Final, Generic

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.batching_store import CLOSED_ERROR, BatchingStore, K, QueuedCall
from quota_engine.stores.call_end import TIME_LEFT_MS_MIN, BatchEnd, CallEnd

_KNOWN_IN_A_ROW: Final = 64
"""Outcomes without the server before a lone caller lets the loop run: such a call awaits nothing."""
_KNOWN_IN_A_TURN: Final = 32
"""The same for a caller beside others. A turn costs a task as much as one or two outcomes."""
_KNOWN_IN_A_ROUND: Final = 16384
"""Outcomes until each waiting caller has had its turn, and one more for each. With more callers, turns are shorter."""
_TURNS_IN_AN_ITERATION: Final = 16
"""Turns in one iteration of the loop. Replies of the server are read between iterations only, so iterations stay short
with any number of callers.
"""
_WATCH_PAUSE_MS: Final = 1
"""The least time between two looks at all calls."""
_FORKED_ERROR: Final = (
    "this engine was opened before the process was forked, and works in the parent only: open another one in the child "
    "with AsyncQuotaEngine.open"
)
_OTHER_LOOP_ERROR: Final = (
    "this engine belongs to another event loop: open one engine in each loop with AsyncQuotaEngine.open"
)


class TaskCall(QueuedCall):
    """A task's call. The task awaits the future.

    Attributes:
        future: The future.
        is_watched: True if the store answers the call at its end.
    """

    __slots__ = ("future", "is_watched")

    def __init__(
        self, request: Any, line: str, token: Any, end: CallEnd | None, future: asyncio.Future[Any], is_watched: bool
    ) -> None:
        self.request, self.line, self.token = request, line, token
        self.end, self.future, self.is_watched = end, future, is_watched

    def is_done(self) -> bool:
        return self.future.done()

    def set_result(self, result: Any) -> None:
        self.future.set_result(result)

    def set_error(self, error: BaseException) -> None:
        self.future.set_exception(error)

    def take_reply(self, decode: Callable[[Any, Any], Any], reply: Any) -> None:
        future = self.future  # as in the base class, with fewer calls
        if not future.done():
            future.set_result(decode(self.request, reply))


class SentBatch(BatchEnd[TaskCall], Generic[K]):
    """A batch that is being sent. Calls that arrive before it is sent may join it.

    Attributes:
        key: The key of its queue.
    """

    __slots__ = ("_all_calls", "_began_ns", "_first_count", "_is_waiting", "_may_join", "_queue", "_store", "key")

    def __init__(self, store: Any, key: K, queue: BatchQueue[TaskCall], first_count: int, *, may_join: bool) -> None:
        """Begin a batch of a queue. The queue starts no other one until this one is sent.

        Args:
            store: The store.
            key: The key of the queue.
            queue: The queue.
            first_count: The number of calls with which the batch begins: the first ones of the queue.
            may_join: True to leave them in the queue until the batch is sent, so that further calls may join.
        """
        BatchEnd.__init__(self, [])
        self.key = key
        self._store, self._queue, self._first_count, self._may_join = store, queue, first_count, may_join
        self._all_calls = self.calls
        queue.in_flight += 1
        queue.has_waiting_batch = self._is_waiting = True
        self._began_ns = 0 if store._observer is None else perf_counter_ns()  # noqa: SLF001 - a part of the store
        if not may_join:
            self._take_calls(first_count)

    def start(self) -> None:
        """Send the batch beside its callers."""
        self._store._start(self._send())  # noqa: SLF001

    def has_done_call(self) -> bool:
        for call in self.calls:  # noqa: SIM110 - as in the base class, with fewer calls
            if call.future.done():
                return True
        return False

    def begin_sending(self, now_ms: float) -> None:
        """Take the calls that wait, and let the next batch of the queue start."""
        if self._is_waiting:
            queue, may_join = self._queue, self._may_join
            queue.has_waiting_batch = self._is_waiting = False
            if may_join:
                self._take_calls(queue.limits.batch_max)
            if queue.waiting:
                self._store._send_batches(self.key, queue)  # noqa: SLF001
            if may_join and self.calls and self.ends_at_ms - now_ms >= TIME_LEFT_MS_MIN:
                return  # nearly always: no caller can have given up since
        self.begin_attempt(now_ms)

    def _take_calls(self, size: int) -> None:
        """Take the first calls of the queue. Those whose callers have given up have no effect."""
        self._all_calls = calls = [call for call in self._queue.take(size) if not call.future.done()]
        self.set_calls(calls)

    async def _send(self) -> None:
        """Send the batch, and give each caller its result."""
        try:
            await self._store._run_batch(self.key, self)  # noqa: SLF001
        except BaseException as error:
            self.fail(error)
        else:
            self.finish(None)

    def fail(self, error: BaseException) -> None:
        """Give the callers an error, and raise it again if it concerns more than this batch."""
        self.finish(error)
        if not isinstance(error, Exception):
            raise error

    def finish(self, failure: BaseException | None) -> None:
        """Count the batch as done, after its callers have their results, or give them this error."""
        store, queue = self._store, self._queue
        try:
            if failure is not None:
                if self._is_waiting and self._may_join:
                    self._take_calls(self._first_count)  # calls that came later are for the next batch
                store._fail(self.key, self._all_calls, failure)  # noqa: SLF001
        finally:
            if self._all_calls and store._observer is not None:  # noqa: SLF001
                store._report(self.key, self._all_calls, self._began_ns, failure)  # noqa: SLF001
            if self._is_waiting:
                queue.has_waiting_batch = False
            queue.in_flight -= 1
            store._batches.discard(self)  # noqa: SLF001
            store._end_call()  # noqa: SLF001
            if queue.waiting:
                store._send_batches(self.key, queue)  # noqa: SLF001


class TaskBatchingStore(BatchingStore[K, TaskCall]):
    """A store whose callers are tasks of one event loop."""

    _batch_type: type[SentBatch[K]] = SentBatch

    def _prepare_waiting(self) -> None:
        self._known_left = _KNOWN_IN_A_ROW
        """Outcomes without the server that callers can still get before one must wait for its turn."""
        self._turns_left = _TURNS_IN_AN_ITERATION
        """Turns in this iteration of the loop."""
        self._turns: deque[asyncio.Future[None]] = deque()
        """Callers that wait for their turn, the first one first."""
        self._turn_loop: asyncio.AbstractEventLoop | None = None
        """The loop that gives turns, while callers wait for them."""
        self._batches: set[SentBatch[K]] = set()
        """Batches in flight."""
        self._ready: list[tuple[K, BatchQueue[TaskCall]]] = []
        """Queues with calls of this iteration of the loop."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first call. Futures, connections and tasks of one loop do not work in another."""
        self._open_loop: asyncio.AbstractEventLoop | None = None
        """This loop while calls are accepted, else ``None``: a call in it needs no other check."""
        self._is_forked = False
        self._watch_timer: asyncio.TimerHandle | None = None

    def _after_fork(self) -> None:
        """Refuse all calls: the connections belong to the parent's loop."""
        self._is_forked = True
        self._open_loop = None

    @abc.abstractmethod
    async def _run_batch(self, key: K, end: BatchEnd[TaskCall]) -> None:
        """Send the calls of a batch, and give each that is not done its result."""

    @abc.abstractmethod
    async def _disconnect(self) -> None:
        """Close the connections."""

    def _may_join(self, key: K) -> bool:
        """Return True if calls may join a batch of this key until its :meth:`SentBatch.begin_sending`."""
        return False

    async def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        self._closed = True
        self._open_loop = None
        if self._calls:
            self._idle.clear()
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
        self._open_loop = loop
        self._calls += 1

    def _end_call(self) -> None:
        self._calls -= 1
        if self._closed:
            self._note_idle()

    def _note_idle(self) -> None:
        """Let :meth:`close` continue when no call is in flight."""
        if not self._calls:
            self._idle.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the callers; :meth:`close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait_for_turn(self) -> None:
        """Let the loop run, and wait behind the callers that wait already."""
        loop = asyncio.get_running_loop()
        if self._turn_loop is not loop:
            self._turn_loop = loop
            self._turns.clear()  # callers of a loop that has ended
            loop.call_soon(self._give_turns)
        turn = loop.create_future()
        self._turns.append(turn)
        self._turns_left -= 1
        self._known_left = self._outcomes_in_turn() if self._turns_left > 0 else 0
        await turn

    def _outcomes_in_turn(self) -> int:
        waiting = len(self._turns)
        return _KNOWN_IN_A_ROW if waiting <= 1 else min(_KNOWN_IN_A_TURN, _KNOWN_IN_A_ROUND // waiting)

    def _give_turns(self) -> None:
        """Let the first waiting callers go on in the next iteration of the loop."""
        turns, loop = self._turns, self._turn_loop
        self._turns_left = left = _TURNS_IN_AN_ITERATION
        self._known_left = self._outcomes_in_turn()
        while turns and left:
            turn = turns.popleft()
            if not turn.done():  # else its caller was cancelled
                turn.set_result(None)
                left -= 1
        if turns and loop is not None:
            loop.call_soon(self._give_turns)
        else:
            self._turn_loop = None

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

    def _watch(self, ends_at_ms: float, now_ms: float, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer of the next end: one for all calls, because one for each would cost as much as the call."""
        delay_ms = max(ends_at_ms - now_ms, _WATCH_PAUSE_MS)
        self._watch_timer = loop.call_later(delay_ms / 1000, self._end_watched, loop)

    def _end_watched(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer the calls whose end has come, and set the timer for the next end.

        Each call waits in a queue or belongs to a batch in flight, so a separate list of calls is not needed.
        """
        self._watch_timer = None
        now_ms = self._monotonic_ms()
        next_end_ms, has_ended = math.inf, False
        waiting = [queue.waiting for queue in self._queues.values() if queue.waiting]
        for calls in (*waiting, *[batch.calls for batch in self._batches]):
            for call in calls:
                end = call.end
                if not call.is_watched or end is None or call.future.done():
                    continue
                if end.ends_at_ms > now_ms:  # the calls behind it have the same time-out, so they end later
                    next_end_ms = min(next_end_ms, end.ends_at_ms)
                    break
                call.set_error(end.error())
                has_ended = True
        if has_ended:
            for queue in self._queues.values():
                queue.has_abandoned = True
        if next_end_ms < math.inf:
            self._watch(next_end_ms, now_ms, loop)

    def _queue_call(
        self, key: K, request: Any, line: str, end: CallEnd | None, *, watches: bool = False
    ) -> asyncio.Future[Any]:
        """Queue a command or question; return the future of its result. Call :meth:`_begin_call` before.

        Args:
            key: The key of its queue.
            request: The command or question.
            line: The same as a line for a script, or ``""``.
            end: The end of the call, if it has one.
            watches: True to answer the call at its end; otherwise the caller does so.
        """
        queue = self._queues.get(key) or self._queue(key)
        loop = self._loop
        assert loop is not None, "a call has begun"
        waiting = queue.waiting
        if len(waiting) >= queue.limits.waiting_max:
            queue.drop_abandoned(TaskCall.is_done)
            waiting = queue.waiting
            if queue.is_full():
                overloaded = loop.create_future()
                overloaded.set_result(self._overloaded(key, request))
                return overloaded
        future = loop.create_future()
        token = None if self._observer is None else self._token()
        call = TaskCall(request, line, token, end, future, watches)
        if watches and self._watch_timer is None and end is not None:
            self._watch(end.ends_at_ms, self._monotonic_ms(), loop)
        waiting.append(call)
        if len(waiting) == 1:
            # Calls of the same iteration of the loop join the batch; a lone call waits for no other.
            self._ready.append((key, queue))
            if len(self._ready) == 1:
                loop.call_soon(self._send_ready)
        return future

    def _abandon(self, key: K) -> None:
        """Note that the caller of a call in this queue has given up."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.has_abandoned = True

    async def _enqueue(self, key: K, request: Any, line: str, end: CallEnd | None, *, watches: bool = False) -> Any:
        """Queue a command or question; return its result. Arguments as for :meth:`_queue_call`."""
        try:
            return await self._queue_call(key, request, line, end, watches=watches)
        except asyncio.CancelledError:
            self._abandon(key)
            raise

    def _send_ready(self) -> None:
        """Send the calls of this iteration of the loop."""
        ready, self._ready = self._ready, []
        # A batch that would leave the caller's process idle while the server works on it goes out in two parts.
        splits = len(ready) == 1 and not self._batches
        for key, queue in ready:
            self._send_batches(key, queue, splits=splits)

    def _send_batches(self, key: K, queue: BatchQueue[TaskCall], *, splits: bool = False) -> None:
        """Start the next batch if it may be in flight. The batch after it starts when this one has been sent."""
        if not queue.can_send():
            return
        waiting = queue.waiting
        # close() stops waiting when no caller and no batch is left. A batch of cancelled calls alone would begin later.
        while waiting[0].future.done():
            waiting.popleft()
            if not waiting:
                return
        is_part = splits and queue.can_split()
        first_count = len(waiting) // 2 if is_part else min(len(waiting), queue.limits.batch_max)
        self._calls += 1  # close() waits for it, also if its callers have given up
        sent = self._batch_type(self, key, queue, first_count, may_join=not is_part and self._may_join(key))
        self._batches.add(sent)
        sent.start()
