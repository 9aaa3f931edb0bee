"""The pytest plugin of the conformance suite: the option ``--quota-engine-backend URL`` and its fixtures."""

from __future__ import annotations

__all__ = ["OpenStore", "invariant_checks", "pytest_addoption", "quota_engine_backend"]

import secrets
from collections.abc import Callable, Iterator

import pytest

from quota_engine.domain.ledger import set_invariant_checks
from quota_engine.ports import Clock, Store

OpenStore = Callable[[Clock], Store]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--quota-engine-backend``."""
    parser.getgroup("quota_engine").addoption(
        "--quota-engine-backend",
        default="memory://",
        metavar="URL",
        help="URL of the store that quota_engine.conformance tests; {unique} in it is replaced by a random word per "
        "test, so that each test starts with an empty store (default: %(default)s)",
    )


@pytest.fixture
def quota_engine_backend(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Return a function that opens an empty store with a given clock. The stores are closed after the test.

    Override this fixture to open a store in another way than by its URL.
    """
    from quota_engine.engine.store_discovery import store_factory

    url = request.config.getoption("--quota-engine-backend").replace("{unique}", secrets.token_hex(8))
    opened: list[Store] = []

    def open_store(clock: Clock) -> Store:
        opened.append(store_factory(url).open_store(url, clock))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def invariant_checks() -> Iterator[None]:
    """Assert conservation after every event that this process applies."""
    set_invariant_checks(True)
    yield
    set_invariant_checks(False)
