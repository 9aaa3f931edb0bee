"""The plugin of the conformance suite tests both forms of a store."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from quota_engine import conformance
from quota_engine.conformance import test_backend as suite
from quota_engine.engine import store_discovery

pytest_plugins = ["pytester"]

CONFTEST = """
from quota_engine.engine import store_discovery
from quota_engine.stores import memory

class Factory:
    def __init__(self, broken):
        self.broken = broken

    def open_store(self, url, clock):
        return self.broken_if("sync", memory.open_store("memory://", clock))

    async def open_async_store(self, url, clock):
        return self.broken_if("async", await memory.open_async_store("memory://", clock))

    def broken_if(self, form, store):
        if form == self.broken:
            store.apply = lambda *arguments, **options: 1 / 0
        return store

store_discovery.store_factory = lambda url: Factory(url.removeprefix("broken://"))
"""
WITHOUT_PLUGINS = [f"-pno:{name}" for name in ("cacheprovider", "faker", "schemathesis", "anyio", "valkey", "xdist")]
"""The plugins of installed packages take a second of each run."""
SUITE = "from quota_engine.conformance.test_backend import test_offices_are_independent"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "forms", "passed", "failed"),
    [
        ("none", "sync,async", 2, 0),
        ("async", "sync,async", 1, 1),
        ("sync", "sync,async", 1, 1),
        ("async", "sync", 1, 0),
    ],
)
def test_each_form_of_a_store_is_tested(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, broken: str, forms: str, passed: int, failed: int
) -> None:
    """A store whose ``apply`` divides by zero in one form fails the test of that form alone."""
    monkeypatch.setattr(store_discovery, "store_factory", store_discovery.store_factory)  # the inner conftest sets it
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(f"from quota_engine.conformance.plugin import *\n{SUITE}")
    arguments = ("--quota-engine-backend", f"broken://{broken}", "--quota-engine-forms", forms)
    pytester.runpytest_inprocess(*WITHOUT_PLUGINS, *arguments).assert_outcomes(
        passed=passed, failed=failed, skipped=2 - passed - failed
    )


def test_suite_has_the_tests_of_every_module() -> None:
    """A store runs all of them with ``from quota_engine.conformance.test_backend import *``."""
    tests = set()
    for module in pkgutil.iter_modules(conformance.__path__, f"{conformance.__name__}."):
        names = vars(importlib.import_module(module.name))
        tests |= {name for name in names if name.startswith("test_") and callable(names[name])}
    assert len(tests) > 30
    assert tests <= vars(suite).keys()
