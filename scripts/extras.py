"""The promise of each extra: a program that must run where only this extra is installed.

``scripts/package_matrix.py`` runs the programs in clean environments. ``tests/scripts/test_extras.py`` runs them in the
environment of the tests, where the packages of other extras cannot be imported (:func:`foreign_modules`).
"""

from __future__ import annotations

__all__ = ["PROMISES", "SLOW_PROMISES", "foreign_modules", "oldest_versions", "program_of", "write_import_guard"]

import functools
import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GUARD_VARIABLE: Final = "QUOTA_ENGINE_FOREIGN_MODULES"
_OWN_NAME: Final = canonicalize_name(PROJECT["name"])

_HEAD: Final = """
import os, pathlib, subprocess, sys
from quota_engine import BackendUnavailable, ManualClock, QuotaEngine, load_catalog

def reserve(url):
    catalog, key = load_catalog("surabaya"), b"a key for one trial"
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    with QuotaEngine.open(url, identity_key=key, catalog=catalog, clock=clock) as engine:
        engine.publish(catalog, "2026-12-07", "2026-12-07")
        held = engine.reserve("surabaya", "2026-12-07", "3578012345678901", service="new", session="morning")
        assert list(engine.confirm(held.reference).queue_numbers) == [1]

def is_unreachable(url):
    try:
        QuotaEngine.open(url, identity_key=b"a key for one trial", call_timeout_ms=300)
    except BackendUnavailable as error:
        assert "pip install" not in str(error), error
        return True

def run(*words):
    from quota_engine.cli.main import main
    assert main(words) == 0, words
"""
_CLI: Final = 'run("catalog", "show", "surabaya"); run("simulate", "--applicants", "200")'
_CLIENT: Final = """
from quota_engine.client import ServiceClient
from quota_engine.client.call_protocol import Retries
with ServiceClient.open("http://127.0.0.1:1", retries=Retries(attempts_max=1)) as client:
    try:
        client.describe_offices()
        raise AssertionError("port 1 answers")
    except BackendUnavailable:
        pass
"""
_YAML: Final = """
pathlib.Path("broken.yaml").write_text("title: A clinic\\n")
from quota_engine import CatalogError
try:
    load_catalog("broken.yaml")
    raise AssertionError("a catalog without offices is no catalog")
except CatalogError as error:
    assert "PyYAML" not in str(error), error
"""

PROMISES: Final[dict[str, str]] = {
    "": 'reserve("memory://"); reserve("sqlite://" + os.path.abspath("data.db"))',
    "all": f"{_CLIENT}{_YAML}",
    "cli": _CLI,
    "client": _CLIENT,
    "embedded": 'reserve("valkey+embedded://" + os.path.abspath("data"))',
    "fuzz": 'run("fuzz", "--seeds", "1", "--store", "lua", "--shrink-runs", "0")',
    "loadtest": "import quota_engine.loadtest.locust_session, quota_engine.loadtest.openings",
    "postgresql": 'assert is_unreachable("postgresql://nobody@127.0.0.1:1/none")',
    "postgresql-embedded": 'assert is_unreachable("postgresql://nobody@127.0.0.1:1/none")',
    "redis": 'assert is_unreachable("redis://127.0.0.1:1")',
    "service": 'os.environ["QUOTA_ENGINE_IDENTITY_KEY"] = "c2l4dGVlbiByYW5kb20gYnl0ZXM="\n'
    'run("serve", "--check-config", "--backend", "sqlite:///data.db")\n'
    "from quota_engine.cli.main import main\n"
    'assert main(("serve", "--check-config", "--backend", "redis://127.0.0.1")) == 3',
    "telemetry": "from quota_engine.service.observability.tracing import tracing_from_environment\n"
    'assert tracing_from_environment({"QUOTA_ENGINE_TELEMETRY": "opentelemetry"}, {}) is not None',
    "testing": 'subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "quota_engine.conformance.plugin",'
    ' "-p", "no:cacheprovider", "--pyargs", "quota_engine.conformance", "-k", "offices_are_independent"], check=True,'
    ' env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})',
    "yaml": _YAML,
}
"""By extra; the empty name is the library without extras. Each program has the names of ``_HEAD``."""

SLOW_PROMISES: Final[dict[str, str]] = {
    "loadtest": 'run("loadtest", "run", "--only", "draw", "--applicants", "100", "--out", "reports")',
    "postgresql-embedded": 'reserve("postgresql+embedded://" + os.path.abspath("data"))',
}
"""Programs that take several seconds of processor time. Only clean environments run them."""

_GUARD: Final = f"""
import importlib.abc, os, sys

class Guard(importlib.abc.MetaPathFinder):
    foreign = frozenset(os.environ["{GUARD_VARIABLE}"].split())

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.foreign:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Guard())
"""


def program_of(extra: str, *, is_slow: bool = False) -> str:
    """Return the program of an extra.

    Args:
        extra: a key of :data:`PROMISES`.
        is_slow: add the program of :data:`SLOW_PROMISES`.
    """
    return "\n".join([_HEAD, PROMISES[extra], SLOW_PROMISES.get(extra, "") if is_slow else ""])


def oldest_versions(extra: str) -> list[str]:
    """Return constraints that pin each direct dependency of the library with an extra to the oldest allowed version."""
    pins: dict[str, str] = {}
    left, done = ["", extra], set()
    while left:
        one = left.pop()
        done.add(one)
        for requirement in _requirements(str(_OWN_NAME), one):
            if canonicalize_name(requirement.name) == _OWN_NAME:
                left += [further for further in requirement.extras if further not in done]
                continue
            for bound in requirement.specifier:
                if bound.operator == ">=":
                    pins[requirement.name] = f"{requirement.name}=={bound.version}"
    return sorted(pins.values())


def foreign_modules(extra: str) -> set[str]:
    """Return the installed top-level modules that an extra does not bring."""
    brought = _closure(extra)
    foreign = set()
    for module, names in _distributions().items():
        if not names & brought:
            foreign.add(module)
    return foreign


def write_import_guard(folder: Path) -> None:
    """Write a module that Python imports at its start if the folder is on its path.

    It refuses the modules in the variable :data:`GUARD_VARIABLE`, also in processes that a program starts.
    """
    (folder / "sitecustomize.py").write_text(_GUARD, encoding="utf-8")


@functools.cache
def _distributions() -> dict[str, set[str]]:
    """Return the names of the distributions of each installed top-level module."""
    found = importlib.metadata.packages_distributions()
    return {
        module: {str(canonicalize_name(name)) for name in names}
        for module, names in found.items()
        if re.fullmatch(r"\w+", module)
    }


def _extras() -> dict[str, list[str]]:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    return extras


def _closure(extra: str) -> set[str]:
    """Return the names of the library and of all packages that it brings with an extra."""
    done: set[tuple[str, str]] = set()
    left = [(str(_OWN_NAME), extra), (str(_OWN_NAME), "")]
    while left:
        one = left.pop()
        if one in done:
            continue
        done.add(one)
        for requirement in _requirements(*one):
            name = str(canonicalize_name(requirement.name))
            left += [(name, ""), *((name, further) for further in requirement.extras)]
    return {name for name, _ in done}


def _requirements(name: str, extra: str) -> Iterable[Requirement]:
    if name == _OWN_NAME:
        texts = _extras()[extra] if extra else PROJECT["dependencies"]
    else:
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # a requirement of another system
            texts = []
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement
