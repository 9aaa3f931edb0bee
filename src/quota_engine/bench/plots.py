"""Plots of a benchmark result."""

from __future__ import annotations

__all__ = ["BenchPlot", "change_chart", "latency_chart", "plots_of_backend"]

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from quota_engine.bench.compare import CaseChange, ChangeVerdict
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
from quota_engine.reporting.svg_plot import Plot, PlotLine, axis_end, log_ticks, nice_ticks
from quota_engine.reporting.svg_ranges import RangeChart, RangeRow

_STYLES: Final[dict[str, str]] = {Implementation.ENGINE: "engine", Implementation.BY_HAND: "old"}
_VERDICT_STYLES: Final = {ChangeVerdict.SLOWER: "old", ChangeVerdict.SAME: "limit", ChangeVerdict.FASTER: "engine"}
_BUCKET: Final = 2**0.25
"""Ratio of the ends of neighboring buckets of a histogram."""


@dataclasses.dataclass(frozen=True, slots=True)
class BenchPlot:
    """A plot, with the text formats of its table."""

    plot: Plot
    x_text: Callable[[float], str]
    y_text: Callable[[float], str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Backend:
    """Results of one backend, by case."""

    name: str
    label: str
    cases: dict[tuple[str, int], CaseResult]
    kind: BackendKind
    settings: BenchSettings

    def result_of(self, case: BenchCase | None) -> CaseResult | None:
        return None if case is None else self.cases.get((case.name, case.concurrency))

    @property
    def main(self) -> BenchCase:
        """The plain reserve, which represents the backend."""
        if self.kind is BackendKind.MEMORY:
            return BenchCase("reserve", Implementation.ENGINE, ApiStyle.SINGLE, 1)
        return BenchCase("reserve", Implementation.ENGINE, ApiStyle.TASKS, self.settings.main_concurrency)


def plots_of_backend(result: BenchResult, backend: str) -> list[BenchPlot]:
    """Return the plots of one backend that have enough cases."""
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


def latency_chart(cases: Sequence[CaseResult], name: str) -> RangeChart:
    """Return the distribution of the latency of each case as a violin, from the fastest call to the p99.

    Args:
        cases: Cases of one backend, at least one.
        name: Prefix of the element ids of the chart.
    """
    low = min(case.histogram_us[0][0] for case in cases) / _BUCKET
    high = max(max(case.p99_us for case in cases), low * 2)
    rows = [
        RangeRow(
            label=case.name if case.concurrency == 1 else f"{case.name}, {case.concurrency} at once",
            value=f"p50 {microseconds(case.p50_us)}, p99 {microseconds(case.p99_us)}",
            low=case.histogram_us[0][0] / _BUCKET,
            middle=case.p50_us,
            high=case.p99_us,
            style=_STYLES.get(case.kind, "limit"),
            density=[
                (end_us / _BUCKET, min(end_us, high), float(count))
                for end_us, count in case.histogram_us
                if end_us / _BUCKET < case.p99_us
            ],
        )
        for case in cases
    ]
    slowest = max(cases, key=lambda case: case.p50_us)
    return RangeChart(
        name=f"{name}-distributions",
        title="Latency of every case",
        description="The spread of the calls of each case, from the fastest to the 99th percentile. The mark is the "
        f"median. The largest median is that of {slowest.name}, {microseconds(slowest.p50_us)}.",
        rows=rows,
        x_range=(low, high),
        x_ticks=[(tick, microseconds(tick).replace(".0 ", " ")) for tick in log_ticks(low, high)],
        x_title="time from call to answer",
    )


def change_chart(changes: Sequence[CaseChange]) -> RangeChart:
    """Return the rate of each case now, divided by its median in the earlier run, with the range of the rounds.

    Args:
        changes: Cases of both runs, at least one.
    """
    rows = [
        RangeRow(
            label=f"{one.backend} {one.name}, {one.concurrency} at once",
            value=f"{one.ratio - 1:+.0%}" + ("" if one.verdict is ChangeVerdict.SAME else f", {one.verdict}"),
            low=one.new_range[0] / one.old_ops_per_s,
            middle=one.ratio,
            high=one.new_range[1] / one.old_ops_per_s,
            style=_VERDICT_STYLES[one.verdict],
        )
        for one in changes
    ]
    low = min(0.5, *(row.low for row in rows))
    high = max(2.0, *(row.high for row in rows))
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    slower = sum(one.verdict is ChangeVerdict.SLOWER for one in changes)
    return RangeChart(
        name="changes",
        title="Rate of each case against the earlier run",
        description=f"{slower} of {len(changes)} cases are slower than before. A mark on the left of the dashed line "
        "is slower. The bar has the slowest and the fastest round of this run.",
        rows=rows,
        x_range=(low, high),
        x_ticks=[(step, f"{step:g}\u00d7") for step in steps if low <= step <= high],
        x_title="rate now, divided by the rate before",
        reference=1.0,
    )


def _by_concurrency(one: _Backend) -> BenchPlot | None:
    """Return the rate by the number of callers: a single caller, and asyncio tasks."""
    engine: list[tuple[float, float]] = []
    by_hand: list[tuple[float, float]] = []
    ranges: dict[str, list[tuple[float, float, float]]] = {"engine": [], "old": []}
    for planned in engine_cases(one.settings, one.kind):
        is_plain = planned.action == "reserve" and planned.api_style is not ApiStyle.THREADS
        if not is_plain or (planned.batch, planned.offices, planned.reservations) != (1, 1, 0):
            continue
        for style, points, case in (
            ("engine", engine, one.result_of(planned)),
            ("old", by_hand, one.result_of(yardsticks_of(planned, one.kind).by_hand)),
        ):
            if case is not None:
                points.append((case.concurrency, case.ops_per_s))
                ranges[style].append((case.concurrency, case.ops_per_s_min, case.ops_per_s_max))
    if len(engine) < 2 or one.kind is BackendKind.MEMORY:
        return None
    x_range = (min(engine)[0], max(engine)[0])
    lines = [*_limit_line(one, x_range), PlotLine("quota_engine", "engine", sorted(engine), ranges=ranges["engine"])]
    lines += [PlotLine("by hand", "old", sorted(by_hand), ranges=ranges["old"])] if by_hand else []
    return BenchPlot(
        _rate_plot(
            f"{one.name}-concurrency",
            "Reservations a second by concurrent callers",
            f"The rate grows with the callers, because concurrent callers share script calls. Bars are the slowest and "
            f"the fastest round. Maximum: {_most(lines)}.",
            lines,
            x_range,
            [(x, f"{x:g}") for x, _ in sorted(engine)],
            "concurrent callers",
        ),
        lambda x: f"{x:g}",
        rate,
    )


def _by_batch(one: _Backend) -> BenchPlot | None:
    """Return the rate by batch size: the engine's store with prepared batches."""
    found = sorted(
        (float(planned.batch), case.ops_per_s, case.ops_per_s_min, case.ops_per_s_max)
        for planned in engine_cases(one.settings, one.kind)
        if planned.batch > 1 and (case := one.result_of(planned)) is not None
    )
    if len(found) < 2:
        return None
    points = [(batch, middle) for batch, middle, _, _ in found]
    ranges = [(batch, low, high) for batch, _, low, high in found]
    x_range = (points[0][0], points[-1][0])
    lines = [*_limit_line(one, x_range), PlotLine("quota_engine", "engine", points, ranges=ranges)]
    return BenchPlot(
        _rate_plot(
            f"{one.name}-batch",
            "Reservations a second by batch size",
            f"A larger batch shares the cost of a call. Four batches are always in flight. Bars are the slowest and "
            f"the fastest round. Maximum: {_most(lines)}.",
            lines,
            x_range,
            [(x, f"{x:g}") for x, _ in points],
            "reservations in a batch",
        ),
        lambda x: f"{x:g}",
        rate,
    )


def _latencies(one: _Backend) -> BenchPlot | None:
    """Return histograms of the latency."""
    if one.kind is BackendKind.MEMORY:
        confirm = dataclasses.replace(one.main, action="confirm")
        shown = [
            ("a dict behind a lock", "limit", one.result_of(yardsticks_of(one.main, one.kind).limit)),
            ("reserve", "engine", one.result_of(one.main)),
            ("confirm", "old", one.result_of(confirm)),
        ]
    else:
        shown = [
            ("quota_engine", "engine", one.result_of(one.main)),
            ("by hand", "old", one.result_of(yardsticks_of(one.main, one.kind).by_hand)),
        ]
    found = [(label, style, case) for label, style, case in shown if case is not None]
    if not found:
        return None
    low = min(case.histogram_us[0][0] for _, _, case in found) / _BUCKET**2
    # The slowest 0.1 % are left out: they would compress the rest of the plot. The table has the p99.
    high = max(_end_of(case, 0.999) for _, _, case in found) * _BUCKET
    lines = [PlotLine(label, style, _shares(case, low, high), stepped=True) for label, style, case in found]
    y_max = axis_end(max(y for line in lines for _, y in line.points))
    halves = "; ".join(
        f"{label} p50 {microseconds(case.p50_us)}, p99 {microseconds(case.p99_us)}" for label, _, case in found
    )
    ticks = [tick * step for tick in log_ticks(low / 10, high) for step in (1, 2, 5) if low <= tick * step <= high]
    if len(ticks) > 7:
        ticks = log_ticks(low, high)
    at_once = found[0][2].concurrency
    plot = Plot(
        name=f"{one.name}-latency",
        title=f"Latency of a call, {'one caller' if at_once == 1 else f'{at_once} callers'}",
        description=f"Share of the calls by latency, in buckets that grow by a fifth: {halves}.",
        lines=lines,
        x_range=(low, high),
        x_ticks=[(tick, microseconds(tick).replace(".0 ", " ")) for tick in ticks],
        x_title="time from call to answer",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:.0%}") for tick in nice_ticks(0, y_max, 4)],
        x_is_log=True,
        x_unit="\u00b5s",
        y_unit="share of the calls",
    )
    return BenchPlot(plot, microseconds, percent)


