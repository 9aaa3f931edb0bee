"""Servers for the tests in this folder: one of each kind a worker, and emptied for each test.

They end with the last test of the folder: idle clusters and Sentinels take a twentieth of a processor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.batching import Opened
from tests.support.server_groups import SENTINEL_PERIODS, SENTINEL_SHORT_PERIODS, Cluster, Sentinels
from tests.support.servers import HOST, Server, redis_server_binary_or_skip, valkey_server_binary
from tests.support.sold_out import Scene


@pytest.fixture(scope="package")
def valkey_process() -> Iterator[Server]:
    """A Valkey that lasts for all tests of this folder in this worker."""
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture(scope="package")
def redis_process() -> Iterator[Server]:
    """A Redis that lasts for all tests of this folder in this worker."""
    with Server(redis_server_binary_or_skip()) as server:
        yield server


def emptied(server: Server) -> Server:
    """The server, running and without a key; scripts that it knows stay known."""
    if not server.is_running:
        server.start()
    server.ask("FLUSHALL")
    return server


@pytest.fixture
def valkey_server(valkey_process: Server) -> Server:
    """An empty Valkey."""
    return emptied(valkey_process)


@pytest.fixture
def redis_server(redis_process: Server) -> Server:
    """An empty Redis."""
    return emptied(redis_process)


@pytest.fixture(scope="package")
def valkey_cluster() -> Iterator[Cluster]:
    """A cluster that lasts for all tests of this folder in this worker: three primaries, each with a replica."""
    with Cluster(valkey_server_binary(), replicas_each=1) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def redis_cluster() -> Iterator[Cluster]:
    """The same of Redis."""
    with Cluster(redis_server_binary_or_skip(), replicas_each=1) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def valkey_sentinels() -> Iterator[Sentinels]:
    """A primary, its replica and three Sentinels, which last for all tests of this folder in this worker."""
    with Sentinels(valkey_server_binary()) as group:
        yield group


@pytest.fixture(scope="package")
def redis_sentinels() -> Iterator[Sentinels]:
    """The same of Redis."""
    with Sentinels(redis_server_binary_or_skip()) as group:
        yield group


@pytest.fixture(params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """An empty cluster that is whole. Its slots may be elsewhere than at the start."""
    cluster: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    cluster.wait_ok()
    empty_members(cluster.members)
    return cluster


@pytest.fixture(params=["valkey", "redis"])
def sentinels(request: pytest.FixtureRequest) -> Iterator[Sentinels]:
    """An empty primary behind Sentinels that notice changes fast."""
    group: Sentinels = request.getfixturevalue(f"{request.param}_sentinels")
    group.set_periods(SENTINEL_SHORT_PERIODS)
    empty_members(group.data.members)
    yield group
    group.set_periods(SENTINEL_PERIODS)


def empty_members(members: list[Server]) -> None:
    """No key is left on any primary, and so none on its replicas."""
    for member in members:
        if member.info("replication")["role"] == "master":
            member.ask("FLUSHALL")


def cluster_url(cluster: Cluster) -> str:
    """Return a URL with two of the cluster's nodes. The router discovers the remaining ones."""
    return "redis+cluster://" + ",".join(f"{HOST}:{member.port}" for member in cluster.members[:2])


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    """The program of each kind of server, for tests that start their own."""
    return valkey_server_binary() if request.param == "valkey" else redis_server_binary_or_skip()


@pytest.fixture(params=["valkey", "redis"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A store with a sold-out cache, on each kind of server."""
    it = Scene(request.getfixturevalue(f"{request.param}_server"))
    yield it
    for backend in it.opened:
        backend.close()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A Valkey of the test's own, to be stopped."""
    with Server(valkey_server_binary(), appendfsync="always") as server:
        yield server


@pytest.fixture
def counted_server() -> Iterator[Server]:
    """A Valkey of the test's own, to be stopped and counted; every script call gets into its slow log."""
    with Server(
        valkey_server_binary(), settings=[("slowlog-log-slower-than", "0"), ("slowlog-max-len", "20000")]
    ) as it:
        yield it


@pytest.fixture
def opened(counted_server: Server) -> Iterator[Opened]:
    """Stores of one server, closed after the test."""
    it = Opened(counted_server)
    yield it
    if counted_server.is_running:
        counted_server.resume()
    for backend in it.backends:
        backend.close()


@pytest.fixture
async def async_opened(counted_server: Server) -> AsyncIterator[Opened]:
    """The same for tests of tasks."""
    it = Opened(counted_server)
    yield it
    if counted_server.is_running:
        counted_server.resume()
    for async_backend in it.async_backends:
        await async_backend.close()
    for backend in it.backends:
        backend.close()
