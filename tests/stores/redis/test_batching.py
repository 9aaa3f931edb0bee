"""Batching: which calls share a script call, and the effect of a refused command on its neighbors."""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random
from typing import Any

import pytest

from quota_engine.conformance.world import DAY, OFFICE, ONLINE, applicant, choice, reserve
from quota_engine.domain.commands import Command, Confirm, Release, Reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, Audit, Lookup, Store, StoreRequest, View
from quota_engine.stores.batching import BatchLimits
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
    script_calls,
    turns,
    waiting,
)
from tests.support.effort import seeds
from tests.support.servers import until

FOREIGN_CHOICE = choice(("nowhere",))


# --- Calls that share a batch ---------------------------------------------------------------------------------------


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
        assert in_flight(backend) == 1
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
    backend = opened.sync(policy=LONG_VALID)
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


# --- Neighbors ------------------------------------------------------------------------------------------------------


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
    backend = opened.sync(ONE_BY_ONE, LONG_VALID)
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


# --- A full queue ---------------------------------------------------------------------------------------------------


CROWDED = BatchLimits(batch_max=2, in_flight_max=1, waiting_max=3)


def test_full_queue_is_overloaded_and_recovers(opened: Opened) -> None:
    """A call over the limit is refused at once, and has no other effect. All is well when the queue is empty again."""
    backend = opened.sync(CROWDED, LONG_VALID)
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


# --- Queries --------------------------------------------------------------------------------------------------------


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
