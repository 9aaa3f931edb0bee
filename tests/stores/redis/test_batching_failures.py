"""Batching: calls that are cancelled or interrupted, batches that fail, and stores that are closed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from quota_engine.clocks import REFRESH_MS, USABLE_MS, ManualClock, monotonic_ms
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Release
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Lookup
from quota_engine.stores.batching import BatchLimits
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.factory import open_async_store
from quota_engine.stores.redis.retrying_calls import RetryPolicy
from quota_engine.stores.redis.shared_write import SharedWrite
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.batching import (
    LONG_VALID,
    ONE_BY_ONE,
    WAIT_S,
    Caller,
    Opened,
    batches,
    calling,
    in_flight,
    joined,
    reserves,
    turns,
    waiting,
)
from tests.support.servers import Server, until

# --- Cancelled calls, and closed stores -----------------------------------------------------------------------------


async def test_call_cancelled_in_the_queue_has_no_effect(async_opened: Opened) -> None:
    """A task that still waited is gone without a trace, and its neighbors go without it."""
    backend = await async_opened.asyncio(ONE_BY_ONE, LONG_VALID)
    async_opened.server.pause()
    first = asyncio.ensure_future(backend.apply(OFFICE, reserve("first", ONLINE)))
    await turns()
    second, third = (asyncio.ensure_future(backend.apply(OFFICE, reserve(key, ONLINE))) for key in ("second", "third"))
    await turns()
    assert waiting(backend) == 2
    second.cancel()
    await turns()
    async_opened.server.resume()
    assert [one.status for one in await asyncio.gather(first, third)] == [Status.HELD, Status.HELD]
    assert second.cancelled()
    assert batches(async_opened.server) == [1, 1]
    assert await backend.execute(Lookup(OFFICE, "second")) is None
    assert not (await backend.apply(OFFICE, reserve("second", ONLINE))).replayed


async def test_call_that_comes_later_does_not_fail_with_the_batch_before(
    async_opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch without a connection fails with its first calls. A call that arrived later has separate attempts."""
    backend = await async_opened.asyncio(policy=RetryPolicy(attempts_max=1))
    pool, may_fail = backend._pools[None], asyncio.Event()

    async def fail() -> Any:
        monkeypatch.undo()
        await may_fail.wait()
        raise RedisConnectionError("no connection")

    monkeypatch.setattr(pool, "get_connection", fail)
    first = asyncio.ensure_future(backend.apply(OFFICE, reserve("first", ONLINE)))
    await turns()
    later = asyncio.ensure_future(backend.apply(OFFICE, reserve("later", ONLINE)))
    await turns()
    may_fail.set()
    with pytest.raises(BackendUnavailable, match="no connection"):
        await first
    assert (await later).status is Status.HELD


async def test_call_cancelled_in_flight_is_found_by_its_id(async_opened: Opened) -> None:
    """A batch in flight is applied even if its callers are cancelled. The same id finds it, and the other callers get
    their outcomes.
    """
    backend = await async_opened.asyncio(ONE_BY_ONE, LONG_VALID)
    async_opened.server.pause()
    first, second = (asyncio.ensure_future(backend.apply(OFFICE, reserve(key, ONLINE))) for key in ("first", "second"))
    await turns()
    assert (waiting(backend), in_flight(backend)) == (0, 1)
    first.cancel()
    await turns()
    async_opened.server.resume()
    assert (await second).status is Status.HELD
    assert first.cancelled()
    again = await backend.apply(OFFICE, reserve("first", ONLINE))
    assert (again.status, again.replayed) == (Status.HELD, True)


