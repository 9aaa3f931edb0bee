"""The store for asyncio. Tasks that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["AsyncRedisStore"]

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.generators import drive_async
from quota_engine.ports import ReserveKind, StoreRequest
from quota_engine.stores.call_end import BatchEnd, CallEnd
from quota_engine.stores.redis.async_connections import get_ready_connection, read_replies
from quota_engine.stores.redis.node_channel import NodeChannel, Replies, WaitingAttempt
from quota_engine.stores.redis.office_requests import as_query
from quota_engine.stores.redis.retrying_calls import (
    Attempt,
    BlockingWork,
    Call,
    Node,
    NotSent,
    ReplyLost,
    RetryPause,
    ScriptCall,
    Step,
)
from quota_engine.stores.redis.shared_write import REJECTIONS, SharedWrite
from quota_engine.stores.redis.store_base import CONNECT_ERRORS, QueueKey, RedisStoreBase
from quota_engine.stores.task_batching import SentBatch, TaskBatchingStore, TaskCall

T = TypeVar("T")

_STATUS_SOLD_OUT: Final = Status.SOLD_OUT


class _DrivenBatch(SentBatch[QueueKey]):
    """Runs the steps of a batch by callbacks: a task and a future for each batch would cost as much as its requests.

    It is the :class:`~quota_engine.stores.redis.node_channel.Replies` of its attempts.
    """

    __slots__ = ("_call", "_steps")

    def start(self) -> None:
        handle, script = self.key
        executor = self._store._executor  # noqa: SLF001 - a part of the store
        try:
            self._call: ScriptCall | None = executor.ready_call(script, handle, self.lines)
            """The call whose first attempt is in flight without its steps, which nearly always are not needed."""
            if self._call is None:
                self._steps: Call[list[Any]] = executor.run(script, handle, self.lines)
        except BaseException as error:
            # The caller's clock may fail. A batch that does not end would keep the calls of its queue waiting.
            self.fail(error)
            return
        if self._call is None:
            self._resume(self._steps.send, None)
        else:
            self._store.submit(WaitingAttempt(self._call, self, self, self._first_count))

    def done(self) -> bool:
        """Return False: callers may have given up, but others may join."""
        return False

    def set_result(self, replies: list[Any]) -> None:
        """Take the replies to an attempt."""
        if self._call is None:
            self._resume(self._steps.send, replies)
        elif len(replies) == 1 and type(replies[0]) is list:
            self._call = None  # the two refer to each other, so only the garbage collector would free them
            self._finish(replies[0])
        else:
            self._begin_steps()
            self._resume(self._steps.send, replies)

    def set_exception(self, error: BaseException) -> None:
        """Take the error of an attempt."""
        if isinstance(error, NotSent | ReplyLost):
            self.reason = str(error)
        if self._call is not None:
            self._begin_steps()
        self._resume(self._steps.throw, error)

    def _begin_steps(self) -> None:
        """Begin the steps at the first attempt, which has been sent."""
        assert self._call is not None
        self._steps, self._call = self._call.steps(is_sent=True), None
        next(self._steps)

    def _resume(self, resume: Callable[[Any], Step], value: Any) -> None:
        """Continue the steps, and run the next one."""
        store = self._store
        try:
            step = resume(value)
            while isinstance(step, Attempt):
                try:
                    if not self._is_waiting:  # no time has passed before the first attempt
                        self.begin_attempt(store._monotonic_ms())  # noqa: SLF001
                except (BackendUnavailable, OutcomeUnknown) as error:
                    step = self._steps.throw(error)
                    continue
                store.submit(WaitingAttempt(step, self, self, len(self.lines) or self._first_count))
                return
        except StopIteration as end:
            self._finish(end.value)
        except BaseException as error:
            self.fail(error)
        else:
            if isinstance(step, RetryPause):
                asyncio.get_running_loop().call_later(step.duration_ms / 1000, self.set_result, [])
            else:
                store._start(self._work(step))  # noqa: SLF001

    def _finish(self, replies: list[Any]) -> None:
        """Give the callers their results."""
        try:
            self._store._resolve(self.key, self.calls, replies)  # noqa: SLF001
        except BaseException as error:
            self.fail(error)
        else:
            self.finish(None)

    async def _work(self, step: BlockingWork) -> None:
        try:
            await asyncio.to_thread(step.run)
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result([])


class _DirectWrite(SharedWrite):
    """A write on a connection that was ready. It gets its replies from the connection, without a task."""

    __slots__ = ("_channel", "_connection", "_node", "_store")

    def __init__(
        self,
        taken: list[WaitingAttempt[Replies]],
        store: AsyncRedisStore,
        node: Node | None,
        channel: NodeChannel[Replies] | None,
        connection: Any,
    ) -> None:
        super().__init__(taken)
        self._store, self._node, self._channel, self._connection = store, node, channel, connection

    def finish_reading(self) -> None:
        """Start the next write, and give the last attempts their replies."""
        store = self._store
        store._pool(self._node).take_back(self._connection)  # noqa: SLF001 - a part of the store
        try:
            store._end_write(self._node, self._channel)  # noqa: SLF001
        finally:
            self.deliver()
            store._end_call()  # noqa: SLF001

    def fail_reading(self, error: BaseException) -> None:
        """Close the connection, and give each attempt without replies its error."""
        store = self._store
        store._start(store._fail_write(self._node, self._channel, self, self._connection, error))  # noqa: SLF001
        store._end_call()  # noqa: SLF001


class AsyncRedisStore(RedisStoreBase[TaskCall], TaskBatchingStore[QueueKey]):
    """A store in a Redis or Valkey server, for one event loop."""

    _batch_type = _DrivenBatch

    def _prepare_waiting(self) -> None:
        super()._prepare_waiting()
        self._channels: dict[Node | None, NodeChannel[Replies]] = {}
        self._is_collecting = False
        """True while the batches of one iteration of the loop are made, which then share writes."""
        self._waits_for_replicas = bool(self._executor.runner.policy.replicas)

    def known_refusal(self, address: str, kind: ReserveKind, id_: str, applicants: tuple[str, ...]) -> Outcome | None:
        """See :class:`quota_engine.ports.KnownRefusal`.

        A caller whose turn has ended is left to :meth:`apply` as well.
        """
        if not self._sold_out_cache.offices or self._known_left <= 0:
            return None
        refusal = super().known_refusal(address, kind, id_, applicants)
        if refusal is not None:
            self._known_left -= 1
        return refusal

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.apply`. Waiting calls share a script call.

        A call that is cancelled in the queue has no effect. A call that is cancelled later may have one, which the same
        id finds. An attempt in flight may run for up to ``attempt_valid_ms``; no other attempt is sent for the call.
        """
        cache, is_reserve = self._sold_out_cache, type(command) is Reserve
        if is_reserve and cache.offices:
            if self._known_left <= 0 and cache.get(address, command) is not None:
                if cache.due_offices:
                    self._refresh()
                await self._wait_for_turn()
            known = cache.get(address, command)
            if known is not None:
                self._known_left -= 1
                if self._observer is not None:
                    self._observer.on_sold_out(address)
                if cache.due_offices:
                    self._refresh()
                return known
        end = CallEnd(self._monotonic_ms() + self.call_timeout_ms if ends_at_ms is None else ends_at_ms)
        try:
            if ends_at_ms is None and (is_reserve or not self._executor.offices.must_register(address, command)):
                # Nearly all calls: without the cost of further coroutines.
                if self._open_loop is asyncio.get_running_loop():
                    self._calls += 1
                else:
                    self._begin_call()
                try:
                    handle = self._runner.handles.get(address) or self._handle(address)
                    key = handle.queue_keys.get(type(command)) or handle.queue_key(command)
                    line = handle.format.encode(command)
                    try:
                        outcome = await self._queue_call(key, command, line, end, watches=True)
                    except asyncio.CancelledError:
                        self._abandon(key)
                        raise
                finally:
                    self._calls -= 1
                    if self._closed:
                        self._note_idle()
            else:
                outcome = await self._run_until(end, self._send(address, command, end))
        except BaseException:
            cache.record_unknown(address, command)
            raise
        if cache.offices or not is_reserve or outcome.status is _STATUS_SOLD_OUT:
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
        self._sold_out_cache.close()
        await super().close()

    async def _disconnect(self) -> None:
        for pool in list(self._pools.values()):
            await pool.disconnect()

    async def _send(self, address: str, command: Any, end: CallEnd) -> Any:
        """Apply a command that may be the office's first one, or whose caller gave an end."""
        self._begin_call()
        try:
            if self._executor.offices.must_register(address, command):
                await self._drive(self._executor.offices.register(address, command), end)
            handle = self._handle(address)
            return await self._enqueue(handle.queue_key(command), command, handle.format.encode(command), end)
        finally:
            self._end_call()

    async def _execute(
        self, request: StoreRequest[Any], query: tuple[str, Any] | None, end: CallEnd | None, *, watches: bool = False
    ) -> Any:
        self._begin_call()
        try:
            if query is not None:
                handle = self._executor.handle(query[0])
                key, question = (handle, handle.format.queries), query[1]
                return await self._enqueue(key, question, handle.format.encode(question), end, watches=watches)
            return await self._drive(self._requests.execute(request), end)
        finally:
            self._end_call()

    async def _run_batch(self, key: QueueKey, end: BatchEnd[TaskCall]) -> None:
        raise AssertionError("a batch is sent by callbacks")

    def _send_ready(self) -> None:
        self._is_collecting = True
        try:
            super()._send_ready()
        finally:
            self._is_collecting = False
            self._start_all_writes()

    def _may_join(self, key: QueueKey) -> bool:
        # Equal questions share one line, so the lines of a batch of questions are fixed before.
        return key[1] is not key[0].format.queries

    def _refresh(self) -> None:
        """Refresh the cache for a due office, beside the callers."""
        office = self._sold_out_cache.due_offices.popleft()
        self._start(self._drive(self._executor.refresh_sold_out(office)))

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
        """Send requests on one connection; returns a reply for each, errors included."""
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.submit(WaitingAttempt(attempt, end, replies))
        return await replies

    def submit(self, waiting: WaitingAttempt[Replies]) -> None:
        """Send requests at once, or while the server is busy, together with those of other calls."""
        node = waiting.attempt.node
        if self._waits_for_replicas:  # WAIT would make the next attempt on the same connection wait, too
            self._start_write(node, None, [waiting])
            return
        channel = self._channels.get(node)
        if channel is None:
            channel = self._channels[node] = NodeChannel()
        channel.wait(waiting)
        if not self._is_collecting:
            self._start_writes(node, channel)

    def _start_all_writes(self) -> None:
        """Start each write that may be in flight, to all servers."""
        for node, channel in list(self._channels.items()):
            self._start_writes(node, channel)

    def _start_writes(self, node: Node | None, channel: NodeChannel[Replies]) -> None:
        """Start each write to a server that may be in flight."""
        while taken := channel.take():
            self._start_write(node, channel, taken)

    def _start_write(
        self, node: Node | None, channel: NodeChannel[Replies] | None, taken: list[WaitingAttempt[Replies]]
    ) -> None:
        """Send attempts in one write: at once, if a connection is ready."""
        pool = self._pool(node)
        connection = get_ready_connection(pool)
        if connection is None:
            self._start(self._complete_write(node, channel, SharedWrite(taken), None))
        else:
            write = _DirectWrite(taken, self, node, channel, connection)
            try:
                connection.write(self._pack(write))
            except BaseException as error:
                pool.take_back(connection)
                write.fail(NotSent("the call was interrupted"), error)
                self._end_write(node, channel)
                # The attempts have the error. Raised here, it would reach the batch that submits its next attempt, and
                # end that batch a second time.
                if not isinstance(error, Exception):
                    raise
                return
            if connection.has_unsent() or not write.replies_left():
                self._start(self._complete_write(node, channel, write, connection))
            else:
                self._calls += 1  # close() waits for it
                connection.receive(write)
        if len(self._channels) > 1 and not self._is_collecting:
            self._start_all_writes()  # packing may have let a batch for another server start

    def _pack(self, write: SharedWrite) -> bytes:
        """Return the bytes of a write. Making them lets the next batch of a ledger start, which stays behind it."""
        was_collecting, self._is_collecting = self._is_collecting, True
        try:
            return write.pack(self._make_requests)
        finally:
            self._is_collecting = was_collecting

    def _end_write(self, node: Node | None, channel: NodeChannel[Replies] | None) -> None:
        """Start the next write."""
        if channel is not None:
            channel.end_write()
            self._start_writes(node, channel)

    async def _complete_write(
        self, node: Node | None, channel: NodeChannel[Replies] | None, write: SharedWrite, connection: Any
    ) -> None:
        """Send a write if it waits for a connection, and give each attempt its replies or its error.

        The next write starts before the last attempts get their replies, so that the server works meanwhile.
        """
        try:
            if connection is None:
                connection = await self._send_write(node, write)
                self._start_all_writes()
            if connection is not None:
                await self._read_replies(node, write, connection)
        finally:
            self._end_write(node, channel)
            write.deliver()

    async def _fail_write(
        self,
        node: Node | None,
        channel: NodeChannel[Replies] | None,
        write: SharedWrite,
        connection: Any,
        error: BaseException,
    ) -> None:
        """Close the connection of a write whose reading has failed, and start the next write."""
        try:
            await self._lose_write(self._pool(node), write, connection, error)
        finally:
            self._end_write(node, channel)

    async def _send_write(self, node: Node | None, write: SharedWrite) -> Any:
        """Send attempts on the next connection, and return it, or ``None`` after giving each its error."""
        pool = self._pool(node)
        try:
            connection = await _connect(pool)
        except Exception as error:
            write.fail(error)
            return None
        except BaseException as error:
            write.fail(NotSent("the call was interrupted"), error)
            raise
        try:
            await connection.send_packed_command([self._pack(write)])
        except BaseException as error:
            await self._lose_write(pool, write, connection, error)
            if not isinstance(error, RedisError | OSError):
                raise
            return None
        return connection

    async def _read_replies(self, node: Node | None, write: SharedWrite, connection: Any) -> None:
        """Read the replies of a write, and give each attempt but the last ones its replies."""
        pool = self._pool(node)
        try:
            while left := write.replies_left():
                write.deliver()  # the server works on the rest meanwhile
                for reply in await read_replies(connection, left):
                    write.take_reply(reply)
        except BaseException as error:
            await self._lose_write(pool, write, connection, error)
            if not isinstance(error, RedisError | OSError):
                raise
        else:
            await pool.release(connection)

    async def _lose_write(self, pool: Any, write: SharedWrite, connection: Any, error: BaseException) -> None:
        """Close the connection of a write, and give each attempt without replies its error."""
        try:
            if isinstance(error, REJECTIONS):
                await connection.disconnect()
                write.reject(error)
            elif isinstance(error, RedisError | OSError):
                await connection.disconnect()
                write.lose(str(error), error)
            else:
                await connection.disconnect(nowait=True)
                write.lose("the call was interrupted", error)
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
