"""Calls of a SQLite store end within their time, with any fault of the file, of other processes and of other calls."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.engine import store_discovery
from quota_engine.ports import ApplyMany, Audit, CreateConsumerGroup, Describe, Lookup, Reconcile, StoreRequest
from quota_engine.stores.sql.sqlite import connections, factory
from quota_engine.stores.sql.sqlite.factory import open_async_store, open_store
from quota_engine.stores.sql.steps import RoundTrip
from quota_engine.stores.sql.sync_store import SqlStore
from tests.support.call_times import SLACK_MS, error_of
from tests.support.sql_faults import FaultyConnections

TIME_MS = 300
LONGER_MS = 1_000
"""For a call that must get as far as an attempt, or to its commit, on a busy machine."""
CLOCK = ManualClock(OPENS_AT_MS)


@pytest.fixture(autouse=True)
def long_wait_for_a_locked_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the end of a call bound its wait."""
    monkeypatch.setattr(connections, "_BUSY_MS_MAX", 60_000)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file as another process that writes."""
    locker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    locker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        locker.close()


def url_of(path: Path, call_timeout_ms: int = TIME_MS) -> str:
    return f"sqlite://{path}?call_timeout_ms={call_timeout_ms}"


def is_known(store: SqlStore, person: str) -> bool:
    """Return True if the person has a reservation. The question has enough time on a busy machine."""
    return store.execute(Lookup(OFFICE, person), ends_at_ms=monotonic_ms() + 60_000) is not None


def fill(path: Path) -> None:
    store = open_store(f"sqlite://{path}", CLOCK)
    store.execute(ApplyMany(OFFICE, published()))
    store.close()


@pytest.mark.slow
def test_file_that_another_process_locks_ends_the_call_in_time(tmp_path: Path) -> None:
    """Nothing was written: commands, and requests of several steps."""
    path = tmp_path / "quota.db"
    fill(path)
    store = open_store(url_of(path), CLOCK)
    with locked(path):
        assert isinstance(error_of(lambda: store.apply(OFFICE, reserve("ani", ONLINE)), TIME_MS), BackendUnavailable)
        error = error_of(lambda: store.execute(CreateConsumerGroup(OFFICE, "accounting", 0)), TIME_MS)
        assert "nothing was applied" in str(error)
        assert not is_known(store, "ani")
    later_ms = monotonic_ms() + 60_000
    assert store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=later_ms).status is Status.HELD
    store.close()


@pytest.mark.slow
async def test_async_calls_on_a_locked_file_end_in_time(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    fill(path)
    store = await open_async_store(url_of(path), CLOCK)
    with locked(path):
        calls: list[Any] = [store.apply(OFFICE, reserve(f"ani-{number}", ONLINE)) for number in range(50)]
        calls.append(store.execute(CreateConsumerGroup(OFFICE, "accounting", 0)))
        calls.append(store.apply("bogor", reserve("budi", ONLINE), ends_at_ms=monotonic_ms() + TIME_MS))
        began_ms = monotonic_ms()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert monotonic_ms() - began_ms < TIME_MS + SLACK_MS
        assert {type(error) for error in errors} == {BackendUnavailable}
    later_ms = monotonic_ms() + 60_000
    assert (await store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=later_ms)).status is Status.HELD
    await store.close()


@pytest.mark.slow
def test_opening_of_a_locked_new_file_ends_in_time(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    sqlite3.connect(path).close()
    with locked(path):
        error_of(lambda: open_store(url_of(path), CLOCK), TIME_MS)
        error_of(lambda: asyncio.run(open_async_store(url_of(path), CLOCK)), TIME_MS)


class World:
    """A store whose round trips pass a hook."""

    def __init__(self, path: Path, call_timeout_ms: int = TIME_MS) -> None:
        fill(path)
        self.path = path
        self.connections = FaultyConnections(str(path))
        self.store = SqlStore(self.connections, CLOCK, call_timeout_ms=call_timeout_ms)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    it = World(tmp_path / "quota.db")
    yield it
    it.store.close()


def test_writing_of_another_ledger_ends_the_call_in_time(world: World) -> None:
    """SQLite has one writer at a time; a call waits for its turn no longer than it has."""
    entered, go_on = threading.Event(), threading.Event()

    def hold(step: RoundTrip) -> None:
        if step.end and not entered.is_set():
            entered.set()
            go_on.wait(60)

    world.connections.before = hold
    later_ms, command = monotonic_ms() + 60_000, reserve("ani", ONLINE)
    first = threading.Thread(target=world.store.apply, args=(OFFICE, command), kwargs={"ends_at_ms": later_ms})
    first.start()
    assert entered.wait(60)
    assert isinstance(
        error_of(lambda: world.store.apply("bogor", reserve("budi", ONLINE)), TIME_MS), BackendUnavailable
    )
    go_on.set()
    first.join(60)
    assert is_known(world.store, "ani")


def test_call_that_waits_for_a_batch_ends_in_time(world: World) -> None:
    """The thread that sends the batch has more time, and so has the call that joined the waiting one."""
    entered, go_on = threading.Event(), threading.Event()
    statuses: list[Status] = []

    def hold(step: RoundTrip) -> None:
        if step.end and not entered.is_set():
            entered.set()
            go_on.wait(60)

    def book(person: str) -> None:
        command, end_ms = reserve(person, ONLINE), monotonic_ms() + 60_000
        statuses.append(world.store.apply(OFFICE, command, ends_at_ms=end_ms).status)

    world.connections.before = hold
    threads = [threading.Thread(target=book, args=("ani",)), threading.Thread(target=book, args=("budi",))]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    assert isinstance(
        error_of(lambda: world.store.apply(OFFICE, reserve("citra", ONLINE)), TIME_MS), BackendUnavailable
    )
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert statuses == [Status.HELD, Status.HELD]
    assert not is_known(world.store, "citra")


@pytest.mark.slow
def test_sender_that_ends_leaves_its_batch_to_another_caller(world: World) -> None:
    """The file is locked for longer than the sender has. The other caller of the batch sends its own call again."""
    entered, go_on = threading.Event(), threading.Event()
    lockers, begins = contextlib.ExitStack(), 0
    results: dict[str, Any] = {}

    def hold(step: RoundTrip) -> None:
        nonlocal begins
        if step.end and not entered.is_set():
            entered.set()
            go_on.wait(60)
        elif step.begin and entered.is_set():
            begins += 1
            if begins == 1:
                lockers.enter_context(locked(world.path))
            else:
                lockers.close()

    def call(person: str, time_ms: int) -> None:
        try:
            end_ms = monotonic_ms() + time_ms
            results[person] = world.store.apply(OFFICE, reserve(person, ONLINE), ends_at_ms=end_ms).status
        except BackendUnavailable as error:
            results[person] = type(error)

    world.connections.before = hold
    threads = [threading.Thread(target=call, args=one) for one in (("ani", 60_000), ("hasty", 800), ("budi", 60_000))]
    threads[0].start()
    assert entered.wait(60)
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        while len(world.store._queues[OFFICE].waiting) < count and threads[1].is_alive():
            threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert results == {"ani": Status.HELD, "hasty": BackendUnavailable, "budi": Status.HELD}
    assert not is_known(world.store, "hasty")


@pytest.mark.slow
def test_lost_answer_to_a_commit_is_unknown_at_the_end(world: World) -> None:
    """Each later attempt finds the file locked, so no attempt learns whether the commit took effect."""
    lockers = contextlib.ExitStack()

    def lose(step: RoundTrip) -> None:
        if step.begin and not world.connections.lose_answers:
            lockers.enter_context(locked(world.path))

    world.connections.lose_answers = 1
    world.connections.before = lose
    end_ms = monotonic_ms() + LONGER_MS
    error = error_of(lambda: world.store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=end_ms), LONGER_MS)
    was_sent = not world.connections.lose_answers  # always, unless the machine stood still for a second
    assert type(error) is (OutcomeUnknown if was_sent else BackendUnavailable)
    lockers.close()
    world.connections.before = lambda _: None
    later_ms = monotonic_ms() + 60_000
    assert world.store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=later_ms).replayed is was_sent


@pytest.mark.slow
def test_reading_of_a_large_ledger_outlives_the_call(world: World) -> None:
    """Otherwise no call would ever find a ledger that takes longer to read than a call has."""
    go_on = threading.Event()

    def slow(step: RoundTrip) -> None:
        if not step.begin and step.statements[0].name == "read_entries":
            go_on.wait(60)

    world.connections.before = slow
    for _ in range(2):
        error = error_of(lambda: world.store.apply(OFFICE, reserve("ani", ONLINE)), TIME_MS)
        assert isinstance(error, BackendUnavailable)
    go_on.set()
    patient_ms = monotonic_ms() + 60_000
    assert world.store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=patient_ms).status is Status.HELD
    reads = [names for names in world.connections.statements() if names == ["read_entries"]]
    assert len(reads) == 1


def test_error_of_a_reading_is_the_error_of_the_call(world: World) -> None:
    with sqlite3.connect(world.path) as connection:
        connection.execute("DELETE FROM entries WHERE number = 1")
    with pytest.raises(BackendUnavailable, match="restore the database from a backup"):
        world.store.apply(OFFICE, reserve("ani", ONLINE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_", [Describe(OFFICE), Audit(OFFICE), Reconcile(OFFICE)], ids=lambda one: type(one).__name__
)
def test_request_for_a_whole_ledger_has_only_the_end_of_its_caller(world: World, request_: StoreRequest[Any]) -> None:
    go_on = threading.Event()

    def slow(step: RoundTrip) -> None:
        if step.statements[0].name == "read_entries":
            go_on.wait(60)

    world.connections.before = slow
    end_ms = monotonic_ms() + TIME_MS
    error_of(lambda: world.store.execute(request_, ends_at_ms=end_ms), TIME_MS)
    timer = threading.Timer(1.5 * TIME_MS / 1000, go_on.set)
    timer.start()
    assert world.store.execute(request_) is not None
    timer.join()


def test_time_of_an_engine_overrides_the_url(tmp_path: Path) -> None:
    key = b"a key for tests, and only them"
    store = store_discovery.open_store(factory, url_of(tmp_path / "quota.db"), None, key, call_timeout_ms=700)
    assert isinstance(store, SqlStore)
    assert store.call_timeout_ms == 700
    store.close()


@pytest.mark.parametrize("time_ms", ["199", "3600001", "soon"])
def test_impossible_times_are_rejected(tmp_path: Path, time_ms: str) -> None:
    with pytest.raises(InvalidRequest, match="200 to 3600000"):
        open_store(f"sqlite://{tmp_path}/quota.db?call_timeout_ms={time_ms}", None)


def test_default_time_is_five_seconds(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/quota.db", None)
    assert store.call_timeout_ms == 5_000
    store.close()
