"""The clocks of stores in this process and in a database leap; ``redis/test_clock_leaps.py`` has Redis and Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quota_engine.admission.token_bucket import Charge, TakeTokens, per_minute
from quota_engine.clocks import ManualClock, SteadyClock, SystemClock
from quota_engine.conformance import random_rooms as rooms
from quota_engine.conformance.world import DAY, HOLD_TTL_MS, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Release, SetCapacity
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit, Clock, Lookup, ReadEvents, Reconcile, Store, View
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.sql.sqlite.connections import SqliteConnections
from quota_engine.stores.sql.sync_store import SqlStore
from quota_engine.waiting_room.commands import CreateRoom

HOUR_MS = 3_600_000
HALF_A_YEAR_MS = 182 * 24 * HOUR_MS


class World:
    """A published office, on a store with two clocks."""

    def __init__(self, open_store: Callable[[Clock, Clock], Store]) -> None:
        self.clock, self.second_clock = ManualClock(OPENS_AT_MS), ManualClock(OPENS_AT_MS)
        self.store = open_store(self.clock, self.second_clock)
        self.store.execute(ApplyMany(OFFICE, published(identity_limits=())))


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    def open_sqlite(clock: Clock, second_clock: Clock) -> Store:
        return SqlStore(SqliteConnections(str(tmp_path / "quota.db"), "FULL"), clock, second_clock=second_clock)

    world = World(MemoryStore if request.param == "memory" else open_sqlite)
    with closing(world.store):
        yield world


def test_command_at_a_wrong_time_destroys_nothing(world: World) -> None:
    """A refused command would make the office forget its days."""
    world.clock.advance_ms(HALF_A_YEAR_MS)
    for call in (
        lambda: world.store.apply(OFFICE, Release("nobody")),
        lambda: world.store.execute(ApplyMany(OFFICE, (Release("nobody"),))),
        lambda: world.store.execute(View(OFFICE, (DAY,))),
    ):
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            call()
    world.clock.advance_ms(-HALF_A_YEAR_MS)
    assert len(world.store.execute(ReadEvents(OFFICE, 0, 100))) == 3
    assert world.store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD


def test_refusals_are_logged_once_a_minute(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quota_engine.stores.clock_alarm._logged_at_ms", -60_000.0)
    world.clock.advance_ms(HALF_A_YEAR_MS)
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            world.store.apply(OFFICE, Release("nobody"))
    (record,) = caplog.records
    assert "the store's clock shows" in record.getMessage()


def test_reconcile_brings_the_time_of_an_office_back(world: World) -> None:
    world.clock.advance_ms(HOUR_MS)
    world.store.apply(OFFICE, reserve("ani", ONLINE))
    world.clock.advance_ms(-HOUR_MS)
    assert world.store.execute(Reconcile(OFFICE)).time_corrected_by_ms == HOUR_MS
    record = world.store.execute(Lookup(OFFICE, "ani"))
    assert record is not None
    assert record.deadline_at_ms == OPENS_AT_MS + HOLD_TTL_MS
    assert world.store.execute(Audit(OFFICE)) == []
    world.clock.advance_ms(HOLD_TTL_MS)
    assert world.store.apply(OFFICE, SetCapacity(DAY, "online", 1)).status is Status.DONE
    assert world.store.apply(OFFICE, reserve("budi", ONLINE)).status is Status.HELD
    assert world.store.execute(Reconcile(OFFICE)).time_corrected_by_ms == 0


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("~room.december", CreateRoom(rooms.terms())),
        ("~buckets.calls", TakeTokens((Charge("calls", per_minute(3)),))),
    ],
)
def test_reconcile_brings_the_time_of_other_ledgers_back(address: str, command: Any) -> None:
    clock = ManualClock(rooms.OPENS_AT_MS // 2 + 100_000)
    store = MemoryStore(clock)
    assert store.execute(Reconcile(address)).epoch == 0
    store.apply(address, command)
    clock.advance_ms(-100_000)
    assert store.execute(Reconcile(address)).time_corrected_by_ms == 100_000
    assert store.execute(Reconcile(address)).time_corrected_by_ms == 0


def test_bound_below_a_minute_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="0 to check nothing, or an integer from 60000"):
        open_store("redis://localhost?clock_leap_max_ms=59999", None)


def test_steady_clock_shows_the_time_when_the_system_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock()
    assert abs(clock.now_ms() - SystemClock().now_ms()) < 10_000
    if hasattr(time, "CLOCK_BOOTTIME"):
        real_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + HALF_A_YEAR_MS * 1_000_000)
        assert abs(SystemClock().now_ms() - clock.now_ms() - HALF_A_YEAR_MS) < 10_000
