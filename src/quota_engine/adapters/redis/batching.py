"""Which calls travel together. Pure: the sync and the async backend bring their own way of waiting.

Calls for one office that have queued up while earlier ones were under way go out as one script call. A lone call finds
nothing
under way, and goes at once.
"""

from __future__ import annotations

__all__ = ["Lane", "Limits"]

from collections import deque
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True):
    """Bounds of batching, for each office: commands in a batch, batches under way, and calls that wait."""

    batch_max: int = 128
    in_flight_max: int = 4
    waiting_max: int = 10_000


class Lane(Generic[T]):
    """The calls of one office: those that wait, and how many batches are under way."""

    __slots__ = ("in_flight", "limits", "waiting")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[T] = deque()
        self.in_flight = 0

    def is_full(self) -> bool:
        """Whether one more call would be too many."""
        return len(self.waiting) >= self.limits.waiting_max

    def may_go(self) -> bool:
        """Whether a batch can set out now."""
        return bool(self.waiting) and self.in_flight < self.limits.in_flight_max

    def set_out(self) -> list[T]:
        """The calls of the next batch, which is under way from now on: :meth:`arrived` must follow."""
        self.in_flight += 1
        waiting = self.waiting
        return [waiting.popleft() for _ in range(min(len(waiting), self.limits.batch_max))]

    def arrived(self) -> None:
        """A batch has its answer, or never will."""
        self.in_flight -= 1
