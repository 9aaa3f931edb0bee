"""Attempts of many ledgers share the writes to one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm, SetCapacity
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, Audit
from quota_engine.stores.redis import node_channel
from quota_engine.stores.redis.async_store import AsyncRedisStore
from quota_engine.stores.redis.factory import open_async_store
from quota_engine.stores.redis.node_channel import NodeChannel, WaitingAttempt
from quota_engine.stores.redis.retrying_calls import Attempt
from tests.support.batching import turns
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import Server

CLOCK = ManualClock(OPENS_AT_MS)
OFFICES = [f"office-{number}" for number in range(40)]


def attempt(size: int = 1) -> WaitingAttempt[asyncio.Future[list[Any]]]:
    """Return an attempt without requests that waits, for this many commands."""
    return WaitingAttempt(Attempt(None, lambda _: ()), None, asyncio.get_running_loop().create_future(), size)


def script_calls(server: Server) -> int:
    """Return the number of scripts that the server has run."""
    statistics = server.info("commandstats")
    return sum(int(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "fcall"))


async def reserve_everywhere(store: AsyncRedisStore, offices: Sequence[str], callers: int) -> list[Outcome]:
    """Reserve with this many callers at each office at once."""
    commands = [(office, reserve(f"k{number}", ONLINE)) for number in range(callers) for office in offices]
    return [*await asyncio.gather(*(store.apply(office, command) for office, command in commands))]


async def publish(store: AsyncRedisStore, offices: Sequence[str]) -> None:
    """Publish offices with 300 places."""
    for office in offices:
        await store.execute(ApplyMany(office, (*published(), SetCapacity(DAY, "online", 300))))


@pytest.fixture
async def store(valkey_server: Server) -> AsyncIterator[AsyncRedisStore]:
    """A store with 40 published offices."""
    store = await open_async_store(valkey_server.url, CLOCK)
    await publish(store, OFFICES)
    yield store
    await store.close()


async def test_attempts_leave_in_order_and_without_those_given_up() -> None:
    """The channel bounds writes in flight and attempts in a write."""
    channel: NodeChannel[asyncio.Future[list[Any]]] = NodeChannel()
    waiting = [attempt() for _ in range(60)]
    for one in waiting:
        channel.wait(one)
    waiting[1].replies.cancel()
    assert channel.take() == [waiting[0], *waiting[2:17]]
    assert channel.take() == waiting[17:33]
    assert channel.take() == waiting[33:49]
    assert channel.take() == [], "three writes are in flight"
    channel.end_write()
    assert channel.take() == waiting[49:]
    channel.end_write()
    assert channel.take() == []


async def test_first_of_three_writes_takes_a_third_of_the_commands() -> None:
    channel: NodeChannel[asyncio.Future[list[Any]]] = NodeChannel()
    waiting = [attempt(size) for size in (40, 10, 10, 30, 20, 10)]
    for one in waiting:
        channel.wait(one)
    assert channel.take() == waiting[:1]
    assert channel.take() == waiting[1:4], "half of the rest, or the first size above it"
    assert channel.take() == waiting[4:]


async def test_the_next_write_starts_before_callers_get_their_replies(
    store: AsyncRedisStore, valkey_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server works on the second call while the first caller runs."""
    monkeypatch.setattr(node_channel, "_WRITES_MAX", 1)
    seen: list[int] = []

    async def call(office: str) -> None:
        await store.apply(office, reserve("k", ONLINE))
        seen.append(store._channels[None]._in_flight)

    valkey_server.pause()
    calls = [asyncio.ensure_future(call(OFFICES[0]))]
    await turns()
    assert store._channels[None]._in_flight == 1
    calls.append(asyncio.ensure_future(call(OFFICES[1])))
    await turns()
    assert len(store._channels[None]._waiting) == 1
    valkey_server.resume()
    await asyncio.gather(*calls)
    assert seen == [1, 0]


async def test_calls_of_a_process_keep_their_order(store: AsyncRedisStore) -> None:
    """A batch that starts while an earlier one is packed does not overtake it."""
    await reserve_everywhere(store, OFFICES[:1], 150)
    confirmed = await asyncio.gather(*(store.apply(OFFICES[0], Confirm(f"k{number}")) for number in range(150)))
    numbers = [outcome.reservation.queue_number for outcome in confirmed if outcome.reservation is not None]
    assert numbers == [*range(1, 151)]


async def test_calls_at_many_offices_share_script_calls(store: AsyncRedisStore, valkey_server: Server) -> None:
    """While the server is busy, the batch of each office grows, although each office has few callers."""
    before = script_calls(valkey_server)
    outcomes = await reserve_everywhere(store, OFFICES, 10)
    assert {one.status for one in outcomes} == {Status.HELD}
    assert script_calls(valkey_server) - before <= 2 * len(OFFICES)
    for office in OFFICES:
        assert await store.execute(Audit(office)) == []


async def test_a_busy_office_does_not_delay_a_quiet_one(store: AsyncRedisStore) -> None:
    """A call at a quiet office is answered before most of the calls that queued earlier at a busy one."""
    answered: list[str] = []

    async def call(office: str, key: str) -> None:
        await store.apply(office, reserve(key, ONLINE))
        answered.append(office)

    await reserve_everywhere(store, OFFICES, 1)  # opens the connections: the quiet call must not wait for one
    busy = [asyncio.ensure_future(call(OFFICES[0], f"b{number}")) for number in range(3_000)]
    await asyncio.sleep(0)
    await asyncio.gather(call(OFFICES[1], "quiet"), *busy)
    # Up to four batches of 128 were ahead of it.
    assert answered.index(OFFICES[1]) <= 5 * 128


async def test_a_cut_write_loses_no_call(valkey_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a write whose replies are lost is repeated, and is applied once."""
    monkeypatch.setattr(node_channel, "_WRITES_MAX", 1)
    with LossyProxy(valkey_server.socket_path) as proxy:
        store = await open_async_store(
            f"{proxy.url}?attempt_valid_ms=100&timeout_ms=20000&attempts_max=100&call_timeout_ms=60000", CLOCK
        )
        await publish(store, OFFICES[:6])
        proxy.losses = 2
        outcomes = await reserve_everywhere(store, OFFICES[:6], 3)
        assert proxy.losses == 0
        assert {one.status for one in outcomes} == {Status.HELD}
        for office in OFFICES[:6]:
            assert await store.execute(Audit(office)) == []
        await store.close()


async def test_a_cancelled_call_leaves_the_others_of_its_write(store: AsyncRedisStore) -> None:
    """Its neighbors get their answers; a later call with its key learns its outcome."""
    calls = [asyncio.ensure_future(store.apply(office, reserve("k", ONLINE))) for office in OFFICES]
    await asyncio.sleep(0.001)
    calls[-1].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, Outcome) and one.status is Status.HELD for one in outcomes[:-1])
    assert (await store.apply(OFFICES[-1], reserve("k", ONLINE))).status is Status.HELD
