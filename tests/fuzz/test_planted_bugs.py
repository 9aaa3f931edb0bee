"""A few planted bugs are found by the seed that ``docs/planted-bugs.md`` names; ``planted_bugs`` hunts all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.planted_bugs import BUGS, PACKAGE, ROOT, TABLE, hunt

AREAS = {"machine", "Lua", "SQL", "workflows", "batching", "sold-out cache", "room", "draw", "passes"}
FOUND_IN_THE_GATE = ("oversell-by-one", "lua-party-too-large", "move-keeps-both-places")


def test_every_planted_bug_fits_the_source() -> None:
    """The text that it replaces is there, once."""
    for bug in BUGS:
        text = (ROOT / PACKAGE / Path(bug.path)).read_text(encoding="utf-8")
        assert text.count(bug.right) == 1, bug.name
        assert bug.wrong != bug.right


def test_bugs_are_planted_in_every_part() -> None:
    assert len(BUGS) >= 40
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert {bug.area for bug in BUGS} >= AREAS


def test_page_lists_every_planted_bug() -> None:
    page = TABLE.read_text(encoding="utf-8")
    for bug in BUGS:
        assert f"| {bug.name} |" in page, f"{bug.name} is missing: run python -m tests.fuzz.planted_bugs"


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND_IN_THE_GATE)
def test_simulation_finds_a_planted_bug(name: str) -> None:
    (bug,) = (one for one in BUGS if one.name == name)
    row = next(line for line in TABLE.read_text(encoding="utf-8").splitlines() if f"| {name} |" in line)
    found = hunt(bug, first=int(row.split("|")[5]), seeds=10)
    assert found.seed is not None
