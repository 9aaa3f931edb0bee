"""Transactions of batches: round trips, doubt about a commit, other writers, and damaged entries."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine.admission.guarded_command import AdmissionPass, GuardedCommand
from quota_engine.admission.token_bucket import Charge, TakeTokens, per_day
from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import (
    ApplyMany,
    Audit,
    Describe,
    ListDay,
    ListOffices,
    Lookup,
    Query,
    ReadEvents,
    Reconcile,
    RecordedEvent,
    StoreRequest,
    TrimEvents,
    View,
)
from quota_engine.stores.sql import requests, transactions
from quota_engine.stores.sql.steps import CommitUnknown, NotStarted, RolledBack, RoundTrip
from quota_engine.stores.sql.sync_store import SqlStore
from quota_engine.stores.sql.transactions import Attempts
from quota_engine.waiting_room.commands import ViewRoom
from tests.support.answering import answers_during
from tests.support.sql_faults import FaultyConnections

QUICK = Attempts(budget_ms=60, pause_ms=1, pause_ms_max=5)


class World:
    """A file with an open office, and stores on it."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "quota.db")
        self.clock = ManualClock(OPENS_AT_MS)
        self.opened: list[SqlStore] = []
        self.connections, self.store = self.open()
        for command in published():
            self.store.apply(OFFICE, command)
        self.connections.statements()

    def open(self, **options: Any) -> tuple[FaultyConnections, SqlStore]:
        connections = FaultyConnections(self.path)
        store = SqlStore(connections, self.clock, **{"attempts": QUICK, **options})
        self.opened.append(store)
        return connections, store

    def query(self, text: str, *values: Any) -> list[Any]:
        with sqlite3.connect(self.path) as connection:
            return connection.execute(text, values).fetchall()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    it = World(tmp_path)
    yield it
    for store in it.opened:
        store.close()


def fail_commits(error: Exception, times: int = 1) -> Callable[[RoundTrip], None]:
    left = [error] * times

    def before(step: RoundTrip) -> None:
        if step.end == "commit" and left:
            raise left.pop()

    return before


def test_a_command_takes_two_round_trips(world: World) -> None:
    assert world.store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert world.connections.statements() == [["try_lock_ledger"], ["insert_entry", "update_ledger"]]


def test_a_refusal_writes_nothing(world: World) -> None:
    assert world.store.apply(OFFICE, Confirm("nobody")).status is Status.NOT_FOUND
    assert world.connections.statements() == [["try_lock_ledger"], []]


def test_a_question_locks_nothing(world: World) -> None:
    assert world.store.execute(Lookup(OFFICE, "nobody")) is None
    assert world.connections.statements() == [["read_ledger", "read_entries"]]


def test_a_lost_answer_to_a_commit_is_settled(world: World) -> None:
    """The entry is there: the caller gets the outcome of its command, and not that of a repetition."""
    world.connections.lose_answers = 1
    outcome = world.store.apply(OFFICE, reserve("ani", ONLINE))
    assert (outcome.status, outcome.replayed) == (Status.HELD, False)
    assert world.store.execute(Audit(OFFICE)) == []


def test_a_commit_that_did_not_arrive_is_repeated(world: World) -> None:
    world.connections.before = fail_commits(CommitUnknown("the connection was cut"))
    outcome = world.store.apply(OFFICE, reserve("ani", ONLINE))
    assert (outcome.status, outcome.replayed) == (Status.HELD, False)
    assert world.store.execute(Describe(OFFICE)) == world.open()[1].execute(Describe(OFFICE))


@pytest.mark.parametrize("error", [NotStarted("down"), RolledBack("deadlock")])
def test_an_undone_transaction_is_repeated(world: World, error: Exception) -> None:
    world.connections.before = fail_commits(error, 2)
    assert world.store.apply(OFFICE, SetCapacity(DAY, "online", 7)).status is Status.DONE
    assert world.store.execute(View(OFFICE, (DAY,)))[0].quotas["online"].capacity == 7


