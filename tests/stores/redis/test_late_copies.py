"""Late copies: a network delivers a request after its caller has a final answer from a later attempt.

A proxy keeps the first copy of a command, and the client sends it again on another connection. The copy arrives when
everything is over, and must change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import DAY, HOLD_TTL_MS, NEXT_DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import CloseDay, Command, Confirm, OpenDay, Release, Reschedule, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import (
    ApplyMany,
    Audit,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    ListConsumerGroups,
    Lookup,
    Reconcile,
    StoreRequest,
    View,
)
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.retrying_calls import Attempt
from quota_engine.stores.redis.sync_store import RedisStore
from quota_engine.stores.thread_batching import ThreadCall
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import Server

VALID_MS = 150
"""The time that an attempt has. Short, because each late copy costs a wait of this length."""


TIME_MS = 600
"""The time of a call that ends. A machine may stop this process for most of it before the call is sent."""
SOCKET_MS = 20_000
"""The time-out of a connection, which ends a call that does not end by itself."""


class World:
    """An office, a client whose requests may be held by a proxy, and another client without a proxy.

    Attributes:
        proxy: holds requests of the client.
        clock: the time of the commands.
        direct: the other client.
    """

    def __init__(self, server: Server, proxy: LossyProxy, kind: str) -> None:
        self.proxy = proxy
        self.clock = ManualClock(OPENS_AT_MS)
        self.direct: RedisStore = open_store(server.url, self.clock)
        rules = published(identity_limits=(), reschedules_max=9)
        self.direct.execute(ApplyMany(OFFICE, (*rules, SetCapacity(DAY, "online", 1))))
        url = f"{proxy.url}?attempt_valid_ms={VALID_MS}&timeout_ms={SOCKET_MS}"
        self._runner = asyncio.Runner() if kind == "async" else None
        self._store: Any = (
            self._wait(open_async_store(url, self.clock)) if self._runner else open_store(url, self.clock)
        )

    def apply(self, command: Command, timeout_ms: int | None = None) -> Outcome:
        """Apply a command through the proxy."""
        ends_at_ms = None if timeout_ms is None else monotonic_ms() + timeout_ms
        outcome: Outcome = self._wait(self._store.apply(OFFICE, command, ends_at_ms=ends_at_ms))
        return outcome

    def execute(self, request: StoreRequest[Any], timeout_ms: int | None = None) -> Any:
        """Answer a request through the proxy."""
        ends_at_ms = None if timeout_ms is None else monotonic_ms() + timeout_ms
        return self._wait(self._store.execute(request, ends_at_ms=ends_at_ms))

    def apply_with_late_copy(self, command: Command, meanwhile: Callable[[], object] = lambda: None) -> Outcome:
        """Apply a command whose first copy is held; ``meanwhile`` comes before the client sends it again."""
        self.proxy.on_hold = meanwhile  # type: ignore[assignment]
        self.proxy.holds = 1
        outcome = self.apply(command)
        assert self.proxy.holds == 0
        return outcome

    def deliver_late(self) -> None:
        """Deliver the held copy; the server must refuse it."""
        (reply,) = self.proxy.deliver_late()
        assert reply.startswith(b"-LATE "), reply
        assert self.direct.execute(Audit(OFFICE)) == []

    def capacity(self, quota: str = "online") -> int:
        """The capacity of a quota of the day."""
        (view,) = self.direct.execute(View(OFFICE, (DAY,)))
        return view.quotas[quota].capacity

    def close(self) -> None:
        self._wait(self._store.close())
        if self._runner is not None:
            self._runner.close()
        self.direct.close()

    def _wait(self, answer: Any) -> Any:
        return answer if self._runner is None else self._runner.run(answer)


def apply_until_held(proxy: LossyProxy, apply: Callable[[], object]) -> None:
    """Call ``apply`` until the proxy holds its command, so that its outcome is unknown.

    A call may fail before, because a machine stopped this process until it was too late to send the command.
    """
    proxy.holds = 1
    for _ in range(50):
        try:
            apply()
        except OutcomeUnknown:
            return
        except BackendUnavailable:
            assert proxy.holds == 1
    raise AssertionError("the command was never sent")


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def proxy(server: Server) -> Iterator[LossyProxy]:
    with LossyProxy(server.socket_path) as proxy:
        yield proxy


@pytest.fixture(params=["sync", "async"])
def world(server: Server, proxy: LossyProxy, request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(server, proxy, request.param)
    yield world
    world.close()


def test_sold_out_stays_sold_out(world: World) -> None:
    """The applicant got SOLD_OUT, so the place that is free now is the next visitor's."""
    outcome = world.apply_with_late_copy(
        reserve("ani", ONLINE), lambda: world.direct.apply(OFFICE, reserve("budi", ONLINE))
    )
    assert outcome.status is Status.SOLD_OUT
    world.direct.apply(OFFICE, Release("budi"))
    world.deliver_late()
    assert world.direct.execute(Lookup(OFFICE, "ani")) is None
    assert world.direct.apply(OFFICE, reserve("citra", ONLINE)).status is Status.HELD


