"""Batches of threads: one of the threads that wait sends the calls of all of them.

A thread that finds nothing in flight sends its own call at once. Otherwise it sleeps until it has a result, until it is
the next sender, or until its end.
"""

from __future__ import annotations

__all__ = ["LoneCallStore", "ThreadBatchingStore", "ThreadCall", "wake_all"]

import abc
import contextlib
import math
import threading
import time
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any, Final

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.batching import BatchQueue
from quota_engine.stores.batching_store import CLOSED_ERROR, BatchingStore, K, QueuedCall
from quota_engine.stores.call_end import TIME_LEFT_MS_MIN, BatchEnd, CallEnd
from quota_engine.stores.thread_signal import ThreadSignal, signal_of_this_thread

_PENDING: Final = object()
"""Stands for a result that has not arrived, because ``None`` is a result."""


class ThreadCall(QueuedCall):
    """A thread's call.

    Attributes:
        settles_at_ms: The monotonic time until which the caller waits with its error; 0 if it need not wait.
    """

    __slots__ = ("error", "result", "settles_at_ms", "woken")

    def __init__(self, request: Any, line: str, token: Any, end: CallEnd | None) -> None:
        self.request, self.line, self.token = request, line, token
        self.end = end
        self.settles_at_ms = 0.0
        self.woken: ThreadSignal | None = None
        self.result: Any = _PENDING
        self.error: BaseException | None = None

    def is_done(self) -> bool:
        return self.result is not _PENDING or self.error is not None

    def set_result(self, result: Any) -> None:
        self.result = result

    def set_error(self, error: BaseException) -> None:
        self.error = error

    def prepare_sleep(self) -> ThreadSignal:
        """Return the signal that wakes the caller. Call it under the lock of the queues."""
        if self.woken is None:
            self.woken = signal_of_this_thread()
        return self.woken

    def wake(self) -> None:
        """Wake the caller if it sleeps. Choose it under the lock, or give it its result first.

        A caller without a signal has not slept yet. Before it does, it takes the lock, and looks again if it is done.
        """
        if self.woken is not None:
            self.woken.set()


def wake_all(calls: Sequence[ThreadCall]) -> None:
    """Wake several callers. Other threads run meanwhile; an interrupt in that time leaves no caller asleep."""
    try:
        for call in calls:
            call.wake()
    except BaseException:
        for call in calls:
            call.wake()
        raise


class _CallCounter:
    """Counts calls in flight. One object serves all calls of a store; a generator for each would cost more."""

    __slots__ = ("_store",)

    def __init__(self, store: ThreadBatchingStore[Any]) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store._begin_call()  # noqa: SLF001 - a part of the store

    def __exit__(self, *_: object) -> None:
        self._store._end_call()  # noqa: SLF001


