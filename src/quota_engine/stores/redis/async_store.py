"""The store for asyncio. Tasks that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["AsyncRedisStore"]

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive_async
from quota_engine.ports import StoreRequest
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.call_end import BatchEnd, CallEnd
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.node_channel import NodeChannel, WaitingAttempt
from quota_engine.stores.redis.office_requests import as_query
from quota_engine.stores.redis.request_packing import pack_requests
from quota_engine.stores.redis.retrying_calls import (
    Attempt,
    BlockingWork,
    Call,
    Node,
    NotSent,
    ReplyLost,
    Requests,
    RetryPause,
    Step,
)
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.store_base import (
    CLOSED_ERROR,
    CONNECT_ERRORS,
    REJECTIONS,
    PendingCall,
    QueueKey,
    RedisStoreBase,
)

T = TypeVar("T")

_CACHED_IN_A_ROW_MAX = 64
"""Cached outcomes in a row before other tasks of the loop run: a call that is answered at once awaits nothing."""

_WATCHED_MAX: Final = 1024
"""Watched calls from which those that have ended are removed."""

_FORKED_ERROR: Final = (
    "this engine was opened before the process was forked, and works in the parent only: open another one in the child "
    "with AsyncQuotaEngine.open"
)
_OTHER_LOOP_ERROR: Final = (
    "this engine belongs to another event loop: open one engine in each loop with AsyncQuotaEngine.open"
)


class _TaskCall(PendingCall):
    """A task's call. The task awaits the future."""

    __slots__ = ("future",)

    def __init__(self, command: Any, line: str, token: Any, end: CallEnd | None, future: asyncio.Future[Any]) -> None:
        self.command, self.line, self.token = command, line, token  # not by super(): one call less for each command
        self.end, self.future = end, future

    def is_done(self) -> bool:
        return self.future.done()

    def set_result(self, result: Any) -> None:
        self.future.set_result(result)

    def set_error(self, error: BaseException) -> None:
        self.future.set_exception(error)