def _by_round(one: _Backend) -> BenchPlot | None:
    """Return the rate of every round, which shows the noise."""
    limit, by_hand = yardsticks_of(one.main, one.kind)
    if one.kind is BackendKind.MEMORY:
        refusal = dataclasses.replace(one.main, action="refusal")
        shown = [
            ("refusal", "engine thin", one.result_of(refusal)),
            ("reserve", "engine", one.result_of(one.main)),
            ("confirm", "old", one.result_of(dataclasses.replace(one.main, action="confirm"))),
        ]
    else:
        shown = [
            ("the limit", "limit", one.result_of(limit)),
            ("quota_engine", "engine", one.result_of(one.main)),
            ("by hand", "old", one.result_of(by_hand)),
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
        "Rate of each round",
        f"Operations a second in each round. Flat lines mean reliable medians: {spread}.",
        lines,
        (1, rounds),
        [(number, str(number)) for number in range(1, rounds + 1)]
        if rounds <= 20
        else [(1, "1"), (rounds, str(rounds))],
        "round",
    )
    return BenchPlot(dataclasses.replace(plot, x_is_log=False), lambda x: f"{x:g}", rate)


def _limit_line(one: _Backend, x_range: tuple[float, float]) -> list[PlotLine]:
    limit = one.result_of(yardsticks_of(one.main, one.kind).limit)
    if limit is None:
        return []
    return [PlotLine("the limit", "limit", [(x_range[0], limit.ops_per_s), (x_range[1], limit.ops_per_s)])]


def _end_of(case: CaseResult, share: float) -> float:
    """Return the end of the bucket that a share of the calls does not exceed."""
    wanted, seen = share * sum(count for _, count in case.histogram_us), 0
    for end_us, count in case.histogram_us:
        seen += count
        if seen >= wanted:
            return end_us
    return case.histogram_us[-1][0]


def _shares(case: CaseResult, low: float, high: float) -> list[tuple[float, float]]:
    """Return points of a stepped line: each bucket's share, from its lower end on."""
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
    y_max = axis_end(max(y for line in lines for y in _heights(line)))
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


def _heights(line: PlotLine) -> list[float]:
    """Return all values that a line shows, with the ends of its error bars."""
    return [*(y for _, y in line.points), *(high for _, _, high in line.ranges)]


def _most(lines: Sequence[PlotLine]) -> str:
    return ", ".join(f"{line.label} {rate(max(y for _, y in line.points))}" for line in lines)
