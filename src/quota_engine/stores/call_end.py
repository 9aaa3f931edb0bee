"""The ends of calls: the time by which a call is answered, and by which nothing of it can take effect any more.

A driver carries the end of the call that it runs; an attempt's last moment lies before it. Calls that share a batch may
have different ends: before each attempt, the calls with too little time left are answered and leave the batch.
"""

from __future__ import annotations

__all__ = [
    "CALL_TIMEOUT_MS",
    "CALL_TIMEOUT_MS_BOUNDS",
    "CALL_TIMEOUT_MS_WITH_FAILOVER",
    "BatchEnd",
    "CallEnd",
    "EndingCall",
    "seconds_until",
]

import math
from typing import Final, Generic, Protocol, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown

CALL_TIMEOUT_MS: Final = 5_000
"""The time that a call has, with all attempts, unless its caller gives another end."""
CALL_TIMEOUT_MS_WITH_FAILOVER: Final = 10_000
"""The same, if another server may have to take over first."""
CALL_TIMEOUT_MS_BOUNDS: Final = (200, 3_600_000)
TIME_LEFT_MS_MIN: Final = 150
"""No attempt starts for a call with less time left: it would hardly reach the server before its last moment."""
COMMIT_MS_MIN: Final = 50
"""No commit is sent for a call with less time left, so that it does not take effect after the call's end."""


def seconds_until(at_ms: float, now_ms: float | None = None) -> float | None:
    """Return the seconds until a time of the monotonic clock, at least 0; ``None`` for infinity, as locks take it."""
    if at_ms == math.inf:
        return None
    return max(0.0, at_ms - (monotonic_ms() if now_ms is None else now_ms)) / 1000


class CallEnd:
    """The end of one call.

    Attributes:
        ends_at_ms: The end, by this process's monotonic clock in milliseconds.
        cut_at_ms: The time at which the thread that carries the call out stops, wherever it waits. For a batch it is
            the end of its sender: the other callers wait until their ends.
        is_sent: True if an attempt that writes may have been sent, and the server has not refused it.
        is_unknown: True if the reply to such an attempt was lost.
        was_lost: True if an earlier batch had sent the call, and its sender had no time left for the reply.
        reason: The error of the last attempt, or ``""``.
    """

    __slots__ = ("cut_at_ms", "ends_at_ms", "is_sent", "is_unknown", "reason", "was_lost")

    def __init__(self, ends_at_ms: float) -> None:
        self.ends_at_ms = self.cut_at_ms = ends_at_ms
        self.is_sent = self.is_unknown = self.was_lost = False
        self.reason = ""

    @property
    def size(self) -> int:
        """The number of calls."""
        return 1

    def allows_commit(self) -> bool:
        """Return True if a commit that is sent now takes effect before the end."""
        return self.ends_at_ms - monotonic_ms() >= COMMIT_MS_MIN

    def record_sent(self) -> None:
        """Note that an attempt that writes is being sent."""
        self.is_sent = True

    def record_unknown(self) -> None:
        """Note that the attempt that was sent last may have been applied."""
        self.is_sent = self.is_unknown = True

    def record_refused(self) -> None:
        """Note that the server has refused the attempt that was sent last, so that it was not applied."""
        self.is_sent = self.is_unknown

    def begin_attempt(self, now_ms: float) -> None:
        """Check that there is time for another attempt.

        Raises:
            BackendUnavailable: There is not, and none was sent.
            OutcomeUnknown: There is not, and one was sent.
        """
        if self.ends_at_ms - now_ms < TIME_LEFT_MS_MIN:
            raise self.error()

    def begin_sending(self, now_ms: float) -> None:
        """Check again just before the requests of the attempt are made. Raises as :meth:`begin_attempt`."""
        self.begin_attempt(now_ms)

    def error(self) -> BackendUnavailable | OutcomeUnknown:
        """Return the error of the call at its end."""
        reason = f" ({self.reason})" if self.reason else ""
        if self.is_sent:
            return OutcomeUnknown(
                f"the call's time is over before the store's answer{reason}; repeat it with the same key"
            )
        return BackendUnavailable(f"the call's time is over{reason}; nothing was applied")


class EndingCall(Protocol):
    """A call of a batch."""

    end: CallEnd | None
    line: str

    def is_done(self) -> bool:
        """Return True if the caller has a result or an error, or has given up."""
        ...

    def set_error(self, error: BaseException) -> None:
        """Give the caller an error to raise."""
        ...


C = TypeVar("C", bound=EndingCall)


class BatchEnd(CallEnd, Generic[C]):
    """The ends of the calls of a batch. The earliest one bounds the last moment of an attempt.

    Attributes:
        calls: The calls of the next attempt.
        lines: Their lines. The attempt reads this list when it is sent.
    """

    __slots__ = ("calls", "lines")

    def __init__(self, calls: list[C], sender_ends_at_ms: float = math.inf) -> None:
        """Begin a batch.

        Args:
            calls: Its calls.
            sender_ends_at_ms: The end of the thread that sends the batch, which makes no attempt later.
        """
        CallEnd.__init__(self, sender_ends_at_ms)  # super() takes more time, for each batch
        self.calls: list[C] = calls
        self.lines: list[str] = []
        if calls:
            self.set_calls(calls)

    @property
    def size(self) -> int:
        """The number of calls."""
        return len(self.lines)

    def set_calls(self, calls: list[C]) -> None:
        """Set the calls of the next attempt."""
        self.calls = calls
        self.lines[:] = [call.line for call in calls]
        earliest_ms = self.cut_at_ms
        for call in calls:
            end = call.end
            if end is not None and end.ends_at_ms < earliest_ms:
                earliest_ms = end.ends_at_ms
        self.ends_at_ms = earliest_ms

    def record_sent(self) -> None:
        """See :meth:`CallEnd.record_sent`."""
        self.is_sent = True
        for call in self.calls:
            if call.end is not None:
                call.end.is_sent = True

    def record_unknown(self) -> None:
        """See :meth:`CallEnd.record_unknown`."""
        self.is_sent = self.is_unknown = True
        for call in self.calls:
            if call.end is not None:
                call.end.is_sent = call.end.is_unknown = True

    def record_refused(self) -> None:
        """See :meth:`CallEnd.record_refused`."""
        self.is_sent = self.is_unknown
        for call in self.calls:
            if call.end is not None:
                call.end.is_sent = call.end.is_unknown

    def has_done_call(self) -> bool:
        """Return True if a call has a result or an error, or its caller has given up."""
        return any(call.is_done() for call in self.calls)

    def begin_attempt(self, now_ms: float) -> None:
        """Drop the calls whose callers have given up, and answer and drop those with too little time left.

        Raises:
            BackendUnavailable: No call is left, or the sender has too little time left, and nothing was sent.
            OutcomeUnknown: The same, and an attempt was sent.
        """
        if self.calls and self.ends_at_ms - now_ms >= TIME_LEFT_MS_MIN and not self.has_done_call():
            return  # nearly always
        kept = []
        for call in self.calls:
            if call.is_done():
                continue
            if call.end is not None and call.end.ends_at_ms - now_ms < TIME_LEFT_MS_MIN:
                call.end.reason = self.reason
                call.set_error(call.end.error())
            else:
                kept.append(call)
        if kept:
            self.set_calls(kept)
        if not kept or self.cut_at_ms - now_ms < TIME_LEFT_MS_MIN:
            raise self.error()
