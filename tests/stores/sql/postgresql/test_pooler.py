"""The store behind a real PgBouncer in transaction mode: each transaction may get another session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit
from quota_engine.stores.sql.postgresql.factory import open_async_store
from tests.support.acknowledged_load import Load, check_acknowledged, open_office
from tests.support.pgbouncer import PgBouncer
from tests.support.postgresql_servers import PostgresqlServer

pytestmark = [pytest.mark.store, pytest.mark.slow]

RESTARTS = 3


@pytest.fixture
def pooler(postgresql: PostgresqlServer) -> Iterator[PgBouncer]:
    """A running pooler in front of the server."""
    with PgBouncer(postgresql) as pooler:
        yield pooler


@pytest.mark.parametrize("prepare", ["on", "off"])
def test_threads_share_the_sessions_of_a_pooler(pooler: PgBouncer, schema: str, prepare: str) -> None:
    """With ``prepare=on`` the pooler does not know the statements of other sessions. The store then prepares none."""
    url = pooler.url(schema, prepare=prepare)
    store = open_office(url)
    with Load(store) as load:
        load.wait_for(200)
    store.close()
    assert check_acknowledged(url, load.acknowledged) >= 200


async def test_tasks_of_several_offices_share_the_sessions_of_a_pooler(pooler: PgBouncer, schema: str) -> None:
    store = await open_async_store(pooler.url(schema), ManualClock(OPENS_AT_MS))
    offices = [f"{OFFICE}-{number}" for number in range(10)]
    await asyncio.gather(*(store.execute(ApplyMany(office, published())) for office in offices))
    calls = [store.apply(office, reserve(f"k{number}", ONLINE)) for number in range(6) for office in offices]
    outcomes = await asyncio.gather(*calls)
    assert {outcome.status for outcome in outcomes} <= {Status.HELD, Status.SOLD_OUT}
    for office in offices:
        assert await store.execute(Audit(office)) == []
    await store.close()


def test_a_restarted_pooler_loses_nothing_acknowledged(pooler: PgBouncer, schema: str) -> None:
    """The calls in flight are repeated under the same keys."""
    url = pooler.url(schema)
    store = open_office(url)
    with Load(store) as load:
        for _ in range(RESTARTS):
            load.wait_for(50)
            pooler.kill()
            pooler.start()
        load.wait_for(50)
    store.close()
    assert check_acknowledged(url, load.acknowledged) >= len(load.acknowledged)