class ThreadBatchingStore(BatchingStore[K, ThreadCall]):
    """A store whose callers are threads. Safe to use from several of them."""

    def _prepare_waiting(self) -> None:
        self._lock = threading.Lock()
        self._call_ended = threading.Condition(self._lock)
        self._call_counter = _CallCounter(self)

    def _after_fork(self) -> None:
        """Forget the parent's calls: they belong to its threads."""
        self._prepare_waiting()
        self._calls = 0
        self._queues = {}

    @abc.abstractmethod
    def _run_batch(self, key: K, end: BatchEnd[ThreadCall]) -> None:
        """Send the calls of a batch, and give each that is not done its result."""

    @abc.abstractmethod
    def _disconnect(self) -> None:
        """Close the connections."""

    @property
    def _late_ms(self) -> float:
        """Milliseconds for which an attempt in flight may take effect if its sender is interrupted."""
        return 0.0

    def close(self) -> None:
        """Wait for the calls in flight, and close the connections. Later calls are refused."""
        with self._lock:
            self._closed = True
            self._call_ended.wait_for(lambda: not self._calls)
        self._disconnect()
        on_close = self._take_on_close()
        if on_close is not None:
            on_close()

    def _call(self) -> contextlib.AbstractContextManager[None]:
        """Count a call in flight within a ``with`` block, for :meth:`close`."""
        return self._call_counter

    def _begin_call(self) -> None:
        with self._lock:
            if self._closed:
                raise BackendUnavailable(CLOSED_ERROR)
            self._calls += 1

    def _end_call(self) -> None:
        with self._lock:
            self._calls -= 1
            if self._closed and not self._calls:
                self._call_ended.notify_all()

    def _enqueue(self, key: K, request: Any, line: str, end: CallEnd | None) -> Any:
        """Queue a command or question; return its result when a batch with it has been answered.

        Raises:
            BackendUnavailable: The call's end has come, and it was not sent.
            OutcomeUnknown: The call's end has come, and it was sent.
        """
        call = ThreadCall(request, line, self._token(), end)
        with self._lock:
            queue = self._queue(key)
            if queue.is_full():
                return self._overloaded(key, request)
            queue.waiting.append(call)
        try:
            self._await_result(key, queue, call)
        except BaseException:
            # An interrupt, or the call's end, may come just after this thread was woken to send a batch: wake the next
            # sender instead.
            with self._lock:
                if call in queue.waiting:
                    queue.waiting.remove(call)
                next_sender = queue.waiting[0] if queue.fills_batch() else None
            if next_sender is not None:
                next_sender.wake()
            raise
        if call.error is not None:
            if call.settles_at_ms:
                settles_at_ms = min(call.settles_at_ms, math.inf if end is None else end.ends_at_ms)
                time.sleep(max(0.0, settles_at_ms - self._monotonic_ms()) / 1000)
            raise call.error
        return call.result

    def _await_result(self, key: K, queue: BatchQueue[ThreadCall], call: ThreadCall) -> None:
        """Send batches, or wait while other threads do, until the call is done. Raises as :meth:`_enqueue`."""
        while not call.is_done():
            with self._lock:
                batch = queue.take_share() if queue.fills_batch() else None
                woken = call.prepare_sleep() if batch is None else None
                next_sender = queue.waiting[0] if batch is not None and queue.fills_batch() else None
            if next_sender is not None:
                next_sender.wake()
            if batch is not None:
                self._send_batch(key, queue, batch, call)
            elif woken is not None and not call.is_done():
                left_s = None if call.end is None else max(0.0, call.end.ends_at_ms - self._monotonic_ms()) / 1000
                if not woken.wait(left_s) and call.end is not None:
                    error = call.end.error()
                    call.set_error(error)  # so that no thread sends it any more
                    raise error

    def _send_batch(self, key: K, queue: BatchQueue[ThreadCall], batch: list[ThreadCall], sender: ThreadCall) -> None:
        """Send one batch; wake its callers, and the first waiting caller, which sends the next batch."""
        failure = None
        began_ns = perf_counter_ns()
        end = BatchEnd(batch, sender_ends_at_ms=math.inf if sender.end is None else sender.end.ends_at_ms)
        try:
            self._run_batch(key, end)
        except BaseException as error:
            failure = error
            if end.is_sent and not isinstance(error, Exception):
                # This thread was interrupted, and its attempt is in flight.
                settles_at_ms = self._monotonic_ms() + self._late_ms
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
                next_sender = queue.waiting[0] if queue.fills_batch() else None
            # The next sender comes first: no caller's own code delays its batch.
            wake_all([*([] if next_sender is None else [next_sender]), *(one for one in batch if one is not sender)])
            self._report(key, batch, began_ns, failure)
            failure = None  # its traceback refers to this frame

    def _requeue_unfinished(
        self, queue: BatchQueue[ThreadCall], batch: list[ThreadCall], end: BatchEnd[ThreadCall], sender: ThreadCall
    ) -> list[ThreadCall]:
        """Put the calls that still have time back in front of the queue, if this thread has none left to send them.

        An attempt that this thread has sent takes no effect unseen any more: its last moment has passed, or the next
        attempt waits for its lock.

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


class LoneCallStore(ThreadBatchingStore[K]):
    """A store whose callers are threads, and which sends a lone call without a batch."""

    @abc.abstractmethod
    def _send_one(self, key: K, request: Any, line: str, end: CallEnd | None) -> Any:
        """Send one command or question, and return its result. Raises as :meth:`_enqueue`."""

    def _ask(self, key: K, request: Any, line: str, end: CallEnd | None) -> Any:
        """Send a command or question at once if none waits, and queue it otherwise; return its result.

        Batches would take a fifth of the client's processor time for a lone call.

        Raises:
            BackendUnavailable: The store is closed, or as :meth:`_enqueue`.
            OutcomeUnknown: As :meth:`_enqueue`.
        """
        with self._lock:
            if self._closed:
                raise BackendUnavailable(CLOSED_ERROR)
            self._calls += 1
            queue = self._queues.get(key) or self._queue(key)
            is_lone = not queue.waiting and queue.fills_batch(1)
            if is_lone:
                queue.in_flight += 1
                queue.last_size = 1
        if not is_lone:
            try:
                return self._enqueue(key, request, line, end)
            finally:
                self._end_call()
        failure, observer = None, self._observer
        batch = () if observer is None else (ThreadCall(request, line, self._token(), end),)
        began_ns = perf_counter_ns()
        try:
            return self._send_one(key, request, line, end)
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._lock:
                queue.batch_done()
                next_sender = queue.waiting[0] if queue.fills_batch() else None
                self._calls -= 1
                if self._closed and not self._calls:
                    self._call_ended.notify_all()
            if next_sender is not None:
                next_sender.wake()
            if observer is not None:
                self._report(key, batch, began_ns, failure)
            failure = None  # its traceback refers to this frame
