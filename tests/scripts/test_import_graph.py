"""Tests of ``scripts/import_graph.py``, and of the imports of the package itself."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from scripts.import_graph import children_graph, circles, mermaid, module_imports, modules, reduced


def write(folder: Path, **texts: str) -> None:
    """Write modules of a package ``pkg``; a double underscore in a name separates folders."""
    for name, text in texts.items():
        path = folder / "pkg" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_imports_in_functions_and_for_types_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="def late() -> None:\n    from pkg import b\n",
        b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.c\n",
        c="import json\n",
    )
    imports = module_imports(tmp_path)
    assert [sorted(imports[f"pkg.{name}"]) for name in "abc"] == [["pkg.b"], ["pkg.c"], []]


def test_children_stand_for_their_modules(tmp_path: Path) -> None:
    write(tmp_path, low__x="", high__y="from pkg.low.x import z\n", high__w="from pkg.high import y\n")
    assert children_graph("pkg", module_imports(tmp_path)) == {"high": {"low"}, "low": set()}


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    graph = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset[str]()}
    assert reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_a_circle_has_no_diagram(tmp_path: Path) -> None:
    write(tmp_path, a__x="from pkg.b import y\n", b__y="from pkg.a import x\n")
    with pytest.raises(ValueError, match="circle through a, b"):
        mermaid("pkg", tmp_path)


@functools.cache
def own_imports() -> dict[str, frozenset[str]]:
    """Return the imports of all modules of the library."""
    return module_imports()


def packages() -> list[str]:
    """Return every package of the library."""
    return sorted(name for name, path in modules().items() if path.name == "__init__.py")


@pytest.mark.slow
@pytest.mark.parametrize("package", packages())
def test_no_package_has_an_import_circle(package: str) -> None:
    assert circles(children_graph(package, own_imports())) == []


@pytest.mark.slow
def test_no_module_is_in_an_import_circle() -> None:
    imports = own_imports()
    roots = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert circles({name: targets - roots for name, targets in imports.items() if name not in roots}) == []
