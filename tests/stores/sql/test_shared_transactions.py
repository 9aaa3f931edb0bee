"""Transactions that several ledgers share: one commit, separate outcomes, and no waiting for locks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import DAY, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Audit, Lookup, View
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql.async_store import AsyncSqlStore
from quota_engine.stores.sql.shared_transactions import Part, SharedEnd, run_together
from quota_engine.stores.sql.sqlite.connections import AsyncSqliteConnections
from quota_engine.stores.sql.steps import (
    CommitUnknown,
    NotShared,
    RolledBack,
    RoundTrip,
    Rows,
    SharedTransaction,
    Statement,
    Steps,
)
from quota_engine.stores.sql.sync_store import SqlStore
from tests.support.sql_faults import FaultyConnections

OFFICES = ("north", "south", "west")
GATE_OFFICE = "gate"


class World:
    """A store whose first transaction waits at a gate, while those of other offices queue up."""

    def __init__(self, path: Path) -> None:
        self.connections = FaultyConnections(str(path))
        self.store = SqlStore(self.connections, ManualClock(OPENS_AT_MS))
        for office in (GATE_OFFICE, *OFFICES):
            for command in published():
                self.store.apply(office, command)
        self.connections.statements()
        self._pool = ThreadPoolExecutor(8)
        self._arrived, self._may_pass = threading.Event(), threading.Event()

    def queue_up(
        self,
        calls: list[Callable[[], Any]],
        before: Callable[[RoundTrip], None] = lambda _: None,
        *,
        releases: bool = True,
    ) -> None:
        """Start the calls while a transaction is in flight, and let it end when all of them wait.

        Args:
            calls: The calls, each in a thread.
            before: Called before each later round trip.
            releases: False to keep the transaction in flight.
        """

        def stop(_: RoundTrip) -> None:
            self.connections.before = before
            self._arrived.set()
            assert self._may_pass.wait(60)

        self.connections.before = stop
        gate = self._pool.submit(self.store.apply, GATE_OFFICE, reserve("gatekeeper", ONLINE))
        assert self._arrived.wait(60)
        self.futures: list[Future[Any]] = [self._pool.submit(call) for call in calls]
        parts = self.store._parts
        ends_at_ms = monotonic_ms() + 10_000
        while len(parts.waiting) < len(calls) and monotonic_ms() < ends_at_ms:
            threading.Event().wait(0.001)
        if releases:
            self._may_pass.set()
            assert gate.result(60).status is Status.HELD

    def results(self) -> list[Any]:
        return [future.result(60) for future in self.futures]

    def close(self) -> None:
        self._may_pass.set()
        self._pool.shutdown()
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    it = World(tmp_path / "quota.db")
    yield it
    it.close()


def reserves(world: World) -> list[Callable[[], Any]]:
    return [lambda office=office: world.store.apply(office, reserve(f"ani{office}", ONLINE)) for office in OFFICES]  # type: ignore[misc]


def commits(world: World) -> list[int]:
    """Return the number of entries in each commit."""
    written = [step.count("insert_entry") for step in world.connections.statements()]
    return [count for count in written if count]


def test_batches_that_wait_share_one_commit(world: World) -> None:
    world.queue_up(reserves(world))
    assert [outcome.status for outcome in world.results()] == [Status.HELD] * 3
    assert commits(world) == [1, 3]
    assert [world.store.execute(Audit(office)) for office in OFFICES] == [[], [], []]


def test_refusal_writes_nothing_beside_a_commit(world: World) -> None:
    calls = [lambda: world.store.apply("north", Confirm("nobody")), *reserves(world)[1:]]
    world.queue_up(calls)
    assert [outcome.status for outcome in world.results()] == [Status.NOT_FOUND, Status.HELD, Status.HELD]
    assert commits(world) == [1, 2]


@pytest.mark.parametrize("error", [RolledBack("deadlock"), CommitUnknown("the connection was cut")])
def test_failed_shared_commit_is_repeated_by_each_batch(world: World, error: Exception) -> None:
    errors = [error]

    def fail_once(step: RoundTrip) -> None:
        if len(step.statements) > 2 and step.end == "commit" and errors:
            raise errors.pop()

    world.queue_up(reserves(world), fail_once)
    assert [(outcome.status, outcome.replayed) for outcome in world.results()] == [(Status.HELD, False)] * 3
    assert commits(world) == [1, 1, 1, 1]


def test_lost_answer_to_a_shared_commit_is_settled_by_each_batch(world: World) -> None:
    """The entries are there: each caller gets the outcome of its command, and not that of a repetition."""

    def lose_answer(step: RoundTrip) -> None:
        world.connections.lose_answers = int(step.end == "commit" and len(step.statements) > 2)

    world.queue_up(reserves(world), lose_answer)
    assert [(outcome.status, outcome.replayed) for outcome in world.results()] == [(Status.HELD, False)] * 3
    assert commits(world) == [1, 3]


def test_state_behind_another_writer_is_read_again_and_spares_the_others(world: World) -> None:
    other = SqlStore(FaultyConnections(str(world.connections._file._path)), ManualClock(OPENS_AT_MS))
    assert other.apply("north", reserve("budi", ONLINE)).status is Status.HELD
    other.close()
    world.queue_up(reserves(world))
    assert [outcome.status for outcome in world.results()] == [Status.HELD] * 3
    for office, held in zip(OFFICES, (2, 1, 1), strict=True):
        assert world.store.execute(View(office, (DAY,)))[0].quotas["online"].held == held


def test_waiting_call_ends_in_time(world: World) -> None:
    """Its transaction never begins: the one in flight ends later."""
    world.store.call_timeout_ms = 300
    world.queue_up(reserves(world)[:1], releases=False)
    with pytest.raises(BackendUnavailable, match="nothing was applied"):
        world.results()


class CountingConnections(AsyncSqliteConnections):
    """Connections that count their commits."""

    commits = 0

    async def run(self, steps: Generator[RoundTrip, list[Rows], Any], end: CallEnd | None = None) -> Any:
        """See :meth:`AsyncSqliteConnections.run`."""

        def counted() -> Generator[RoundTrip, list[Rows], Any]:
            step = next(steps)
            try:
                while True:
                    self.commits += step.end == "commit"
                    step = steps.send((yield step))
            except StopIteration as end:
                return end.value

        return await super().run(counted(), end)


async def test_tasks_of_many_offices_share_commits(tmp_path: Path) -> None:
    connections = CountingConnections(str(tmp_path / "quota.db"), "OFF")
    await connections.open()
    store = AsyncSqlStore(connections, ManualClock(OPENS_AT_MS))
    offices = [f"office{number}" for number in range(40)]
    for office in offices:
        for command in published():
            await store.apply(office, command)
    connections.commits = 0
    outcomes = await asyncio.gather(*(store.apply(office, reserve(f"ani{office}", ONLINE)) for office in offices))
    assert {outcome.status for outcome in outcomes} == {Status.HELD}
    assert connections.commits == 2, "the first office's, and one for all that came meanwhile"
    assert [await store.execute(Audit(office)) for office in offices] == [[]] * 40
    await store.close()


@pytest.mark.parametrize(("ends_in_ms", "entries", "commits"), [(None, 1, 2), (4_000, 2, 3)])
async def test_calls_join_a_batch_that_waits_for_its_transaction(
    tmp_path: Path, ends_in_ms: int | None, entries: int, commits: int
) -> None:
    """They share its entry and its commit. A call that ends earlier than the batch does not join."""
    connections = CountingConnections(str(tmp_path / "quota.db"), "OFF")
    await connections.open()
    store = AsyncSqlStore(connections, ManualClock(OPENS_AT_MS))
    for office in (GATE_OFFICE, *OFFICES):
        for command in published():
            await store.apply(office, command)

    def number_of(office: str) -> int:
        ledger = store._transactions.cache.get(office)
        assert ledger is not None
        return ledger.number

    before = number_of("north")
    connections.commits = 0
    async with connections._writing:  # no transaction begins
        tasks = []
        for number, office in enumerate((GATE_OFFICE, "north", "south", "north")):
            ends_at_ms = None if ends_in_ms is None or number < 3 else monotonic_ms() + ends_in_ms
            call = store.apply(office, reserve(f"ani{number}", ONLINE), ends_at_ms=ends_at_ms)
            tasks.append(asyncio.create_task(call))
            for _ in range(5):
                await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks)
    assert {outcome.status for outcome in outcomes} == {Status.HELD}
    assert number_of("north") == before + entries
    assert connections.commits == commits
    assert [await store.execute(Audit(office)) for office in OFFICES] == [[]] * 3
    await store.close()


async def test_cancelled_calls_of_a_waiting_batch_have_no_effect(tmp_path: Path) -> None:
    """Neither the batch that another call has joined, nor the one without any other call."""
    connections = CountingConnections(str(tmp_path / "quota.db"), "OFF")
    await connections.open()
    store = AsyncSqlStore(connections, ManualClock(OPENS_AT_MS))
    offices = (GATE_OFFICE, "north", "south", "north", "south")
    for office in offices[:3]:
        for command in published():
            await store.apply(office, command)
    async with connections._writing:  # no transaction begins
        tasks = []
        for number, office in enumerate(offices):
            tasks.append(asyncio.create_task(store.apply(office, reserve(f"ani{number}", ONLINE))))
            for _ in range(5):
                await asyncio.sleep(0)
        for number in (1, 2, 4):
            tasks[number].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(one, "status", "cancelled") for one in outcomes] == [
        *(Status.HELD, "cancelled", "cancelled", Status.HELD, "cancelled")
    ]
    found = [await store.execute(Lookup(office, f"ani{number}")) for number, office in enumerate(offices)]
    assert [one is not None for one in found] == [True, False, False, True, False]
    await store.close()
    assert (store._calls, store._batches, len(store._parts.waiting), store._parts._in_flight) == (0, set(), 0, 0)
    assert not any(queue.has_waiting_batch or queue.in_flight or queue.waiting for queue in store._queues.values())


async def test_batch_that_cannot_begin_blocks_no_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = AsyncSqliteConnections(str(tmp_path / "quota.db"), "OFF")
    await connections.open()
    store = AsyncSqlStore(connections, ManualClock(OPENS_AT_MS))
    for command in published():
        await store.apply("north", command)

    def fail(*_: object) -> bool:
        raise RuntimeError("the clock failed")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_refuse_sold_out", fail)
        with pytest.raises(OutcomeUnknown, match="the clock failed"):
            await store.apply("north", reserve("ani", ONLINE))
    assert (await store.apply("north", reserve("budi", ONLINE))).status is Status.HELD
    await store.close()


# ------------------------------------------------------------------ without a store


def part(name: str, ends_in_ms: float = 5_000, log: list[str] | None = None) -> Part:
    """Return a part that locks, and commits one statement."""

    def steps() -> Steps[Any]:
        try:
            yield RoundTrip((Statement("lock", (name,)),), begin=True)
            yield RoundTrip((Statement("write", (name,)),), end="commit")
        finally:
            if log is not None:
                log.append(name)
        return [[(name,)]]

    return Part(SharedTransaction(name, steps), CallEnd(monotonic_ms() + ends_in_ms), lambda: None)


def test_round_trips_are_those_of_one_transaction() -> None:
    parts = [part("a"), part("b")]
    steps = run_together(SharedEnd(parts))
    assert next(steps) == RoundTrip((Statement("lock", ("a",)), Statement("lock", ("b",))), begin=True)
    assert steps.send([[], []]) == RoundTrip((Statement("write", ("a",)), Statement("write", ("b",))), end="commit")
    with pytest.raises(StopIteration):
        steps.send([[], []])
    assert [one.answer for one in parts] == [[[("a",)]], [[("b",)]]]


def test_batch_with_little_time_needs_a_separate_transaction() -> None:
    parts = [part("a"), part("b", ends_in_ms=200)]
    end = SharedEnd(parts)
    assert end.ends_at_ms == parts[0].ends_at_ms
    assert next(run_together(end)).statements == (Statement("lock", ("a",)),)  # type: ignore[union-attr]
    assert isinstance(parts[1].error, NotShared)


def test_interrupted_transaction_leaves_an_error_for_each_part() -> None:
    """Before its commit was sent, it was certainly undone; afterwards, it is unknown."""
    log: list[str] = []
    parts = [part("a", log=log), part("b", log=log)]
    steps = run_together(SharedEnd(parts))
    next(steps)
    steps.close()
    assert [type(one.error) for one in parts] == [RolledBack, RolledBack]
    assert log == ["a", "b"]
    parts = [part("a"), part("b")]
    end = SharedEnd(parts)
    steps = run_together(end)
    next(steps)
    steps.send([[], []])
    end.record_sent()  # as a driver does
    steps.close()
    assert [type(one.error) for one in parts] == [CommitUnknown, CommitUnknown]
    assert all(one.end is not None and one.end.is_sent for one in parts)


def test_each_part_gets_its_own_copy_of_an_error() -> None:
    parts = [part("a"), part("b")]
    steps = run_together(SharedEnd(parts))
    next(steps)
    with pytest.raises(StopIteration):
        steps.throw(RolledBack("deadlock"))
    assert [str(one.error) for one in parts] == ["deadlock", "deadlock"]
    assert parts[0].error is not parts[1].error


def test_refusals_outlive_a_connection_that_is_cut() -> None:
    def refuses() -> Steps[Any]:
        yield RoundTrip((Statement("lock", ("a",)),), begin=True)
        yield RoundTrip((), end="rollback")
        return [[("refused",)]]

    refused = Part(SharedTransaction("a", refuses), None, lambda: None)
    steps = run_together(SharedEnd([refused]))
    next(steps)
    assert steps.send([[]]) == RoundTrip((), end="rollback")
    with pytest.raises(StopIteration):
        steps.throw(RolledBack("the connection was cut"))
    assert (refused.answer, refused.error) == ([[("refused",)]], None)
