"""Transactions that ledgers share: the locks, entries and commit of several batches in two round trips.

A store with many busy ledgers would commit once for each. Batches that find transactions in flight wait here, and go
out together in one transaction of the next connection. Each batch keeps its own outcome: a batch that is refused,
restarted or out of time leaves the transaction, and the other batches commit. If the commit fails, each batch has the
error, and makes its next attempt alone.

A shared transaction never waits for a lock: it skips the ledgers that other transactions have locked. So it cannot
deadlock, and a ledger that another process keeps locked delays no other one.
"""

from __future__ import annotations

__all__ = ["Part", "PartQueue", "SharedEnd", "run_together"]

import contextlib
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Literal

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql.steps import (
    TIME_IS_OVER,
    CommitUnknown,
    NotShared,
    NotStarted,
    RolledBack,
    RoundTrip,
    Rows,
    SharedTransaction,
    Steps,
)

PARTS_MAX: Final = 256
"""Ledgers in one transaction."""
_TIME_LEFT_MS_MIN: Final = 500
"""A batch with less time left has a separate transaction, because it would end the shared one early."""
_ABANDONED: Final = "the call that carried out the transaction was interrupted"


class Part:
    """One ledger's part of a transaction.

    Attributes:
        end: The end of its batch, if it has one.
        step: The round trip that it waits for; ``None`` if it has ended.
        answer: The result of its steps.
        error: The error of its steps; that of an abandoned transaction until they have ended.
        leads: The parts of the transaction that this part's thread carries out, if it does so.
        wake: Wakes the thread or task that waits for this part.
    """

    __slots__ = ("_steps", "answer", "end", "error", "leads", "step", "wake")

    def __init__(self, request: SharedTransaction, end: CallEnd | None, wake: Callable[[], object]) -> None:
        """Take the part of one ledger.

        Args:
            request: Its steps, which this object begins.
            end: The end of its batch, if it has one.
            wake: Wakes the thread or task that waits, once the transaction has ended.
        """
        self.end = end
        self.wake = wake
        self.leads: list[Part] = []
        self.step: RoundTrip | None = None
        self.answer: list[Rows] = []
        self.error: Exception | None = NotStarted(_ABANDONED)
        self._steps: Generator[Any, list[Rows], list[Rows]] = request.steps()

    @property
    def ends_at_ms(self) -> float:
        """The end of the batch by the monotonic clock, in milliseconds; infinity without one."""
        return math.inf if self.end is None else self.end.ends_at_ms

    def begin(self) -> None:
        """Carry out the steps up to the first round trip."""
        self._run(lambda: next(self._steps))

    def begin_sending(self, now_ms: float) -> bool:
        """Let calls join that have arrived while the part waited; return False if no call has time left."""
        try:
            if self.end is not None:
                self.end.begin_sending(now_ms)
        except (BackendUnavailable, OutcomeUnknown):  # raised again at the beginning of the separate transaction
            return False
        return True

    def proceed(self, rows: list[Rows]) -> None:
        """Answer the round trip. A rollback is answered at once: this part has written nothing yet."""
        self._run(lambda: self._steps.send(rows))

    def fail(self, error: Exception) -> None:
        """Raise an error at the round trip. Each part has its own copy, because each adds its own traceback."""
        copy = type(error)(*error.args)
        copy.__cause__ = error
        self._run(lambda: self._steps.throw(copy))

    def _run(self, resume: Callable[[], Any]) -> None:
        self.step = None
        try:
            step = resume()
            while step.end == "rollback":
                step = self._steps.send([[] for _ in step.statements])
        except StopIteration as end:
            self.answer, self.error = end.value, None
        except Exception as error:  # raised again in the part's own call
            self.error = error
        else:
            self.step = step


class SharedEnd(CallEnd):
    """The end of a shared transaction: the earliest one of its parts.

    Attributes:
        parts: Its parts; for the commit, those that commit.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take the parts that have enough time left, so that no other part ends early because of them.

        Calls that have arrived while a part waited join its batch.

        Args:
            parts: The parts. Those with little time left need a separate transaction.
        """
        now_ms = monotonic_ms()
        self.parts: list[Part] = []
        for part in parts:
            if part.begin_sending(now_ms) and part.ends_at_ms - now_ms >= _TIME_LEFT_MS_MIN:
                self.parts.append(part)
            else:
                part.fail(NotShared())
        super().__init__(min((part.ends_at_ms for part in self.parts), default=math.inf))

    def record_sent(self) -> None:
        """See :meth:`CallEnd.record_sent`."""
        self.is_sent = True
        for part in self.parts:
            if part.end is not None:
                part.end.record_sent()


def run_together(end: SharedEnd) -> Steps[None]:
    """Carry out the parts in one transaction. Each has an answer or an error afterwards, also after an interrupt."""
    parts = end.parts
    try:
        for part in parts:
            part.begin()
        is_open = False
        while waiting := [part for part in parts if part.step is not None and not part.step.end]:
            is_open = yield from _round_trip(parts, waiting, begin=not is_open)
        for part in parts:
            if part.step is not None and part.end is not None and not part.end.allows_commit():
                part.fail(RolledBack(TIME_IS_OVER))
        end.parts = [part for part in parts if part.step is not None]
        if end.parts:
            yield from _round_trip(parts, end.parts, end="commit")
        elif is_open:
            with contextlib.suppress(Exception):  # all parts have their answers, which were true under the locks
                yield RoundTrip((), end="rollback")
    finally:
        for part in parts:
            if part.step is not None:
                part.fail((CommitUnknown if end.is_sent else RolledBack)(_ABANDONED))


def _round_trip(
    parts: Sequence[Part], waiting: Sequence[Part], *, begin: bool = False, end: Literal["", "commit"] = ""
) -> Steps[bool]:
    """Make one round trip for several parts, and return True if it succeeded.

    An error undoes the transaction, so all parts that have not ended have the error.
    """
    statements = tuple(statement for part in waiting if part.step is not None for statement in part.step.statements)
    try:
        rows = yield RoundTrip(statements, begin=begin, end=end)
    except Exception as error:
        for part in parts:
            if part.step is not None:
                part.fail(error)
        return False
    start = 0
    for part in waiting:
        if part.step is not None:
            stop = start + len(part.step.statements)
            part.proceed(rows[start:stop])
            start = stop
    return True


class PartQueue:
    """The parts that wait for the next transaction, and the number of transactions in flight.

    Attributes:
        waiting: The parts, in order of arrival.
    """

    __slots__ = ("_in_flight", "_in_flight_max", "waiting")

    def __init__(self, in_flight_max: int) -> None:
        """Create an empty queue.

        Args:
            in_flight_max: Transactions at a time. Parts that come meanwhile wait, and share the next one.
        """
        self.waiting: deque[Part] = deque()
        self._in_flight = 0
        self._in_flight_max = in_flight_max

    def begin(self) -> bool:
        """Count a transaction as in flight; return False if a part must wait instead."""
        if self._in_flight >= self._in_flight_max or self.waiting:
            return False
        self._in_flight += 1
        return True

    def take(self) -> list[Part]:
        """Return the parts of the next transaction, which counts as in flight; none if it may not begin yet."""
        if self._in_flight >= self._in_flight_max or not self.waiting:
            return []
        self._in_flight += 1
        return [self.waiting.popleft() for _ in range(min(len(self.waiting), PARTS_MAX))]

    def end(self) -> None:
        """Count a transaction as no longer in flight."""
        self._in_flight -= 1
