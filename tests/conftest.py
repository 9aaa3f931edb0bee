"""Settings for all tests: reproducible Hypothesis, and the marker of tests that start a server."""

from __future__ import annotations

import gc
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# No test uses the plugins of installed packages for Hypothesis, and to import trio takes 0.2 s of each worker. They
# load with Hypothesis itself.
os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.support.effort import LONG_EXAMPLES, PROFILE
from tests.support.left_out import (  # noqa: F401 - hooks
    pytest_deselected,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from tests.support.server_folders import pytest_configure  # noqa: F401 - a hook

if TYPE_CHECKING:
    from tests.support.postgresql_servers import PostgresqlServer

# Some machines forbid compiled files. Each worker and each service that a test starts would then compile every module
# again, which takes longer than most tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No test checks a public certificate. Without this, each HTTP client that opens, also in processes that tests start,
# reads all public authorities, which takes 60 ms of processor time.
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
os.environ.pop("SSL_CERT_FILE", None)

if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()  # nothing of a collection becomes garbage; pytest_collection_finish continues

# Without the phase "explain": its notes are longer than the list of commands that a failure prints.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
# A random walk is large by nature; seeds shrink failures better than Hypothesis does, so its size costs nothing.
_LARGE_INPUTS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

# No deadline: a time limit measures the machine that runs the tests, not the code.
for _profile in ("gate", "thorough"):
    settings.register_profile(
        _profile,
        derandomize=True,
        deadline=None,
        max_examples=50 if _profile == "gate" else 150,
        phases=_PHASES,
        report_multiple_bugs=False,
        suppress_health_check=_LARGE_INPUTS,
    )
settings.register_profile(
    "long",
    derandomize=False,
    deadline=None,
    max_examples=LONG_EXAMPLES,
    phases=_PHASES,
    print_blob=True,
    suppress_health_check=_LARGE_INPUTS,
)
settings.load_profile(PROFILE)
if PROFILE != "long":
    # Hypothesis also takes constants of the modules that happen to be imported, so the examples of a test would depend
    # on the other tests of its worker. A campaign needs them; the gate needs the same examples in each run.
    pytest.MonkeyPatch().setattr("hypothesis.internal.conjecture.providers.is_local_module_file", lambda _: False)

_SERVERS = ("valkey", "redis", "postgresql")
_SERVER_FIXTURES = frozenset(
    f"{kind}_{what}" for kind in _SERVERS for what in ("process", "server", "cluster", "sentinels")
) | {"cluster", "sentinels", "binary", "server", "own_server", "counted_server"}
"""Fixtures that start a Redis or Valkey server, most of them in ``tests/stores/redis/conftest.py``."""

_POSTGRESQL_FIXTURES = frozenset({"postgresql", "each_postgresql", "postgresql_pair"})
"""Fixtures that start a PostgreSQL."""


_FURTHER_TOPOLOGIES = ("on_redis", "on_valkey_cluster", "on_redis_sentinels")
"""In the gate, each scenario runs on one Valkey and on one of these, which a hash of its name chooses."""
_FURTHER_SEEDS = len(_FURTHER_TOPOLOGIES)
"""In the gate, each further topology takes one seed of a random test of the conformance suite."""
_BATCHED_SEEDS = 2
"""In the gate, batched calls take the seeds below this one."""
_LONG_TESTS = frozenset({"test_guarded_commands", "test_token_buckets"})
"""Random tests of the conformance suite with one seed, which take a second. They are treated like a scenario."""


_KILLS_ON_EACH_SERVER = frozenset({("redis", "test_kills.py"), ("redis", "test_multi_office.py")})
"""Files in which several processes are killed. In the gate they run on Valkey, and in thorough runs on Redis, too."""


def _is_for_thorough_runs(item: pytest.Item) -> bool:
    """Return True if the gate leaves this test to ``make test-thorough``.

    In the gate, each seed and each scenario runs on one form of a SQL store. Each scenario runs on one form of the
    store of a Valkey. Both forms of the memory store run all. Even seeds are for the synchronous form.
    """
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    store, seed, scenario = (parameters.get(name) for name in ("quota_engine_backend", "seed", "scenario"))
    function = getattr(item, "function", None)
    folder, file = item.path.parts[-2:]
    if PROFILE == "gate" and (folder, file) in _KILLS_ON_EACH_SERVER:
        return "redis" in parameters.values()
    if PROFILE != "gate" or not getattr(function, "__module__", "").startswith("quota_engine.conformance."):
        return False
    name = getattr(function, "__name__", "") if scenario is None else scenario.name
    name_hash = zlib.crc32(name.encode())
    if store in _FURTHER_TOPOLOGIES:
        if scenario is None and seed is None and name not in _LONG_TESTS:
            return False
        number = name_hash if seed is None else seed
        return number % _FURTHER_SEEDS != _FURTHER_TOPOLOGIES.index(store) or (seed or 0) >= _FURTHER_SEEDS
    if folder == "redis" and scenario is not None:
        # Not the hash's last bits, which choose the further topology.
        return bool((name_hash >> 8) % 2) != (file == "test_conformance_asyncio.py")
    if "sql" in item.path.parts and scenario is not None:
        seed = name_hash
    if not isinstance(seed, int):
        return False
    if store in ("sync", "async"):
        return bool((store == "async") != bool(seed % 2))
    return bool(file == "test_conformance_asyncio.py" and seed >= _BATCHED_SEEDS)


_SUITES_WITH_FILES = frozenset(
    {("sql", "test_conformance.py"), ("docs", "test_contributing.py"), ("examples", "test_third_party.py")}
)
"""Runs of the conformance suite in which each of hundreds of tests makes a file."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests with ``store`` that use a server's fixture, or a parameter that names a server."""
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (left if _is_for_thorough_runs(item) else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
    for item in items:
        if item.path.parts[-2:] in _SUITES_WITH_FILES:
            item.add_marker("slow")
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if fixtures & (_SERVER_FIXTURES | _POSTGRESQL_FIXTURES) or any(
            isinstance(value, str) and value.removeprefix("on_").startswith((*_SERVERS, "cluster"))
            for value in parameters
        ):
            item.add_marker("store")


def pytest_collection_finish() -> None:
    """Keep the collected tests out of garbage collections, each of which would stop a test for hundreds of ms."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgresql_wheel_process() -> Iterator[PostgresqlServer]:
    """The PostgreSQL of the wheel, which lasts for all tests of this worker."""
    # Not at the top: most tests need neither psycopg nor a server.
    from tests.support.postgresql_servers import TEST_SETTINGS, PostgresqlServer, wheel_programs

    with PostgresqlServer(wheel_programs(), settings=TEST_SETTINGS) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_wheel_process: PostgresqlServer) -> PostgresqlServer:
    """A running PostgreSQL of the wheel."""
    from tests.support.postgresql_servers import running

    return running(postgresql_wheel_process)


@pytest.fixture
def schema(postgresql_wheel_process: PostgresqlServer) -> str:
    """The name of a schema of PostgreSQL that no other test uses."""
    return postgresql_wheel_process.new_schema()
