"""A server's clock that leaps by half a year, and a client whose own clock does not.

The servers are simulated, because no test may set a machine's clock. The scripts are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import closing
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from quota_engine.admission.token_bucket import Charge, PeekTokens, TakeTokens, per_minute
from quota_engine.clocks import ManualClock
from quota_engine.conformance import random_draws as draws
from quota_engine.conformance import random_rooms as rooms
from quota_engine.conformance.world import (
    DAY,
    FORGET_AT_MS,
    HOLD_TTL_MS,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    published,
    reserve,
)
from quota_engine.domain.commands import Command, Confirm, Release, SetCapacity
from quota_engine.domain.cross_office_registry import Claim, FindClaims
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Status
from quota_engine.draws.commands import CreateDraw
from quota_engine.draws.queries import ReadDraw
from quota_engine.fuzz.faults import FaultSource
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.network import VirtualNetwork
from quota_engine.fuzz.script_server import ScriptServer
from quota_engine.fuzz.virtual_loop import VirtualLoop
from quota_engine.ports import ApplyMany, Audit, Describe, Lookup, Query, ReadEvents, Reconcile
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.retrying_calls import RetryPolicy
from quota_engine.waiting_room.commands import CreateRoom, ViewRoom
from tests.support.servers import Server

MINUTES_MS = 300_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HALF_A_YEAR_MS = 182 * DAY_MS


class World:
    """A published office on a simulated server.

    Attributes:
        network: the server's clock is ``network.epoch_ms`` and the time that has passed.
        own_clock: the clock of the client.
        store: the client's store, whose time is the server's.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.network = VirtualNetwork(
            loop, ScriptServer(LuaServer()), FaultSource(Random(1)), epoch_ms=OPENS_AT_MS, timeout_ms=1500
        )
        self.own_clock = ManualClock(OPENS_AT_MS)
        self.store = self.open()

    def open(self, **policy: Any) -> AsyncRedisStore:
        """Open a store of another process."""
        return AsyncRedisStore(
            self.network.pool(),
            policy=RetryPolicy(attempts_max=3, **policy),
            monotonic=self.network.loop.now_ms,
            second_clock=self.own_clock,
        )

    async def apply(self, command: Any, address: str = OFFICE) -> Any:
        return await self.store.apply(address, command)

    async def published(self) -> World:
        await self.store.execute(ApplyMany(OFFICE, published()))
        await self.apply(reserve("ani", ONLINE))
        return self


