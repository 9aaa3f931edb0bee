"""The store for synchronous callers. Threads that call at the same time share script calls."""

from __future__ import annotations

__all__ = ["RedisStore"]

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError

from quota_engine.clocks import MARGIN_MS
from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.generators import drive
from quota_engine.ports import StoreRequest
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.call_end import TIME_LEFT_MS_MIN, BatchEnd, CallEnd
from quota_engine.stores.redis.ending_connections import limit_socket, set_end
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.office_requests import as_query
from quota_engine.stores.redis.request_packing import pack_requests
from quota_engine.stores.redis.retrying_calls import Attempt, BlockingWork, Call, NotSent, ReplyLost, RetryPause, Step
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

_PENDING: Final = object()
"""Stands for a result that has not arrived, because ``None`` is a result."""


class _ThreadCall(PendingCall):
    """A thread's call. The thread sleeps until it has a result, or until it is the next sender.

    Attributes:
        settles_at_ms: The monotonic time until which the caller waits with its error; 0 if it need not wait.
    """

    __slots__ = ("error", "result", "settles_at_ms", "woken")

    def __init__(self, command: Any, line: str, token: Any, end: CallEnd | None) -> None:
        self.command, self.line, self.token = command, line, token  # not by super(): one call less for each command
        self.end = end
        self.settles_at_ms = 0.0
        self.woken = threading.Event()
        self.result: Any = _PENDING
        self.error: BaseException | None = None

    def is_done(self) -> bool:
        return self.result is not _PENDING or self.error is not None

    def set_result(self, result: Any) -> None:
        self.result = result

    def set_error(self, error: BaseException) -> None:
        self.error = error


