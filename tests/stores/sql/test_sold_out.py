"""Reserves that are refused without the database, because the ledger in memory was sold out a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance import test_backend as suite
from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Release
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Batch, Clock, Store
from quota_engine.stores.sql.async_store import AsyncSqlStore
from quota_engine.stores.sql.sqlite import factory
from quota_engine.stores.sql.sqlite.connections import AsyncSqliteConnections
from quota_engine.stores.sql.sync_store import SqlStore
from tests.support.sql_faults import FaultyConnections


class Recorder:
    """An observer that counts."""

    def __init__(self) -> None:
        self.refused = 0
        self.calls = 0

    def on_decision(self, office: str, record: object) -> None:
        raise NotImplementedError

    def on_enqueue(self) -> None:
        return None

    def on_batch(self, batch: Batch) -> None:
        self.calls += batch.size

    def on_sold_out(self, office: str) -> None:
        assert office == OFFICE
        self.refused += 1


def fill(store: Store) -> None:
    for command in published():
        store.apply(OFFICE, command)
    for key in ("ani", "budi"):
        assert store.apply(OFFICE, reserve(key, ONLINE)).status is Status.HELD
    assert store.apply(OFFICE, reserve("citra", ONLINE)).status is Status.SOLD_OUT


def test_a_place_that_comes_back_is_seen_in_time(tmp_path: Path) -> None:
    """Refusals need no round trip within the bound. Own changes are seen at once, those of others after the bound."""
    clock, connections = ManualClock(OPENS_AT_MS), FaultyConnections(str(tmp_path / "quota.db"))
    store, observer = SqlStore(connections, clock, sold_out_ms=60_000), Recorder()
    store.attach(observer)
    other = SqlStore(FaultyConnections(str(tmp_path / "quota.db")), clock)
    fill(store)
    connections.statements()
    observer.refused = 0
    for number in range(20):
        assert store.apply(OFFICE, reserve(f"k{number}", ONLINE)).status is Status.SOLD_OUT
    assert (connections.statements(), observer.refused) == ([], 20)
    assert store.apply(OFFICE, reserve("ani", ONLINE)).replayed
    other.apply(OFFICE, Release("ani"))
    assert store.apply(OFFICE, reserve("dewi", ONLINE)).status is Status.SOLD_OUT
    ledger = store._transactions.cache.get(OFFICE)
    assert ledger is not None
    ledger.checked_at_ms -= 60_000  # the monotonic time of this process, which the test does not wait for
    assert store.apply(OFFICE, reserve("dewi", ONLINE)).status is Status.HELD
    assert store.apply(OFFICE, reserve("eko", ONLINE)).status is Status.SOLD_OUT
    store.apply(OFFICE, Release("dewi"))
    assert store.apply(OFFICE, reserve("eko", ONLINE)).status is Status.HELD
    store.close()
    other.close()


@pytest.mark.slow
async def test_waiting_calls_are_refused_after_a_batch(tmp_path: Path) -> None:
    """In a load spike on a sold-out day, hardly any call reaches the database."""
    connections = AsyncSqliteConnections(str(tmp_path / "quota.db"), "OFF")
    await connections.open()
    store, observer = AsyncSqlStore(connections, ManualClock(OPENS_AT_MS), sold_out_ms=60_000), Recorder()
    store.attach(observer)
    for command in published():
        await store.apply(OFFICE, command)
    outcomes = await asyncio.gather(*(store.apply(OFFICE, reserve(f"k{number}", ONLINE)) for number in range(3000)))
    assert [one.status for one in outcomes[:2]] == [Status.HELD, Status.HELD]
    assert {one.status for one in outcomes[2:]} == {Status.SOLD_OUT}
    assert observer.refused >= 3000 - store._limits.batch_max
    await store.close()


@pytest.fixture(params=["sync", "async"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Return a function that opens a store with the cache, although it has a clock of the test."""
    close: list[Callable[[], None]] = []
    url = f"sqlite://{tmp_path}/quota.db?durability=memory&sold_out_ms=250"

    def open_one(clock: Clock) -> Store:
        if request.param == "sync":
            store = factory.open_store(url, clock)
            close.append(store.close)
            return store
        facade = AsyncStoreFacade(lambda: factory.open_async_store(url, clock))
        close.append(facade.stop)
        return facade

    yield open_one
    for close_store in close:
        close_store()


def test_concurrent_reserves_sell_each_place_once(open_store: OpenStore) -> None:
    suite.test_concurrent_reserves_sell_each_place_once(open_store)
