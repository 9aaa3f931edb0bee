"""Lower bounds of servers' clocks, and the waiting rule of a call whose reply was lost, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import MovedError, ReadOnlyError, ResponseError

from quota_engine.clocks import MARGIN_MS, REFRESH_MS, USABLE_MS, ServerClock
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.request_packing import words_of
from quota_engine.stores.redis.retrying_calls import (
    Attempt,
    Header,
    NotSent,
    ReplyLost,
    RetryPause,
    RetryPolicy,
    Router,
    call_script,
)
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS
from quota_engine.stores.redis.server_clock import ServerClocks

KEYS = keys_of("", "office")
VALID_MS = 1000
EPOCH_MS = 1_764_000_000_000
"""The server's time at the start."""


class Network:
    """Drives a call between a client and a server with manual clocks, and answers as the test says.

    Attributes:
        now_ms: the client's monotonic clock.
        server_ahead_ms: by how much the server's clock is ahead of it.
        did: the words of each attempt, and each pause.
        last_moments: the last moment of each script call, by the server's clock.
    """

    def __init__(self) -> None:
        self.now_ms = 5_000.0
        self.server_ahead_ms = EPOCH_MS - 5_000.0
        self.clocks = ServerClocks(lambda: self.now_ms)
        self.did: list[str] = []
        self.last_moments: list[int] = []

    @property
    def server_ms(self) -> int:
        return int(self.now_ms + self.server_ahead_ms)

    def run(self, *answers: Any, replicas: int = 0, attempts_max: int = 3) -> Any:
        """Run a call that writes. An answer is a reply, an error, or a length in milliseconds that passes before it."""
        policy = RetryPolicy(attempts_max=attempts_max, attempt_valid_ms=VALID_MS, replicas=replicas)
        call = call_script(OFFICE_COMMANDS, KEYS, Header(), (), policy, Router(), self.clocks, writes=True)
        left = list(answers)
        step = next(call)
        try:
            while True:
                if isinstance(step, RetryPause):
                    self.did.append(f"pause {step.duration_ms}")
                    self.now_ms += step.duration_ms
                    step = call.send([])
                    continue
                while left and isinstance(left[0], int):
                    self.now_ms += left.pop(0)
                assert isinstance(step, Attempt)
                replies = self._sent(step)
                if replies[-1] is None:
                    answer = left.pop(0)
                    if isinstance(answer, (NotSent, ReplyLost)):
                        step = call.throw(answer)
                        continue
                    replies[-1:] = answer if isinstance(answer, list) else [answer]
                step = call.send(replies)
        except StopIteration as end:
            return end.value

    def _sent(self, attempt: Attempt) -> list[Any]:
        """Take an attempt; return its replies, with ``None`` for that of the script."""
        replies: list[Any] = []
        words = []
        for request in attempt.requests(None):
            words.append(str(request[0]))
            if request[0] == "TIME":
                replies.append([str(self.server_ms // 1000), str(self.server_ms % 1000 * 1000)])
            elif request[0] != "WAIT":
                self.last_moments.append(int(words_of(request)[3 + len(KEYS)].removeprefix("<")))
                replies.append(None)
        self.did.append(" ".join(words))
        return replies


def test_bound_is_never_later_than_the_server() -> None:
    """The server read its clock before the reply arrived; the bound counts from the arrival."""
    clock = ServerClock()
    clock.record(EPOCH_MS, received_at_ms=70)  # read at 30, when the server was at EPOCH_MS
    assert clock.at(100) == EPOCH_MS + 30


def test_sample_replaces_the_one_before() -> None:
    """A clock that was set back is followed at once."""
    clock = ServerClock()
    clock.record(EPOCH_MS, 0)
    clock.record(EPOCH_MS - 60_000, 10)
    assert clock.at(10) == EPOCH_MS - 60_000


def test_samples_age() -> None:
    """A sample is renewed, and later not used: clocks drift apart."""
    clock = ServerClock()
    assert not clock.is_usable(0)
    clock.record(EPOCH_MS, 0)
    assert [clock.is_due(at) for at in (REFRESH_MS - 1, REFRESH_MS)] == [False, True]
    assert [clock.is_usable(at) for at in (USABLE_MS - 1, USABLE_MS)] == [True, False]
    clock.record(EPOCH_MS, 0)
    clock.forget()
    assert not clock.is_usable(0)


def test_first_call_asks_for_the_time() -> None:
    """Later calls carry a last moment without a question."""
    network = Network()
    assert network.run(["one"]) == "one"
    network.now_ms += 400
    assert network.run(["two"]) == "two"
    assert network.did == ["TIME", "EVALSHA", "EVALSHA"]
    assert network.last_moments == [EPOCH_MS + VALID_MS, EPOCH_MS + 400 + VALID_MS]


def test_old_sample_is_renewed_along_with_a_call() -> None:
    """TIME goes in front of the script on the same connection, and its reply is no reply of the script."""
    network = Network()
    network.run(["one"])
    network.now_ms += REFRESH_MS
    network.server_ahead_ms += 7
    assert network.run(["two"]) == "two"
    assert network.run(["three"]) == "three"
    assert network.did == ["TIME", "EVALSHA", "TIME EVALSHA", "EVALSHA"]
    assert network.last_moments[-1] - network.last_moments[-2] == 7


def test_after_a_lost_reply_the_next_attempt_waits_for_the_last_moment() -> None:
    """The copy in flight cannot run any more when the next attempt is sent."""
    network = Network()
    assert network.run(ReplyLost("cut"), 300, ["done"]) == "done"
    assert network.did == ["TIME", "EVALSHA", f"pause {VALID_MS + MARGIN_MS}", "TIME", "EVALSHA"]
    assert network.last_moments[0] < EPOCH_MS + VALID_MS + MARGIN_MS


def test_unknown_outcome_waits_for_the_last_moment() -> None:
    """The end of the call is final as well."""
    network = Network()
    began_ms = network.now_ms
    with pytest.raises(OutcomeUnknown):
        network.run(ReplyLost("cut"), attempts_max=1)
    assert network.now_ms >= began_ms + VALID_MS
    assert network.server_ms > network.last_moments[-1]


def test_redirection_by_the_only_server_is_no_certain_failure_after_a_lost_reply() -> None:
    """The address may have become a cluster's, and the attempt before may have been applied."""
    moved = MovedError("3 127.0.0.1:7000")
    with pytest.raises(BackendUnavailable, match="node of a cluster"):
        Network().run(moved)
    with pytest.raises(OutcomeUnknown, match="may have been applied"):
        Network().run(ReplyLost("cut"), moved)


def test_time_out_that_has_passed_needs_no_further_wait() -> None:
    """A reply that was awaited for longer than the attempt was valid."""
    network = Network()
    network.clocks.record(None, (EPOCH_MS // 1000, 0))

    class TimesOut(ReplyLost):
        def __init__(self) -> None:
            super().__init__("timed out")
            network.now_ms += VALID_MS + MARGIN_MS

    lost = [TimesOut]
    policy = RetryPolicy(attempts_max=2, attempt_valid_ms=VALID_MS, pause_ms_min=10)
    call = call_script(OFFICE_COMMANDS, KEYS, Header(), (), policy, Router(), network.clocks, writes=True)
    network._sent(next(call))  # type: ignore[arg-type]
    assert call.throw(lost.pop()()) == RetryPause(10)


@pytest.mark.parametrize("error", [ReadOnlyError("a replica"), NotSent("refused")])
def test_certain_failure_needs_no_wait(error: Exception) -> None:
    """Nothing is in flight."""
    network = Network()
    assert network.run(error, ["done"]) == "done"
    assert "pause 10" in network.did


def test_missing_replica_needs_no_wait() -> None:
    """The primary has run the script, so no copy is in flight; the time of the primary stays known."""
    network = Network()
    assert network.run(["done", 0], ["done", 1], replicas=1) == "done"
    assert network.did == ["TIME", "EVALSHA WAIT", "pause 10", "EVALSHA WAIT"]


def test_late_attempt_is_sent_again() -> None:
    """The server refused it whole, and its reply has the time."""
    network = Network()
    network.run(["one"])
    network.server_ahead_ms += 90_000  # the server's clock was set
    late = ResponseError(f"LATE {network.server_ms} script: f3, on @user_script:2.")
    assert network.run(late, ["two"]) == "two"
    assert network.did[-3:] == ["EVALSHA", "pause 10", "EVALSHA"]
    assert network.last_moments[-1] == EPOCH_MS + 90_000 + 10 + VALID_MS


def test_call_that_is_always_late_was_not_applied() -> None:
    """A certain answer: each attempt was refused whole."""
    network = Network()
    late = [ResponseError(f"LATE {EPOCH_MS + 100_000}") for _ in range(3)]
    with pytest.raises(BackendUnavailable, match="LATE"):
        network.run(*late)


def test_question_for_the_time_that_is_lost_is_no_unknown_outcome() -> None:
    """The script itself was never sent."""
    clocks = ServerClocks(lambda: 0.0)
    policy = RetryPolicy(attempts_max=1)
    call = call_script(OFFICE_COMMANDS, KEYS, Header(), (), policy, Router(), clocks, writes=True)
    assert isinstance(next(call), Attempt)
    assert call.throw(ReplyLost("cut")) == RetryPause(10)
    with pytest.raises(BackendUnavailable):
        call.send([])
