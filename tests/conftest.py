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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with ``store`` that use a server's fixture, or a parameter that names a server."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if fixtures & (_SERVER_FIXTURES | _POSTGRESQL_FIXTURES) or any(
            isinstance(value, str) and value.removeprefix("on_").startswith(_SERVERS) for value in parameters
        ):
            item.add_marker("store")
