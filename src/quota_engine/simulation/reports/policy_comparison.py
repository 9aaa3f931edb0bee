"""Report of openings with agents: who gets the places under each policy, and the profit of brokers."""

from __future__ import annotations

__all__ = ["html_report", "picture", "print_comparison"]

import dataclasses
import html
import itertools
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.text import Text

from quota_engine.reporting.figure import NARROW_PX, figure
from quota_engine.reporting.page import page
from quota_engine.reporting.svg_bars import BAR_STYLE, Bar, BarChart, BarPart, render_bars
from quota_engine.reporting.svg_plot import Plot, PlotLine, axis_end, log_ticks, nice_ticks
from quota_engine.reporting.table import Cell, render_table
from quota_engine.simulation.agent_metrics import AgentMetrics
from quota_engine.simulation.policy_comparison import PolicyComparison
from quota_engine.simulation.reports.formatting import duration, number, opening_line
from quota_engine.simulation.reports.opening import findings_block, parameters, sampled_figure
from quota_engine.simulation.reports.terminal import SectionTable, print_findings

_HANDED_OVER: Final = "brokers, handed over"
_KEPT: Final = "brokers, not attended"
_UNSOLD: Final = "unsold"


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """One row of the table: a value for each policy; ``bad`` marks defects."""

    section: str
    label: str
    values: tuple[str, ...]
    bad: tuple[bool, ...]


def picture(comparison: PolicyComparison) -> str:
    """Return the chart of who gets the places as an SVG file."""
    return render_bars(_places_bars(comparison), 760, standalone=True) + "\n"


def html_report(comparison: PolicyComparison) -> str:
    """Return the report. The same comparison gives the same bytes."""
    title = f"{comparison.scenario.title}: who gets the places"
    bars = _places_bars(comparison)
    body = "".join(
        [
            f"<style>{BAR_STYLE}{_LINE_STYLE}</style>",
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="quiet">{html.escape(_headline(comparison))}</p>',
            findings_block(comparison.findings),
            _bar_figure(bars),
            '<div class="plots">',
            sampled_figure(_latency_plot(comparison)),
            sampled_figure(_calls_plot(comparison)),
            "</div>",
            "<h2>All metrics</h2>",
            _table(_rows(comparison), comparison),
            _reading_notes(comparison),
            parameters(comparison.scenario),
        ]
    )
    return page(title, body)


def _bar_figure(bars: BarChart) -> str:
    """Return a bar chart as a figure. The bars of a narrow screen have their labels above them."""
    pictures = (render_bars(bars), render_bars(dataclasses.replace(bars, name=f"{bars.name}-narrow"), NARROW_PX))
    rows = [[bar.label, bars.kinds[part.kind], f"{100 * part.share:.2f}"] for bar in bars.bars for part in bar.parts]
    table = render_table(["", "share"], [[f"{policy}, {kind}", f"{share}%"] for policy, kind, share in rows])
    values = [["policy", "who gets the places", "share in %"], *rows]
    return figure(bars.name, bars.title, bars.description, pictures, values, table, is_large=True)


def print_comparison(comparison: PolicyComparison, console: Console) -> None:
    """Print the title, every metric and the findings. Colors carry no information that the text lacks."""
    console.print(Text(comparison.scenario.title, style="bold"))
    console.print(Text(_headline(comparison)))
    table = SectionTable([str(run.metrics.scenario.policy) for run in comparison.runs], indent=1)
    for row in _rows(comparison):
        table.add(row.section, row.label, zip(row.values, row.bad, strict=True))
    console.print(table.table)
    console.print()
    print_findings(console, comparison.findings)


def _headline(comparison: PolicyComparison) -> str:
    scenario = comparison.scenario
    checked = {result.metrics.scenario.identity for result in comparison.runs}
    return (
        f"{opening_line(scenario.applicants, comparison.supply)}. Identities {', '.join(sorted(checked))}, "
        f"{comparison.backend}, seed {scenario.seed}."
    )


