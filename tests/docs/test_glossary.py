"""Tests of ``docs/glossary.md``: its names exist in Python, in JSON and in Lua, and no term appears twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.paths import DOCS, ROOT

SOURCE = ROOT / "src" / "quota_engine"
SCHEMA = SOURCE / "api_schema"
LUA = SOURCE / "stores" / "redis" / "lua"


def rows() -> Iterator[dict[str, str]]:
    """Yield the rows of all tables of the glossary, by column."""
    header: list[str] = []
    for line in (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
        elif not set(cells[0]) <= set("- "):
            yield dict(zip(header, cells, strict=True))


def names_in(column: str) -> list[tuple[str, str]]:
    """Return the names of a column with their terms."""
    return [(row["term"], name) for row in rows() for name in re.findall(r"`([^`]+)`", row.get(column, ""))]


def words_of(folder_pattern: str) -> set[str]:
    """Return all identifiers in the files that a pattern finds below the package."""
    texts = (path.read_text(encoding="utf-8") for path in SOURCE.glob(folder_pattern))
    return {word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text)}


@pytest.mark.parametrize(
    ("column", "files"),
    [("Python", "**/*.py"), ("JSON", "api_schema/*.py"), ("Lua", "stores/redis/lua/**/*.lua")],
)
def test_names_of_a_column_exist(column: str, files: str) -> None:
    words = words_of(files)
    missing = [f"{term}: {name}" for term, name in names_in(column) if name not in words]
    assert missing == []


def test_no_term_appears_twice() -> None:
    counts = Counter(part.strip() for row in rows() for part in row["term"].split(","))
    assert [term for term, count in counts.items() if count > 1] == []


def test_definitions_are_short_sentences() -> None:
    long = [row["term"] for row in rows() if len(row["meaning"].split()) > 25 or not row["meaning"].endswith(".")]
    assert long == []
