"""The sizes of batches, and the wake-up of their callers."""

from __future__ import annotations

import pytest

from quota_engine.stores.batching import BatchLimits, BatchQueue
from quota_engine.stores.thread_batching import ThreadCall, wake_all
from quota_engine.stores.thread_signal import LockSignal


def queue_of(calls: int, limits: BatchLimits = BatchLimits()) -> BatchQueue[int]:  # noqa: B008 - immutable
    """Return a queue in which this many calls wait."""
    queue: BatchQueue[int] = BatchQueue(limits)
    queue.waiting.extend(range(calls))
    return queue


def test_two_batches_share_the_calls_that_wait() -> None:
    queue = queue_of(15)
    assert queue.take_share() == [*range(8)]
    assert not queue.fills_batch(), "seven are fewer than the eight in flight"
    assert queue.fills_batch(1)
    queue.batch_done()
    assert queue.fills_batch(), "none is in flight"


def test_a_second_batch_is_at_least_as_large_as_the_first() -> None:
    queue = queue_of(16)
    assert queue.take_share() == [*range(8)]
    assert queue.fills_batch()
    assert queue.take_share() == [*range(8, 16)]
    queue.waiting.extend(range(100))
    assert not queue.fills_batch(), "two batches are in flight"


def test_one_batch_in_flight_takes_all_calls() -> None:
    queue = queue_of(15, BatchLimits(batch_max=10, in_flight_max=1))
    assert queue.take_share() == [*range(10)]
    assert not queue.fills_batch(10)
    queue.batch_done()
    assert queue.take_share() == [*range(10, 15)]


def test_an_empty_queue_fills_no_batch() -> None:
    assert not queue_of(0).fills_batch()
    assert queue_of(0).fills_batch(1)


def test_an_interrupted_waker_leaves_no_caller_asleep() -> None:
    class Signal(LockSignal):
        """A signal whose first setter is interrupted before it sets it."""

        is_interrupted = False

        def set(self) -> None:
            if not self.is_interrupted:
                self.is_interrupted = True
                raise KeyboardInterrupt
            super().set()

    calls = [ThreadCall(number, "", None, None) for number in range(3)]
    signals = [LockSignal(), Signal(), LockSignal()]
    for call, signal in zip(calls, signals, strict=True):
        call.woken = signal
    with pytest.raises(KeyboardInterrupt):
        wake_all(calls)
    assert [signal.wait(0) for signal in signals] == [True] * 3
