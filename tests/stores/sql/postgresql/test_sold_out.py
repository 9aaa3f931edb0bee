"""The option ``sold_out_ms`` of a PostgreSQL store; ``tests/stores/sql/test_sold_out.py`` tests the refusals."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany
from quota_engine.stores.sql.postgresql.factory import open_async_store, open_store
from tests.support.postgresql_servers import PostgresqlServer

PEOPLE = ("ani", "budi", "citra")


def test_sold_out_reserve_is_refused_without_the_server(postgresql: PostgresqlServer, schema: str) -> None:
    store = open_store(postgresql.url(schema=schema, sold_out_ms=60_000), ManualClock(OPENS_AT_MS))
    store.execute(ApplyMany(OFFICE, published()))
    statuses = [store.apply(OFFICE, reserve(person, ONLINE)).status for person in PEOPLE]
    assert statuses == [Status.HELD, Status.HELD, Status.SOLD_OUT]
    postgresql.pause()
    try:
        assert store.apply(OFFICE, reserve("dewi", ONLINE)).status is Status.SOLD_OUT
        with pytest.raises(BackendUnavailable):  # it has a place
            store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=monotonic_ms() + 200)
    finally:
        postgresql.resume()
    store.close()


async def test_async_sold_out_reserve_is_refused_without_the_server(postgresql: PostgresqlServer, schema: str) -> None:
    store = await open_async_store(postgresql.url(schema=schema, sold_out_ms=60_000), ManualClock(OPENS_AT_MS))
    await store.execute(ApplyMany(OFFICE, published()))
    statuses = [(await store.apply(OFFICE, reserve(person, ONLINE))).status for person in PEOPLE]
    assert statuses == [Status.HELD, Status.HELD, Status.SOLD_OUT]
    postgresql.pause()
    try:
        assert (await store.apply(OFFICE, reserve("dewi", ONLINE))).status is Status.SOLD_OUT
    finally:
        postgresql.resume()
    await store.close()


def test_default_is_the_one_of_redis(postgresql: PostgresqlServer, schema: str) -> None:
    """With a clock of the caller, nothing is remembered unless the URL has the option."""
    cases: tuple[tuple[ManualClock | None, dict[str, Any], int], ...] = (
        (None, {}, 250),
        (ManualClock(OPENS_AT_MS), {}, 0),
        (ManualClock(OPENS_AT_MS), {"sold_out_ms": 100}, 100),
        (None, {"sold_out_ms": 0}, 0),
    )
    for clock, options, expected_ms in cases:
        store = open_store(postgresql.url(schema=schema, **options), clock)
        assert store._sold_out_ms == expected_ms
        store.close()


def test_impossible_times_are_rejected() -> None:
    with pytest.raises(InvalidRequest, match="option sold_out_ms"):
        open_store("postgresql:///quota?sold_out_ms=60001", None)