class RedisStore(RedisStoreBase[_ThreadCall]):
    """A store in a Redis or Valkey server. Safe to use from several threads."""

    def _prepare_waiting(self) -> None:
        self._lock = threading.Lock()
        self._call_ended = threading.Condition(self._lock)

    def _after_fork(self) -> None:
        """Forget the parent's calls, and leave the parent's connections alone: both belong to its threads."""
        self._prepare_waiting()
        self._calls = 0
        self._queues = {}
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

    def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        with self._lock:
            self._closed = True
        self._sold_out_cache.close()
        with self._lock:
            self._call_ended.wait_for(lambda: not self._calls)
        for pool in list(self._pools.values()):
            pool.disconnect()
        on_close = self._take_on_close()
        if on_close is not None:
            on_close()

    def _send(self, address: str, command: Any, end: CallEnd) -> Any:
        with self._call():
            if self._executor.offices.must_register(address, command):
                self._drive(self._executor.offices.register(address, command), end)
            handle = self._executor.handle(address)
            return self._enqueue(handle, handle.format.script_of(command), command, end)

    def _execute(self, request: StoreRequest[Any], end: CallEnd | None) -> Any:
        query = as_query(request)
        with self._call():
            if query is not None:
                handle = self._executor.handle(query[0])
                return self._enqueue(handle, handle.format.queries, query[1], end)
            return self._drive(self._requests.execute(request), end)

    def _enqueue(self, handle: LedgerHandle, script: Script, command: Any, end: CallEnd | None) -> Any:
        """Queue a command or question; return its result when a batch with it has been answered."""
        call = _ThreadCall(command, handle.format.encode(command), self._token(), end)
        key = handle, script
        with self._lock:
            queue = self._queue(key)
            if queue.is_full():
                return self._executor.overloaded(handle, script)
            queue.waiting.append(call)
        try:
            self._await_result(key, queue, call)
        except BaseException:
            # An interrupt, or the call's end, may come just after this thread was woken to send a batch: wake the next
            # sender instead.
            with self._lock:
                if call in queue.waiting:
                    queue.waiting.remove(call)
                next_sender = queue.waiting[0] if queue.can_send() else None
            if next_sender is not None:
                next_sender.woken.set()
            raise
        if call.error is not None:
            if call.settles_at_ms:
                settles_at_ms = min(call.settles_at_ms, math.inf if end is None else end.ends_at_ms)
                time.sleep(max(0.0, settles_at_ms - self._monotonic_ms()) / 1000)
            raise call.error
        return call.result

    def _await_result(self, key: QueueKey, queue: BatchQueue[_ThreadCall], call: _ThreadCall) -> None:
        """Send batches, or wait while other threads do, until the call is done.

        Raises:
            BackendUnavailable: The call's end has come, and it was not sent.
            OutcomeUnknown: The call's end has come, and it was sent.
        """
        while not call.is_done():
            with self._lock:
                batch = queue.take_batch() if queue.can_send() else None
                call.woken.clear()
            if batch is not None:
                self._send_batch(key, queue, batch, call)
            elif not call.is_done():
                left_s = None if call.end is None else max(0.0, call.end.ends_at_ms - self._monotonic_ms()) / 1000
                if not call.woken.wait(left_s) and call.end is not None:
                    error = call.end.error()
                    call.set_error(error)  # so that no thread sends it any more
                    raise error

    def _send_batch(
        self, key: QueueKey, queue: BatchQueue[_ThreadCall], batch: list[_ThreadCall], sender: _ThreadCall
    ) -> None:
        """Send one batch; wake its callers, and the first waiting caller, which sends the next batch."""
        handle, script = key
        failure = None
        began_ns = perf_counter_ns()
        end = BatchEnd(batch, sender_ends_at_ms=math.inf if sender.end is None else sender.end.ends_at_ms)
        try:
            replies = self._drive(self._executor.run(script, handle, end.lines), end)
            self._resolve(key, end.calls, replies)
        except BaseException as error:
            failure = error
            if end.is_sent and not isinstance(error, Exception):
                # This thread was interrupted, and its attempt is in flight.
                settles_at_ms = self._monotonic_ms() + self._executor.runner.policy.attempt_valid_ms + MARGIN_MS
                for call in batch:
                    call.settles_at_ms = settles_at_ms if call is not sender else 0.0
            else:
                batch = self._requeue_unfinished(queue, batch, end, sender)
            self._fail(key, batch, error, sender)
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
            self._report(key, batch, began_ns, failure)
            failure = None  # its traceback refers to this frame

    def _refresh(self, end: CallEnd) -> None:
        """Refresh the cache for a due office. Other threads use what the cache knows meanwhile."""
        with contextlib.suppress(IndexError, BackendUnavailable):  # another thread was first; the store was closed
            office = self._sold_out_cache.due_offices.popleft()
            with self._call():
                self._drive(self._executor.refresh_sold_out(office), CallEnd(end.ends_at_ms))

    def _requeue_unfinished(
        self,
        queue: BatchQueue[_ThreadCall],
        batch: list[_ThreadCall],
        end: BatchEnd[_ThreadCall],
        sender: _ThreadCall,
    ) -> list[_ThreadCall]:
        """Put the calls that still have time back in front of the queue, if this thread has none left to send them.

        An attempt that this thread has sent cannot run any more: its last moment lies before this thread's end.

        Returns:
            The other calls of the batch, which end now.
        """
        now_ms = self._monotonic_ms()
        if sender.end is None or sender.end.ends_at_ms - now_ms >= TIME_LEFT_MS_MIN:
            return batch
        unfinished = [
            call
            for call in end.calls
            if call is not sender
            and not call.is_done()
            and (call.end is None or call.end.ends_at_ms - now_ms >= TIME_LEFT_MS_MIN)
        ]
        for call in unfinished:
            if call.end is not None and call.end.is_sent:
                call.end.record_unknown()
                call.end.was_lost = True
        with self._lock:
            queue.waiting.extendleft(reversed(unfinished))
        return [call for call in batch if call not in unfinished]

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
                self._call_ended.notify_all()

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
            if end is not None:
                end.begin_attempt(self._monotonic_ms())
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
        thread.join(max(0.0, end.cut_at_ms - self._monotonic_ms()) / 1000)
        if errors:
            raise errors[0]
        if thread.is_alive():
            raise end.error()

    def _exchange(self, attempt: Attempt, end: CallEnd | None) -> list[Any]:
        """Send requests on one connection; returns a reply for each, errors included."""
        pool = self._pool(attempt.node)
        ends_at_ms = math.inf if end is None else end.cut_at_ms
        set_end(ends_at_ms)
        try:
            connection = pool.get_connection()
        except REJECTIONS:
            raise
        except CONNECT_ERRORS as error:
            raise NotSent(str(error)) from error
        try:
            now_ms = self._monotonic_ms()
            if end is not None:  # callers may have given up while this one waited for a connection
                end.begin_attempt(now_ms)
            requests = attempt.requests(end)
            limit_socket(connection, ends_at_ms - now_ms)
            connection.send_packed_command([pack_requests(requests)])
            replies = [_reply(connection)]
            for _ in requests[1:]:
                limit_socket(connection, ends_at_ms - self._monotonic_ms())
                replies.append(_reply(connection))
            return replies
        except REJECTIONS:
            connection.disconnect()
            raise
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise ReplyLost(str(error)) from error
        except BaseException:
            connection.disconnect()
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


def _reply(connection: Connection) -> Any:
    """Read one reply; an error reply is returned, not raised."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