def test_expired_hold_is_not_confirmed_later(world: World) -> None:
    """The applicant got HOLD_EXPIRED; a late copy of the confirm takes no new units."""
    world.apply(reserve("ani", ONLINE))
    world.clock.advance_ms(HOLD_TTL_MS)
    outcome = world.apply_with_late_copy(
        Confirm("ani", reacquire=True), lambda: world.direct.apply(OFFICE, reserve("budi", ONLINE))
    )
    assert outcome.status is Status.HOLD_EXPIRED
    world.direct.apply(OFFICE, Release("budi"))
    world.deliver_late()
    record = world.direct.execute(Lookup(OFFICE, "ani"))
    assert record is not None
    assert record.state is State.EXPIRED


def test_reservation_stays_where_it_was_moved_last(world: World) -> None:
    """It was moved to the next day and back again; a late copy of the first move changes nothing."""
    world.apply(reserve("ani", ONLINE))
    assert world.apply_with_late_copy(Reschedule("ani", NEXT_DAY, ONLINE)).status is Status.HELD
    assert world.apply(Reschedule("ani", DAY, ONLINE)).status is Status.HELD
    world.deliver_late()
    record = world.direct.execute(Lookup(OFFICE, "ani"))
    assert record is not None
    assert record.day == DAY


def test_capacity_stays_as_it_was_set_last(world: World) -> None:
    """The operator set 40, then 5; a late copy of the first command does not make it 40 again."""
    assert world.apply_with_late_copy(SetCapacity(DAY, "online", 40)).status is Status.DONE
    assert world.apply(SetCapacity(DAY, "online", 5)).status is Status.DONE
    world.deliver_late()
    assert world.capacity() == 5


@pytest.mark.parametrize(("first", "second"), [(CloseDay(DAY), OpenDay(DAY)), (OpenDay(DAY), CloseDay(DAY))])
def test_day_stays_as_it_was_left(world: World, first: Command, second: Command) -> None:
    """A day that was closed and opened again stays open; one that was opened and closed again stays closed."""
    if isinstance(first, OpenDay):
        world.apply(CloseDay(DAY))
    assert world.apply_with_late_copy(first).status is Status.DONE
    assert world.apply(second).status is Status.DONE
    world.deliver_late()
    (view,) = world.direct.execute(View(OFFICE, (DAY,)))
    assert view.closed is isinstance(second, CloseDay)


def test_deleted_consumer_group_stays_deleted(world: World) -> None:
    """A late copy of its creation does not create it again, where it would keep events from being trimmed."""
    world.proxy.holds = 1
    assert world.execute(CreateConsumerGroup(OFFICE, "billing", 0)) is True
    assert world.execute(DeleteConsumerGroup(OFFICE, "billing")) is True
    world.deliver_late()
    assert world.direct.execute(ListConsumerGroups(OFFICE)) == []


def test_reconciled_office_stays_open(world: World, server: Server) -> None:
    """A late copy of the step that closes the office does not close it again to clients that check the fence."""
    world.proxy.holds = 1
    world.execute(Reconcile(OFFICE))
    world.deliver_late()
    with closing(open_store(f"{server.url}?fence=auto&attempts_max=2", world.clock)) as store:
        assert store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD


def test_unknown_outcome_is_settled_when_it_is_reported(server: Server, proxy: LossyProxy) -> None:
    """The caller gets the error only when no copy can run any more."""
    world = World(server, proxy, "sync")
    with closing(open_store(f"{proxy.url}?attempt_valid_ms={VALID_MS}&attempts_max=1", world.clock)) as store:
        with contextlib.suppress(BackendUnavailable):  # on a machine that stopped this process for too long
            store.apply(OFFICE, Release("nobody"))
        began_s = 0.0

        def apply() -> None:
            nonlocal began_s
            began_s = time.monotonic()
            store.apply(OFFICE, SetCapacity(DAY, "online", 40))

        apply_until_held(proxy, apply)
        assert time.monotonic() - began_s >= VALID_MS / 1000
        world.deliver_late()
    assert world.capacity() == 1
    world.close()


def test_silent_connection_is_settled_by_the_time_out(server: Server, proxy: LossyProxy) -> None:
    """No answer comes at all; the time-out is longer than the attempt was valid."""
    world = World(server, proxy, "sync")
    with closing(open_store(f"{proxy.url}?timeout_ms=200&attempt_valid_ms=5000", world.clock)) as store:
        proxy.is_silent = True
        proxy.holds = 1
        assert store.apply(OFFICE, SetCapacity(DAY, "online", 40)).status is Status.DONE
        assert store.apply(OFFICE, SetCapacity(DAY, "online", 5)).status is Status.DONE
        world.deliver_late()
    assert world.capacity() == 5
    world.close()


