"""A clock that leaps, with ledgers in PostgreSQL: the same tests as for memory and SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from quota_engine.ports import Clock, Store
from quota_engine.stores.sql.postgresql.connections import Connections
from quota_engine.stores.sql.postgresql.url import parse_url
from quota_engine.stores.sql.sync_store import SqlStore
from tests.stores.test_clock_leaps import (
    World,
    test_command_at_a_wrong_time_destroys_nothing,
    test_reconcile_brings_the_time_of_an_office_back,
    test_refusals_are_logged_once_a_minute,
)
from tests.support.postgresql_servers import PostgresqlServer

__all__ = [
    "test_command_at_a_wrong_time_destroys_nothing",
    "test_reconcile_brings_the_time_of_an_office_back",
    "test_refusals_are_logged_once_a_minute",
]


@pytest.fixture
def world(postgresql: PostgresqlServer, schema: str) -> Iterator[World]:
    """A published office in a database."""

    def open_store(clock: Clock, second_clock: Clock) -> Store:
        connections = Connections(parse_url(postgresql.url(schema=schema)))
        connections.open()
        return SqlStore(connections, clock, second_clock=second_clock)

    world = World(open_store)
    with closing(world.store):
        yield world
