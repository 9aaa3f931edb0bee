"""SQLite passes the conformance suite, in both forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.ports import Clock, Store
from quota_engine.stores.sql.sqlite import factory


@pytest.fixture(params=["sync", "async"])
def quota_engine_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Return a function that opens an empty store. It does not wait for the disk, which another test does."""
    close: list[Callable[[], None]] = []

    def open_store(clock: Clock) -> Store:
        url = f"sqlite://{tmp_path}/{len(close)}.db?durability=memory"
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
