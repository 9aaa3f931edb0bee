"""A few faults of ``make chaos``, one strike each; the command runs all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

import pytest

from tests.chaos.__main__ import PAGE, write_table
from tests.chaos.faults import KEPT
from tests.chaos.run import Result, run
from tests.chaos.service_faults import FAULTS
from tests.chaos.soak import Sample, Soak, soak

pytestmark = [pytest.mark.store, pytest.mark.slow]

IN_THE_GATE = ("killed-server", "cut-connections", "lost-replies", "split-brain", "ended-sessions", "lost-commits")


@pytest.mark.parametrize("name", IN_THE_GATE)
def test_a_fault_breaks_no_promise(name: str) -> None:
    (fault,) = [one for one in FAULTS if one.name == name]
    result = run(fault, 1, 4, Random(name))
    assert result.problem == ""
    assert result.acknowledged >= 40
    assert result.lost == 0 or fault.promised != KEPT


def test_a_broken_promise_is_reported() -> None:
    """A split brain loses what the old primary acknowledged, which the fault does not promise to keep."""
    (fault,) = [one for one in FAULTS if one.name == "split-brain"]
    strict = run(dataclasses.replace(fault, promised=KEPT), 1, 4, Random(1))
    assert "acknowledged reservations are lost" in strict.problem


def test_a_soak_checks_each_round() -> None:
    """A round ends without a problem, and with a sample of memory and open files."""
    result = soak("valkey", 0, 1, strikes=1)
    assert result.problems == []
    assert result.rounds == len(result.samples) == 1
    assert sum(result.faults.values()) == 1
    assert result.events > result.acknowledged >= 90


def test_growth_is_a_problem_of_a_soak() -> None:
    steady, grown = Sample(100.0, 10, 50.0, 60), Sample(100.0, 30, 80.0, 61)
    result = Soak("valkey", 1, 1.0, samples=[steady] * 6 + [grown] * 3)
    result.check_growth()
    assert result.problems == ["client_files grew from 10 to 30", "server_mb grew from 50 to 80"]


def test_table_keeps_the_rows_of_faults_that_did_not_run(tmp_path: Path) -> None:
    (fault,) = [one for one in FAULTS if one.name == "killed-worker"]
    page = tmp_path / "faults.md"
    before = PAGE.read_text(encoding="utf-8")
    page.write_text(before, encoding="utf-8")
    write_table(page, [Result(fault, 7, 123, 0, [1_500.0], "")], "--strikes 7")
    after = page.read_text(encoding="utf-8")
    changed = [one for one in after.splitlines() if one not in before.splitlines()]
    assert len(after.splitlines()) == len(before.splitlines())
    assert changed[0].startswith(f"| {fault.title} | {KEPT} | 0 of 123 acknowledged lost")
    assert len(changed) == 2
    rows = [one.split(" | ")[0].removeprefix("| ") for one in after.splitlines() if one.startswith("| ")]
    assert {one.title for one in FAULTS} <= set(rows), "run python -m tests.chaos --write"