def test_errors_that_last_say_what_is_known(world: World) -> None:
    """An unreachable database is unavailable; a commit without an answer is unknown if no later attempt finds out."""

    def down(_: RoundTrip) -> None:
        raise NotStarted("the server is down")

    world.connections.before = down
    with pytest.raises(BackendUnavailable, match="nothing was done: the server is down"):
        world.store.apply(OFFICE, reserve("ani", ONLINE))

    def cut_then_down(step: RoundTrip) -> None:
        if step.end == "commit":
            world.connections.before = down
            raise CommitUnknown("the connection was cut")

    world.connections.before = cut_then_down
    with pytest.raises(OutcomeUnknown, match="repeat the call with the same key"):
        world.store.apply(OFFICE, reserve("ani", ONLINE))
    world.connections.before = lambda _: None
    assert world.store.apply(OFFICE, reserve("ani", ONLINE)).replayed is False


def test_two_stores_see_each_other_in_the_next_call(world: World) -> None:
    _, other = world.open()
    assert other.execute(Lookup(OFFICE, "ani")) is None
    world.store.apply(OFFICE, reserve("ani", ONLINE))
    assert other.execute(Lookup(OFFICE, "ani")) is not None
    assert other.apply(OFFICE, reserve("budi", ONLINE)).status is Status.HELD
    assert world.store.apply(OFFICE, reserve("citra", ONLINE)).status is Status.SOLD_OUT
    assert world.store.execute(Describe(OFFICE)) == other.execute(Describe(OFFICE))


def test_entries_of_others_are_read_before_the_lock(world: World) -> None:
    """A process that has seen another writer reads what there is first, and little under the lock."""
    connections, other = world.open()
    other.execute(Lookup(OFFICE, "ani"))
    world.store.apply(OFFICE, reserve("ani", ONLINE))
    other.apply(OFFICE, Confirm("ani"))
    connections.statements()
    other.apply(OFFICE, Confirm("ani"))
    assert connections.statements()[0] == ["read_ledger", "read_entries"]


def test_a_ledger_that_is_far_behind_is_caught_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quota_engine.stores.sql.loading.ENTRIES_PAGE", 2)
    monkeypatch.setattr(transactions, "ENTRIES_PAGE", 2)
    _, other = world.open()
    other.execute(Lookup(OFFICE, "ani"))
    for capacity in range(10, 20):
        world.store.apply(OFFICE, SetCapacity(DAY, "online", capacity))
    assert other.apply(OFFICE, SetCapacity(DAY, "online", 19)).replayed
    assert other.execute(Describe(OFFICE)) == world.store.execute(Describe(OFFICE))


def test_a_batch_of_threads_is_one_entry(world: World) -> None:
    """Calls that come while a transaction is in progress share the next one."""
    world.store.apply(OFFICE, SetCapacity(DAY, "online", 50))
    entered, go_on = threading.Event(), threading.Event()

    def hold(step: RoundTrip) -> None:
        if step.end == "commit" and not entered.is_set():
            entered.set()
            go_on.wait(60)

    world.connections.before = hold
    before = world.query("SELECT max(number) FROM entries")[0][0]
    threads = [threading.Thread(target=world.store.apply, args=(OFFICE, reserve(f"k{n}", ONLINE))) for n in range(21)]
    threads[0].start()
    assert entered.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(world.store._queues[OFFICE].waiting) < 20:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert world.query("SELECT max(number) FROM entries")[0][0] == before + 2


def test_an_error_of_one_call_spares_the_others(world: World) -> None:
    """An invalid command raises for its caller alone, also in the middle of a batch."""
    charge = Charge("k", per_day(1))
    with pytest.raises(InvalidRequest):
        world.store.apply("~buckets.b", TakeTokens((charge, charge)))
    assert world.store.apply("~buckets.b", TakeTokens((charge,))).taken
    with pytest.raises(TypeError):
        world.store.execute(Query(OFFICE, ViewRoom()))
    with pytest.raises(TypeError, match="no request int"):
        world.store.execute(7)  # type: ignore[arg-type]


