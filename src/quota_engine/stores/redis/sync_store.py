"""The store for synchronous callers. Threads that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["RedisStore"]

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from redis.exceptions import RedisError

from quota_engine.clocks import MARGIN_MS
from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive
from quota_engine.ports import StoreRequest
from quota_engine.stores.call_end import BatchEnd, CallEnd, seconds_until
from quota_engine.stores.redis.ending_connections import limit_socket, read_reply, set_end, write_bytes
from quota_engine.stores.redis.node_channel import WaitingAttempt
from quota_engine.stores.redis.office_requests import as_query
from quota_engine.stores.redis.request_packing import Requests, pack_requests
from quota_engine.stores.redis.retrying_calls import (
    Attempt,
    BlockingWork,
    Call,
    Node,
    NotSent,
    ReplyLost,
    RetryPause,
    Step,
)
from quota_engine.stores.redis.shared_write import REJECTIONS, SharedWrite, may_still_run
from quota_engine.stores.redis.store_base import CONNECT_ERRORS, QueueKey, RedisStoreBase
from quota_engine.stores.redis.thread_channel import ThreadChannel, ThreadReplies
from quota_engine.stores.thread_batching import LoneCallStore, ThreadCall

T = TypeVar("T")


class RedisStore(RedisStoreBase[ThreadCall], LoneCallStore[QueueKey]):
    """A store in a Redis or Valkey server. Safe to use from several threads."""

    def _prepare_waiting(self) -> None:
        super()._prepare_waiting()
        self._channels: dict[Node | None, ThreadChannel] = {}
        self._waits_for_replicas = bool(self._executor.runner.policy.replicas)

    def _after_fork(self) -> None:
        """Forget the parent's calls, and leave the parent's connections alone: both belong to its threads."""
        super()._after_fork()
        self._pools = {node: _new_pool_like(pool) for node, pool in self._pools.items()}
        self._executor.runner.forget_handles()

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`. Waiting calls share a script call."""
        cache = self._sold_out_cache
        if type(command) is Reserve:
            known = cache.get(address, command)
            if known is not None:
                if self._observer is not None:
                    self._observer.on_sold_out(address)
                if cache.due_offices:
                    self._refresh(self._new_end(ends_at_ms))
                return known
        end = self._new_end(ends_at_ms)
        try:
            outcome = self._send(address, command, end)
        except BaseException:
            cache.record_unknown(address, command)
            raise
        cache.record_outcome(address, command, outcome)
        if cache.due_offices:
            self._refresh(end)
        return outcome

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`."""
        answer: T = self._execute(request, self._end_of(request, ends_at_ms))
        return answer

    def check_server(self) -> None:
        """Check version, permissions and durability of the server.

        Raises:
            BackendUnavailable: The server does not answer or does not qualify.
        """
        self._drive(self._executor.check_server(), self._new_end(None))

    def read_server_time_ms(self) -> int:
        """Return the time of the server's clock in milliseconds since 1970, or of the clock that was given.

        Raises:
            BackendUnavailable: The server does not answer.
        """
        return self._drive(self._executor.runner.now_ms(), self._new_end(None))

    def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        self._sold_out_cache.close()
        super().close()

    def _disconnect(self) -> None:
        for pool in list(self._pools.values()):
            pool.disconnect()

    def _send(self, address: str, command: Any, end: CallEnd) -> Any:
        executor = self._executor
        if executor.offices.must_register(address, command):
            with self._call():
                self._drive(executor.offices.register(address, command), end)
        handle = self._handle(address)
        return self._ask(handle.queue_key(command), command, handle.format.encode(command), end)

    def _execute(self, request: StoreRequest[Any], end: CallEnd | None) -> Any:
        query = as_query(request)
        if query is not None:
            handle, question = self._executor.handle(query[0]), query[1]
            return self._ask((handle, handle.format.queries), question, handle.format.encode(question), end)
        with self._call():
            return self._drive(self._requests.execute(request), end)

    def _send_one(self, key: QueueKey, request: Any, line: str, end: CallEnd | None) -> Any:
        handle, script = key
        (reply,) = self._drive(self._executor.run(script, handle, [line]), end)
        return self._executor.decoder_of(handle, script)(request, reply)

    def _run_batch(self, key: QueueKey, end: BatchEnd[ThreadCall]) -> None:
        handle, script = key
        replies = self._drive(self._executor.run(script, handle, end.lines), end)
        self._resolve(key, end.calls, replies)

    @property
    def _late_ms(self) -> float:
        return self._executor.runner.policy.attempt_valid_ms + MARGIN_MS

    def _refresh(self, end: CallEnd) -> None:
        """Refresh the cache for a due office. Other threads use what the cache knows meanwhile."""
        with contextlib.suppress(IndexError, BackendUnavailable):  # another thread was first; the store was closed
            office = self._sold_out_cache.due_offices.popleft()
            with self._call():
                self._drive(self._executor.refresh_sold_out(office), CallEnd(end.ends_at_ms))

    def _drive(self, call: Call[T], end: CallEnd | None = None) -> T:
        """Run all steps of a call; returns its result.

        Args:
            call: The steps.
            end: The end of the calls that the steps are for, if they have one.
        """

        def handle(step: Step) -> list[Any]:
            if isinstance(step, RetryPause):
                self._pause(step.duration_ms, end)
                return []
            if isinstance(step, BlockingWork):
                self._run_until(step.run, end)
                return []
            try:
                return self._exchange(step, end)
            except (NotSent, ReplyLost) as error:
                if end is not None:
                    end.reason = str(error)
                raise

        return drive(call, handle)

    def _pause(self, duration_ms: float, end: CallEnd | None) -> None:
        """Sleep before another attempt.

        Raises:
            BackendUnavailable: The end comes before another attempt, and nothing was sent.
            OutcomeUnknown: The same, and something was sent. No copy of it takes effect any more.
        """
        left_ms = math.inf if end is None else end.cut_at_ms - self._monotonic_ms()
        time.sleep(max(0.0, min(duration_ms, left_ms)) / 1000)
        if end is not None and left_ms < duration_ms:
            raise end.error()

    def _run_until(self, work: Callable[[], None], end: CallEnd | None) -> None:
        """Run a function that may take seconds, and leave it alone at the end. Raises as :meth:`_pause`, or as it."""
        if end is None:
            work()
            return
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:  # raised again in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True, name="quota-engine-work")
        thread.start()
        thread.join(seconds_until(end.cut_at_ms, self._monotonic_ms()))
        if errors:
            raise errors[0]
        if thread.is_alive():
            raise end.error()

    def _exchange(self, attempt: Attempt, end: CallEnd | None) -> list[Any]:
        """Send requests on one connection; returns a reply for each, errors included.

        While the server is busy, the requests wait, and travel together with those of other threads.
        """
        node, ends_at_ms = attempt.node, math.inf
        if end is not None:
            ends_at_ms = end.cut_at_ms
            end.begin_attempt(self._monotonic_ms())
        channel = self._channels.get(node) or self._channels.setdefault(node, ThreadChannel())
        if self._waits_for_replicas:  # WAIT would make the next attempt on the same connection wait, too
            return self._send_alone(attempt, end, ends_at_ms)
        if channel.try_begin():
            try:
                return self._send_alone(attempt, end, ends_at_ms)
            finally:
                channel.end_write()
        replies = ThreadReplies()
        waiting = WaitingAttempt(attempt, end, replies, 1 if end is None else end.size)
        if not channel.exchange(
            waiting,
            lambda taken: self._send_together(node, channel, ends_at_ms, taken),
            lambda: seconds_until(ends_at_ms, self._monotonic_ms()),
        ):
            if end is not None and end.is_sent:
                raise ReplyLost("no reply before the end of the call")
            raise NotSent("the server was busy until the end of the call")
        if replies.error is not None:
            raise replies.error
        assert replies.replies is not None, "an exchange ends with replies or an error"
        return replies.replies

    def _send_alone(self, attempt: Attempt, end: CallEnd | None, ends_at_ms: float) -> list[Any]:
        """Send one attempt. For a lone call, a shared write would take a seventh more of the client's processor."""
        pool = self._pool(attempt.node)
        set_end(ends_at_ms)
        try:
            connection = pool.get_connection()
        except REJECTIONS:
            raise
        except CONNECT_ERRORS as error:
            raise NotSent(str(error)) from error
        replies: list[Any] = []
        requests: Requests = ()
        try:
            requests = self._make_requests(attempt, end)
            limit_socket(connection, ends_at_ms - self._monotonic_ms())
            write_bytes(connection, pack_requests(requests))
            replies.append(read_reply(connection))
            for _ in requests[1:]:
                limit_socket(connection, ends_at_ms - self._monotonic_ms())
                replies.append(read_reply(connection))
            return replies
        except REJECTIONS as error:
            connection.disconnect()
            if may_still_run(error, requests[len(replies) + 1 :]):
                raise ReplyLost(str(error)) from error
            raise
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise ReplyLost(str(error)) from error
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _send_together(
        self,
        node: Node | None,
        channel: ThreadChannel,
        ends_at_ms: float,
        taken: list[WaitingAttempt[ThreadReplies]],
    ) -> None:
        """Send attempts in one write until the end of this thread's call, and give each its replies or its error."""
        pool, write = self._pool(node), SharedWrite(taken)
        set_end(ends_at_ms)
        try:
            connection = pool.get_connection()
        except BaseException as error:
            if isinstance(error, CONNECT_ERRORS) and not isinstance(error, REJECTIONS):
                write.fail(NotSent(str(error)), error)
            elif isinstance(error, Exception):
                write.fail(error)
            else:
                write.fail(NotSent("the call was interrupted"), error)
                raise
            return
        try:
            with channel.lock:
                packed = write.pack(self._make_requests)
            limit_socket(connection, ends_at_ms - self._monotonic_ms())
            write_bytes(connection, packed)
            while write.replies_left():
                write.take_reply(read_reply(connection))
                write.deliver()
                limit_socket(connection, ends_at_ms - self._monotonic_ms())
        except REJECTIONS as error:
            connection.disconnect()
            write.reject(error)
        except (RedisError, OSError) as error:
            connection.disconnect()
            write.lose(str(error), error)
        except BaseException as error:
            connection.disconnect()
            write.lose("the call was interrupted", error)
            raise
        finally:
            pool.release(connection)


def _new_pool_like(pool: Any) -> Any:
    """Return an empty pool with the same settings. The locks of the given one may be held forever."""
    return type(pool)(
        max_connections=pool.max_connections,
        timeout=pool.timeout,
        connection_class=pool.connection_class,
        **pool.connection_kwargs,
    )
