"""Threads share the writes to one server: one of those that wait sends the attempts of all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.node_channel import _WRITES_MAX, WaitingAttempt
from quota_engine.stores.redis.retrying_calls import Attempt
from quota_engine.stores.redis.thread_channel import ThreadChannel, ThreadReplies
from tests.support.servers import Server

WAIT_S = 30


class Caller(threading.Thread):
    """A thread with one attempt. Its writes wait for the gate, if there is one.

    Attributes:
        replies: The replies to its attempt.
        sent: The attempts of its writes.
        is_served: The result of :meth:`ThreadChannel.exchange`.
        error: The error that it raised.
    """

    def __init__(
        self,
        channel: ThreadChannel,
        gate: threading.Event | None = None,
        *,
        is_interrupted: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self.replies = ThreadReplies()
        self.sent: list[int] = []
        self.is_served: bool | None = None
        self.error: BaseException | None = None
        self._channel, self._gate, self._left_s = channel, gate, float(WAIT_S)
        self._is_interrupted = is_interrupted
        self.start()

    def give_up(self) -> None:
        """End its time, and wake it."""
        self._left_s = 0
        self.replies.wake()

    def run(self) -> None:
        waiting = WaitingAttempt(Attempt(None, lambda _: ()), None, self.replies)
        try:
            self.is_served = self._channel.exchange(waiting, self._send, lambda: self._left_s)
        except BaseException as error:
            self.error = error

    def _send(self, taken: list[WaitingAttempt[ThreadReplies]]) -> None:
        self.sent.append(len(taken))
        if self._gate is not None:
            assert self._gate.wait(WAIT_S)
        for one in taken:
            one.replies.set_result([])
        if self._is_interrupted:
            raise KeyboardInterrupt


def until(holds: Callable[[], Any], what: str) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: It does not hold in time.
    """
    for _ in range(WAIT_S * 200):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError(f"waited in vain for {what}")


def busy(channel: ThreadChannel, gate: threading.Event) -> list[Caller]:
    """Return callers whose writes are in flight, as many as there may be."""
    callers = [Caller(channel, gate) for _ in range(_WRITES_MAX)]
    until(lambda: all(one.sent for one in callers), "the writes in flight")
    return callers


def waiting_in(channel: ThreadChannel) -> int:
    return len(channel._channel._waiting)


def test_one_thread_sends_the_attempts_of_all_that_wait() -> None:
    channel, gate = ThreadChannel(), threading.Event()
    callers = busy(channel, gate)
    callers += [Caller(channel) for _ in range(20)]
    until(lambda: waiting_in(channel) == 20, "twenty attempts that wait")
    gate.set()
    for one in callers:
        one.join(WAIT_S)
    assert all(one.is_served for one in callers)
    writes = [size for one in callers for size in one.sent]
    assert sum(writes) == _WRITES_MAX + 20
    assert len(writes) <= _WRITES_MAX + 8, "each write takes at least a third of what waits"


def test_a_thread_that_gives_up_leaves_no_other_waiting() -> None:
    """It is the first that waits, so the end of a write would wake it."""
    channel, gate = ThreadChannel(), threading.Event()
    callers = busy(channel, gate)
    hurried = Caller(channel)
    until(lambda: waiting_in(channel) == 1, "the one in a hurry to wait")
    patient = Caller(channel)
    until(lambda: waiting_in(channel) == 2, "the patient one to wait")
    hurried.give_up()
    hurried.join(WAIT_S)
    assert hurried.is_served is False
    gate.set()
    for one in (*callers, patient):
        one.join(WAIT_S)
    assert patient.is_served
    assert (hurried.sent, hurried.replies.replies) == ([], None)


def test_an_interrupted_sender_leaves_no_thread_waiting() -> None:
    channel, gate = ThreadChannel(), threading.Event()
    callers = busy(channel, gate)
    sender = Caller(channel, is_interrupted=True)
    until(lambda: waiting_in(channel) == 1, "the sender to wait")
    others = [Caller(channel) for _ in range(3)]
    until(lambda: waiting_in(channel) == 4, "the others to wait")
    gate.set()
    for one in (*callers, sender, *others):
        one.join(WAIT_S)
    assert all(one.is_served for one in (*callers, *others))
    assert sender.is_served or isinstance(sender.error, KeyboardInterrupt)


@pytest.mark.store
def test_threads_at_many_offices_share_writes(valkey_server: Server) -> None:
    """While the server is busy, forty threads send their calls at as many offices in a few writes."""
    options = "attempt_valid_ms=60000&timeout_ms=60000&call_timeout_ms=60000"  # a busy machine starts them in seconds
    store = open_store(f"{valkey_server.url}?{options}", ManualClock(OPENS_AT_MS))
    offices = [f"office-{number}" for number in range(40)]
    for office in offices:
        store.execute(ApplyMany(office, published()))
    statuses: list[Status] = []
    before = int(valkey_server.info("stats")["total_reads_processed"])
    valkey_server.pause()
    threads = [
        threading.Thread(target=lambda office=office: statuses.append(store.apply(office, reserve("k", ONLINE)).status))
        for office in offices
    ]
    for thread in threads:
        thread.start()
    until(lambda: sum(map(waiting_in, store._channels.values())) == 40 - _WRITES_MAX, "the other calls to wait")
    valkey_server.resume()
    for thread in threads:
        thread.join(WAIT_S)
    assert statuses == [Status.HELD] * 40
    assert int(valkey_server.info("stats")["total_reads_processed"]) - before <= 20
    for office in offices:
        assert store.execute(Audit(office)) == []
    store.close()
