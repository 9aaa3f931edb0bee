"""The pytest plugin: ``--quota-engine-backend URL`` says which store the conformance suite is run against."""

from __future__ import annotations

__all__ = ["OpenStore", "pytest_addoption", "quota_engine_backend"]

import secrets
from collections.abc import Callable, Iterator

import pytest

from quota_engine.ports import Clock, Store

OpenStore = Callable[[Clock], Store]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("quota_engine").addoption(
        "--quota-engine-backend",
        default="memory://",
        metavar="URL",
        help="the store that quota_engine.conformance is run against; {unique} in it is replaced by another word "
        "for every test, so that each starts with an empty store (default: %(default)s)",
    )


@pytest.fixture
def quota_engine_backend(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Opens stores that start empty and take their time from the clock they are given; closes them after the test.

    Override it to open a backend in another way than by its URL.
    """
    from quota_engine.engine.quota_engine import backend_factory

    url = request.config.getoption("--quota-engine-backend").replace("{unique}", secrets.token_hex(8))
    opened: list[Store] = []

    def open_store(clock: Clock) -> Store:
        opened.append(backend_factory(url).open_store(url, clock))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()
