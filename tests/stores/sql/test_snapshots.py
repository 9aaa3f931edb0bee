"""Snapshots in a store: when they are written, what may be dropped then, and how much memory ledgers take."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine.admission.token_bucket import Charge, TakeTokens, per_day
from quota_engine.clocks import ManualClock
from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm, SetCapacity
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Acknowledge, Audit, Describe, ReadConsumerGroup, ReadEvents, Reconcile, Store, TrimEvents
from quota_engine.stores.sql import transactions
from quota_engine.stores.sql.sqlite import factory
from quota_engine.stores.sql.sync_store import SqlStore

CLOCK = ManualClock(OPENS_AT_MS)


class File:
    """A file, and stores on it whose snapshots are due after 600 bytes of entries."""

    def __init__(self, directory: Path, form: str) -> None:
        self.path = directory / "quota.db"
        self.form = form
        self.close: list[Any] = []

    def open(self) -> Store:
        url = f"sqlite://{self.path}?durability=memory"
        if self.form == "sync":
            store = factory.open_store(url, CLOCK)
            self.close.append(store.close)
            return store
        facade = AsyncStoreFacade(lambda: factory.open_async_store(url, CLOCK))
        self.close.append(facade.stop)
        return facade

    def close_all(self) -> None:
        """Close all stores; they end their snapshots first."""
        while self.close:
            self.close.pop()()

    def query(self, text: str) -> list[Any]:
        with sqlite3.connect(self.path) as connection:
            return connection.execute(text).fetchall()


@pytest.fixture(params=["sync", "async"])
def file(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[File]:
    monkeypatch.setattr(transactions, "_SNAPSHOT_BYTES_MIN", 600)
    monkeypatch.setattr(transactions, "_SNAPSHOT_ITEM_BYTES", 1)
    it = File(tmp_path, request.param)
    yield it
    it.close_all()


def fill(store: Store, places: int) -> None:
    for command in (*published(), SetCapacity(DAY, "online", places)):
        store.apply(OFFICE, command)
    for number in range(places):
        assert store.apply(OFFICE, reserve(f"k{number}", ONLINE)).status is Status.HELD


def test_a_ledger_opens_from_its_snapshot(file: File) -> None:
    """Entries stay until their events are trimmed, and then go as far as the snapshot reaches."""
    store = file.open()
    fill(store, 40)
    described = store.execute(Describe(OFFICE))
    file.close_all()
    ((snapshot, first, last),) = file.query("SELECT snapshot_number, first_number, last_number FROM ledgers")
    assert 0 < snapshot <= last
    assert first == 1
    assert file.query("SELECT DISTINCT number FROM snapshots") == [(snapshot,)]
    store = file.open()
    assert store.execute(Describe(OFFICE)) == described
    events = store.execute(ReadEvents(OFFICE, 0, 1000))
    assert store.execute(TrimEvents(OFFICE, len(events) - 5)) == 5
    assert file.query("SELECT min(number) FROM entries")[0][0] <= snapshot + 1
    assert file.query("SELECT first_number FROM ledgers") == file.query("SELECT min(number) FROM entries")
    assert store.execute(ReadEvents(OFFICE, 0, 1000)) == events[-5:]
    assert store.execute(Audit(OFFICE)) == []
    assert store.execute(Reconcile(OFFICE)).findings == ()
    assert store.execute(Describe(OFFICE)) == described
    file.close_all()
    assert file.open().execute(Describe(OFFICE)) == described


def test_events_that_a_group_needs_keep_their_entries(file: File) -> None:
    store = file.open()
    fill(store, 30)
    events = store.execute(ReadConsumerGroup(OFFICE, "mail", "w1", 8, 0))
    store.execute(Acknowledge(OFFICE, "mail", tuple(one.number for one in events[:7])))
    store.execute(TrimEvents(OFFICE, 1000))
    rest = store.execute(ReadConsumerGroup(OFFICE, "mail", "w2", 1000, 0))
    assert [one.number for one in rest] == list(range(8, rest[-1].number + 1))


def test_a_ledger_without_events_keeps_only_what_follows_its_snapshot(file: File) -> None:
    store, address = file.open(), "~buckets.b"
    for number in range(60):
        assert store.apply(address, TakeTokens((Charge(f"k{number}", per_day(1)),))).taken
    described = store.execute(Describe(address))
    file.close_all()
    ((snapshot,),) = file.query("SELECT snapshot_number FROM ledgers")
    assert file.query("SELECT min(number) FROM entries")[0][0] in (snapshot + 1, None)
    store = file.open()
    assert store.execute(Describe(address)) == described
    assert not store.apply(address, TakeTokens((Charge("k7", per_day(1)),))).taken


def test_stores_that_write_snapshots_at_once_agree(file: File) -> None:
    """The later snapshot stays, and no part of another one."""
    one, other = file.open(), file.open()
    fill(one, 12)
    for number in range(12):
        (one if number % 2 else other).apply(OFFICE, Confirm(f"k{number}"))
    described = one.execute(Describe(OFFICE))
    file.close_all()
    ((snapshot,),) = file.query("SELECT snapshot_number FROM ledgers")
    assert snapshot
    assert (snapshot,) in file.query("SELECT DISTINCT number FROM snapshots")
    store = file.open()
    assert store.execute(Describe(OFFICE)) == described
    assert store.execute(Audit(OFFICE)) == []


class Paused:
    """The parts of a snapshot; a function runs before the second one."""

    def __init__(self, parts: Iterator[bytes], between: Callable[[], None]) -> None:
        self._parts, self._between, self._count = parts, between, 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._count += 1
        if self._count == 2:
            self._between()
        return next(self._parts)


def snapshot_of(store: SqlStore, between: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Return a function that writes a snapshot of the present state, and runs another one in the middle of it."""
    ledger = store._transactions.cache.get(OFFICE)
    assert ledger is not None
    parts = Paused(iter([*ledger.state.snapshot(ledger.position)]), between)
    snapshot = transactions.Snapshot(OFFICE, ledger.id, ledger.position, parts)
    return lambda: store._drive(store._requests.write_snapshot(snapshot))


