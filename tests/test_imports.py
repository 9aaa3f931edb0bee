"""The direction of imports, and what is imported when."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter import api
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import quota_engine

ROOT = Path(__file__).parent.parent


def test_what_is_locked_has_its_extras() -> None:
    """A package that another one requires with extras is pinned with these extras.

    Otherwise pip treats ``coverage[toml]``, which ``pytest-cov`` requires, as a second requirement beside ``coverage``.
    It then rejects the whole list as soon as a newer version exists.
    """
    lines = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line.partition("\\")[0].strip()) for line in lines if line[:1].isalpha()]
    extras = {canonicalize_name(one.name): one.extras for one in pinned}
    asked = 0
    for one in pinned:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for text in importlib.metadata.requires(one.name) or ():
                wanted = Requirement(text)
                if wanted.extras and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                    asked += 1
                    assert wanted.extras <= extras[canonicalize_name(wanted.name)], f"{one.name} wants {wanted}"
    assert asked


@pytest.mark.slow
def test_import_contracts_hold() -> None:
    contracts = api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    assert {contract["id"] for contract in contracts} >= {"layers", "acyclic", "composition-root", "client"}
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert f"{len(contracts)} kept, 0 broken" in run.stdout


def test_public_names_are_imported_when_they_are_used() -> None:
    """The table of the package has the imports that type checkers see, and ``import quota_engine`` imports none."""
    tree = ast.parse((ROOT / "src/quota_engine/__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    typed = {
        alias.name: str(node.module).removeprefix("quota_engine.")
        for node in imports
        for alias in node.names
        if str(node.module).startswith("quota_engine.")
    }
    assert typed == quota_engine._MODULES
    assert {*typed, "__version__"} == set(quota_engine.__all__)
    assert set(quota_engine.__all__) <= set(dir(quota_engine))
    for name in quota_engine.__all__:
        assert getattr(quota_engine, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Engine'"):
        quota_engine.Engine  # noqa: B018
    code = "import sys, quota_engine; print([name for name in sys.modules if name.startswith('quota_engine.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_the_library_imports_little() -> None:
    """``import quota_engine`` needs neither the command line's libraries nor YAML nor the simulator."""
    code = (
        "import sys; from quota_engine import *; QuotaEngine;"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"cyclopts", "rich", "yaml", "asyncio", "pytest", "hypothesis"} & set(eval(loaded))  # noqa: S307
    code = (
        "import sys; from quota_engine import *;"
        "print([name for name in sys.modules if name.startswith('quota_engine.simulation')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