class AsyncRedisStore(RedisStoreBase[_TaskCall]):
    """A store in a Redis or Valkey server, for one event loop."""

    def _prepare_waiting(self) -> None:
        self._cached_in_a_row = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first call. Futures, connections and tasks of one loop do not work in another."""
        self._is_forked = False
        self._watched: deque[tuple[_TaskCall, CallEnd]] = deque()
        self._watched_max = _WATCHED_MAX
        self._watch_timer: asyncio.TimerHandle | None = None
        self._channels: dict[Node | None, NodeChannel] = {}
        self._waits_for_replicas = bool(self._executor.runner.policy.replicas)

    def _after_fork(self) -> None:
        """Refuse all calls: the connections belong to the parent's loop."""
        self._is_forked = True

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.apply`. Waiting calls share a script call.

        A call that is cancelled in the queue has no effect. A call that is cancelled later may have one, which the same
        id finds. An attempt in flight may run for up to ``attempt_valid_ms``; no other attempt is sent for the call.
        """
        cache = self._sold_out_cache
        if type(command) is Reserve:
            known = cache.get(address, command)
            if known is not None:
                if self._observer is not None:
                    self._observer.on_sold_out(address)
                if cache.due_offices:
                    self._refresh()
                self._cached_in_a_row += 1
                if self._cached_in_a_row >= _CACHED_IN_A_ROW_MAX:
                    self._cached_in_a_row = 0
                    await asyncio.sleep(0)
                return known
        end = self._new_end(ends_at_ms)
        try:
            if ends_at_ms is None and not self._executor.offices.must_register(address, command):
                outcome = await self._send(address, command, end, watches=True)
            else:
                outcome = await self._run_until(end, self._send(address, command, end))
        except BaseException:
            cache.record_unknown(address, command)
            raise
        cache.record_outcome(address, command, outcome)
        if cache.due_offices:
            self._refresh()
        return outcome

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.AsyncStore.execute`."""
        end, query = self._end_of(request, ends_at_ms), as_query(request)
        answer: T
        if end is None:
            answer = await self._execute(request, query, None)
        elif query is not None and ends_at_ms is None:
            answer = await self._execute(request, query, end, watches=True)
        else:
            answer = await self._run_until(end, self._execute(request, query, end))
        return answer

    async def check_server(self) -> None:
        """Check version, permissions and durability of the server.

        Raises:
            BackendUnavailable: The server does not answer or does not qualify.
        """
        end = self._new_end(None)
        await self._run_until(end, self._drive(self._executor.check_server(), end))

    async def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        self._closed = True
        self._sold_out_cache.close()
        await self._idle.wait()
        while self._tasks:  # the batches of cancelled calls
            await asyncio.wait(self._tasks)
        for pool in list(self._pools.values()):
            await pool.disconnect()
        on_close = self._take_on_close()
        if on_close is not None:
            await asyncio.to_thread(on_close)

    async def _send(self, address: str, command: Any, end: CallEnd, *, watches: bool = False) -> Any:
        self._begin_call()
        try:
            if self._executor.offices.must_register(address, command):
                await self._drive(self._executor.offices.register(address, command), end)
            handle = self._executor.handle(address)
            return await self._enqueue(handle, handle.format.script_of(command), command, end, watches=watches)
        finally:
            self._end_call()

    async def _execute(
        self, request: StoreRequest[Any], query: tuple[str, Any] | None, end: CallEnd | None, *, watches: bool = False
    ) -> Any:
        self._begin_call()
        try:
            if query is not None:
                handle = self._executor.handle(query[0])
                return await self._enqueue(handle, handle.format.queries, query[1], end, watches=watches)
            return await self._drive(self._requests.execute(request), end)
        finally:
            self._end_call()

    async def _run_until(self, end: CallEnd, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call that has an end, and cancel it there.

        Raises:
            BackendUnavailable: The end has come, and nothing was sent.
            OutcomeUnknown: The end has come, and something was sent. No copy of it takes effect any more.
        """
        try:
            async with asyncio.timeout((end.ends_at_ms - self._monotonic_ms()) / 1000):
                return await call
        except TimeoutError:
            raise end.error() from None

    def _watch(self, call: _TaskCall, end: CallEnd, loop: asyncio.AbstractEventLoop) -> None:
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

    async def _enqueue(
        self, handle: LedgerHandle, script: Script, command: Any, end: CallEnd | None, *, watches: bool = False
    ) -> Any:
        """Queue a command or question; return its result when a batch with it has been answered.

        Args:
            handle: The ledger.
            script: The script.
            command: The command or question.
            end: The end of the call, if it has one.
            watches: True to answer the call at its end; otherwise the caller does so.
        """
        line = handle.format.encode(command)
        key = handle, script
        queue = self._queue(key)
        if queue.is_full():
            queue.drop_abandoned(_TaskCall.is_done)
            if queue.is_full():
                return self._executor.overloaded(handle, script)
        loop = asyncio.get_running_loop()
        call = _TaskCall(command, line, self._token(), end, loop.create_future())
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

    def _send_batches(self, key: QueueKey, queue: BatchQueue[_TaskCall]) -> None:
        """Start a task for each batch that may be in flight."""
        while queue.can_send():
            batch = [call for call in queue.take_batch() if not call.is_done()]  # cancelled calls are dropped
            if not batch:
                queue.batch_done()
                continue
            queue.is_holding = True
            self._start(self._send_batch(key, queue, batch))

    async def _send_batch(self, key: QueueKey, queue: BatchQueue[_TaskCall], batch: list[_TaskCall]) -> None:
        """Send one batch, and give each caller its result. Commands that arrive before it is sent join it."""
        handle, script = key
        is_held, failure = True, None

        def on_sending() -> list[_TaskCall]:
            nonlocal is_held
            # Equal questions share one line, so the lines of a batch of questions are fixed before.
            more = [] if script is handle.format.queries else queue.take_more(len(batch))
            joined = [call for call in more if not call.is_done()]
            batch.extend(joined)
            is_held = queue.is_holding = False
            self._send_batches(key, queue)
            return joined

        began_ns = perf_counter_ns()
        try:
            end = BatchEnd([*batch], on_sending)
            replies = await self._drive(self._executor.run(script, handle, end.lines), end)
            self._resolve(key, end.calls, replies)
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

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the callers; :meth:`close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refresh(self) -> None:
        """Refresh the cache for a due office, beside the callers."""
        office = self._sold_out_cache.due_offices.popleft()
        self._start(self._drive(self._executor.refresh_sold_out(office)))

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

    async def _drive(self, call: Call[T], end: CallEnd | None = None) -> T:
        """Run all steps of a call; returns its result.

        Args:
            call: The steps.
            end: The end of the calls that the steps are for, if they have one.
        """

        async def handle(step: Step) -> list[Any]:
            if isinstance(step, RetryPause):
                await asyncio.sleep(step.duration_ms / 1000)
                return []
            if isinstance(step, BlockingWork):
                await asyncio.to_thread(step.run)
                return []
            if end is not None:
                end.begin_attempt(self._monotonic_ms())
            try:
                return await self._exchange(step, end)
            except (NotSent, ReplyLost) as error:
                if end is not None:
                    end.reason = str(error)
                raise

        return await drive_async(call, handle)

    async def _exchange(self, attempt: Attempt, end: CallEnd | None) -> list[Any]:
        """Send requests on one connection; returns a reply for each, errors included.

        While the server is busy, the requests wait, and travel together with those of other calls.
        """
        if self._waits_for_replicas:  # WAIT would make the next attempt on the same connection wait, too
            return await self._send_alone(attempt, end)
        channel = self._channels.get(attempt.node)
        if channel is None:
            channel = self._channels[attempt.node] = NodeChannel()
        if channel.try_begin():
            try:
                return await self._send_alone(attempt, end)
            finally:
                waiting = channel.take()
                if waiting:
                    self._start(self._send_waiting(attempt.node, channel, waiting))
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        channel.wait(WaitingAttempt(attempt, end, replies))
        return await replies

    async def _send_alone(self, attempt: Attempt, end: CallEnd | None) -> list[Any]:
        pool = self._pool(attempt.node)
        connection = await _connect(pool)
        try:
            requests = self._make_requests(attempt, end)
            await connection.send_packed_command([pack_requests(requests)])
            return [await _reply(connection) for _ in requests]
        except REJECTIONS:
            await connection.disconnect()
            raise
        except (RedisError, OSError) as error:
            await connection.disconnect()
            raise ReplyLost(str(error)) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _make_requests(self, attempt: Attempt, end: CallEnd | None) -> Requests:
        """Return the requests of an attempt that has a connection.

        Callers may have given up while it waited for one, and others may have joined its batch.
        """
        if end is not None:
            end.begin_sending()
            end.begin_attempt(self._monotonic_ms())
        return attempt.requests(end)

    async def _send_waiting(self, node: Node | None, channel: NodeChannel, waiting: list[WaitingAttempt]) -> None:
        """Send attempts that wait for a server in one write, and then start the next write."""
        try:
            await self._send_together(node, waiting)
        finally:
            following = channel.take()
            if following:
                self._start(self._send_waiting(node, channel, following))

    async def _send_together(self, node: Node | None, waiting: list[WaitingAttempt]) -> None:
        """Send several attempts in one write, and give each its replies or its error."""
        pool = self._pool(node)
        try:
            connection = await _connect(pool)
        except Exception as error:
            for one in waiting:
                _set_error(one, error)
            return
        try:
            sent: list[tuple[WaitingAttempt, int]] = []
            requests: list[Sequence[str | int]] = []
            for one in waiting:
                try:
                    made = self._make_requests(one.attempt, one.end)
                except Exception as error:  # the calls have no time left
                    _set_error(one, error)
                    continue
                requests += made
                sent.append((one, len(made)))
            await connection.send_packed_command([pack_requests(requests)])
            for one, count in sent:
                replies = [await _reply(connection) for _ in range(count)]
                if not one.replies.done():
                    one.replies.set_result(replies)
        except REJECTIONS as error:
            await connection.disconnect()
            for one in waiting:
                _set_error(one, error)
        except (RedisError, OSError) as error:
            await connection.disconnect()
            for one in waiting:
                _set_error(one, ReplyLost(str(error)), error)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            for one in waiting:
                _set_error(one, ReplyLost("the call was interrupted"), error)
            raise
        finally:
            await pool.release(connection)


async def _connect(pool: Any) -> Any:
    """Return a connection of a pool.

    Raises:
        NotSent: The server was not reached.
    """
    try:
        return await pool.get_connection()
    except REJECTIONS:
        raise
    except CONNECT_ERRORS as error:
        raise NotSent(str(error)) from error


def _set_error(waiting: WaitingAttempt, error: Exception, cause: BaseException | None = None) -> None:
    """Give an attempt that has no replies an error. Each gets a copy, because tasks extend a traceback."""
    if not waiting.replies.done():
        copy = type(error)(*error.args)
        copy.__cause__ = cause or error.__cause__
        waiting.replies.set_exception(copy)


async def _reply(connection: AbstractConnection) -> Any:
    """Read one reply; an error reply is returned, not raised."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