def run(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        runner.run(scenario(World(loop)))


@pytest.mark.parametrize("leap_ms", [HALF_A_YEAR_MS, -HALF_A_YEAR_MS])
@pytest.mark.parametrize("command", [reserve("budi", ONLINE), Release("nobody")])
def test_command_at_a_wrong_time_is_refused_and_destroys_nothing(leap_ms: int, command: Command) -> None:
    async def scenario(world: World) -> None:
        await world.published()
        world.network.epoch_ms += leap_ms
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            await world.apply(command)
        world.network.epoch_ms -= leap_ms
        record = await world.store.execute(Lookup(OFFICE, "ani"))
        assert record is not None
        assert len(await world.store.execute(ReadEvents(OFFICE, 0, 100))) == 4
        assert (await world.apply(reserve("citra", ONLINE))).status is Status.HELD

    run(scenario)


def test_small_leap_is_accepted() -> None:
    async def scenario(world: World) -> None:
        await world.published()
        world.network.epoch_ms += HOUR_MS
        assert (await world.apply(reserve("budi", ONLINE))).status is Status.HELD

    run(scenario)


def test_quiet_ledger_is_written_again() -> None:
    """No client wrote for half a year. Both clocks agree, so the days are forgotten."""

    async def scenario(world: World) -> None:
        await world.published()
        world.network.epoch_ms += HALF_A_YEAR_MS
        world.own_clock.advance_ms(HALF_A_YEAR_MS)
        assert (await world.apply(reserve("budi", ONLINE))).status is Status.UNKNOWN_DAY

    run(scenario)


def test_wrong_clock_of_a_client_stops_no_call_on_a_busy_ledger() -> None:
    """The store's clock fits the ledger's last event."""

    async def scenario(world: World) -> None:
        await world.published()
        world.own_clock.advance_ms(-HALF_A_YEAR_MS)
        assert (await world.apply(reserve("budi", ONLINE))).status is Status.HELD

    run(scenario)


def test_days_are_forgotten_only_if_the_second_clock_agrees() -> None:
    """The last event is at the same wrong time, because a client that trusts the server has written it."""

    async def scenario(world: World) -> None:
        await world.published()
        world.network.epoch_ms = FORGET_AT_MS - HOUR_MS
        trusting = AsyncRedisStore(world.network.pool(), monotonic=world.network.loop.now_ms)
        await trusting.apply(OFFICE, SetCapacity(DAY, "online", 5))
        world.network.epoch_ms = FORGET_AT_MS
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            await world.apply(Release("nobody"))

    run(scenario)


def test_ledger_does_not_begin_at_a_wrong_time() -> None:
    async def scenario(world: World) -> None:
        world.network.epoch_ms += HALF_A_YEAR_MS
        with pytest.raises(BackendUnavailable, match="the ledger has no event yet"):
            await world.apply(published()[0])

    run(scenario)


def test_bound_is_configurable() -> None:
    async def scenario(world: World) -> None:
        await world.published()
        world.network.epoch_ms += HOUR_MS
        store = world.open(clock_leap_max_ms=HOUR_MS // 2)
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            await store.apply(OFFICE, reserve("budi", ONLINE))

    run(scenario)


CHARGES = (Charge("calls", per_minute(3)),)


@pytest.mark.parametrize(
    ("address", "command", "question", "now_ms"),
    [
        ("~room.december", CreateRoom(rooms.terms()), ViewRoom(), rooms.OPENS_AT_MS),
        ("~draw.december", CreateDraw(draws.TERMS), ReadDraw(), draws.CLOSES_AT_MS // 2),
        ("~buckets.calls", TakeTokens(CHARGES), PeekTokens(CHARGES), OPENS_AT_MS),
        ("~n.00", Claim("a" * 22, "surabaya~ani", 1000, OPENS_AT_MS + DAY_MS), FindClaims(("a" * 22,)), OPENS_AT_MS),
    ],
)
def test_other_ledgers_are_not_touched_at_a_wrong_time(address: str, command: Any, question: Any, now_ms: int) -> None:
    """A room and a draw that are over at that time, a bucket that is full then, and a claim that has ended then."""

    async def scenario(world: World) -> None:
        world.network.epoch_ms = now_ms
        world.own_clock.set_ms(now_ms)
        await world.apply(command, address)
        state = await world.store.execute(Describe(address))
        world.network.epoch_ms += HALF_A_YEAR_MS
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            await world.apply(command, address)
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            await world.store.execute(Query(address, question))
        with pytest.raises(BackendUnavailable, match="one of the clocks is wrong"):
            await world.store.execute(Reconcile(address))
        world.network.epoch_ms -= HALF_A_YEAR_MS
        assert await world.store.execute(Describe(address)) == state

    run(scenario)


@pytest.mark.parametrize("leap_ms", [HOUR_MS, 30 * DAY_MS])
def test_reconcile_brings_the_time_of_an_office_back(leap_ms: int) -> None:
    """Nothing more expires or opens by the wrong time, and the hold of then lasts no longer than one of now."""

    async def scenario(world: World) -> None:
        await world.store.execute(ApplyMany(OFFICE, published(identity_limits=())))
        world.network.epoch_ms += leap_ms
        world.own_clock.advance_ms(leap_ms)
        await world.apply(SetCapacity(DAY, "online", 5))
        if leap_ms == HOUR_MS:
            assert (await world.apply(reserve("ani", ONLINE))).status is Status.HELD
        world.network.epoch_ms -= leap_ms
        world.own_clock.advance_ms(-leap_ms)
        found = await world.store.execute(Reconcile(OFFICE))
        assert abs(found.time_corrected_by_ms - leap_ms) < 1000
        assert found.findings == ()
        assert await world.store.execute(Audit(OFFICE)) == []
        if leap_ms == HOUR_MS:
            record = await world.store.execute(Lookup(OFFICE, "ani"))
            assert record is not None
            assert abs(record.deadline_at_ms - world.network.server_ms() - HOLD_TTL_MS) < 1000
        assert (await world.apply(reserve("budi", ONLINE))).status is Status.HELD
        world.network.epoch_ms += HOLD_TTL_MS
        assert (await world.apply(Confirm("budi"))).status is Status.HOLD_EXPIRED
        assert (await world.store.execute(Reconcile(OFFICE))).time_corrected_by_ms == 0
        assert await world.store.execute(Audit(OFFICE)) == []

    run(scenario)


@pytest.mark.parametrize(
    ("address", "command", "now_ms"),
    [
        ("~room.december", CreateRoom(rooms.terms()), rooms.OPENS_AT_MS // 2),
        ("~draw.december", CreateDraw(replace(draws.TERMS, closes_at_ms=DAY_MS, forget_at_ms=2 * DAY_MS)), 1),
        ("~buckets.calls", TakeTokens(CHARGES), OPENS_AT_MS),
        ("~n.00", Claim("a" * 22, "surabaya~ani", 1000, OPENS_AT_MS + DAY_MS), OPENS_AT_MS),
    ],
)
def test_reconcile_brings_the_time_of_other_ledgers_back(address: str, command: Any, now_ms: int) -> None:
    """Five minutes are more than clocks differ by."""

    async def scenario(world: World) -> None:
        world.network.epoch_ms = now_ms + MINUTES_MS
        world.own_clock.set_ms(now_ms + MINUTES_MS)
        await world.apply(command, address)
        world.network.epoch_ms -= MINUTES_MS
        world.own_clock.advance_ms(-MINUTES_MS)
        found = await world.store.execute(Reconcile(address))
        assert abs(found.time_corrected_by_ms - MINUTES_MS) < 1000
        assert (await world.store.execute(Reconcile(address))).time_corrected_by_ms == 0

    run(scenario)


def test_server_is_checked_against_the_clock_of_the_process(
    valkey_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same check on a real server, where commands may run as functions."""
    monkeypatch.setattr("quota_engine.stores.redis.factory.SteadyClock", lambda: ManualClock(OPENS_AT_MS))
    refused = pytest.raises(BackendUnavailable, match="the ledger has no event yet")
    with closing(open_store(f"{valkey_server.url}?attempts_max=1", None)) as store, refused:
        store.apply(OFFICE, published()[0])
    with closing(open_store(f"{valkey_server.url}?clock_leap_max_ms=0", None)) as store:
        assert store.apply(OFFICE, published()[0]).status is Status.DONE
