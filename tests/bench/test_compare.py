"""Comparison of two runs: changes and noise."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import msgspec
import pytest

from quota_engine.bench.compare import ChangeVerdict, compare_results, read_earlier_result
from quota_engine.domain.errors import InvalidRequest
from tests.support.bench_results import case_with, result_with

STEADY = (100, 101, 102, 103, 104)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (STEADY, STEADY, ChangeVerdict.SAME),
        (STEADY, (80, 81, 82, 83, 84), ChangeVerdict.SLOWER),
        (STEADY, (120, 121, 122, 123, 124), ChangeVerdict.FASTER),
        # Apart, but by less than a tenth: a steady run shows what does not matter.
        (STEADY, (94, 95, 96, 97, 98), ChangeVerdict.SAME),
        (STEADY, (106, 107, 108, 109, 110), ChangeVerdict.SAME),
        # Medians far apart, but one round of one run was as fast as one of the other: noise.
        (STEADY, (70, 71, 72, 73, 100), ChangeVerdict.SAME),
        ((60, 101, 102, 103, 104), (50, 52, 54, 56, 61), ChangeVerdict.SAME),
        (STEADY, (104, 150, 160, 170, 180), ChangeVerdict.SAME),
        # The same with a hair between them.
        (STEADY, (70, 71, 72, 73, 99.9), ChangeVerdict.SLOWER),
        (STEADY, (104.1, 150, 160, 170, 180), ChangeVerdict.FASTER),
        # Runs may differ in how many rounds they have.
        (STEADY, (50, 51, 52, 53, 54, 55, 56), ChangeVerdict.SLOWER),
    ],
)
def test_classification_of_changes(old: Sequence[float], new: Sequence[float], verdict: ChangeVerdict) -> None:
    """No round of one as fast as any of the other, and medians more than a tenth apart; nothing less is a change."""
    comparison = compare_results(result_with(case_with(old)), result_with(case_with(new)))
    (change,) = comparison.changes
    assert change.verdict is verdict
    assert len(comparison.regressions) == (verdict is ChangeVerdict.SLOWER)


def test_a_slower_yardstick_is_no_regression_of_the_engine() -> None:
    """The cause is the machine, the server or the script."""
    old = result_with(case_with(STEADY, name="limit: reserve", kind="limit"))
    new = result_with(case_with((50, 51, 52, 53, 54), name="limit: reserve", kind="limit"))
    comparison = compare_results(old, new)
    assert comparison.regressions == []
    assert len(comparison.slower_yardsticks) == 1


def test_only_equal_cases_are_compared() -> None:
    """By name, backend and concurrency; those that only one run has are named."""
    old = result_with(case_with(STEADY), case_with(STEADY, concurrency=16), case_with(STEADY, backend="memory://"))
    new = result_with(case_with(STEADY), case_with(STEADY, name="confirm"))
    comparison = compare_results(old, new)
    assert [(change.name, change.concurrency) for change in comparison.changes] == [("reserve", 64)]
    assert comparison.only_old == ["redis://localhost reserve, 16 at once", "memory:// reserve, 64 at once"]
    assert comparison.only_new == ["redis://localhost confirm, 64 at once"]


def test_differences_of_machine_and_settings_are_listed() -> None:
    """Another machine or server makes other figures."""
    old = result_with(case_with(STEADY))
    new = result_with(case_with(STEADY), processor="Another", servers={"redis://localhost": "redis 8.0.1"})
    assert compare_results(old, new).differences == [
        "processor: A processor, now Another",
        "servers: valkey 9.1.2, now redis 8.0.1",
    ]


def test_a_result_is_read_back(tmp_path: pathlib.Path) -> None:
    """A comparison in the file is ignored."""
    result = result_with(case_with(STEADY))
    file = tmp_path / "old.json"
    file.write_bytes(msgspec.json.encode({**msgspec.to_builtins(result), "comparison": {"regressions": 0}}))
    assert read_earlier_result(file) == result


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"quota_engine_bench": 1}', "missing required field"),
        (msgspec.json.encode(msgspec.structs.replace(result_with(), quota_engine_bench=1)), "format 1, not 2"),
        (msgspec.json.encode(result_with(case_with((1, 0)))), "a case without rounds"),
        (msgspec.json.encode(result_with(case_with((1, 2, 3, 4)))), "4 rounds; expected at least 5"),
    ],
)
def test_an_invalid_result_file_is_rejected(tmp_path: pathlib.Path, content: bytes | None, complaint: str) -> None:
    """Before anything is measured, with what is wrong with it."""
    file = tmp_path / "old.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=complaint):
        read_earlier_result(file)
