"""The comparison of a short run with the ratios that the repository has."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from benchmarks import check
from benchmarks.check import KEPT, SETTINGS, URLS, find_worse, ratios_of
from quota_engine.bench.plan import cases_with_yardsticks, engine_cases, yardsticks_of
from quota_engine.bench.target_url import parse_target
from tests.support.bench_results import case_with, result_with

NAME = "redis://localhost reserve, 64 callers"


def test_ratios_are_those_of_the_engine_to_its_yardsticks() -> None:
    result = result_with(
        case_with((1, 2), ratio_to_handwritten=3.5, ratio_to_limit=0.5),
        case_with((1, 2), name="by hand: reserve", kind="by hand"),
    )
    assert ratios_of([result]) == {f"{NAME}: times by hand": 3.5, f"{NAME}: of the limit": 0.5}


def test_only_a_ratio_far_below_the_kept_one_is_worse() -> None:
    assert find_worse({"a": 1.0, "b": 2.0}, {"a": 0.7, "b": 9.0, "new": 0.1}) == []
    (worse,) = find_worse({"a": 1.0, "b": 2.0}, {"a": 0.7, "b": 1.1})
    assert str(worse) == "b: 1.1 in place of 2"


def test_a_ratio_that_was_not_measured_is_worse() -> None:
    (worse,) = find_worse({"a": 1.0}, {})
    assert (worse.name, worse.measured) == ("a", 0.0)


def test_kept_ratios_are_those_of_the_cases_that_are_measured() -> None:
    """A renamed case would be reported as worse."""
    kept = msgspec.json.decode(KEPT.read_bytes(), type=dict[str, float])
    names = set()
    for target in map(parse_target, URLS):
        for case in cases_with_yardsticks(engine_cases(SETTINGS, target.kind), target.kind):
            limit, by_hand = yardsticks_of(case, target.kind)
            if case.implementation == "engine":
                name = f"{target.label} {case.name}, {case.concurrency} callers"
                names |= {f"{name}: times by hand"} if by_hand else set()
                names |= {f"{name}: of the limit"} if limit else set()
    assert set(kept) == names


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [({"a": 1.0}, None, 0), ({"a": 0.1}, {"a": 1.0}, 0), ({"a": 0.1}, {"a": 0.2}, 1)],
)
def test_a_low_ratio_is_measured_again(
    first: dict[str, float],
    second: dict[str, float] | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [first, second]
    monkeypatch.setattr(check, "_measure", lambda: runs.pop(0))
    kept = tmp_path / "kept.json"
    kept.write_text('{"a": 1.0}')
    monkeypatch.setattr(check, "KEPT", kept)
    assert check.main([]) == code
    assert ("worse: a" in capsys.readouterr().out) is (code == 1)


def test_the_table_of_ratios_has_heads_and_fits_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = msgspec.json.decode(KEPT.read_bytes(), type=dict[str, float])
    monkeypatch.setattr(check, "_measure", lambda: kept)
    assert check.main([]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split() == ["ratio", "now", "kept"]
    assert len(rows) == len(kept)
    assert max(map(len, (heads, *rows))) <= 80
