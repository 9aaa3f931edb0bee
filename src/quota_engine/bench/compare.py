"""Two runs side by side: what has really changed, and what is only noise."""

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
"""What is less apart than this is the same, however steady both runs were."""

ROUNDS_MIN: Final = 5
"""With fewer, all of one run lie below all of the other too often by chance alone: with 3 once in 20 cases, with 5 once
in 252, with 7 once in 3,432.
"""

_OF_THE_MACHINE: Final = ("python", "system", "processor", "cores", "redis_py", "hiredis", "servers", "pinned")


class ChangeVerdict(StrEnum):
    """What two runs say of one case."""

    SLOWER = "slower"
    SAME = "same"
    FASTER = "faster"


class CaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """One case in both runs, in operations a second: medians, and how far the rounds went."""

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
        """The new median by the old one: below 1 is slower."""
        return self.new_ops_per_s / self.old_ops_per_s


class BenchComparison(msgspec.Struct, frozen=True, kw_only=True):
    """All cases that both runs have, those that only one has, and what else was different."""

    changes: list[CaseChange]
    only_old: list[str]
    only_new: list[str]
    differences: list[str]

    @property
    def regressions(self) -> list[CaseChange]:
        """What the engine does slower than before. A yardstick that is slower says something else."""
        return [one for one in self.changes if one.verdict is ChangeVerdict.SLOWER and not one.is_yardstick]

    @property
    def slower_yardsticks(self) -> list[CaseChange]:
        """What is slower though it is not the engine: the machine, the server, or the script that both run."""
        return [one for one in self.changes if one.verdict is ChangeVerdict.SLOWER and one.is_yardstick]


def classify_change(old_rounds: Sequence[float], new_rounds: Sequence[float], old: float, new: float) -> ChangeVerdict:
    """Slower or faster only if no round of one run was as fast as any of the other, *and* the medians are more than
    :data:`RATIO_MIN` apart.
    """
    if max(new_rounds) < min(old_rounds) and old > new * RATIO_MIN:
        return ChangeVerdict.SLOWER
    if min(new_rounds) > max(old_rounds) and new > old * RATIO_MIN:
        return ChangeVerdict.FASTER
    return ChangeVerdict.SAME


def compare_results(old: BenchResult, new: BenchResult) -> BenchComparison:
    """Case by case, in the order of the new run."""
    before = {case.key: case for case in old.cases}
    after = {case.key: case for case in new.cases}
    return BenchComparison(
        changes=[_change(before[key], case) for key, case in after.items() if key in before],
        only_old=[_told(case) for key, case in before.items() if key not in after],
        only_new=[_told(case) for key, case in after.items() if key not in before],
        differences=[*_differences(old, new)],
    )


def read_earlier_result(path: pathlib.Path) -> BenchResult:
    """The run to compare with.

    Raises:
        InvalidRequest: the file cannot be read, or is none that ``bench --json`` wrote.
    """
    expected = "a file that  quota-engine bench --json  wrote"
    try:
        old = decode_result(path.read_bytes())
    except OSError as error:
        raise InvalidRequest("--compare", f"{path}: {error.strerror}", expected) from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest("--compare", f"{path}: {error}", expected) from None
    check_rounds(old.settings.rounds, f"{path} has")
    return old


def check_rounds(rounds: int, who: str) -> None:
    """See that a run has rounds enough to be compared.

    Raises:
        InvalidRequest: it has not.
    """
    if rounds < ROUNDS_MIN:
        raise InvalidRequest("--compare", f"{who} {rounds} rounds", f"{ROUNDS_MIN} or more, to tell noise by")


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


def _told(case: CaseResult) -> str:
    return f"{case.backend} {case.name}, {case.concurrency} at once"


def _differences(old: BenchResult, new: BenchResult) -> list[str]:
    def differ(name: str, one: Any, other: Any) -> list[str]:
        return [] if one == other else [f"{name}: {_plain(one)}, now {_plain(other)}"]

    told: list[str] = []
    for name in _OF_THE_MACHINE:
        told += differ(name, old.machine.get(name), new.machine.get(name))
    for name in ("rounds", "round_ms"):
        told += differ(name, getattr(old.settings, name), getattr(new.settings, name))
    return told


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(each) for each in value.values()) or "none"
    return "unknown" if value is None else str(value)
