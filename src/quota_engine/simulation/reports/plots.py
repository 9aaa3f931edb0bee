"""The four plots of an opening, for one run or for several runs side by side."""

from __future__ import annotations

__all__ = ["PlottedRun", "all_plots", "plots_of", "sales_plot"]

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from quota_engine.reporting.statistics import Histogram, Series
from quota_engine.reporting.svg_plot import Plot, PlotLine, axis_end, log_ticks, nice_ticks
from quota_engine.simulation.metrics import Metrics
from quota_engine.simulation.reports.formatting import duration, number
from quota_engine.simulation.simulation import SimulationResult

_COLUMNS = 230
"""Points of a line. A plot has no pixels for more."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlottedRun:
    """One run in the plots.

    Attributes:
        name: Label of its lines.
        style: CSS class of its lines.
        within: Phrase for a description, such as "with quota_engine".
        subject: Noun for a description.
        shows_taken: Draw a line for the places held as well.
    """

    name: str
    style: str
    within: str
    subject: str
    metrics: Metrics
    shows_taken: bool = False


def all_plots(result: SimulationResult) -> list[Plot]:
    """Return the plots of arrivals, sales, answers and waiting, in the order of the report."""
    return plots_of(_runs(result))


def plots_of(runs: Sequence[PlottedRun]) -> list[Plot]:
    """Return the same plots for any runs. The first run decides the capacity and the window."""
    return [_arrivals_plot(runs), _sales_plot(runs), _answers_plot(runs), _waiting_plot(runs)]


def _runs(result: SimulationResult) -> list[PlottedRun]:
    engine = PlottedRun("quota_engine", "engine", "with quota_engine", "quota_engine", result.engine, shows_taken=True)
    if result.baseline is None:
        return [engine]
    return [
        engine,
        PlottedRun("baseline", "old", "with the baseline", "the baseline", result.baseline),
    ]


def _arrivals_plot(runs: Sequence[PlottedRun]) -> Plot:
    window = _rush_window(runs)
    lines = [PlotLine(run.name, run.style, _per_second(run.metrics.arrivals, window), stepped=True) for run in runs]
    peaks = _and(f"{number(run.metrics.arrivals.peak)} {run.within}" for run in runs)
    return _time_plot(
        "arrivals",
        "Requests per second",
        f"Requests that arrive in each second around the opening. Peak: {peaks}.",
        lines,
        window,
    )


def _answers_plot(runs: Sequence[PlottedRun]) -> Plot:
    window = _rush_window(runs)
    lines = [PlotLine(run.name, run.style, _per_second(run.metrics.answers, window), stepped=True) for run in runs]
    peaks = _and(f"{number(run.metrics.answers.peak)} {run.within}" for run in runs)
    return _time_plot(
        "answers",
        "Answers per second",
        f"Requests answered in each second. Refused connections and time-outs do not count. Peak: {peaks}.",
        lines,
        window,
    )


def sales_plot(result: SimulationResult) -> Plot:
    """Return the plot of places held and sold since the opening, against the capacity."""
    return _sales_plot(_runs(result))


def _sales_plot(runs: Sequence[PlottedRun]) -> Plot:
    capacity = runs[0].metrics.capacity
    end_s = max(run.metrics.sold.second_of_share(0.9) for run in runs)
    window = (0, max(60, min(round(end_s * 1.6), 4 * 3600)))
    lines = [PlotLine(f"capacity: {number(capacity)}", "limit", [(0, capacity), (window[1], capacity)])]
    sales = []
    for run in runs:
        metrics = run.metrics
        if run.shows_taken:
            points = _cumulated(metrics.taken, window)
            lines.append(PlotLine(f"{run.name}: held or sold", f"{run.style} thin", points, stepped=True))
        lines.append(PlotLine(f"{run.name}: sold", run.style, _cumulated(metrics.sold, window), stepped=True))
        sold = f"{number(metrics.confirmed)}, {number(metrics.oversold)} of them above the capacity"
        sales.append(f"{run.subject} sells {sold}")
    most = max(capacity, *(y for line in lines for _, y in line.points))
    return _time_plot(
        "sales",
        "Places sold",
        f"Places sold since the opening, against the capacity of {number(capacity)}: {_and(sales)}.",
        lines,
        window,
        y_max=axis_end(max(most, 1)),
    )


def _waiting_plot(runs: Sequence[PlottedRun]) -> Plot:
    """Return the cumulative share of applicants with a yes or no, on a logarithmic time axis."""
    fastest_us = min(run.metrics.answer_us.percentile(0.01) for run in runs)
    low_us = 10_000.0 if fastest_us >= 10_000 else 1_000.0
    high_us = max(10_000_000.0, *(run.metrics.answer_us.max * 1.05 for run in runs))
    lines = [PlotLine(run.name, run.style, _shares(run.metrics.answer_us, low_us, high_us)) for run in runs]
    halves = _and(f"{duration(run.metrics.answer_us.percentile(0.5) / 1000)} {run.within}" for run in runs)
    return Plot(
        name="waiting",
        title="Time to yes or no",
        description=f"Share of the applicants who know whether they have a place, by the time since they pressed the "
        f"button. The median is {halves}.",
        lines=lines,
        x_range=(low_us, high_us),
        x_ticks=_waiting_ticks(low_us, high_us),
        x_title="time since pressing the button",
        y_max=100,
        y_ticks=[(share, f"{share}%") for share in (0, 25, 50, 75, 100)],
        x_is_log=True,
        x_unit="\u00b5s",
        y_unit="%",
    )


def _waiting_ticks(low_us: float, high_us: float) -> list[tuple[float, str]]:
    """Return powers of ten up to ten seconds, then minutes and hours."""
    ticks = log_ticks(low_us, min(high_us, 1e7))
    ticks += [each for each in (6e7, 6e8, 3.6e9, 3.6e10) if each <= high_us]
    names = {6e7: "1 min", 6e8: "10 min", 3.6e9: "1 h", 3.6e10: "10 h"}
    return [(tick, names.get(tick) or duration(tick / 1000).replace(".0 ", " ")) for tick in ticks]


def _rush_window(runs: Sequence[PlottedRun]) -> tuple[int, int]:
    """Return the window from a minute before the opening, or the first press, to the end of the load spike."""
    start_s = max(-60, runs[0].metrics.start_s)
    busy_s = max(run.metrics.arrivals.second_of_share(0.8) for run in runs)
    return start_s, max(60, min(busy_s, 1800))


def _per_second(series: Series, window: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the sums per second. A point for several seconds shows the largest sum."""
    sums = series.window(*window)
    stride = -(-len(sums) // _COLUMNS)
    return [(window[0] + at, max(sums[at : at + stride])) for at in range(0, len(sums), stride)]


def _cumulated(series: Series, window: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the running sum at the end of each second."""
    earlier = sum(series.window(series.start_s, window[0]))
    running = list(itertools.accumulate(series.window(*window), initial=earlier))
    stride = -(-len(running) // _COLUMNS)
    points = [(float(window[0] + at), float(running[at])) for at in range(0, len(running), stride)]
    return [*points, (float(window[1]), float(running[-1]))]


def _shares(histogram: Histogram, low_us: float, high_us: float) -> list[tuple[float, float]]:
    points, seen, last = [(low_us, 0.0)], 0, -1.0
    for _, high, count in histogram.buckets():
        seen += count
        share = round(100 * seen / histogram.count, 1)
        # Flat or dense stretches need no point for every bucket.
        if share - last >= 0.4 or seen == histogram.count:
            points.append((max(high, low_us), share))
            last = share
    return [*points, (high_us, points[-1][1])]


def _time_plot(
    name: str,
    title: str,
    description: str,
    lines: Sequence[PlotLine],
    window: tuple[int, int],
    y_max: float | None = None,
) -> Plot:
    if y_max is None:
        y_max = axis_end(max(1.0, *(y for line in lines for _, y in line.points)))
    unit_s, unit = (1, "seconds") if window[1] <= 300 else (60, "minutes")
    ticks = nice_ticks(window[0] / unit_s, window[1] / unit_s)
    return Plot(
        name=name,
        title=title,
        description=description,
        lines=lines,
        x_range=window,
        x_ticks=[(tick * unit_s, f"{tick:g}") for tick in ticks],
        x_title=f"{unit} since the opening",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:,g}" if tick < 1e6 else f"{tick / 1e6:g}M") for tick in nice_ticks(0, y_max, 4)],
    )


def _and(parts: Iterable[str]) -> str:
    return " and ".join(parts)
