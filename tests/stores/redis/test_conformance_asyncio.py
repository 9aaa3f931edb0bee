"""The store for asyncio passes the conformance suite: its calls travel in batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff

from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.ports import AsyncStore, Clock, Store
from quota_engine.stores.redis.async_store import AsyncRedisStore
from tests.support.servers import Server


@pytest.fixture
def quota_engine_backend(valkey_server: Server) -> Iterator[OpenStore]:
    """The conformance suite's way to a store, here by asyncio."""
    opened: list[AsyncStoreFacade] = []

    def open_store(clock: Clock) -> Store:
        async def make() -> AsyncStore:
            pool = BlockingConnectionPool.from_url(
                valkey_server.url, decode_responses=True, max_connections=8, retry=AsyncRetry(NoBackoff(), 0)
            )
            return AsyncRedisStore(pool, clock)

        opened.append(AsyncStoreFacade(make))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.stop()