def _rows(comparison: PolicyComparison) -> list[_Row]:
    runs = [result.metrics for result in comparison.runs]
    figures = [{each.name: each for each in run.classes()} for run in runs]

    def row(
        section: str,
        label: str,
        show: Callable[[AgentMetrics], str],
        bad: Callable[[AgentMetrics], bool] = lambda run: False,
    ) -> _Row:
        return _Row(section, label, tuple(map(show, runs)), tuple(map(bad, runs)))

    by_class = [
        _Row(
            "Won a place themselves",
            name,
            tuple(_percent(each[name].won / each[name].people) if name in each else "" for each in figures),
            tuple(False for _ in figures),
        )
        for name in runs[0].people.classes[:-1]
        if any(name in each for each in figures)
    ]
    return [
        row("Places", "re-release", lambda run: _RERELEASE[str(run.re_release)]),
        row("Places", "on sale", lambda run: number(run.capacity)),
        row("Places", "oversold", lambda run: number(run.oversold), lambda run: run.oversold > 0),
        row("Places", "attended", lambda run: number(run.attended)),
        row("Places", "unsold", lambda run: number(run.capacity - run.confirmed)),
        row("Places", "sold, not attended", lambda run: number(run.no_shows), lambda run: run.no_shows > 0),
        *by_class,
        row("Won a place themselves", "correlation with latency", lambda run: _signed(run.correlation)),
        row("Brokers", "identities", lambda run: number(run.plan.identities)),
        row("Brokers", "places held", lambda run: number(run.places_held)),
        row("Brokers", "ordered by customers", lambda run: number(run.orders)),
        row("Brokers", "handed over", lambda run: number(run.delivered)),
        row(
            "Brokers",
            "profit, million rupiah",
            lambda run: _millions(run.broker_profit),
            lambda run: run.broker_profit > 0,
        ),
        row("Load", "requests for each place", lambda run: number(run.requests_per_place)),
        row("Load", "most engine calls in a second", lambda run: number(run.store_calls_per_s_max)),
        row("Load", "deferred requests", lambda run: number(run.throttled + run.overloaded)),
        row("Time", "first sold-out answer", lambda run: duration(run.sold_out_us / 1000) if run.sold_out_us else ""),
        row("Time", "median time to yes or no", lambda run: duration(run.wait_us.percentile(0.5) / 1000)),
    ]


_RERELEASE: Final = {"immediate": "at once", "cooling": "later", "next-draw": "next draw"}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\u2212")


def _millions(rupiah: int) -> str:
    return f"{rupiah / 1e6:,.2f}".replace("-", "\u2212")


def _places_bars(comparison: PolicyComparison) -> BarChart:
    """Return the bars: the classes of the people, and for each policy who gets the places."""
    first = comparison.runs[0].metrics
    classes = first.people.classes[:-1]
    kinds = [*classes, _HANDED_OVER, _KEPT, _UNSOLD]
    sizes = [0] * len(first.people.classes)
    for one in first.people.class_of:
        sizes[one] += 1
    people = first.people.people_count
    bars = [Bar("people", [BarPart(kind, sizes[kind] / people) for kind in range(len(classes))])]
    shares = []
    for result in comparison.runs:
        run = result.metrics
        own = {each.name: each.won for each in run.classes()}
        places = [own.get(name, 0) for name in classes]
        places += [run.delivered, run.no_shows, max(0, run.capacity - run.confirmed)]
        whole = max(run.capacity, sum(places))
        bars.append(
            Bar(str(run.scenario.policy), [BarPart(kind, count / whole) for kind, count in enumerate(places) if count])
        )
        shares.append(f"{run.scenario.policy} {number(run.delivered + run.no_shows)} of {number(run.capacity)}")
    return BarChart(
        "places",
        "Who gets the places",
        "Classes of the people, and who gets the places under each policy. Places of brokers: "
        f"{'; '.join(shares)}. Bots are programs that press for one person.",
        kinds,
        bars,
    )


_LINE_STYLE: Final = (
    ".plot .line0{stroke:#c2410c}.plot .line1{stroke:#a16207;stroke-dasharray:8 3}"
    ".plot .line2{stroke:#5b3fb5;stroke-dasharray:2 3}.plot .line3{stroke:#1d5fd1}"
    ".plot .line4{stroke:#15803d;stroke-dasharray:10 3 2 3}"
    "@media(prefers-color-scheme:dark){.plot .line0{stroke:#ff9a5c}.plot .line1{stroke:#e8c15a}"
    ".plot .line2{stroke:#b79bff}.plot .line3{stroke:#6ea8ff}.plot .line4{stroke:#5fd38d}}"
)


def _latency_plot(comparison: PolicyComparison) -> Plot:
    """Return the share of winners by latency, in tenths of the people from the fastest to the slowest."""
    lines, highest = [], 0.0
    low, high = float("inf"), 0.0
    for style, result in enumerate(comparison.runs):
        points = [(point.latency_ms * 1000, 100 * point.success_share) for point in result.metrics.latency_curve()]
        low, high = min(low, points[0][0]), max(high, points[-1][0])
        highest = max(highest, *(share for _, share in points))
        lines.append(PlotLine(str(result.metrics.scenario.policy), f"line{style}", points))
    high = max(high, low * 1.01)
    y_max = axis_end(max(highest, 0.1))
    correlations = ", ".join(
        f"{_signed(result.metrics.correlation)} ({result.metrics.scenario.policy})" for result in comparison.runs
    )
    return Plot(
        name="latency",
        title="Advantage of a fast network",
        description="Share of the people who win a place themselves, in tenths by their latency to the servers. "
        f"Correlation of success with latency: {correlations}.",
        lines=lines,
        x_range=(low, high),
        x_ticks=[(tick, duration(tick / 1000).replace(".0 ", " ")) for tick in _fine_ticks(low, high)],
        x_title="one-way latency, up to",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:g}%") for tick in nice_ticks(0, y_max, 4)],
        x_is_log=True,
        x_unit="\u00b5s",
        y_unit="%",
    )


def _fine_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times every power of ten from ``low`` to ``high``."""
    return [
        tick for power in log_ticks(low / 10, high) for tick in (power, 2 * power, 5 * power) if low <= tick <= high
    ]


def _calls_plot(comparison: PolicyComparison) -> Plot:
    """Return the plot of engine calls in each second around the opening."""
    window = (-10, 60)
    lines = [
        PlotLine(
            str(result.metrics.scenario.policy),
            f"line{style}",
            [
                (float(window[0] + at), count)
                for at, count in enumerate(result.metrics.store_calls_per_s.window(*window))
            ],
            stepped=True,
        )
        for style, result in enumerate(comparison.runs)
    ]
    y_max = axis_end(max(1.0, *(y for line in lines for _, y in line.points)))
    peaks = ", ".join(
        f"{number(result.metrics.store_calls_per_s.peak)} ({result.metrics.scenario.policy})"
        for result in comparison.runs
    )
    return Plot(
        name="calls",
        title="Engine calls per second",
        description="Requests that pass the policy and reach the engine in each second around the opening. "
        f"Peak: {peaks}.",
        lines=lines,
        x_range=window,
        x_ticks=[(tick, f"{tick:g}") for tick in nice_ticks(*window)],
        x_title="seconds since the opening",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:,g}") for tick in nice_ticks(0, y_max, 4)],
    )


def _table(rows: list[_Row], comparison: PolicyComparison) -> str:
    shown: list[list[str | Cell]] = []
    for section, each in itertools.groupby(rows, key=lambda row: row.section):
        shown.append([section])
        for row in each:
            cells = zip(row.values, row.bad, strict=True)
            shown.append([row.label, *(Cell(value, "bad" if is_bad else "") for value, is_bad in cells)])
    return render_table(["", *(str(result.metrics.scenario.policy) for result in comparison.runs)], shown)


def _reading_notes(comparison: PolicyComparison) -> str:
    return (
        '<h2>How to read this page</h2><p class="quiet">Every place was held, confirmed, cancelled and attended '
        f"through the real engine, on {html.escape(comparison.backend)}, under a simulated clock, and every request "
        "passed the real admission modules. People, bots and brokers are models that decide from what they could know. "
        "Brokers have tried smaller openings before, and come if those were profitable. The same scenario and seed "
        "give the same page, byte for byte.</p>"
    )
