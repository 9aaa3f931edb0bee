"""PostgreSQL passes the conformance suite, in both forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.ports import Clock, Store
from quota_engine.stores.sql.postgresql import factory
from tests.support.postgresql_servers import PostgresqlServer


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run random commands in one form only: both forms run the same generators, and a commit each takes long."""
    if "quota_engine_backend" in metafunc.fixturenames:
        is_random = metafunc.function.__name__.startswith("test_random")
        metafunc.parametrize("quota_engine_backend", ["sync"] if is_random else ["sync", "async"], indirect=True)


@pytest.fixture
def quota_engine_backend(request: pytest.FixtureRequest, postgresql: PostgresqlServer) -> Iterator[OpenStore]:
    """Return a function that opens an empty store. It does not wait for the disk, which another test does."""
    close: list[Callable[[], None]] = []

    def open_store(clock: Clock) -> Store:
        url = postgresql.url(schema=postgresql.new_schema(), durability="memory", options="-csynchronous_commit%3Doff")
        if request.param == "sync":
            store = factory.open_store(url, clock)
            close.append(store.close)
            return store
        facade = AsyncStoreFacade(lambda: factory.open_async_store(url, clock))
        close.append(facade.stop)
        return facade

    yield open_store
    for close_store in close:
        close_store()
