"""The Redis backend goes through the suite that ships for all backends, on every topology.

Here the scripts run as functions of the server, as they do by default.
``test_conformance_asyncio.py`` sends them as scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.test_backend import *  # noqa: F403
from quota_engine.ports import Clock, Store
from quota_engine.stores.redis.factory import open_store
from tests.stores.redis.conftest import cluster_url, empty_members
from tests.support.server_groups import Cluster, Sentinels
from tests.support.servers import Server

Opener = Callable[[Clock], Store]


@pytest.fixture
def on_valkey(valkey_server: Server) -> Opener:
    """One Valkey."""
    return lambda clock: open_store(valkey_server.url, clock)


@pytest.fixture
def on_redis(redis_server: Server) -> Opener:
    """One Redis."""
    return lambda clock: open_store(redis_server.url, clock)


@pytest.fixture
def on_valkey_cluster(valkey_cluster: Cluster) -> Opener:
    """A cluster of Valkeys."""
    empty_members(valkey_cluster.members)
    return lambda clock: open_store(cluster_url(valkey_cluster), clock)


@pytest.fixture
def on_redis_sentinels(redis_sentinels: Sentinels) -> Opener:
    """A Redis that Sentinels watch."""
    empty_members(redis_sentinels.data.members)
    return lambda clock: open_store(redis_sentinels.url, clock)


# A topology is a fixture that gives an opener of backends on an empty store; its name goes in here.
@pytest.fixture(params=["on_valkey", "on_redis", "on_valkey_cluster", "on_redis_sentinels"])
def quota_engine_backend(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Backends of one topology, closed after the test."""
    opener: Opener = request.getfixturevalue(request.param)
    opened: list[Store] = []

    def open_one(clock: Clock) -> Store:
        opened.append(opener(clock))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()
