"""Batching: which calls share a script call, and the effect of a failed batch on each of its callers."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any, TypeVar

import pytest
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff

from quota_engine.clocks import ManualClock
from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, applicant, choice, published, reserve
from quota_engine.domain.commands import Command, Confirm, Release, Reserve, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, AsyncStore, Audit, Clock, Lookup, Store, StoreRequest, View
from quota_engine.stores.batching import BatchLimits
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.retrying_calls import RetryPolicy
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.effort import seeds
from tests.support.servers import Server, until, valkey_server_binary

T = TypeVar("T")

CLOCK = ManualClock(OPENS_AT_MS)
WAIT_S = 60.0
"""A longer wait is a deadlock."""
ONE_BY_ONE = BatchLimits(in_flight_max=1)
FOREIGN_CHOICE = choice(("nowhere",))


# --- Helpers that observe a store ------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    """A Valkey of the test's own, to be stopped and counted; every script call gets into its slow log."""
    with Server(
        valkey_server_binary(), settings=[("slowlog-log-slower-than", "0"), ("slowlog-max-len", "20000")]
    ) as it:
        yield it


def batches(server: Server) -> list[int]:
    """Return the number of commands of each script call since the last query, oldest first."""
    entries = server.ask("SLOWLOG", "GET", "-1")
    server.ask("SLOWLOG", "RESET")
    sizes = []
    for entry in reversed(entries):
        words = [str(word) for word in entry["command"].split()] if isinstance(entry, dict) else entry[3]
        if words[0] not in ("EVALSHA", "EVAL", "FCALL"):
            continue
        more = re.search(r"\((\d+) more arguments\)", str(words[-1]))
        arguments = len(words) - 1 + int(more[1]) if more else len(words)
        sizes.append(arguments - 3 - int(words[2]) - 1)  # its name, the script, how many keys; the keys; the time
    return sizes


def script_calls(server: Server) -> int:
    """Return the number of scripts that the server has run, by its own count."""
    statistics = server.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "fcall"))


