"""A waiting room and a draw of the synchronous engine on PostgreSQL: their tests run on other stores elsewhere."""

from __future__ import annotations

import pytest

from quota_engine import ManualClock, QuotaEngine
from tests.engine import test_waiting_rooms
from tests.support.draw_runs import KEY, NOW_MS, catalog, whole_draw
from tests.support.postgresql_servers import PostgresqlServer


@pytest.fixture
def url(postgresql: PostgresqlServer, schema: str) -> str:
    """The URL of an empty store that does not wait for the disk."""
    return postgresql.url(schema=schema, durability="memory", options="-csynchronous_commit%3Doff")


@pytest.mark.slow
def test_opening_of_a_room(url: str) -> None:
    clock, catalog = ManualClock(test_waiting_rooms.OPENS_AT_MS - 3_600_000), test_waiting_rooms.CATALOG
    with QuotaEngine.open(url, identity_key=test_waiting_rooms.KEY, catalog=catalog, clock=clock) as engine:
        engine.publish(catalog, test_waiting_rooms.FIRST_DAY, test_waiting_rooms.LAST_DAY)
        test_waiting_rooms.test_an_opening_from_the_first_ticket_to_the_last_pass(engine, clock)


def test_draw_from_the_announcement_to_the_places(url: str) -> None:
    clock = ManualClock(NOW_MS)
    with QuotaEngine.open(url, identity_key=KEY, catalog=catalog(), clock=clock) as engine:
        whole_draw(engine, clock)
