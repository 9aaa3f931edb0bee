"""Consumers that wait for events, with and without a store that notifies them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany
from quota_engine.stores.sql.postgresql.factory import open_store
from quota_engine.stores.sql.postgresql.transactional_events import take_events, wait_for_events
from quota_engine.stores.sql.sync_store import SqlStore
from tests.support.postgresql_servers import PostgresqlServer

LONG_MS = 20_000
SHORT_MS = 30


@pytest.fixture(params=["on", "off"])
def notify(request: pytest.FixtureRequest) -> str:
    """The option of the URL."""
    return str(request.param)


@pytest.fixture
def store(postgresql: PostgresqlServer, schema: str, notify: str) -> Iterator[SqlStore]:
    opened = open_store(postgresql.url(schema=schema, notify=notify), ManualClock(OPENS_AT_MS))
    opened.execute(ApplyMany(OFFICE, published()))
    opened.execute(ApplyMany("bogor", published()))
    yield opened
    opened.close()


@pytest.fixture
def consumer(postgresql: PostgresqlServer) -> Iterator[psycopg.Connection[Any]]:
    with postgresql.connect() as connection:
        yield connection


def take(consumer: psycopg.Connection[Any], schema: str) -> int:
    with consumer.transaction():
        return len(take_events(consumer, OFFICE, "billing", schema=schema))


@pytest.mark.parametrize("notify", ["on"], indirect=True)
def test_commit_wakes_a_consumer(store: SqlStore, consumer: psycopg.Connection[Any], schema: str) -> None:
    """Also one that comes while the consumer takes events; a refusal and another office wake no consumer."""
    assert not wait_for_events(consumer, OFFICE, timeout_ms=1, schema=schema)
    taken = take(consumer, schema)
    assert store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    assert take(consumer, schema) > 0
    assert taken > 0
    began_ms = monotonic_ms()
    assert wait_for_events(consumer, OFFICE, timeout_ms=LONG_MS, schema=schema)
    assert monotonic_ms() - began_ms < LONG_MS / 2
    store.apply("bogor", reserve("budi", ONLINE))
    store.apply(OFFICE, Confirm("nobody"))
    assert not wait_for_events(consumer, OFFICE, timeout_ms=SHORT_MS, schema=schema)
    assert store.apply(OFFICE, Confirm("ani")).status is Status.CONFIRMED
    assert wait_for_events(consumer, OFFICE, timeout_ms=LONG_MS, schema=schema)


@pytest.mark.parametrize("notify", ["off"], indirect=True)
def test_consumer_of_a_silent_store_polls(store: SqlStore, consumer: psycopg.Connection[Any], schema: str) -> None:
    """As behind a pooler that gives each transaction another session."""
    take(consumer, schema)
    store.apply(OFFICE, reserve("ani", ONLINE))
    assert not wait_for_events(consumer, OFFICE, timeout_ms=SHORT_MS, schema=schema)
    assert take(consumer, schema) == 1


def test_wait_in_a_transaction_is_refused(postgresql: PostgresqlServer, consumer: psycopg.Connection[Any]) -> None:
    """Notifications arrive between transactions only."""
    with consumer.transaction(), pytest.raises(InvalidRequest, match="in a transaction"):
        wait_for_events(consumer, OFFICE)
    consumer.autocommit = False
    with pytest.raises(InvalidRequest, match="autocommit mode"):
        wait_for_events(consumer, OFFICE)
