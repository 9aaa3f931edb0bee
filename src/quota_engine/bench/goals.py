"""Goals of the project, checked against a run of the preset ``goals``."""

from __future__ import annotations

__all__ = ["Goal", "goals_of"]

import statistics
from typing import Final

import msgspec

from quota_engine.bench.plan import BATCH_OF_LIMIT, OFFICES_OF_CALLERS_MAX, SOLD_OUT
from quota_engine.bench.results import BenchResult, CaseResult

FEW_OFFICES_MAX: Final = 20
"""Up to this number, offices have enough callers each to share script calls. Their rate is compared with one office."""
_FSYNC: Final = " fsync"
"""End of the label of a backend with ``durability=fsync``."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One goal of a backend: a rate in calls a second, or a ratio.

    ``wanted`` is a minimum if ``is_least``, else a maximum.

    Attributes:
        primaries: Number of primaries that the measured callers load. An office lives on one, so a case with one office
            loads one primary of a cluster, and cases with several offices load all.
    """

    backend: str
    name: str
    measured: float
    wanted: float
    is_least: bool
    is_met: bool
    primaries: int = 1


def goals_of(result: BenchResult) -> list[Goal]:
    """Return the goals whose cases the run has measured, backend by backend.

    A backend with ``fsync`` belongs to the same backend without it.
    """
    backends = result.backends
    paired = {backend for backend in backends if backend.endswith(_FSYNC) and backend.removesuffix(_FSYNC) in backends}
    bases = [backend for backend in backends if backend not in paired]
    return [goal for backend in bases for goal in _goals_of_backend(result, backend)]


def _goals_of_backend(result: BenchResult, backend: str) -> list[Goal]:
    memory = {(case.name, case.concurrency): case for case in result.cases_of(backend)}
    durable = {(case.name, case.concurrency): case for case in result.cases_of(backend + _FSYNC)}
    counts = result.settings
    fewest, main, most = counts.concurrency[0], counts.main_concurrency, counts.concurrency[-1]
    goals: list[Goal] = []
    primaries: dict[str, int] = result.machine.get("primaries", {})

    def goal(name: str, measured: float | None, wanted: float, *, is_least: bool = True, offices: int = 1) -> None:
        if measured is None:
            return
        goals.append(
            Goal(
                backend=backend,
                name=name,
                measured=measured,
                wanted=wanted,
                is_least=is_least,
                is_met=measured >= wanted if is_least else measured <= wanted,
                primaries=min(offices, primaries.get(backend, 1)),
            )
        )

    def compared(one: CaseResult | None, other: CaseResult | None) -> float | None:
        """Return the median of the ratios within each round, so that a slow round does not count."""
        if one is None or other is None:
            return None
        return statistics.median(
            rate / rate_of_other for rate, rate_of_other in zip(one.rounds, other.rounds, strict=True)
        )

    reserve, lone = memory.get(("reserve", main)), memory.get(("reserve, lone", 1))
    if reserve:
        goal(f"reserve, {main:,} callers: times by hand", reserve.ratio_to_handwritten, 8)
        goal(f"reserve, {main:,} callers: of the limit", reserve.ratio_to_limit, 0.9)
    goal(f"reserve, {most:,} callers against {main:,}", compared(memory.get(("reserve", most)), reserve), 0.9)
    if some := memory.get(("reserve", fewest)):
        goal(f"reserve, {fewest:,} callers: times by hand", some.ratio_to_handwritten, 4)
        by_hand = memory.get(("by hand: reserve", fewest))
        if by_hand:
            goal(f"{fewest:,} callers: p99 against by hand", some.p99_us / by_hand.p99_us, 0.5, is_least=False)
    if lone and lone.ratio_to_handwritten:
        goal("a lone caller: p50 against by hand", 1 / lone.ratio_to_handwritten, 1.3, is_least=False)
    if threads := memory.get(("reserve, threads", counts.threads)):
        goal(f"{counts.threads} threads: times by hand", threads.ratio_to_handwritten, 1.5)
    for offices in (each for each in counts.offices if 1 < each <= OFFICES_OF_CALLERS_MAX):
        several = memory.get((f"reserve, {offices:,} offices", main))
        goal(
            f"{main:,} callers at {offices:,} offices: times by hand",
            several.ratio_to_handwritten if several else None,
            4,
            offices=offices,
        )
        if offices <= FEW_OFFICES_MAX:
            name = f"{main:,} callers at {offices:,} offices against 1"
            goal(name, compared(several, reserve), 0.8, offices=offices)
    if sold_out := memory.get((SOLD_OUT, main)):
        goal(f"sold-out, {main:,} callers: a second", sold_out.ops_per_s, 300_000)
    goal(f"fsync against memory, {main:,} callers", compared(durable.get(("reserve", main)), reserve), 0.8)
    held = [memory.get((f"reserve, {count:,} held", main)) for count in counts.reservations]
    if len(held) > 1:
        name = f"rate with {counts.reservations[-1]:,} held against {counts.reservations[0]:,}"
        goal(name, compared(held[-1], held[0]), 0.85)
    batch = f"reserve, batch {max(counts.batch, default=BATCH_OF_LIMIT)}"
    for offices in (each for each in counts.offices if each > OFFICES_OF_CALLERS_MAX):
        case = next((one for (name, _), one in memory.items() if name == f"{batch}, {offices:,} offices"), None)
        alone = next((one for (name, _), one in memory.items() if name == batch), None)
        goal(f"rate in batches at {offices:,} offices against 1", compared(case, alone), 0.85, offices=offices)
    return goals