class Opened:
    """Backends of one server, closed at the end of the test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.backends: list[RedisStore] = []
        self.async_backends: list[AsyncRedisStore] = []

    def sync(self, limits: BatchLimits = BatchLimits(), policy: RetryPolicy = RetryPolicy()) -> RedisStore:  # noqa: B008 - immutable
        """A backend, in an office that has 300 places, and whose script is known and counted no more."""
        pool = self.server.client(socket_timeout=WAIT_S).connection_pool
        backend = RedisStore(pool, CLOCK, limits=limits, policy=policy)
        self.backends.append(backend)
        backend.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", 300))))
        backend.apply(OFFICE, Release("nobody"))
        batches(self.server)
        return backend

    async def asyncio(
        self,
        limits: BatchLimits = BatchLimits(),  # noqa: B008
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008
    ) -> AsyncRedisStore:
        """The same for asyncio; it has a connection already."""
        self.sync()
        pool = BlockingConnectionPool.from_url(
            self.server.url,
            decode_responses=True,
            socket_timeout=WAIT_S,
            max_connections=8,
            retry=AsyncRetry(NoBackoff(), 0),
        )
        backend = AsyncRedisStore(pool, CLOCK, limits=limits, policy=policy)
        self.async_backends.append(backend)
        await backend.apply(OFFICE, Confirm("nobody"))
        batches(self.server)
        return backend


@pytest.fixture
def opened(server: Server) -> Iterator[Opened]:
    it = Opened(server)
    yield it
    if server.is_running:
        server.resume()
    for backend in it.backends:
        backend.close()


@pytest.fixture
async def async_opened(server: Server) -> AsyncIterator[Opened]:
    it = Opened(server)
    yield it
    if server.is_running:
        server.resume()
    for async_backend in it.async_backends:
        await async_backend.close()
    for backend in it.backends:
        backend.close()


class Caller(threading.Thread):
    """A thread that makes one call, and keeps its outcome or error."""

    def __init__(self, call: Callable[[], Outcome]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.outcome = self._call()
        except BaseException as error:
            self.error = error


def calling(backend: Store, *commands: Command) -> list[Caller]:
    """A thread for each command, started."""
    callers = [Caller(lambda command=command: backend.apply(OFFICE, command)) for command in commands]  # type: ignore[misc]
    for caller in callers:
        caller.start()
    return callers


def joined(callers: list[Caller]) -> bool:
    """Return True if all threads have ended in time."""
    deadline_s = time.monotonic() + WAIT_S
    for caller in callers:
        caller.join(max(deadline_s - time.monotonic(), 0))
    return not any(caller.is_alive() for caller in callers)


def waiting(backend: RedisStore | AsyncRedisStore) -> int:
    """Return the number of queued calls."""
    return sum(len(queue.waiting) for queue in backend._queues.values())


def in_flight(backend: RedisStore | AsyncRedisStore) -> int:
    """Return the number of batches in flight."""
    return sum(queue.in_flight for queue in backend._queues.values())


async def turns(number: int = 20) -> None:
    """Run this many iterations of the event loop. Everything that needs no input from outside is done then."""
    for _ in range(number):
        await asyncio.sleep(0)


def reserves(number: int, prefix: str = "k") -> list[Reserve]:
    return [reserve(f"{prefix}{index}", ONLINE) for index in range(number)]


# --- Who travels with whom -----------------------------------------------------------------------------------------


def test_lone_call_is_sent_at_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """One script call with one command, and no pause before it."""
    backend = opened.sync()
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    for one in reserves(5):
        assert backend.apply(OFFICE, one).status is Status.HELD
    assert batches(opened.server) == [1] * 5


async def test_lone_async_call_is_sent_at_once(async_opened: Opened) -> None:
    """A lone call is one script call with one command, in flight after two iterations of the event loop."""
    backend = await async_opened.asyncio()
    for one in reserves(5):
        task = asyncio.ensure_future(backend.apply(OFFICE, one))
        await turns(2)
        assert (waiting(backend), in_flight(backend)) == (0, 1)
        assert (await task).status is Status.HELD
    assert batches(async_opened.server) == [1] * 5


async def test_five_hundred_tasks_share_four_calls(async_opened: Opened) -> None:
    """Concurrent calls share script calls of at most 128 commands; each gets its own outcome."""
    backend = await async_opened.asyncio()
    calls_before = script_calls(async_opened.server)
    outcomes = await asyncio.gather(*(backend.apply(OFFICE, one) for one in reserves(500)))
    assert script_calls(async_opened.server) - calls_before == 4
    assert sorted(batches(async_opened.server)) == [116, 128, 128, 128]
    held = [one for one in outcomes if one.status is Status.HELD]
    assert len(held) == 300
    assert {one.status for one in outcomes} == {Status.HELD, Status.SOLD_OUT}
    for index, one in enumerate(outcomes):
        assert one.reservation is None or one.reservation.id == f"k{index}"
    assert await backend.execute(Audit(OFFICE)) == []


async def test_fifty_tasks_share_two_calls(async_opened: Opened) -> None:
    """The server works on one half while this process handles the other half. A few calls are not worth two batches."""
    backend = await async_opened.asyncio()
    await asyncio.gather(*(backend.apply(OFFICE, one) for one in reserves(50)))
    assert batches(async_opened.server) == [25, 25]
    await asyncio.gather(*(backend.apply(OFFICE, one) for one in reserves(20, "again")))
    assert batches(async_opened.server) == [20]


@pytest.mark.slow
def test_five_hundred_threads_share_few_calls(opened: Opened) -> None:
    """While two calls are in flight, all other calls wait. Then they share batches of at most 128.

    Each batch takes half of the calls that wait, or more. If each batch ends before the next sender wakes, 498 calls
    make ten batches: 128, 128, 121, 61, 30, 15, 8, 4, 2 and 1.
    """
    backend = opened.sync(policy=RetryPolicy(attempt_valid_ms=60_000))  # a busy machine starts them in seconds
    opened.server.pause()
    callers = calling(backend, *reserves(500))
    until(lambda: waiting(backend) == 498, "all other calls to wait")
    assert in_flight(backend) == 2
    opened.server.resume()
    assert joined(callers)
    sizes = batches(opened.server)
    assert (sorted(sizes)[:2], sum(sizes)) == ([1, 1], 500)
    assert max(sizes) <= 128
    assert len(sizes) <= 2 + 10
    statuses = [caller.outcome.status for caller in callers if caller.outcome is not None]
    assert (statuses.count(Status.HELD), statuses.count(Status.SOLD_OUT)) == (300, 200)
    assert backend.execute(Audit(OFFICE)) == []


async def test_freeing_commands_use_a_separate_script(async_opened: Opened) -> None:
    """Release, cancel and expire use a separate script, which runs when memory is out. Offices do not share calls."""
    backend = await async_opened.asyncio()
    commands: list[Command] = [*reserves(3), *(Release(f"k{index}") for index in range(2))]
    await asyncio.gather(
        *(backend.apply(OFFICE, command) for command in commands), backend.apply("elsewhere", Confirm("nobody"))
    )
    assert sorted(batches(async_opened.server)) == [1, 2, 3]


# --- Neighbors ----------------------------------------------------------------------------------------------------

MIXED: tuple[tuple[Command, Status], ...] = (
    (reserve("a", ONLINE), Status.HELD),
    (reserve("b", ONLINE, day=DAY + 9), Status.UNKNOWN_DAY),
    (reserve("c", FOREIGN_CHOICE), Status.UNKNOWN_QUOTA),
    (Confirm("nobody"), Status.NOT_FOUND),
    (reserve("a", ONLINE, "somebody-else"), Status.CONFLICT),
    (reserve("d", ONLINE, "1", "2", "3", "4"), Status.PARTY_TOO_LARGE),
    (reserve("e", ONLINE, "a"), Status.HELD),
    (Confirm("a"), Status.CONFIRMED),
)


async def test_refused_command_does_not_affect_its_batch(async_opened: Opened) -> None:
    """A refused command does not affect the other commands of its batch."""
    backend = await async_opened.asyncio()
    outcomes = await asyncio.gather(*(backend.apply(OFFICE, command) for command, _ in MIXED))
    assert batches(async_opened.server) == [len(MIXED)]
    assert [one.status for one in outcomes] == [status for _, status in MIXED]


ILL_FORMED = (
    Reserve("x", DAY, (applicant("x"),), ONLINE, hold_ttl_ms=-1),
    Reserve("x", -1, (applicant("x"),), ONLINE),
    Reserve("x\ty", DAY, (applicant("x"),), ONLINE),
)
"""``Reserve`` alone does not check itself when it is made."""


@pytest.mark.parametrize("ill_formed", ILL_FORMED, ids=["ttl", "day", "tab"])
def test_invalid_command_fails_only_its_caller(opened: Opened, ill_formed: Reserve) -> None:
    """The caller of an invalid command gets the error. The other callers of its batch, and later ones, are served."""
    backend = opened.sync(ONE_BY_ONE)
    opened.server.pause()
    first = calling(backend, reserve("first", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    others = calling(backend, reserve("before", ONLINE), ill_formed, reserve("behind", ONLINE))
    until(lambda: waiting(backend) == 2, "two that wait, the ill-formed one having been refused")
    opened.server.resume()
    assert joined(first + others)
    assert isinstance(others[1].error, InvalidRequest)
    assert [one.outcome and one.outcome.status for one in (others[0], others[2])] == [Status.HELD, Status.HELD]
    assert backend.apply(OFFICE, reserve("later", ONLINE)).status is Status.HELD
    assert backend.execute(Audit(OFFICE)) == []


@pytest.mark.parametrize("ill_formed", ILL_FORMED, ids=["ttl", "day", "tab"])
async def test_invalid_command_fails_only_its_task(async_opened: Opened, ill_formed: Reserve) -> None:
    """The same for tasks, and for commands that are sent together on purpose: of these none is carried out."""
    backend = await async_opened.asyncio()
    commands = (reserve("before", ONLINE), ill_formed, reserve("behind", ONLINE))
    answers = await asyncio.gather(*(backend.apply(OFFICE, one) for one in commands), return_exceptions=True)
    assert isinstance(answers[1], InvalidRequest)
    assert [one.status for one in answers if isinstance(one, Outcome)] == [Status.HELD, Status.HELD]
    with pytest.raises(InvalidRequest):
        await backend.execute(ApplyMany(OFFICE, (reserve("together", ONLINE), ill_formed)))
    assert await backend.execute(Lookup(OFFICE, "together")) is None
    assert await backend.execute(Audit(OFFICE)) == []


# --- A full queue --------------------------------------------------------------------------------------------------

CROWDED = BatchLimits(batch_max=2, in_flight_max=1, waiting_max=3)


def test_full_queue_is_overloaded_and_recovers(opened: Opened) -> None:
    """A call over the limit is refused at once, and has no other effect. All is well when the queue is empty again."""
    backend = opened.sync(CROWDED)
    opened.server.pause()
    callers = calling(backend, reserve("first", ONLINE))
    until(lambda: in_flight(backend) == 1, "a call under way")
    callers += calling(backend, *reserves(3))
    until(lambda: waiting(backend) == 3, "a full queue")
    assert backend.apply(OFFICE, reserve("late", ONLINE)) == Outcome(Status.OVERLOADED)
    opened.server.resume()
    assert joined(callers)
    assert all(caller.outcome and caller.outcome.status is Status.HELD for caller in callers)
    assert batches(opened.server) == [1, 2, 1]
    assert backend.execute(Lookup(OFFICE, "late")) is None
    assert backend.apply(OFFICE, reserve("late", ONLINE)).status is Status.HELD


async def test_full_async_queue_is_overloaded_and_recovers(async_opened: Opened) -> None:
    """The same for tasks: the first callers are served, and the calls over the limit are refused at once."""
    backend = await async_opened.asyncio(CROWDED)
    outcomes = await asyncio.gather(*(backend.apply(OFFICE, one) for one in reserves(10)))
    assert [one.status for one in outcomes] == [Status.HELD] * 3 + [Status.OVERLOADED] * 7
    assert (await backend.apply(OFFICE, reserve("k9", ONLINE))).status is Status.HELD


async def test_each_office_has_its_own_queue(async_opened: Opened) -> None:
    """A full queue of one office refuses no call for another office."""
    backend = await async_opened.asyncio(CROWDED)
    rush = [backend.apply(OFFICE, one) for one in reserves(10)]
    elsewhere = [backend.apply("elsewhere", Confirm("nobody")) for _ in range(3)]
    outcomes = await asyncio.gather(*rush, *elsewhere)
    assert [one.status for one in outcomes[10:]] == [Status.NOT_FOUND] * 3


# --- Looking -------------------------------------------------------------------------------------------------------

LOOKS: list[StoreRequest[Any]] = [
    View(OFFICE, (DAY,)),
    View(OFFICE, (DAY + 5_000,)),
    Lookup(OFFICE, "first"),
    Lookup(OFFICE, "nobody"),
    Lookup(OFFICE, "~"),
    Lookup(OFFICE, "no\tname"),
]


def seen(backend: Store) -> list[Any]:
    """Return all that can be read, by calls that share no batch."""
    return [backend.execute(look) for look in LOOKS]


async def test_queries_share_calls(async_opened: Opened) -> None:
    """Questions of one moment share a call, and equal questions share one answer. Every caller gets the right answer,
    also for unknown ids.
    """
    backend = await async_opened.asyncio()
    await backend.apply(OFFICE, reserve("first", ONLINE))
    alone = seen(async_opened.backends[0])
    assert [bool(one) for one in alone] == [True, False, True, False, False, False]
    batches(async_opened.server)
    answers = await asyncio.gather(*(backend.execute(look) for look in LOOKS * 50))
    assert answers == alone * 50
    # 300 looks in batches of 128, and in each of them no line twice.
    assert batches(async_opened.server) == [len(LOOKS)] * 3


def test_queries_of_threads_share_calls(opened: Opened) -> None:
    """The same for threads: who waits for others goes with those who wait too."""
    backend = opened.sync(ONE_BY_ONE)
    backend.apply(OFFICE, reserve("first", ONLINE))
    alone = seen(backend)
    batches(opened.server)
    opened.server.pause()
    callers = [Caller(lambda look=look: backend.execute(look)) for look in LOOKS * 5]  # type: ignore[misc]
    callers[0].start()
    until(lambda: in_flight(backend) == 1, "a call under way")
    for caller in callers[1:]:
        caller.start()
    until(lambda: waiting(backend) == len(callers) - 1, "all others to wait")
    opened.server.resume()
    assert joined(callers)
    assert [caller.error for caller in callers] == [None] * len(callers)
    assert [caller.outcome for caller in callers] == alone * 5
    assert batches(opened.server) == [1, len(LOOKS)]


async def test_queries_and_commands_do_not_wait_for_each_other(async_opened: Opened) -> None:
    """Questions have a separate queue, so that a full queue of commands refuses no question."""
    backend = await async_opened.asyncio(CROWDED)
    rush = [backend.apply(OFFICE, one) for one in reserves(10)]
    looks = [backend.execute(View(OFFICE, (DAY,))) for _ in range(3)]
    outcomes, views = await asyncio.gather(asyncio.gather(*rush), asyncio.gather(*looks))
    assert [one.status for one in outcomes].count(Status.OVERLOADED) == 7
    assert all(len(view) == 1 for view in views)


async def test_queries_over_the_limit_are_refused(async_opened: Opened) -> None:
    """A question over the limit raises, because it has no outcome ``OVERLOADED``. The other questions are answered."""
    backend = await async_opened.asyncio(CROWDED)
    looks = (backend.execute(View(OFFICE, (DAY,))) for _ in range(10))
    answers = await asyncio.gather(*looks, return_exceptions=True)
    assert [isinstance(one, list) for one in answers] == [True] * 3 + [False] * 7
    assert all(isinstance(one, BackendUnavailable) for one in answers[3:])
    assert len(await backend.execute(View(OFFICE, (DAY,)))) == 1


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


# --- Cancelled, and closed -----------------------------------------------------------------------------------------


async def test_call_cancelled_in_the_queue_has_no_effect(async_opened: Opened) -> None:
    """A task that still waited is gone without a trace, and its neighbors go without it."""
    backend = await async_opened.asyncio(ONE_BY_ONE)
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


async def test_call_cancelled_in_flight_is_found_by_its_id(async_opened: Opened) -> None:
    """A batch in flight is applied even if its callers are cancelled. The same id finds it, and the other callers get
    their outcomes.
    """
    backend = await async_opened.asyncio(ONE_BY_ONE)
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
    backend = await async_opened.asyncio(ONE_BY_ONE)
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


def test_close_waits_for_calls_in_flight(opened: Opened) -> None:
    """Closing in one thread does not cut off the answer to another, and leaves no connection open."""
    backend = opened.sync()
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


# --- Threads -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sixteen_threads_share_calls_for_many_rounds(opened: Opened) -> None:
    """Threads start and stop at random: each is answered, none waits forever, and they share calls."""
    backend = opened.sync(BatchLimits(in_flight_max=2))
    random = Random(16)
    sent = 0
    for round_number in seeds(60, 200):
        threads = random.randint(1, 16)
        start = threading.Barrier(threads)
        counts = [random.randint(1, 3) for _ in range(threads)]

        def press(
            thread: int, number: int, start: threading.Barrier = start, round_number: int = round_number
        ) -> Outcome:
            start.wait(WAIT_S)
            key = f"r{round_number}t{thread}"
            for _ in range(number - 1):
                backend.apply(OFFICE, reserve(key, ONLINE))
            outcome: Outcome = backend.apply(OFFICE, Release(key))
            return outcome

        callers = [Caller(lambda at=at, one=one: press(at, one)) for at, one in enumerate(counts)]  # type: ignore[misc]
        for caller in callers:
            caller.start()
        assert joined(callers), f"round {round_number} hangs"
        sent += sum(counts)
        for number, caller in zip(counts, callers, strict=True):
            assert caller.outcome is not None, caller.error
            assert caller.outcome.status is (Status.RELEASED if number > 1 else Status.NOT_FOUND)
    assert (waiting(backend), in_flight(backend)) == (0, 0)
    assert len(batches(opened.server)) < sent
    (today,) = backend.execute(View(OFFICE, (DAY,)))
    assert today.quotas["online"].available == 300
    assert backend.execute(Audit(OFFICE)) == []


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


# --- The async backends go through the suite that ships ---------------------------------------------------------------


@pytest.fixture
def quota_engine_backend(valkey_server: Server) -> Iterator[OpenStore]:
    """The conformance suite's way to a store, here by asyncio."""
    opened: list[AsyncStoreFacade] = []

    def open_store(clock: Clock) -> Store:
        async def make() -> AsyncStore:
            pool = BlockingConnectionPool.from_url(
                valkey_server.url, decode_responses=True, max_connections=8, retry=AsyncRetry(NoBackoff(), 0)
            )
            return AsyncRedisStore(pool, clock)

        opened.append(AsyncStoreFacade(make))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.stop()
