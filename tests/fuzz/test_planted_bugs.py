"""A few planted bugs are found by the seed that ``docs/planted-bugs.md`` names; ``planted_bugs`` hunts all of them.

The page also lists the faults that were fixed, and all evidence that it names exists.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from quota_engine.conformance.scenarios import SCENARIOS
from tests.fuzz.bugs import BUGS
from tests.fuzz.fixed_faults import FIXED_FAULTS, SCENARIO, section_of_fixed_faults
from tests.fuzz.planted_bugs import PACKAGE, ROOT, TABLE, hunt

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


def test_page_lists_every_fault_that_was_fixed() -> None:
    page = TABLE.read_text(encoding="utf-8")
    assert page.endswith(section_of_fixed_faults()), "run python -m tests.fuzz.planted_bugs --section"


def test_every_fault_that_was_fixed_has_evidence_that_exists() -> None:
    bugs, scenarios = {bug.name for bug in BUGS}, {one.name for one in SCENARIOS}
    assert len({fault.what for fault in FIXED_FAULTS}) == len(FIXED_FAULTS)
    for fault in FIXED_FAULTS:
        assert fault.evidence, fault.what
        for evidence in fault.evidence:
            if evidence.startswith(SCENARIO):
                assert evidence.removeprefix(SCENARIO) in scenarios, evidence
            elif "/" in evidence:
                path, *names = evidence.split("::")
                assert _defines(ROOT / path, names), evidence
            else:
                assert evidence in bugs, evidence


def _defines(path: Path, names: list[str]) -> bool:
    """Return True if a file has these names, each within the one before."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for name in names:
        found = [
            one
            for one in body
            if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and one.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND_IN_THE_GATE)
def test_simulation_finds_a_planted_bug(name: str) -> None:
    (bug,) = (one for one in BUGS if one.name == name)
    row = next(line for line in TABLE.read_text(encoding="utf-8").splitlines() if f"| {name} |" in line)
    found = hunt(bug, first=int(row.split("|")[5]), seeds=10)
    assert found.seed is not None
