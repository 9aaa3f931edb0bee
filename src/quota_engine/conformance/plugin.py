"""The pytest plugin of the conformance suite: the option ``--quota-engine-backend URL`` and its fixtures.

Each test runs twice, on the store of ``open_store`` and on that of ``open_async_store``.
"""

from __future__ import annotations

__all__ = ["OpenStore", "invariant_checks", "pytest_addoption", "quota_engine_backend"]

import secrets
from collections.abc import Callable, Iterator

import pytest

from quota_engine.conformance.async_facade import AsyncStoreFacade
from quota_engine.domain.invariant_checks import set_invariant_checks
from quota_engine.ports import Clock, Store

OpenStore = Callable[[Clock], Store]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options ``--quota-engine-backend`` and ``--quota-engine-forms``."""
    group = parser.getgroup("quota_engine")
    group.addoption(
        "--quota-engine-forms",
        default="sync,async",
        help="the forms of the store to test: sync, async, or both with a comma (default: %(default)s)",
    )
    group.addoption(
        "--quota-engine-backend",
        default="memory://",
        metavar="URL",
        help="URL of the store that quota_engine.conformance tests; {unique} in it is replaced by a random word per "
        "test, so that each test starts with an empty store (default: %(default)s)",
    )


@pytest.fixture(params=["sync", "async"])
def quota_engine_backend(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Return a function that opens an empty store with a given clock. The stores are closed after the test.

    Override this fixture to open a store in another way than by its URL.
    """
    from quota_engine.engine.store_discovery import store_factory

    form = request.param
    if form not in request.config.getoption("--quota-engine-forms").split(","):
        pytest.skip(f"--quota-engine-forms leaves out {form}")
    url = request.config.getoption("--quota-engine-backend").replace("{unique}", secrets.token_hex(8))
    factory = store_factory(url)
    close: list[Callable[[], None]] = []

    def open_store(clock: Clock) -> Store:
        if form == "sync":
            store = factory.open_store(url, clock)
            close.append(store.close)
            return store
        facade = AsyncStoreFacade(lambda: factory.open_async_store(url, clock))
        close.append(facade.stop)
        return facade

    yield open_store
    for close_store in close:
        close_store()


@pytest.fixture
def invariant_checks() -> Iterator[None]:
    """Assert conservation after every event that this process applies."""
    set_invariant_checks(True)
    yield
    set_invariant_checks(False)
