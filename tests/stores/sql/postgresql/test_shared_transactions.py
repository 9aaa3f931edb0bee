"""Transactions that ledgers share on a real PostgreSQL: they wait for no lock, and cannot deadlock."""

from __future__ import annotations

import asyncio

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, AsyncStore, Audit, View
from quota_engine.stores.sql.postgresql.factory import open_async_store
from tests.support.postgresql_servers import PostgresqlServer

pytestmark = pytest.mark.store

OFFICES = tuple(f"office{number}" for number in range(12))
CLOCK = ManualClock(OPENS_AT_MS)
CALL_MS = 60_000
"""No call ends early on a busy machine."""


async def open_offices(server: PostgresqlServer, schema: str) -> AsyncStore:
    store = await open_async_store(server.url(schema=schema, call_timeout_ms=CALL_MS), CLOCK)
    for office in OFFICES:
        await store.execute(ApplyMany(office, published()))
    return store


async def test_locked_ledger_delays_no_other(each_postgresql: PostgresqlServer, schema: str) -> None:
    store = await open_offices(each_postgresql, schema)
    with each_postgresql.connect() as other:
        with other.transaction():
            other.execute(f"SELECT * FROM {schema}.ledgers WHERE address = %s FOR UPDATE", (OFFICES[3],))  # noqa: S608
            tasks = [asyncio.create_task(store.apply(office, reserve("ani", ONLINE))) for office in OFFICES]
            await asyncio.wait_for(asyncio.gather(*tasks[:3], *tasks[4:]), CALL_MS / 2_000)
            assert not tasks[3].done()
        outcomes = await asyncio.gather(*tasks)
    assert {outcome.status for outcome in outcomes} == {Status.HELD}
    await store.close()


async def test_stores_that_share_in_other_orders_sell_each_place_once(
    each_postgresql: PostgresqlServer, schema: str
) -> None:
    """Locks of two processes in opposite orders would deadlock if a shared transaction waited for them."""
    stores = [await open_offices(each_postgresql, schema)]
    stores.append(await open_async_store(each_postgresql.url(schema=schema, call_timeout_ms=CALL_MS), CLOCK))

    async def reserve_everywhere(store: AsyncStore, name: str) -> list[Status]:
        statuses = []
        for number in range(6):
            offices = OFFICES if number % 2 else OFFICES[::-1]
            calls = (store.apply(office, reserve(f"{name}{number}", ONLINE)) for office in offices)
            statuses += [outcome.status for outcome in await asyncio.gather(*calls)]
        return statuses

    statuses = await asyncio.gather(*(reserve_everywhere(store, f"s{index}") for index, store in enumerate(stores)))
    held = sum(one is Status.HELD for part in statuses for one in part)
    views = [(await stores[0].execute(View(office, (DAY,))))[0].quotas["online"] for office in OFFICES]
    assert sum(view.held for view in views) == held
    assert all(view.held <= view.capacity for view in views)
    assert [await stores[1].execute(Audit(office)) for office in OFFICES] == [[]] * len(OFFICES)
    for store in stores:
        await store.close()
