"""The plots of a run, from its result."""

from __future__ import annotations

__all__ = ["BenchPlot", "plots_of_backend"]

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from quota_engine.bench.formatting import microseconds, percent, rate
from quota_engine.bench.plan import (
    ApiStyle,
    BackendKind,
    BenchCase,
    BenchSettings,
    Implementation,
    engine_cases,
    yardsticks_of,
)
from quota_engine.bench.results import BenchResult, CaseResult
from quota_engine.reporting.svg_plot import Plot, PlotLine, log_ticks, nice_ticks

_BUCKET: Final = 2**0.25
"""How much longer each bucket of a histogram is than the one before."""


@dataclasses.dataclass(frozen=True, slots=True)
class BenchPlot:
    """A plot, and how its places and values are written in the table that says the same."""

    plot: Plot
    x_text: Callable[[float], str]
    y_text: Callable[[float], str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Backend:
    """The cases of one backend, to be found by what they measure."""

    name: str
    label: str
    cases: dict[tuple[str, int], CaseResult]
    kind: BackendKind
    settings: BenchSettings

    def case(self, measure: BenchCase | None) -> CaseResult | None:
        return None if measure is None else self.cases.get((measure.name, measure.concurrency))

    @property
    def main(self) -> BenchCase:
        """The plain reserve that stands for all."""
        if self.kind is BackendKind.MEMORY:
            return BenchCase("reserve", Implementation.ENGINE, ApiStyle.SINGLE, 1)
        return BenchCase("reserve", Implementation.ENGINE, ApiStyle.TASKS, self.settings.main_concurrency)


def plots_of_backend(result: BenchResult, backend: str) -> list[BenchPlot]:
    """The plots of one backend, as far as it has enough cases for them."""
    cases = result.cases_of(backend)
    kinds = {case.kind for case in cases}
    kind = (
        BackendKind.REDIS
        if Implementation.BY_HAND in kinds
        else BackendKind.MEMORY
        if Implementation.DICT in kinds
        else BackendKind.OTHER
    )
    known = {(case.name, case.concurrency): case for case in cases}
    one = _Backend(f"b{result.backends.index(backend)}", backend, known, kind, result.settings)
    made = (_by_concurrency(one), _latencies(one), _by_batch(one), _by_round(one))
    return [figure for figure in made if figure is not None]


def _by_concurrency(one: _Backend) -> BenchPlot | None:
    """How the rate grows with the callers: asyncio tasks, and a lone caller at the left."""
    engine: list[tuple[float, float]] = []
    by_hand: list[tuple[float, float]] = []
    for measure in engine_cases(one.settings, one.kind):
        is_plain = measure.action == "reserve" and measure.api_style is not ApiStyle.THREADS
        if not is_plain or (measure.batch, measure.offices, measure.reservations) != (1, 1, 0):
            continue
        for points, case in (
            (engine, one.case(measure)),
            (by_hand, one.case(yardsticks_of(measure, one.kind).by_hand)),
        ):
            if case is not None:
                points.append((case.concurrency, case.ops_per_s))
    if len(engine) < 2 or one.kind is BackendKind.MEMORY:
        return None
    x_range = (min(engine)[0], max(engine)[0])
    lines = [*_limit_line(one, x_range), PlotLine("quota_engine", "engine", sorted(engine))]
    lines += [PlotLine("by hand", "old", sorted(by_hand))] if by_hand else []
    return BenchPlot(
        _rate_plot(
            f"{one.name}-concurrency",
            "Reservations a second, by how many call at once",
            f"A lone caller is served at once; callers that meet share a script call. The most: {_most(lines)}.",
            lines,
            x_range,
            [(x, f"{x:g}") for x, _ in sorted(engine)],
            "calls at once",
        ),
        lambda x: f"{x:g}",
        rate,
    )


def _by_batch(one: _Backend) -> BenchPlot | None:
    """What a batch is worth: the engine's backend, fed with ready batches."""
    points = [
        (float(measure.batch), case.ops_per_s)
        for measure in engine_cases(one.settings, one.kind)
        if measure.batch > 1 and (case := one.case(measure)) is not None
    ]
    if len(points) < 2:
        return None
    points.sort()
    x_range = (points[0][0], points[-1][0])
    lines = [*_limit_line(one, x_range), PlotLine("quota_engine", "engine", points)]
    return BenchPlot(
        _rate_plot(
            f"{one.name}-batch",
            "Reservations a second, by how many go in one batch",
            f"Four batches are under way all the time. The most: {_most(lines)}.",
            lines,
            x_range,
            [(x, f"{x:g}") for x, _ in points],
            "reservations in a batch",
        ),
        lambda x: f"{x:g}",
        rate,
    )


def _latencies(one: _Backend) -> BenchPlot | None:
    """Histograms of how long a call takes."""
    if one.kind is BackendKind.MEMORY:
        confirm = dataclasses.replace(one.main, action="confirm")
        shown = [
            ("a dict behind a lock", "limit", one.case(yardsticks_of(one.main, one.kind).limit)),
            ("reserve", "engine", one.case(one.main)),
            ("confirm", "old", one.case(confirm)),
        ]
    else:
        shown = [
            ("quota_engine", "engine", one.case(one.main)),
            ("by hand", "old", one.case(yardsticks_of(one.main, one.kind).by_hand)),
        ]
    found = [(label, style, case) for label, style, case in shown if case is not None]
    if not found:
        return None
    low = min(case.histogram_us[0][0] for _, _, case in found) / _BUCKET**2
    # The last calls of thousands would make all others a needle at the left; they are in the figures as p99.
    high = max(_end_of(case, 0.999) for _, _, case in found) * _BUCKET
    lines = [PlotLine(label, style, _shares(case, low, high), stepped=True) for label, style, case in found]
    y_max = 1.08 * max(y for line in lines for _, y in line.points)
    halves = "; ".join(
        f"{label} half within {microseconds(case.p50_us)}, 99 of 100 within {microseconds(case.p99_us)}"
        for label, _, case in found
    )
    ticks = [tick * step for tick in log_ticks(low / 10, high) for step in (1, 2, 5) if low <= tick * step <= high]
    if len(ticks) > 7:
        ticks = log_ticks(low, high)
    at_once = found[0][2].concurrency
    plot = Plot(
        name=f"{one.name}-latency",
        title=f"How long a call takes, {'alone' if at_once == 1 else f'{at_once} at once'}",
        description=f"The share of calls by their time, in buckets that grow by a fifth: {halves}.",
        lines=lines,
        x_range=(low, high),
        x_ticks=[(tick, microseconds(tick).replace(".0 ", " ")) for tick in ticks],
        x_title="time from call to answer",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:.0%}") for tick in nice_ticks(0, y_max, 4)],
        x_is_log=True,
    )
    return BenchPlot(plot, microseconds, percent)


