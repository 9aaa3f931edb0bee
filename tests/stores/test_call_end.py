"""The ends of calls that share a batch."""

from __future__ import annotations

import pytest

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.call_end import TIME_LEFT_MS_MIN, BatchEnd, CallEnd


class Waiting:
    """A call of a batch."""

    def __init__(self, line: str, ends_at_ms: float | None) -> None:
        self.line = line
        self.end = None if ends_at_ms is None else CallEnd(ends_at_ms)
        self.error: BaseException | None = None
        self.has_given_up = False

    def is_done(self) -> bool:
        return self.has_given_up or self.error is not None

    def set_error(self, error: BaseException) -> None:
        self.error = error


def test_earliest_end_bounds_the_attempt() -> None:
    end = BatchEnd([Waiting("a", None), Waiting("b", 900), Waiting("c", 700)])
    assert end.ends_at_ms == 700


def test_call_without_time_is_answered_before_the_batch_is_sent() -> None:
    late, other = Waiting("late", 100), Waiting("other", 5_000)
    end = BatchEnd([late, other])
    end.begin_attempt(0)
    assert isinstance(late.error, BackendUnavailable)
    assert (end.lines, end.calls, end.ends_at_ms) == (["other"], [other], 5_000)


def test_call_whose_time_is_over_is_not_sent_again() -> None:
    """The attempt before may have been applied; the other calls of the batch continue."""
    short, long, endless = Waiting("short", 1_000), Waiting("long", 9_000), Waiting("endless", None)
    end = BatchEnd([short, long, endless])
    end.begin_attempt(0)
    end.record_sent()
    end.begin_attempt(1_000 - TIME_LEFT_MS_MIN + 1)
    assert isinstance(short.error, OutcomeUnknown)
    assert end.lines == ["long", "endless"]


def test_command_of_a_cancelled_caller_is_not_sent_again() -> None:
    """It may take effect only by the attempt in flight."""
    gone, other = Waiting("gone", None), Waiting("other", None)
    end = BatchEnd([gone, other])
    end.begin_attempt(0)
    end.record_sent()
    gone.has_given_up = True
    end.begin_attempt(10)
    assert end.lines == ["other"]


def test_command_of_a_cancelled_caller_is_not_sent() -> None:
    """The caller gave up while the batch waited for a connection."""
    gone, other = Waiting("gone", None), Waiting("other", None)
    end = BatchEnd([gone, other])
    gone.has_given_up = True
    end.begin_attempt(0)
    assert end.lines == ["other"]


def test_batch_without_calls_ends() -> None:
    gone = Waiting("gone", None)
    end = BatchEnd([gone])
    end.record_sent()
    gone.has_given_up = True
    with pytest.raises(OutcomeUnknown):
        end.begin_attempt(10)


def test_single_call_ends() -> None:
    end = CallEnd(1_000)
    end.begin_attempt(1_000 - TIME_LEFT_MS_MIN)
    with pytest.raises(BackendUnavailable):
        end.begin_attempt(1_000 - TIME_LEFT_MS_MIN + 1)
    end.record_sent()
    with pytest.raises(OutcomeUnknown):
        end.begin_attempt(2_000)
