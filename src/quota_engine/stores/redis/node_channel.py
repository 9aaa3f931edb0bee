"""Attempts on their way to one server. No I/O.

The number of writes in flight is bounded for each server, not for each ledger. While the server is busy, batches of
many ledgers wait here and grow. When a write has been answered, attempts of several ledgers travel in the next one. A
lone attempt finds the channel idle and is sent at once.
"""

from __future__ import annotations

__all__ = ["NodeChannel", "WaitingAttempt"]

import asyncio
from collections import deque
from typing import Any, Final, NamedTuple

from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.redis.retrying_calls import Attempt

_WRITES_MAX: Final = 2
"""Writes in flight to one server: it works on one while this process handles the replies of the other.

With 500 callers at 125 offices, four writes made batches of 2.4 commands, two made 4.2, and one left the server idle.
"""

_ATTEMPTS_MAX: Final = 32
"""Attempts in one write. More would make the first callers of a write wait for the last, and save nothing."""


class WaitingAttempt(NamedTuple):
    """An attempt that waits for its turn.

    Attributes:
        attempt: The attempt.
        end: The end of the calls that it is for, if they have one.
        replies: The future that gets its replies or its error.
    """

    attempt: Attempt
    end: CallEnd | None
    replies: asyncio.Future[list[Any]]


class NodeChannel:
    """The writes in flight to one server, and the attempts that wait for one.

    Attempts leave in the order in which they came. A ledger has at most one batch among them, so a busy ledger
    does not delay calls at another one.
    """

    __slots__ = ("_in_flight", "_waiting")

    def __init__(self) -> None:
        self._in_flight = 0
        self._waiting: deque[WaitingAttempt] = deque()

    def try_begin(self) -> bool:
        """Count another write as in flight and return True, unless the server is busy."""
        if self._in_flight >= _WRITES_MAX or self._waiting:
            return False
        self._in_flight += 1
        return True

    def wait(self, waiting: WaitingAttempt) -> None:
        """Add an attempt that waits."""
        self._waiting.append(waiting)

    def take(self) -> list[WaitingAttempt]:
        """Return the attempts of the next write, without those whose callers have given up.

        An empty list ends the write that the caller had in flight.
        """
        taken: list[WaitingAttempt] = []
        while self._waiting and len(taken) < _ATTEMPTS_MAX:
            one = self._waiting.popleft()
            if not one.replies.done():
                taken.append(one)
        if not taken:
            self._in_flight -= 1
        return taken
