"""Comparison of two runs, which separates changes from noise."""

from __future__ import annotations

__all__ = [
    "RATIO_MIN",
    "ROUNDS_MIN",
    "BenchComparison",
    "CaseChange",
    "ChangeVerdict",
    "check_rounds",
    "classify_change",
    "compare_results",
    "read_earlier_result",
]

import pathlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from quota_engine.bench.results import BenchResult, CaseResult, decode_result
from quota_engine.domain.errors import InvalidRequest

RATIO_MIN: Final = 1.1
"""Medians with a smaller ratio count as the same, however steady both runs are."""

ROUNDS_MIN: Final = 5
"""With fewer rounds, all rounds of one run are below those of the other too often by chance.

The chance is 1 in 20 with 3 rounds, 1 in 252 with 5, and 1 in 3,432 with 7.
"""

_MACHINE_KEYS: Final = ("python", "system", "processor", "cores", "redis_py", "hiredis", "servers", "pinned")


class ChangeVerdict(StrEnum):
    """Result of the comparison of one case."""

    SLOWER = "slower"
    SAME = "same"
    FASTER = "faster"


class CaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """One case in both runs: medians and ranges of the rounds, in operations a second."""

    name: str
    backend: str
    concurrency: int
    is_yardstick: bool
    old_ops_per_s: float
    old_range: tuple[float, float]
    new_ops_per_s: float
    new_range: tuple[float, float]
    verdict: ChangeVerdict

    @property
    def ratio(self) -> float:
        """New median divided by the old one; below 1 is slower."""
        return self.new_ops_per_s / self.old_ops_per_s


class BenchComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Cases of both runs, cases of only one, and differences of machine and settings."""

    changes: list[CaseChange]
    only_old: list[str]
    only_new: list[str]
    differences: list[str]

    @property
    def regressions(self) -> list[CaseChange]:
        """Cases in which the engine is slower than before. Slower yardsticks do not count."""
        return [one for one in self.changes if one.verdict is ChangeVerdict.SLOWER and not one.is_yardstick]

    @property
    def slower_yardsticks(self) -> list[CaseChange]:
        """Yardsticks that are slower. The cause is the machine or the server."""
        return [one for one in self.changes if one.verdict is ChangeVerdict.SLOWER and one.is_yardstick]


def classify_change(old_rounds: Sequence[float], new_rounds: Sequence[float], old: float, new: float) -> ChangeVerdict:
    """Classify the difference of two sets of rounds.

    A case is slower or faster only if the rounds do not overlap, *and* the ratio of the medians exceeds
    :data:`RATIO_MIN`.

    Args:
        old_rounds: Rates of the earlier run.
        new_rounds: Rates of this run.
        old: Median of the earlier run.
        new: Median of this run.
    """
    if max(new_rounds) < min(old_rounds) and old > new * RATIO_MIN:
        return ChangeVerdict.SLOWER
    if min(new_rounds) > max(old_rounds) and new > old * RATIO_MIN:
        return ChangeVerdict.FASTER
    return ChangeVerdict.SAME


def compare_results(old: BenchResult, new: BenchResult) -> BenchComparison:
    """Compare two runs case by case, in the order of the new run."""
    before = {case.key: case for case in old.cases}
    after = {case.key: case for case in new.cases}
    return BenchComparison(
        changes=[_change(before[key], case) for key, case in after.items() if key in before],
        only_old=[_label(case) for key, case in before.items() if key not in after],
        only_new=[_label(case) for key, case in after.items() if key not in before],
        differences=[*_differences(old, new)],
    )


def read_earlier_result(path: pathlib.Path) -> BenchResult:
    """Read the earlier run.

    Raises:
        InvalidRequest: The file cannot be read, or ``bench --json`` did not write it.
    """
    expected = "a file written by  quota-engine bench --json"
    try:
        old = decode_result(path.read_bytes())
    except OSError as error:
        raise InvalidRequest("--compare", f"{path}: {error.strerror}", expected) from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest("--compare", f"{path}: {error}", expected) from None
    check_rounds(old.settings.rounds, f"{path} has")
    return old


def check_rounds(rounds: int, subject: str) -> None:
    """Check that a run has enough rounds for a comparison.

    Args:
        rounds: Rounds of the run.
        subject: Beginning of the message, such as "this run has".

    Raises:
        InvalidRequest: There are fewer than :data:`ROUNDS_MIN`.
    """
    if rounds < ROUNDS_MIN:
        raise InvalidRequest("--compare", f"{subject} {rounds} rounds", f"at least {ROUNDS_MIN}, to detect noise")


def _change(old: CaseResult, new: CaseResult) -> CaseChange:
    return CaseChange(
        name=new.name,
        backend=new.backend,
        concurrency=new.concurrency,
        is_yardstick=new.is_yardstick,
        old_ops_per_s=old.ops_per_s,
        old_range=(min(old.rounds), max(old.rounds)),
        new_ops_per_s=new.ops_per_s,
        new_range=(min(new.rounds), max(new.rounds)),
        verdict=classify_change(old.rounds, new.rounds, old.ops_per_s, new.ops_per_s),
    )


def _label(case: CaseResult) -> str:
    return f"{case.backend} {case.name}, {case.concurrency} at once"


def _differences(old: BenchResult, new: BenchResult) -> list[str]:
    def differ(name: str, one: Any, other: Any) -> list[str]:
        return [] if one == other else [f"{name}: {_plain(one)}, now {_plain(other)}"]

    differences: list[str] = []
    for name in _MACHINE_KEYS:
        differences += differ(name, old.machine.get(name), new.machine.get(name))
    for name in ("rounds", "round_ms"):
        differences += differ(name, getattr(old.settings, name), getattr(new.settings, name))
    return differences


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(each) for each in value.values()) or "none"
    return "unknown" if value is None else str(value)
