"""The Redis backend goes through the suite that ships for all backends, on every topology."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from quota_engine.adapters.redis.sync_backend import RedisBackend
from quota_engine.conformance.plugin import OpenBackend
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.ports import Backend, Clock
from tests.servers import Server

Opener = Callable[[Clock], Backend]


@pytest.fixture
def on_valkey(valkey_server: Server) -> Opener:
    """One Valkey."""
    return lambda clock: RedisBackend(_pool(valkey_server.client()), clock)


@pytest.fixture
def on_redis(redis_server: Server) -> Opener:
    """One Redis."""
    return lambda clock: RedisBackend(_pool(redis_server.client()), clock)


def _pool(client: redis.Redis) -> redis.ConnectionPool:
    pool: redis.ConnectionPool = client.connection_pool
    return pool


# A topology is a fixture that gives an opener of backends on an empty store; its name goes in here.
@pytest.fixture(params=["on_valkey", "on_redis"])
def quota_engine_backend(request: pytest.FixtureRequest) -> Iterator[OpenBackend]:
    """Backends of one topology, closed after the test."""
    opener: Opener = request.getfixturevalue(request.param)
    opened: list[Backend] = []

    def open_backend(clock: Clock) -> Backend:
        opened.append(opener(clock))
        return opened[-1]

    yield open_backend
    for backend in opened:
        backend.close()
