"""Which calls travel together. Pure: the sync and the async backend bring their own way of waiting.

Calls for one office that have queued up while earlier ones were under way go out as one script call. A lone call finds
nothing
under way, and goes at once.
"""

from __future__ import annotations

__all__ = ["BATCH_QUEUES_MAX", "BatchLimits", "BatchQueue", "copy_error"]

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown

T = TypeVar("T")

BATCH_QUEUES_MAX: Final = 4096
"""With more than this, those that nobody uses are dropped: not every office that is named exists."""


class BatchLimits(msgspec.Struct, frozen=True):
    """Bounds of batching, for each office: commands in a batch, batches under way, and calls that wait."""

    batch_max: int = 128
    in_flight_max: int = 4
    waiting_max: int = 10_000


class BatchQueue(Generic[T]):
    """The calls of one office: those that wait, and how many batches are under way."""

    __slots__ = ("has_abandoned", "in_flight", "limits", "waiting")

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.waiting: deque[T] = deque()
        self.in_flight = 0
        self.has_abandoned = False
        """Whether calls have been given up since the last look: some that wait may be of no use to anybody."""

    def drop_abandoned(self, is_over: Callable[[T], bool]) -> None:
        """Let those that are over wait no longer, so that they do not take the place of others. It looks at all of
        them: call it when the lane is full.
        """
        if self.has_abandoned:
            self.has_abandoned = False
            self.waiting = deque(one for one in self.waiting if not is_over(one))

    def is_full(self) -> bool:
        """Whether one more call would be too many."""
        return len(self.waiting) >= self.limits.waiting_max

    def can_send(self) -> bool:
        """Whether a batch can set out now."""
        return bool(self.waiting) and self.in_flight < self.limits.in_flight_max

    def take_batch(self) -> list[T]:
        """The calls of the next batch, which is under way from now on: :meth:`arrived` must follow."""
        self.in_flight += 1
        waiting = self.waiting
        return [waiting.popleft() for _ in range(min(len(waiting), self.limits.batch_max))]

    def batch_done(self) -> None:
        """A batch has its answer, or never will."""
        self.in_flight -= 1

    def is_idle(self) -> bool:
        """Whether nobody uses it."""
        return not self.waiting and not self.in_flight


def copy_error(error: BaseException, lost: type[Exception] = OutcomeUnknown) -> Exception:
    """What the others in a batch are told of an error that its carrier met: an error of their own each, because one
    object raised in several threads or tasks would mix up their tracebacks. What interrupted the carrier is not theirs:
    they are told what ``lost`` says.
    """
    kind = type(error) if isinstance(error, BackendUnavailable | OutcomeUnknown) else lost
    copy = kind(str(error) or f"the call was given up half way ({type(error).__name__}); ask again with the same key")
    copy.__cause__ = error
    return copy
