"""Each extra alone keeps its promise: the packages of other extras cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.extras import (
    GUARD_VARIABLE,
    PROJECT,
    PROMISES,
    foreign_modules,
    oldest_versions,
    program_of,
    write_import_guard,
)
from scripts.package_matrix import save
from tests.support.paths import ROOT


def run(extra: str, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    write_import_guard(folder)
    foreign = foreign_modules(extra)
    paths = os.pathsep.join([str(folder), str(ROOT / "src")])
    variables = {**os.environ, "PYTHONPATH": paths, GUARD_VARIABLE: " ".join(sorted(foreign))}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_every_extra_has_a_promise() -> None:
    assert set(PROMISES) == {"", *PROJECT["optional-dependencies"]}


@pytest.mark.slow
@pytest.mark.parametrize("extra", PROMISES)
def test_extra_alone_keeps_its_promise(extra: str, tmp_path: Path) -> None:
    done = run(extra, program_of(extra), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_packages_of_other_extras_cannot_be_imported(tmp_path: Path) -> None:
    done = run("client", "import httpx, msgspec\nimport starlette", tmp_path)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'starlette'"


def test_oldest_versions_are_the_lower_bounds() -> None:
    assert oldest_versions("") == ["msgspec==0.20"]
    assert oldest_versions("client") == ["httpx==0.27", "msgspec==0.20"]
    names = {Requirement(one).name for one in oldest_versions("loadtest")}
    assert {"cyclopts", "httpx", "locust", "redis", "starlette"} <= names
    assert "pytest" not in names


def test_results_of_other_extras_stay(tmp_path: Path) -> None:
    path = tmp_path / "packages.json"
    yaml, client = ({label: {"msgspec": label} for label in ("oldest", "newest")} for _ in range(2))
    save(path, "yaml", yaml)
    save(path, "client", client)
    save(path, "yaml", {**yaml, "newest": {"msgspec": "later"}})
    extras = json.loads(path.read_text(encoding="utf-8"))["extras"]
    assert list(extras) == ["client", "yaml"]
    assert extras == {"client": client, "yaml": {"oldest": {"msgspec": "oldest"}, "newest": {"msgspec": "later"}}}


def test_published_versions_begin_at_the_lower_bounds() -> None:
    """If this fails after a change of a bound, run ``make package-matrix MATRIX_ARGUMENTS='--docs docs'``."""
    results = json.loads((ROOT / "docs" / "data" / "packages.json").read_text(encoding="utf-8"))["extras"]
    assert set(results) == set(PROMISES)
    for extra, versions in results.items():
        for pin in oldest_versions(extra):
            name, _, bound = pin.partition("==")
            assert Version(versions["oldest"][canonicalize_name(Requirement(name).name)]) == Version(bound), pin