def test_callers_of_an_interrupted_sender_wait(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attempt may be in flight: the other callers of the batch get their error when it cannot run any more."""

    class Interrupt(BaseException):
        """As ``KeyboardInterrupt``, which would end the test run."""

    def interrupt(attempt: Attempt, end: CallEnd | None) -> list[Any]:
        attempt.requests(end)
        raise Interrupt

    with closing(
        open_store(f"{server.url}?attempt_valid_ms=60000&timeout_ms=60000", ManualClock(OPENS_AT_MS))
    ) as store:
        store.execute(ApplyMany(OFFICE, published()))
        handle = store._executor.handle(OFFICE)
        key = handle, handle.format.script_of(Release("x"))
        sender, other = (ThreadCall(one, handle.format.encode(one), None, None) for one in (Release("x"), Release("y")))
        monkeypatch.setattr(store, "_exchange", interrupt)
        store._queue(key).in_flight += 1
        store._send_batch(key, store._queue(key), [sender, other], sender)
        assert isinstance(sender.error, Interrupt)
        assert isinstance(other.error, OutcomeUnknown)
        assert sender.settles_at_ms == 0
        assert 30_000 < other.settles_at_ms - monotonic_ms() <= 60_050


class TestEnd:
    """Calls that end by a given time."""

    def test_call_ends_on_time_and_for_good(self, world: World, server: Server) -> None:
        """No answer comes; the caller leaves at the end, and nothing of the command takes effect later."""
        world.apply(Release("nobody"))
        world.proxy.is_silent = True
        began_ms = 0.0

        def apply() -> None:
            nonlocal began_ms
            began_ms = monotonic_ms()
            world.apply(SetCapacity(DAY, "online", 40), timeout_ms=TIME_MS)

        apply_until_held(world.proxy, apply)
        assert TIME_MS - 50 <= monotonic_ms() - began_ms < SOCKET_MS
        world.deliver_late()
        world.proxy.switch_to(server.socket_path)  # closing the store would wait for the silent connection
        assert world.capacity() == 1

    def test_no_further_attempt_is_sent_for_it(self, world: World) -> None:
        """The store has attempts left, but the call has no time."""
        world.apply(Release("nobody"))
        before = world.proxy.scripts_seen
        apply_until_held(world.proxy, lambda: world.apply(SetCapacity(DAY, "online", 40), timeout_ms=VALID_MS + 50))
        time.sleep(0.5)
        assert (world.proxy.scripts_seen, world.proxy.holds) == (before + 1, 0)
        world.deliver_late()

    def test_call_without_time_is_not_sent(self, world: World) -> None:
        """A certain answer: nothing was done."""
        before = world.proxy.scripts_seen
        with pytest.raises(BackendUnavailable):
            world.apply(SetCapacity(DAY, "online", 40), timeout_ms=-1)
        with pytest.raises(BackendUnavailable):
            world.execute(ApplyMany(OFFICE, (SetCapacity(DAY, "online", 40),)), timeout_ms=100)
        assert world.proxy.scripts_seen == before

    def test_unreachable_server_is_unavailable_on_time(self, world: World, server: Server) -> None:
        """Nothing was sent, though the policy has attempts left."""
        server.stop()
        try:
            began_ms = monotonic_ms()
            with pytest.raises(BackendUnavailable):
                world.apply(SetCapacity(DAY, "online", 40), timeout_ms=TIME_MS)
            assert monotonic_ms() - began_ms < SOCKET_MS
        finally:
            server.start()

    def test_call_with_enough_time_is_answered(self, world: World) -> None:
        """Commands and requests of several steps."""
        assert world.apply(SetCapacity(DAY, "online", 7), timeout_ms=5000).status is Status.DONE
        (outcome,) = world.execute(ApplyMany(OFFICE, (SetCapacity(DAY, "online", 8),)), timeout_ms=5000)
        assert outcome.status is Status.DONE
        assert world.execute(Lookup(OFFICE, "nobody"), timeout_ms=5000) is None
        assert world.capacity() == 8


async def test_cancelled_call_is_not_sent_again(server: Server, proxy: LossyProxy) -> None:
    """Only the attempt in flight could take effect, and only for as long as it was valid."""
    with closing(open_store(server.url, ManualClock(OPENS_AT_MS))) as direct:
        direct.execute(ApplyMany(OFFICE, published()))
        store = await open_async_store(f"{proxy.url}?attempt_valid_ms={VALID_MS}", ManualClock(OPENS_AT_MS))
        await store.apply(OFFICE, Release("nobody"))
        sent = proxy.scripts_seen
        proxy.holds = 1
        call = asyncio.create_task(store.apply(OFFICE, SetCapacity(DAY, "online", 40)))
        while proxy.holds:
            await asyncio.sleep(0.01)
        call.cancel()
        await store.close()
        assert proxy.scripts_seen == sent + 1
        (reply,) = await asyncio.to_thread(proxy.deliver_late)
        assert reply.startswith(b"-LATE ")
        (view,) = direct.execute(View(OFFICE, (DAY,)))
        assert view.quotas["online"].capacity == 2
