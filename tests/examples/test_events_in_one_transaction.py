"""Consumers are killed at any moment, and each event is counted exactly once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

import psycopg
import pytest

from quota_engine import InvalidRequest, ReservationChanged
from quota_engine.conformance.world import OFFICE, ONLINE, applicant, reserve
from quota_engine.domain.commands import Confirm
from quota_engine.ports import ApplyMany, CreateConsumerGroup, ListConsumerGroups, ReadConsumerGroup, ReadEvents, Store
from quota_engine.stores.sql.postgresql.transactional_events import take_events
from tests.support.acknowledged_load import open_office
from tests.support.paths import ROOT
from tests.support.postgresql_servers import PostgresqlServer, wheel_programs

pytestmark = pytest.mark.store

SCHEMA = "events"
KILLS = 6
BATCHES = 15


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server whose store has events."""
    with PostgresqlServer(wheel_programs()) as server:
        yield server


@pytest.fixture(scope="module")
def store(postgresql: PostgresqlServer) -> Iterator[Store]:
    """A store with an entry of 20 events for each batch of commands."""
    store = open_office(postgresql.url(schema=SCHEMA))
    for batch in range(BATCHES):
        keys = [f"b{batch}n{number}" for number in range(10)]
        commands = [command for key in keys for command in (reserve(key, ONLINE), Confirm(key, applicant(key)))]
        store.execute(ApplyMany(OFFICE, tuple(commands)))
    yield store
    store.close()


def database_of(server: PostgresqlServer) -> str:
    return f"postgresql://postgres@/postgres?host={server.directory}&port={server.port}"


def start(server: PostgresqlServer) -> subprocess.Popen[bytes]:
    command = [sys.executable, "examples/events_in_one_transaction.py", "--database", database_of(server)]
    options = ["--office", OFFICE, "--schema", SCHEMA, "--limit", "3", "--once"]
    return subprocess.Popen([*command, *options], cwd=ROOT)


@pytest.mark.slow
def test_killed_consumers_count_each_event_once(postgresql: PostgresqlServer, store: Store) -> None:
    random = Random(1)
    for _ in range(KILLS):
        consumers = [start(postgresql), start(postgresql)]
        time.sleep(random.uniform(0.3, 0.8))  # the moment of the kill, from a seed
        for consumer in consumers:
            consumer.kill()
            consumer.wait()
    with start(postgresql) as last:
        assert last.wait() == 0
    expected: Counter[tuple[int, str]] = Counter()
    for recorded in store.execute(ReadEvents(OFFICE, 0, 1_000_000)):
        if isinstance(recorded.event, ReservationChanged):
            record = recorded.event.reservation
            expected[record.day, str(recorded.event.verb)] += record.units
    counted = postgresql.query("SELECT day, verb, units FROM places_by_day")
    assert {(day, verb): units for day, verb, units in counted} == expected
    assert sum(expected.values()) == 20 * BATCHES
    (group,) = [one for one in store.execute(ListConsumerGroups(OFFICE)) if one.name == "places-by-day"]
    assert (group.lag, group.pending) == (0, 0)


def test_rolled_back_events_come_again(postgresql: PostgresqlServer, store: Store) -> None:
    with postgresql.connect() as connection:
        with connection.transaction(force_rollback=True):
            first = take_events(connection, OFFICE, "rolled-back", limit=7, schema=SCHEMA)
        with connection.transaction():
            assert take_events(connection, OFFICE, "rolled-back", limit=7, schema=SCHEMA) == first
        with connection.transaction():
            second = take_events(connection, OFFICE, "rolled-back", limit=7, schema=SCHEMA)
    assert [one.number for one in (*first, *second)] == list(range(1, 15))
    assert first + second == store.execute(ReadEvents(OFFICE, 0, 14))


def test_bad_uses_are_refused(postgresql: PostgresqlServer, store: Store) -> None:
    store.execute(CreateConsumerGroup(OFFICE, "leased", 0))
    store.execute(ReadConsumerGroup(OFFICE, "leased", "consumer", 5, 0))
    with postgresql.connect() as connection:
        with pytest.raises(InvalidRequest, match="not in a transaction"):
            take_events(connection, OFFICE, "group", schema=SCHEMA)
        with pytest.raises(InvalidRequest, match="outside a transaction"), connection.transaction():
            take_events(connection, OFFICE, "leased", schema=SCHEMA)
        with connection.transaction():
            assert take_events(connection, "unknown", "group", schema=SCHEMA) == []
        with pytest.raises(psycopg.errors.UndefinedTable), connection.transaction():
            take_events(connection, OFFICE, "group", schema="nowhere")