def _by_round(one: _Backend) -> BenchPlot | None:
    """Every round: what noise there was."""
    limit, by_hand = yardsticks_of(one.main, one.kind)
    if one.kind is BackendKind.MEMORY:
        refusal = dataclasses.replace(one.main, action="refusal")
        shown = [
            ("refusal", "engine thin", one.case(refusal)),
            ("reserve", "engine", one.case(one.main)),
            ("confirm", "old", one.case(dataclasses.replace(one.main, action="confirm"))),
        ]
    else:
        shown = [
            ("the limit", "limit", one.case(limit)),
            ("quota_engine", "engine", one.case(one.main)),
            ("by hand", "old", one.case(by_hand)),
        ]
    found = [(label, style, case) for label, style, case in shown if case is not None]
    rounds = max((len(case.rounds) for _, _, case in found), default=0)
    if rounds < 2:
        return None
    lines = [
        PlotLine(label, style, [(number, value) for number, value in enumerate(case.rounds, 1)])
        for label, style, case in found
    ]
    spread = "; ".join(f"{label} \u00b1{percent(case.spread)}" for label, _, case in found)
    plot = _rate_plot(
        f"{one.name}-rounds",
        "Round by round",
        f"Operations a second in each round. The flatter, the more the medians can be trusted: {spread}.",
        lines,
        (1, rounds),
        [(number, str(number)) for number in range(1, rounds + 1)]
        if rounds <= 20
        else [(1, "1"), (rounds, str(rounds))],
        "round",
    )
    return BenchPlot(dataclasses.replace(plot, x_is_log=False), lambda x: f"{x:g}", rate)


def _limit_line(one: _Backend, x_range: tuple[float, float]) -> list[PlotLine]:
    limit = one.case(yardsticks_of(one.main, one.kind).limit)
    if limit is None:
        return []
    return [PlotLine("the limit", "limit", [(x_range[0], limit.ops_per_s), (x_range[1], limit.ops_per_s)])]


def _end_of(case: CaseResult, share: float) -> float:
    """The end of the bucket that this share of calls does not exceed."""
    wanted, seen = share * sum(count for _, count in case.histogram_us), 0
    for end_us, count in case.histogram_us:
        seen += count
        if seen >= wanted:
            return end_us
    return case.histogram_us[-1][0]


def _shares(case: CaseResult, low: float, high: float) -> list[tuple[float, float]]:
    """Points of a stepped line: each bucket's share, from its lower end on."""
    total = sum(count for _, count in case.histogram_us)
    points = [(low, 0.0)]
    for end_us, count in case.histogram_us:
        if end_us / _BUCKET < high:
            points.append((end_us / _BUCKET, count / total))
    last_us = min(case.histogram_us[-1][0], high)
    return [*points, (last_us, 0.0), (high, 0.0)] if last_us < high else [*points, (high, points[-1][1])]


def _rate_plot(
    name: str,
    title: str,
    description: str,
    lines: Sequence[PlotLine],
    x_range: tuple[float, float],
    x_ticks: Sequence[tuple[float, str]],
    x_title: str,
) -> Plot:
    y_max = 1.08 * max(y for line in lines for _, y in line.points)
    ticks = nice_ticks(0, y_max, 4)
    return Plot(
        name=name,
        title=title,
        description=description,
        lines=lines,
        x_range=x_range,
        x_ticks=x_ticks,
        x_title=x_title,
        y_max=y_max,
        y_ticks=[(tick, f"{tick:,.0f}" if y_max < 1e6 else f"{tick / 1e6:g}M") for tick in ticks],
        x_is_log=True,
    )


def _most(lines: Sequence[PlotLine]) -> str:
    return ", ".join(f"{line.label} {rate(max(y for _, y in line.points))}" for line in lines)