@pytest.mark.parametrize("is_same", [False, True])
def test_a_snapshot_survives_another_one_that_is_written_meanwhile(tmp_path: Path, is_same: bool) -> None:
    """An earlier one deletes no part of it, and one of the same number with other parts is not mixed with it."""
    stores = [factory.open_store(f"sqlite://{tmp_path}/quota.db?durability=memory", CLOCK) for _ in range(2)]
    fill(stores[0], 12)
    earlier = snapshot_of(stores[0])
    stores[1].apply(OFFICE, Confirm("nobody" if is_same else "k1"))
    if is_same:
        ledger = stores[1]._transactions.cache.get(OFFICE)
        assert ledger is not None
        ledger.state.state.reservations = dict(reversed(ledger.state.state.reservations.items()))
    snapshot_of(stores[1], earlier)()
    described = stores[0].execute(Describe(OFFICE))
    assert factory.open_store(f"sqlite://{tmp_path}/quota.db", CLOCK).execute(Describe(OFFICE)) == described
    for store in stores:
        store.close()


def test_the_snapshot_of_a_deleted_ledger_is_not_written(tmp_path: Path) -> None:
    """The deletion of a ledger is no error of a snapshot that is being written, and no part of it stays."""
    store = factory.open_store(f"sqlite://{tmp_path}/quota.db?durability=memory", CLOCK)
    fill(store, 12)
    with sqlite3.connect(tmp_path / "quota.db") as connection:
        connection.execute("DELETE FROM entries")
        connection.execute("DELETE FROM ledgers")
    snapshot_of(store)()
    with sqlite3.connect(tmp_path / "quota.db") as connection:
        assert connection.execute("SELECT count(*) FROM snapshots").fetchall() == [(0,)]
    store.close()


def test_the_snapshot_of_a_lost_history_is_not_used(tmp_path: Path) -> None:
    """A failover has lost the last entry, and another process has written another one of the same number."""
    path = tmp_path / "quota.db"
    url = f"sqlite://{path}?durability=memory"
    store = factory.open_store(url, CLOCK)
    fill(store, 12)
    with sqlite3.connect(path) as connection, sqlite3.connect(tmp_path / "replica.db") as replica:
        connection.backup(replica)
    store.apply(OFFICE, Confirm("k1"))
    write = snapshot_of(store)
    with sqlite3.connect(tmp_path / "replica.db") as replica, sqlite3.connect(path) as connection:
        replica.backup(connection)
    other = factory.open_store(url, CLOCK)
    other.apply(OFFICE, Confirm("k2"))
    write()
    later = factory.open_store(url, CLOCK)
    assert later.execute(Audit(OFFICE)) == []
    assert later.execute(Describe(OFFICE)) == other.execute(Describe(OFFICE))
    for one in (store, other, later):
        one.close()


def test_a_damaged_snapshot_is_found(file: File) -> None:
    """The audit finds it, a reconciliation discards it while all entries are kept, and nothing is sold on it."""
    store = file.open()
    fill(store, 30)
    described = store.execute(Describe(OFFICE))
    file.close_all()
    file.query("UPDATE snapshots SET body = CAST(substr(body, 1, length(body) - 1) || x'07' AS BLOB) WHERE part = 1")
    store = file.open()
    (finding,) = store.execute(Audit(OFFICE))
    assert "part 1 of the snapshot of conformance was altered" in finding
    with pytest.raises(BackendUnavailable, match="restore the database from a backup"):
        store.apply(OFFICE, reserve("late", ONLINE))
    assert store.execute(Reconcile(OFFICE)).repaired == 1
    assert store.execute(Describe(OFFICE)) == described
    assert store.execute(Audit(OFFICE)) == []


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """Ledgers that were used longest ago are dropped, and read again when they are used."""
    store = factory.open_store(f"sqlite://{tmp_path}/quota.db?durability=memory&cache_mb=1", CLOCK)
    for number in range(300):
        store.apply(f"~buckets.b{number}", TakeTokens((Charge("k", per_day(1)),)))
    cache = store._transactions.cache
    assert cache.size_bytes <= 1_000_000
    assert cache.get("~buckets.b0") is None
    assert cache.get("~buckets.b299") is not None
    assert not store.apply("~buckets.b0", TakeTokens((Charge("k", per_day(1)),))).taken
    store.close()


def test_an_async_store_stays_responsive_while_it_writes_a_snapshot(tmp_path: Path) -> None:
    """The parts are encoded in a thread: a call in between does not wait for all of them."""

    async def run() -> None:
        store = await factory.open_async_store(f"sqlite://{tmp_path}/quota.db?durability=memory", CLOCK)
        for command in published():
            await store.apply(OFFICE, command)
        ledger = store._transactions.cache.get(OFFICE)
        assert ledger is not None
        store._transactions.request_snapshot(OFFICE, ledger)
        assert (await store.apply(OFFICE, reserve("ani", ONLINE))).status is Status.HELD
        await store.close()

    asyncio.run(run())
    assert sqlite3.connect(tmp_path / "quota.db").execute("SELECT snapshot_number FROM ledgers").fetchone() == (3,)
