"""Queues of calls that share a call to the store. No I/O: the sync and the async stores add how a caller waits.

Calls for one ledger that are queued while earlier ones are in flight go out as one batch. A lone call finds
nothing in flight and is sent at once.
"""

from __future__ import annotations

__all__ = ["BATCH_QUEUES_MAX", "BatchLimits", "BatchQueue", "copy_error"]

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown

T = TypeVar("T")

_SPLIT_MIN: Final = 32
"""Calls from which two batches take less time than one: the process handles one while the server works on the other."""

BATCH_QUEUES_MAX: Final = 4096
"""Above this number, idle queues are dropped. Callers may name offices that do not exist."""


class BatchLimits(msgspec.Struct, frozen=True):
    """Limits of one batch queue.

    Attributes:
        batch_max: Commands in one batch.
        in_flight_max: Batches in flight at a time. With two, the server works on one while the callers of the other
            one get their results. More make them smaller.
        waiting_max: Calls that wait; a further call is refused.
    """

    batch_max: int = 128
    in_flight_max: int = 2
    waiting_max: int = 10_000


class BatchQueue(Generic[T]):
    """The waiting calls of one ledger and kind of call, and the number of their batches in flight.

    Attributes:
        has_abandoned: True if callers have given up since the last :meth:`drop_abandoned`.
        has_waiting_batch: True while a batch waits to be sent. Its calls wait in the queue, and further ones may join.
        last_size: Calls in the last batch.
    """

    __slots__ = ("has_abandoned", "has_waiting_batch", "in_flight", "last_size", "limits", "waiting")

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.waiting: deque[T] = deque()
        self.in_flight = 0
        self.has_abandoned = False
        self.has_waiting_batch = False
        self.last_size = 0

    def drop_abandoned(self, is_abandoned: Callable[[T], bool]) -> None:
        """Remove calls whose callers have given up. Scans the whole queue; call it when the queue is full."""
        if self.has_abandoned:
            self.has_abandoned = False
            self.waiting = deque(one for one in self.waiting if not is_abandoned(one))

    def is_full(self) -> bool:
        """Return True if another call would exceed the limit of waiting calls."""
        return len(self.waiting) >= self.limits.waiting_max

    def can_send(self) -> bool:
        """Return True if calls wait and another batch may be in flight."""
        return bool(self.waiting) and self.in_flight < self.limits.in_flight_max and not self.has_waiting_batch

    def fills_batch(self, more: int = 0) -> bool:
        """Return True if the waiting calls, and this many more, may be sent and are a batch as large as the last one.

        While a large batch is in flight, its callers and others return soon. Together they make another large one.
        """
        size = len(self.waiting) + more
        in_flight, limits = self.in_flight, self.limits
        return size > 0 and (not in_flight or (in_flight < limits.in_flight_max and size >= self.last_size))

    def take_share(self) -> list[T]:
        """Return the next batch: half of the waiting calls if none is in flight, else all of them.

        The server works on one half while the callers of the other one get their results.
        """
        waiting, limits = self.waiting, self.limits
        size = len(waiting)
        if not self.in_flight and limits.in_flight_max > 1:
            size = -(-size // 2)
        self.in_flight += 1
        batch = [waiting.popleft() for _ in range(min(size, limits.batch_max))]
        self.last_size = len(batch)
        return batch

    def can_split(self) -> bool:
        """Return True if the waiting calls are enough for two batches that the server works on in turn."""
        return _SPLIT_MIN <= len(self.waiting) < 2 * self.limits.batch_max and self.limits.in_flight_max > 1

    def take(self, size: int) -> list[T]:
        """Return the first calls that wait, at most this many."""
        waiting = self.waiting
        if len(waiting) > size:
            return [waiting.popleft() for _ in range(size)]
        calls = list(waiting)
        waiting.clear()
        return calls

    def batch_done(self) -> None:
        """Count a batch as no longer in flight."""
        self.in_flight -= 1

    def is_idle(self) -> bool:
        """Return True if no call waits and no batch is in flight."""
        return not self.waiting and not self.in_flight


def copy_error(error: BaseException, abandoned: type[Exception] = OutcomeUnknown) -> Exception:
    """Copy the sender's error for another caller of its batch.

    One exception object raised in several threads or tasks mixes their tracebacks.

    Args:
        error: The error of the sender.
        abandoned: The type of the copy if the sender was interrupted, which is not an error of the other callers.
    """
    kind = type(error) if isinstance(error, BackendUnavailable | OutcomeUnknown) else abandoned
    text = str(error)
    if not text:
        text = f"another caller had sent this call for both and was interrupted ({type(error).__name__}); "
        text += "ask again" if kind is BackendUnavailable else "it may have been applied: repeat it with the same key"
    copy = kind(text)
    copy.__cause__ = error
    return copy
