"""Calls leave no reference cycles. The garbage collector would stall all callers while it frees them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Reserve
from quota_engine.domain.outcomes import Status
from quota_engine.stores.redis import factory as redis_factory
from quota_engine.stores.sql.postgresql import factory as postgresql_factory
from quota_engine.stores.sql.sqlite import factory as sqlite_factory
from tests.support.postgresql_servers import PostgresqlServer
from tests.support.servers import Server, valkey_server_binary

OFFICES = ("north", "south", "west", "east")
CALLS = 12
"""Calls of each office at a time."""
ROUNDS = 5


@pytest.fixture
def sqlite(tmp_path: Path) -> tuple[Any, str]:
    return sqlite_factory, f"sqlite:///{tmp_path}/quota.db"


@pytest.fixture
def postgresql_schema(postgresql: PostgresqlServer, schema: str) -> tuple[Any, str]:
    return postgresql_factory, postgresql.url(schema=schema)


@pytest.fixture
def valkey() -> Iterator[tuple[Any, str]]:
    with Server(valkey_server_binary()) as server:
        yield redis_factory, server.url


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql_schema", marks=pytest.mark.store),
        pytest.param("valkey", marks=pytest.mark.store),
    ]
)
def opened(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """The factory of a kind of store, and the URL of an empty one."""
    found: tuple[Any, str] = request.getfixturevalue(request.param)
    return found


def calls(round_: int) -> list[tuple[str, Reserve]]:
    """Return the calls of a round. Those of the first round take places; most later ones are refused."""
    return [(office, reserve(f"ani{round_}-{number}", ONLINE)) for office in OFFICES for number in range(CALLS)]


class Garbage:
    """The objects of this library that only the garbage collector frees.

    Attributes:
        found: Their number by type, after the ``with`` block.
    """

    def __enter__(self) -> Self:
        gc.collect()
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            # `type`, not `__class__`: a lazy object of another library computes the latter when asked for it
            types = [type(one) for one in gc.garbage]
            self.found = Counter(one.__qualname__ for one in types if one.__module__.startswith("quota_engine"))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


async def test_tasks_leave_no_reference_cycle(opened: tuple[Any, str]) -> None:
    factory, url = opened
    store = await factory.open_async_store(url, ManualClock(OPENS_AT_MS))
    for office in OFFICES:
        for command in published():
            await store.apply(office, command)
    with Garbage() as garbage:
        statuses: Counter[Status] = Counter()
        for number in range(ROUNDS):
            outcomes = await asyncio.gather(*(store.apply(*call) for call in calls(number)))
            statuses.update(outcome.status for outcome in outcomes)
    assert garbage.found == {}
    assert statuses[Status.HELD] >= len(OFFICES)
    await store.close()


def test_threads_leave_no_reference_cycle(opened: tuple[Any, str]) -> None:
    factory, url = opened
    store = factory.open_store(url, ManualClock(OPENS_AT_MS))
    for office in OFFICES:
        for command in published():
            store.apply(office, command)
    with ThreadPoolExecutor(CALLS) as pool, Garbage() as garbage:
        statuses: Counter[Status] = Counter()
        for number in range(ROUNDS):
            outcomes = pool.map(lambda call: store.apply(*call), calls(number))
            statuses.update(outcome.status for outcome in outcomes)
    assert garbage.found == {}
    assert statuses[Status.HELD] >= len(OFFICES)
    store.close()