async def test_queue_of_cancelled_calls_does_not_delay_the_next(async_opened: Opened) -> None:
    """A queue of nothing but cancelled calls delays no other call."""
    backend = await async_opened.asyncio(ONE_BY_ONE)
    async_opened.server.pause()
    tasks = [asyncio.ensure_future(backend.apply(OFFICE, one)) for one in reserves(50)]
    await turns()
    for task in tasks:
        task.cancel()
    await turns()
    async_opened.server.resume()
    async with asyncio.timeout(WAIT_S):
        assert (await backend.apply(OFFICE, reserve("next", ONLINE))).status is Status.HELD
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_cancelled_calls_do_not_fill_the_queue(async_opened: Opened) -> None:
    """A queue that is full of cancelled calls accepts new ones. Cancelled calls count only until a new call needs the
    space.
    """
    backend = await async_opened.asyncio(BatchLimits(batch_max=1, in_flight_max=1, waiting_max=5))
    async_opened.server.pause()
    first = asyncio.ensure_future(backend.apply(OFFICE, reserve("first", ONLINE)))
    await turns()
    tasks = [asyncio.ensure_future(backend.apply(OFFICE, one)) for one in reserves(5)]
    await turns()
    assert (await backend.apply(OFFICE, reserve("one-more", ONLINE))).status is Status.OVERLOADED
    for task in tasks[1:]:
        task.cancel()
    await turns()
    others = [asyncio.ensure_future(backend.apply(OFFICE, reserve(f"other{one}", ONLINE))) for one in range(5)]
    await turns()
    assert waiting(backend) == 5
    assert (await others[4]).status is Status.OVERLOADED
    async_opened.server.resume()
    async with asyncio.timeout(WAIT_S):
        outcomes = await asyncio.gather(first, tasks[0], *others[:4])
    assert {one.status for one in outcomes} == {Status.HELD}
    for task in tasks[1:]:
        assert task.cancelled()


async def test_async_close_waits_for_calls_in_flight(async_opened: Opened) -> None:
    """Closing does not cut off an answer that is still to come, and leaves no connection open."""
    backend = await async_opened.asyncio(ONE_BY_ONE, LONG_VALID)
    async_opened.server.pause()
    calls = [asyncio.ensure_future(backend.apply(OFFICE, one)) for one in reserves(3)]
    await turns()
    closing = asyncio.ensure_future(backend.close())
    await turns()
    assert not closing.done()
    async_opened.server.resume()
    async with asyncio.timeout(WAIT_S):
        await closing
        outcomes = await asyncio.gather(*calls)
    assert [(one.status, one.replayed) for one in outcomes] == [(Status.HELD, False)] * 3
    assert open_connections(backend) == 0


async def test_async_close_waits_for_a_queued_call(async_opened: Opened) -> None:
    """A call that was queued before closing is answered. No connection is left open."""
    backend = await async_opened.asyncio()
    call = asyncio.ensure_future(backend.apply(OFFICE, reserve("ani", ONLINE)))
    await asyncio.sleep(0)
    assert waiting(backend) == 1
    await backend.close()
    async with asyncio.timeout(WAIT_S):
        assert (await call).status is Status.HELD
    assert open_connections(backend) == 0


async def test_close_leaves_no_batch_of_cancelled_calls(async_opened: Opened) -> None:
    """Calls that were cancelled in the queue start no batch, which would try a lost server again after closing."""
    backend = await async_opened.asyncio(ONE_BY_ONE, RetryPolicy(attempt_valid_ms=100))
    async_opened.server.pause()
    calls = [asyncio.ensure_future(backend.apply(OFFICE, reserves(1)[0]))]
    await turns()
    calls += [asyncio.ensure_future(backend.apply(OFFICE, one)) for one in reserves(3, "later")]
    await turns()
    assert (waiting(backend), in_flight(backend)) == (3, 1)
    for call in calls:
        call.cancel()
    async_opened.server.kill()
    async with asyncio.timeout(WAIT_S):
        await backend.close()
    assert (waiting(backend), in_flight(backend)) == (0, 0)


