"""The store for asyncio. Tasks that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["AsyncRedisStore"]

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from quota_engine.domain.commands import Reserve
from quota_engine.generators import drive_async
from quota_engine.ports import StoreRequest
from quota_engine.stores.call_end import BatchEnd, CallEnd
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
from quota_engine.stores.redis.store_base import CONNECT_ERRORS, REJECTIONS, QueueKey, RedisStoreBase, may_still_run
from quota_engine.stores.task_batching import TaskBatchingStore, TaskCall

T = TypeVar("T")


class AsyncRedisStore(RedisStoreBase[TaskCall], TaskBatchingStore[QueueKey]):
    """A store in a Redis or Valkey server, for one event loop."""

    def _prepare_waiting(self) -> None:
        super()._prepare_waiting()
        self._channels: dict[Node | None, NodeChannel] = {}
        self._waits_for_replicas = bool(self._executor.runner.policy.replicas)

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
                if self._must_let_others_run():
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
        self._sold_out_cache.close()
        await super().close()

    async def _disconnect(self) -> None:
        for pool in list(self._pools.values()):
            await pool.disconnect()

    async def _send(self, address: str, command: Any, end: CallEnd, *, watches: bool = False) -> Any:
        self._begin_call()
        try:
            if self._executor.offices.must_register(address, command):
                await self._drive(self._executor.offices.register(address, command), end)
            handle = self._executor.handle(address)
            key = handle, handle.format.script_of(command)
            return await self._enqueue(key, command, handle.format.encode(command), end, watches=watches)
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
        handle, script = key
        replies = await self._drive(self._executor.run(script, handle, end.lines), end)
        self._resolve(key, end.calls, replies)

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
        replies: list[Any] = []
        requests: Requests = ()
        try:
            requests = self._make_requests(attempt, end)
            await connection.send_packed_command([pack_requests(requests)])
            for _ in requests:
                replies.append(await _reply(connection))  # noqa: PERF401 - those before an error count
            return replies
        except REJECTIONS as error:
            await connection.disconnect()
            if may_still_run(error, requests[len(replies) + 1 :]):
                raise ReplyLost(str(error)) from error
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
        sent: list[tuple[WaitingAttempt, int]] = []
        requests: list[Sequence[str | int]] = []
        answered = 0
        try:
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
                replies: list[Any] = []
                for _ in range(count):
                    replies.append(await _reply(connection))
                    answered += 1
                if not one.replies.done():
                    one.replies.set_result(replies)
        except REJECTIONS as error:
            await connection.disconnect()
            first = 0
            for one, count in sent:
                last = first + count
                may_run = may_still_run(error, requests[max(first, answered + 1) : last])
                _set_error(one, ReplyLost(str(error)) if may_run else error, error)
                first = last
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
