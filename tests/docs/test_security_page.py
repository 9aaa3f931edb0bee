"""The threat table of docs/security.md: each row is complete, and names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import DOCS, ROOT

PAGE = (DOCS / "security.md").read_text(encoding="utf-8")
COLUMNS = ["who", "wants", "how", "stopped by", "shown by", "not stopped"]
NAMED = re.compile(r"`((?:tests|src)/[\w./]+\.py)(?:::([\w:]+))?`")


def _rows() -> list[list[str]]:
    """Return the cells of the threat table's rows."""
    table = PAGE.partition("## Threats\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == COLUMNS
    return rows[2:]


def _tests_of(path: Path) -> set[str]:
    """Return the names of a module's tests, with and without their classes."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names = {one.name for one in inner if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        found |= names | {f"{prefix}{name}" for name in names}
    return found


@pytest.mark.parametrize("row", _rows(), ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_each_threat_names_its_measure_its_limit_and_existing_tests(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    assert all(row)
    named = NAMED.findall(row[COLUMNS.index("shown by")])
    assert named, "no test"
    for file, test in NAMED.findall(" ".join(row)):
        assert (ROOT / file).is_file(), file
        assert not test or test in _tests_of(ROOT / file), f"{file}::{test}"


def test_table_has_the_threats_that_every_booking_service_has() -> None:
    who = " ".join(row[0] for row in _rows())
    for name in ("OAT-005", "OAT-021", "brokers", "operators", "insiders", "network", "dependencies", "token"):
        assert name in who, name


@pytest.mark.slow
def test_every_test_that_the_page_names_exists() -> None:
    for file, test in NAMED.findall(PAGE):
        assert (ROOT / file).is_file(), file
        assert not test or test in _tests_of(ROOT / file), f"{file}::{test}"
