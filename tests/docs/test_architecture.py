"""Tests of ``docs/architecture.md``: its files, functions and folders exist."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import DOCS, ROOT

SOURCE = ROOT / "src" / "quota_engine"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")


def steps() -> list[tuple[str, str]]:
    """Return file and function of every step of the paths."""
    return re.findall(r"^\| \w+ \| `([\w/.]+)` \| `([\w.]+)` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("file", "function"), steps())
def test_steps_name_existing_functions(file: str, function: str) -> None:
    source = (SOURCE / file).read_text(encoding="utf-8")
    for name in function.split("."):
        assert re.search(rf"^\s*(async def|def|class) {name}\b", source, re.MULTILINE), f"{file} has no {name}"


def test_every_path_has_its_steps() -> None:
    assert len(steps()) >= 15


def test_files_of_changes_exist() -> None:
    section = PAGE.partition("## Where a change goes")[2]
    named = re.findall(r"`([a-z_]+/[\w/.]*|[a-z_]+\.py)`", section)
    missing = [name for name in named if not (SOURCE / name).exists() and not (ROOT / name).exists()]
    assert [name for name in missing if name not in ("metrics.py",)] == []


def test_every_package_is_on_the_map() -> None:
    section = PAGE.partition("## Folders")[2].partition("## Imports")[0]
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    modules = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"}
    missing = {name for name in packages if f"`{name}/`" not in section}
    missing |= {name for name in modules if f"`{name}`" not in section}
    assert missing == set()