def test_close_waits_for_calls_in_flight(opened: Opened) -> None:
    """Closing in one thread does not cut off the answer to another, and leaves no connection open."""
    backend = opened.sync(policy=LONG_VALID)
    opened.server.pause()
    callers = calling(backend, reserve("ani", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    closing = threading.Thread(target=backend.close, daemon=True)
    closing.start()
    closing.join(0.2)
    opened.server.resume()
    assert joined(callers)
    closing.join(WAIT_S)
    assert callers[0].outcome is not None
    assert not callers[0].outcome.replayed, "it was cut off, and asked again"
    assert open_connections(backend) == 0


def open_connections(backend: RedisStore | AsyncRedisStore) -> int:
    """Return the number of open connections of the store."""
    pools: list[Any] = list(backend._pools.values())
    connections = [one for pool in pools for one in (*pool._available_connections, *pool._in_use_connections) if one]
    return sum(bool(getattr(one, "_sock", None) or getattr(one, "_writer", None)) for one in connections)


# --- Errors and interrupts ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_thread_gets_a_separate_error_object(opened: Opened) -> None:
    """Sixteen calls wait when the server dies. Each raises a separate error object, of the right type."""
    backend = opened.sync(ONE_BY_ONE, RetryPolicy(attempts_max=2))
    opened.server.pause()
    first = calling(backend, reserve("first", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    others = calling(backend, *reserves(15))
    until(lambda: waiting(backend) == 15, "fifteen that wait")
    opened.server.kill()
    assert joined(first + others)
    assert isinstance(first[0].error, OutcomeUnknown)
    errors = [caller.error for caller in others]
    assert all(isinstance(error, BackendUnavailable) for error in errors)
    assert len({id(error) for error in errors}) == 15
    assert (waiting(backend), in_flight(backend)) == (0, 0)
    opened.server.start()
    backend.execute(ApplyMany(OFFICE, published()))
    assert backend.apply(OFFICE, reserve("later", ONLINE)).status is Status.HELD


class Interrupted(BaseException):
    """An exception from outside the call, such as ``KeyboardInterrupt`` and ``SystemExit``."""


class Odd(BaseException):
    """An exception that cannot be made again of its ``args``."""

    def __init__(self, thing: str, problem: str) -> None:
        super().__init__(f"{thing}: {problem}")


class Gate:
    """Replaces the sending of calls: holds back the first one, and ends the second one with an error."""

    def __init__(self, backend: RedisStore, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.passed = 0
        self._error = error
        self._drive = backend._drive
        monkeypatch.setattr(backend, "_drive", self)

    def __call__(self, steps: Any, end: Any = None) -> Any:
        self.passed += 1
        if self.passed == 1:
            assert self.opened.wait(WAIT_S)
        elif self.passed == 2:
            raise self._error
        return self._drive(steps, end)


def interrupted(
    opened: Opened, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> tuple[RedisStore, list[Caller], bool]:
    """Make ten calls in a batch whose sender ends with an error; return whether all of them end."""
    backend = opened.sync(BatchLimits(batch_max=10, in_flight_max=1))
    gate = Gate(backend, error, monkeypatch)
    first = calling(backend, reserve("first", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    others = calling(backend, *reserves(15))
    until(lambda: waiting(backend) == 15, "fifteen that wait")
    gate.opened.set()
    return backend, others, joined(first + others)


def test_interrupted_sender_leaves_no_thread_waiting(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of fifteen calls are in the failed batch: they raise. The other five and all later calls are served."""
    backend, callers, all_ended = interrupted(opened, Interrupted(), monkeypatch)
    assert all_ended
    assert [caller.error is None for caller in callers].count(True) == 5
    assert (waiting(backend), in_flight(backend)) == (0, 0)
    assert backend.apply(OFFICE, reserve("later", ONLINE)).status is Status.HELD


def test_interrupted_lone_call_lets_the_waiting_calls_go(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that came while it was in flight are sent, and it does not count as in flight any more."""
    backend = opened.sync(BatchLimits(batch_max=10, in_flight_max=1))
    drive, gate = backend._drive, threading.Event()

    def interrupt(*_: Any) -> None:
        monkeypatch.setattr(backend, "_drive", drive)
        assert gate.wait(WAIT_S)
        raise Interrupted

    monkeypatch.setattr(backend, "_drive", interrupt)
    first = calling(backend, reserve("first", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    others = calling(backend, *reserves(5))
    until(lambda: waiting(backend) == 5, "five that wait")
    gate.set()
    assert joined(first + others)
    assert isinstance(first[0].error, Interrupted)
    assert [caller.error for caller in others] == [None] * 5
    assert (waiting(backend), in_flight(backend), backend._calls) == (0, 0, 0)


def test_only_the_sender_is_interrupted(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt is raised in its own thread only. The other callers of the batch get ``OutcomeUnknown``."""
    _, callers, _ = interrupted(opened, Interrupted(), monkeypatch)
    errors = [caller.error for caller in callers if caller.error is not None]
    assert sum(isinstance(error, Interrupted) for error in errors) == 1
    assert sum(isinstance(error, OutcomeUnknown) for error in errors) == 9


def test_uncopyable_error_leaves_no_thread_waiting(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every caller of the batch gets an error, even if the error cannot be copied."""
    _, _, all_ended = interrupted(opened, Odd("a", "b"), monkeypatch)
    assert all_ended


def test_interrupted_next_sender_leaves_no_thread_waiting(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next sender may be interrupted before it sends. Another thread sends the batch instead."""
    backend = opened.sync(ONE_BY_ONE)
    opened.server.pause()
    first = calling(backend, reserve("first", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    next_sender = calling(backend, reserve("next", ONLINE))
    until(lambda: waiting(backend) == 1, "the next sender")
    (queue,) = [queue for queue in backend._queues.values() if queue.waiting]
    until(lambda: queue.waiting[0].woken is not None, "the next sender to sleep")
    event = queue.waiting[0].woken
    assert event is not None
    wait = event.wait

    def interrupted_wait(timeout_s: float | None) -> None:
        wait(timeout_s)
        raise Interrupted

    # It sleeps already: one that does nothing wakes it, and it goes to sleep again, to be interrupted the next time.
    monkeypatch.setattr(event, "wait", interrupted_wait)
    event.set()
    others = calling(backend, *reserves(5))
    until(lambda: waiting(backend) == 6, "six that wait")
    opened.server.resume()
    assert joined(first + next_sender)
    assert isinstance(next_sender[0].error, Interrupted)
    assert joined(others)


async def test_uncopyable_error_leaves_no_task_waiting(async_opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for tasks."""

    class OddError(Exception):
        def __init__(self, thing: str, problem: str) -> None:
            super().__init__(f"{thing}: {problem}")

    backend = await async_opened.asyncio()

    def fail(*_: Any) -> Any:
        raise OddError("a", "b")
        yield

    monkeypatch.setattr(backend._executor, "run", fail)
    calls = [asyncio.ensure_future(backend.apply(OFFICE, one)) for one in reserves(3)]
    done, _ = await asyncio.wait(calls, timeout=WAIT_S)
    for call in calls:
        call.cancel()
    for task in list(backend._tasks):
        with pytest.raises(TypeError):
            await task
    assert len(done) == 3


class BrokenClock(ManualClock):
    """A clock whose next reading fails."""

    fails = False

    def now_ms(self) -> int:
        if self.fails:
            self.fails = False
            raise RuntimeError("no time")
        return super().now_ms()


async def test_clock_that_fails_ends_one_batch_only(valkey_server: Server) -> None:
    """Further calls at the office are sent, and closing does not wait for the batch."""
    clock = BrokenClock(OPENS_AT_MS)
    store = await open_async_store(f"{valkey_server.url}?call_timeout_ms=60000", clock)
    await store.execute(ApplyMany(OFFICE, published()))
    clock.fails = True
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(OutcomeUnknown, match="no time"):
            await store.apply(OFFICE, reserve("ani", ONLINE))
        assert (await store.apply(OFFICE, reserve("ani", ONLINE))).status is Status.HELD
        await store.close()


async def test_write_that_fails_ends_a_batch_once(valkey_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further attempt that cannot be written is repeated like one that was not sent, and the counts stay right."""
    store = await open_async_store(valkey_server.url, ManualClock(OPENS_AT_MS))
    await store.execute(ApplyMany(OFFICE, published()))
    pack, errors = store._pack, [RuntimeError("not packed") for _ in range(3)]

    def fail_first(write: SharedWrite) -> bytes:
        if errors:
            raise errors.pop()
        return pack(write)

    async with asyncio.timeout(WAIT_S):
        await store.apply(OFFICE, reserve("ani", ONLINE))
        monkeypatch.setattr(store, "_pack", fail_first)
        assert (await store.apply(OFFICE, reserve("budi", ONLINE))).status is Status.HELD
        await store.close()
    assert (errors, in_flight(store), store._calls) == ([], 0, 0)


@pytest.mark.parametrize(
    "error",
    [
        NoScriptError("No matching script."),
        ResponseError("Function not found"),
        ResponseError("MISCONF disk"),
        ReadOnlyError("a replica"),
        TryAgainError("while a slot moves"),
        BusyLoadingError("loading"),
    ],
)
async def test_refusal_of_a_first_attempt_is_repeated(
    valkey_server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A batch whose first attempt was sent without its steps continues with them, and each call has one effect."""
    store = await open_async_store(valkey_server.url, ManualClock(OPENS_AT_MS))
    await store.execute(ApplyMany(OFFICE, published()))
    await store.apply(OFFICE, Release("nobody"))
    errors, take_reply = [error], SharedWrite.take_reply
    monkeypatch.setattr(
        SharedWrite, "take_reply", lambda write, reply: take_reply(write, errors.pop() if errors else reply)
    )
    async with asyncio.timeout(WAIT_S):
        outcomes = await asyncio.gather(*(store.apply(OFFICE, one) for one in reserves(3)))
        assert [one.status for one in outcomes] == [Status.HELD, Status.HELD, Status.SOLD_OUT]
        await store.close()
    assert (errors, in_flight(store), waiting(store), store._calls, store._batches) == ([], 0, 0, 0, set())


async def test_due_sample_of_the_clock_goes_along_with_a_batch(valkey_server: Server) -> None:
    """Such a batch needs its steps from the beginning, and the calls that share it get their own outcomes."""
    store = await open_async_store(valkey_server.url, ManualClock(OPENS_AT_MS))
    await store.execute(ApplyMany(OFFICE, published()))
    clock = store._runner._clocks.of(None)
    for age_ms in (REFRESH_MS, USABLE_MS):
        then_ms = monotonic_ms() - age_ms
        clock.record(clock.at(then_ms), then_ms)
        ids = [f"age{age_ms}-{number}" for number in range(3)]
        outcomes = await asyncio.gather(*(store.apply(OFFICE, Release(id_)) for id_ in ids))
        assert {one.status for one in outcomes} == {Status.NOT_FOUND}
        assert not clock.is_due(monotonic_ms())
    await store.close()
    assert (in_flight(store), store._calls) == (0, 0)


def test_query_of_an_interrupted_sender_is_unavailable(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's outcome is in doubt where nothing was done: ask again."""
    backend = opened.sync(BatchLimits(batch_max=10, in_flight_max=1))
    gate = Gate(backend, Interrupted(), monkeypatch)
    callers = [Caller(lambda: backend.execute(Lookup(OFFICE, "nobody"))) for _ in range(6)]  # type: ignore[arg-type, return-value]
    callers[0].start()
    until(lambda: in_flight(backend) == 1, "a call under way")
    for caller in callers[1:]:
        caller.start()
    until(lambda: waiting(backend) == 5, "five that wait")
    gate.opened.set()
    assert joined(callers)
    assert callers[0].error is None
    kinds = sorted(type(caller.error).__name__ for caller in callers[1:])
    assert kinds == ["BackendUnavailable"] * 4 + ["Interrupted"]