def test_a_call_that_fails_halfway_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect after the first event of a command neither reaches the database nor stays in memory."""
    original = transactions._run

    def half(work: Any, state: Any, now_ms: int) -> Any:
        result = original(work, state, now_ms)
        return transactions.Failure(KeyError("defect")) if work.writes else result

    before = world.store.execute(Describe(OFFICE))
    with monkeypatch.context() as patch:
        patch.setattr(transactions, "_run", half)
        with pytest.raises(KeyError, match="defect"):
            world.store.apply(OFFICE, reserve("ani", ONLINE))
    assert world.store.execute(Describe(OFFICE)) == before
    assert world.store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD


@pytest.mark.slow
def test_a_call_whose_time_is_over_is_not_committed(world: World) -> None:
    """The end passes between the two round trips: nothing was done."""

    def slow(step: RoundTrip) -> None:
        if step.begin:
            threading.Event().wait(0.3)

    world.connections.before = slow
    with pytest.raises(BackendUnavailable, match="time is over"):
        world.store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=monotonic_ms() + 200)
    world.connections.before = lambda _: None
    threading.Event().wait(0.2)
    assert world.store.execute(Lookup(OFFICE, "ani")) is None


@pytest.mark.slow
def test_a_call_with_little_time_spares_the_others_of_its_batch(world: World) -> None:
    """It is answered at its end, without an effect. The other call of the batch is committed by the next attempt."""
    connections, store = world.open(attempts=Attempts())
    entered, go_on = threading.Event(), threading.Event()
    results: dict[str, Any] = {}

    def hold(step: RoundTrip) -> None:
        if step.begin and entered.is_set():
            threading.Event().wait(0.38)  # longer than the hasty call has
        elif step.begin:
            entered.set()
            go_on.wait(60)

    def call(key: str, **options: Any) -> None:
        try:
            results[key] = store.apply(OFFICE, reserve(key, ONLINE), **options).status
        except BackendUnavailable as error:
            results[key] = str(error)

    connections.before = hold
    first = threading.Thread(target=call, args=("first",))
    first.start()
    assert entered.wait(60)
    rest = [threading.Thread(target=call, args=("patient",))]
    rest += [threading.Thread(target=call, args=("hasty",), kwargs={"ends_at_ms": monotonic_ms() + 400})]
    for thread in rest:
        thread.start()
    while len(store._queues[OFFICE].waiting) < 2 and all(thread.is_alive() for thread in rest):
        threading.Event().wait(0.001)
    go_on.set()
    for thread in (first, *rest):
        thread.join(60)
    assert (results["first"], results["patient"]) == (Status.HELD, Status.HELD)
    assert "time is over" in results["hasty"]
    assert store.execute(Lookup(OFFICE, "hasty")) is None


def test_the_admission_state_is_shared(world: World) -> None:
    """A pass that was used up in one process, and a charge, count in another one and after a restart."""
    charge = Charge("account", per_day(2))
    first = GuardedCommand(reserve("ani", ONLINE), (charge,), AdmissionPass("p1", OPENS_AT_MS + 60_000))
    assert world.store.apply(OFFICE, first).outcome.status is Status.HELD
    _, other = world.open()
    again = GuardedCommand(reserve("budi", ONLINE), (charge,), AdmissionPass("p1", OPENS_AT_MS + 60_000))
    assert other.apply(OFFICE, again).outcome.status is Status.NOT_ADMITTED
    second = GuardedCommand(reserve("citra", ONLINE), (charge,), None)
    assert other.apply(OFFICE, second).outcome.status is Status.HELD
    third = GuardedCommand(reserve("dewi", ONLINE), (charge,), None)
    assert world.store.apply(OFFICE, third).outcome.status is Status.THROTTLED


def test_a_clock_that_goes_back_ends_no_hold_early(world: World) -> None:
    """No event is earlier than the one before it, in any process."""
    world.clock.set_ms(OPENS_AT_MS + 60_000)
    world.store.apply(OFFICE, reserve("ani", ONLINE))
    world.clock.set_ms(OPENS_AT_MS)
    held = world.open()[1].apply(OFFICE, reserve("budi", ONLINE)).reservation
    assert held is not None
    assert held.created_at_ms == OPENS_AT_MS + 60_000
    events = world.store.execute(ReadEvents(OFFICE, 0, 100))
    assert [one.event.at_ms for one in events] == sorted(one.event.at_ms for one in events)


ALTERATIONS = {
    "body": "UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), 'ani-', 'aji-') AS BLOB) WHERE number = 4",
    "checksum": "UPDATE entries SET checksum = x'00' WHERE number = 2",
    "deleted": "DELETE FROM entries WHERE number = 3",
    "row": "UPDATE ledgers SET checksum = x'00'",
}


@pytest.mark.parametrize("what", sorted(ALTERATIONS))
def test_the_audit_finds_an_altered_entry(world: World, what: str) -> None:
    """A change by hand is found by the audit, and by every process that reads the ledger; nothing is sold on it."""
    for key in ("ani", "budi"):
        world.store.apply(OFFICE, reserve(key, ONLINE))
    world.query(ALTERATIONS[what])
    _, other = world.open()
    (finding,) = other.execute(Audit(OFFICE))
    assert "restore the database from a backup" in finding
    with pytest.raises(BackendUnavailable, match="restore the database"):
        other.apply(OFFICE, reserve("citra", ONLINE))


def test_a_shorter_history_replaces_the_one_in_memory(world: World) -> None:
    """As after the failover to a replica that lacks the last entries."""
    world.store.apply(OFFICE, reserve("ani", ONLINE))
    backup = world.query("SELECT * FROM ledgers"), world.query("SELECT max(number) FROM entries")[0][0]
    world.store.apply(OFFICE, reserve("budi", ONLINE))
    (row,), number = backup
    world.query("DELETE FROM entries WHERE number > ?", number)
    world.query("UPDATE ledgers SET last_number = ?, last_event_number = ?, checksum = ?", row[4], row[5], row[10])
    assert world.store.execute(Lookup(OFFICE, "budi")) is None
    assert world.store.apply(OFFICE, reserve("budi", ONLINE)).status is Status.HELD
    assert world.store.execute(Audit(OFFICE)) == []


def test_lost_events_are_written_back(world: World) -> None:
    events = world.store.execute(ReadEvents(OFFICE, 0, 100))
    world.store.apply(OFFICE, reserve("ani", ONLINE))
    lost = world.store.execute(ReadEvents(OFFICE, len(events), 100))
    directory = Path(world.path).parent / "other"
    directory.mkdir()
    other = World(directory)
    world.opened += other.opened
    assert other.store.execute(Reconcile(OFFICE, tuple(lost))).restored == 1
    assert other.store.execute(Lookup(OFFICE, "ani")) == world.store.execute(Lookup(OFFICE, "ani"))
    with pytest.raises(InvalidRequest):
        other.store.execute(Reconcile(OFFICE, (RecordedEvent(99, lost[0].event),)))
    assert other.store.execute(Reconcile(OFFICE)).findings == ()


def test_an_unknown_office_leaves_no_row(world: World) -> None:
    world.store.apply("nowhere", reserve("ani", ONLINE))
    world.store.execute(ApplyMany("nowhere", (Confirm("ani"),)))
    world.store.execute(TrimEvents("nowhere", 5))
    assert world.query("SELECT address FROM ledgers") == [(OFFICE,)]
    assert world.store.execute(ListOffices()) == [OFFICE]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("long", "function"), [(Audit(OFFICE), "audit"), (Reconcile(OFFICE), "recompute")], ids=["audit", "reconcile"]
)
async def test_event_loop_answers_while_an_office_is_computed(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str, long: StoreRequest[Any], function: str
) -> None:
    url = f"sqlite://{tmp_path}/quota.db"
    if backend == "postgresql":
        url = request.getfixturevalue("postgresql").url(schema=request.getfixturevalue("schema"))
    store = await store_factory(url).open_async_store(url, ManualClock(OPENS_AT_MS))
    for command in published():
        await store.apply(OFFICE, command)
    assert await answers_during(store, long, (requests, function), ListDay(OFFICE, DAY)) == [[]]
    await store.close()
