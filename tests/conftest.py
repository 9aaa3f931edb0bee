"""Settings for all tests: reproducible Hypothesis, and the marker of tests that start a server."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

# Some machines forbid compiled files. Each worker and each service that a test starts would then compile every module
# again, which takes longer than most tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Without the phase "explain": its notes are longer than the list of commands that a failure prints.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
# A random walk is large by nature; seeds shrink failures better than Hypothesis does, so its size costs nothing.
_LARGE_INPUTS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

# No deadline: a time limit measures the machine that runs the tests, not the code.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=150,
    phases=_PHASES,
    report_multiple_bugs=False,
    suppress_health_check=_LARGE_INPUTS,
)
settings.register_profile(
    "long",
    derandomize=False,
    deadline=None,
    max_examples=5_000,
    phases=_PHASES,
    print_blob=True,
    suppress_health_check=_LARGE_INPUTS,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_SERVERS = ("valkey", "redis", "postgresql")
_SERVER_FIXTURES = frozenset(
    f"{kind}_{what}" for kind in _SERVERS for what in ("process", "server", "cluster", "sentinels")
) | {"cluster", "sentinels", "binary"}
"""Fixtures of ``tests/stores/redis/conftest.py`` that start a server."""

_POSTGRESQL_FIXTURES = frozenset({"postgresql", "each_postgresql", "postgresql_pair"})
"""Fixtures of ``tests/stores/sql/postgresql/conftest.py`` that start a server."""


def is_for_other_form(item: pytest.Item) -> bool:
    """Return True for a seeded test of the conformance suite whose seed belongs to the other form of the store.

    Here each seed runs on one form, which halves the time. Even seeds are for the synchronous form.
    """
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    form, seed = parameters.get("quota_engine_backend"), parameters.get("seed")
    return form in ("sync", "async") and isinstance(seed, int) and (form == "async") != bool(seed % 2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests with ``store`` that use a server's fixture, or a parameter that names a server."""
    others = [item for item in items if is_for_other_form(item)]
    if others:
        items[:] = [item for item in items if not is_for_other_form(item)]
        config.hook.pytest_deselected(items=others)
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if fixtures & (_SERVER_FIXTURES | _POSTGRESQL_FIXTURES) or any(
            isinstance(value, str) and value.removeprefix("on_").startswith(_SERVERS) for value in parameters
        ):
            item.add_marker("store")
