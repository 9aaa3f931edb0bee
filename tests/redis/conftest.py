"""Servers for the tests in this folder: one of each kind a worker, and emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Server, redis_server_binary_or_skip, valkey_server_binary


@pytest.fixture(scope="session")
def valkey_process() -> Iterator[Server]:
    """A Valkey that lasts for all tests of this worker."""
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_process() -> Iterator[Server]:
    """A Redis that lasts for all tests of this worker."""
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


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    """The program of each kind of server, for tests that start their own."""
    return valkey_server_binary() if request.param == "valkey" else redis_server_binary_or_skip()
