"""The report of an opening with agents: who gets the places under each policy, and what brokers make of it."""

from __future__ import annotations

__all__ = ["html_report", "picture", "print_comparison"]

import dataclasses
import html
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quota_engine.reporting.page import page
from quota_engine.reporting.svg_bars import BAR_STYLE, Bar, BarChart, BarPart, render_bars
from quota_engine.reporting.svg_plot import Plot, PlotLine, log_ticks, nice_ticks
from quota_engine.simulation.agent_metrics import AgentMetrics
from quota_engine.simulation.policy_comparison import PolicyComparison
from quota_engine.simulation.reports.formatting import duration, number, opening_line
from quota_engine.simulation.reports.opening import figure, parameters

_HELD: Final = "brokers, handed over"
_KEPT: Final = "brokers, nobody comes"
_UNSOLD: Final = "nobody's"


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table: a value a policy; ``bad`` marks those that should not be."""

    section: str
    label: str
    values: tuple[str, ...]
    bad: tuple[bool, ...]


def picture(comparison: PolicyComparison) -> str:
    """Who gets the places, as an SVG file of its own."""
    return render_bars(_places_bars(comparison), 760, alone=True) + "\n"


def html_report(comparison: PolicyComparison) -> str:
    """The whole report. The same comparison gives the same file, byte for byte."""
    title = f"{comparison.scenario.title}: who gets the places"
    bars = _places_bars(comparison)
    body = "".join(
        [
            f"<style>{BAR_STYLE}{_LINE_STYLE}</style>",
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="quiet">{html.escape(_headline(comparison))}</p>',
            _verdict(comparison),
            f"<figure><figcaption><b>{html.escape(bars.title)}</b>"
            f'<span class="quiet">{html.escape(bars.description)}</span></figcaption>'
            f'<div class="scroll bars">{render_bars(bars)}</div></figure>',
            '<div class="plots">',
            figure(_latency_plot(comparison)),
            figure(_calls_plot(comparison)),
            "</div>",
            "<h2>All figures</h2>",
            _table(_rows(comparison), comparison),
            _reading(comparison),
            parameters(comparison.scenario),
        ]
    )
    return page(title, body)


def print_comparison(comparison: PolicyComparison, console: Console) -> None:
    """Print every figure and the verdict. Colours are the terminal's own, and only add to what the text says."""
    console.print(Text(comparison.scenario.title, style="bold"))
    console.print(Text(_headline(comparison)))
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("")
    for result in comparison.runs:
        table.add_column(str(result.metrics.scenario.policy), justify="right", no_wrap=True)
    section = ""
    for row in _rows(comparison):
        if row.section != section:
            section = row.section
            table.add_row("")
            table.add_row(Text(section, style="bold"))
        cells = (Text(value, style="red" if bad else "") for value, bad in zip(row.values, row.bad, strict=True))
        table.add_row(Text(f" {row.label}"), *cells)
    console.print(table)
    console.print()
    if comparison.ok:
        console.print(Text("The audit finds nothing: no place was sold twice, and none was lost.", style="green"))
    for finding in comparison.findings:
        console.print(Text(f"FINDING: {finding}", style="bold red"))


def _headline(comparison: PolicyComparison) -> str:
    scenario = comparison.scenario
    checked = {result.metrics.scenario.identity for result in comparison.runs}
    return (
        f"{opening_line(scenario.applicants, comparison.supply)}. Identity {', '.join(sorted(checked))}, "
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
            "Won a place by themselves",
            name,
            tuple(_percent(each[name].won / each[name].people) if name in each else "" for each in figures),
            tuple(False for _ in figures),
        )
        for name in runs[0].people.classes[:-1]
        if any(name in each for each in figures)
    ]
    return [
        row("Places", "given back: available", lambda run: _RERELEASE[str(run.re_release)]),
        row("Places", "on sale", lambda run: number(run.capacity)),
        row("Places", "sold that do not exist", lambda run: number(run.oversold), lambda run: run.oversold > 0),
        row("Places", "somebody comes to", lambda run: number(run.attended)),
        row("Places", "unsold", lambda run: number(run.capacity - run.confirmed)),
        row("Places", "sold, and nobody comes", lambda run: number(run.no_shows), lambda run: run.no_shows > 0),
        *by_class,
        row("Won a place by themselves", "correlation with latency", lambda run: _signed(run.correlation)),
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
        row("Load", "requests a place", lambda run: number(run.requests_per_place)),
        row("Load", "most engine calls a second", lambda run: number(run.store_calls_per_s_max)),
        row("Load", "told to come back later", lambda run: number(run.throttled + run.overloaded)),
        row("Time", "first told: sold out", lambda run: duration(run.sold_out_us / 1000) if run.sold_out_us else ""),
        row("Time", "half know yes or no within", lambda run: duration(run.wait_us.percentile(0.5) / 1000)),
    ]


_BAD: Final = ' class="bad"'
_RERELEASE: Final = {"immediate": "at once", "cooling": "later", "next-draw": "next draw"}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\u2212")


def _millions(rupiah: int) -> str:
    return f"{rupiah / 1e6:,.2f}".replace("-", "\u2212")


def _places_bars(comparison: PolicyComparison) -> BarChart:
    """What the places of each policy come to, under what the people are."""
    first = comparison.runs[0].metrics
    classes = first.people.classes[:-1]
    kinds = [*classes, _HELD, _KEPT, _UNSOLD]
    sizes = [0] * len(first.people.classes)
    for one in first.people.class_of:
        sizes[one] += 1
    people = first.people.people_count
    bars = [Bar("the people", [BarPart(kind, sizes[kind] / people) for kind in range(len(classes))])]
    told = []
    for result in comparison.runs:
        run = result.metrics
        own = {each.name: each.won for each in run.classes()}
        places = [own.get(name, 0) for name in classes]
        places += [run.delivered, run.no_shows, max(0, run.capacity - run.confirmed)]
        whole = max(run.capacity, sum(places))
        bars.append(
            Bar(str(run.scenario.policy), [BarPart(kind, count / whole) for kind, count in enumerate(places) if count])
        )
        told.append(f"{run.scenario.policy}: {number(run.delivered + run.no_shows)} of {number(run.capacity)}")
    return BarChart(
        "places",
        "Who gets the places",
        "Who the people are, and who gets the places under each policy. Of brokers are "
        f"{'; '.join(told)}. Bots are programs that people let press for themselves.",
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
    """How many win a place, by how long a request takes them: tenths of the people, from the fastest to the slowest."""
    lines, highest = [], 0.0
    low, high = float("inf"), 0.0
    for style, result in enumerate(comparison.runs):
        points = [(point.latency_ms * 1000, 100 * point.success_share) for point in result.metrics.latency_curve()]
        low, high = min(low, points[0][0]), max(high, points[-1][0])
        highest = max(highest, *(share for _, share in points))
        lines.append(PlotLine(str(result.metrics.scenario.policy), f"line{style}", points))
    high = max(high, low * 1.01)
    y_max = max(highest * 1.1, 0.1)
    told = ", ".join(
        f"{_signed(result.metrics.correlation)} ({result.metrics.scenario.policy})" for result in comparison.runs
    )
    return Plot(
        name="latency",
        title="What a fast network is worth",
        description="The share of the people who win a place by themselves, in tenths by the time that a request of "
        f"theirs takes to the servers. The correlation of success with latency: {told}.",
        lines=lines,
        x_range=(low, high),
        x_ticks=[(tick, duration(tick / 1000).replace(".0 ", " ")) for tick in _fine_ticks(low, high)],
        x_title="time of a request, one way, up to",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:g}%") for tick in nice_ticks(0, y_max, 4)],
        x_is_log=True,
    )


def _fine_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten from ``low`` to ``high``."""
    return [
        tick for power in log_ticks(low / 10, high) for tick in (power, 2 * power, 5 * power) if low <= tick <= high
    ]


def _calls_plot(comparison: PolicyComparison) -> Plot:
    """What reaches the engine each second around the opening."""
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
    y_max = max(1.0, *(y for line in lines for _, y in line.points)) * 1.05
    peaks = ", ".join(
        f"{number(result.metrics.store_calls_per_s.peak)} ({result.metrics.scenario.policy})"
        for result in comparison.runs
    )
    return Plot(
        name="calls",
        title="Engine calls per second",
        description="How many requests pass the policy each second around the opening, and reach the engine. "
        f"The most in one second: {peaks}.",
        lines=lines,
        x_range=window,
        x_ticks=[(tick, f"{tick:g}") for tick in nice_ticks(*window)],
        x_title="seconds since the opening",
        y_max=y_max,
        y_ticks=[(tick, f"{tick:,g}") for tick in nice_ticks(0, y_max, 4)],
    )


def _verdict(comparison: PolicyComparison) -> str:
    if comparison.ok:
        return '<p class="good"><b>The audit finds nothing: no place was sold twice, and none was lost.</b></p>'
    findings = "".join(f"<li>{html.escape(finding)}</li>" for finding in comparison.findings)
    return f'<div class="bad"><b>The audit finds:</b><ul>{findings}</ul></div>'


def _table(rows: list[_Row], comparison: PolicyComparison) -> str:
    heads = "".join(f'<th scope="col">{result.metrics.scenario.policy}</th>' for result in comparison.runs)
    parts = [f'<div class="scroll"><table><thead><tr><th scope="col"></th>{heads}</tr></thead><tbody>']
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            columns = len(comparison.runs) + 1
            parts.append(f'<tr><th class="section" colspan="{columns}" scope="rowgroup">{section}</th></tr>')
        cells = "".join(
            f"<td{_BAD if bad else ''}>{html.escape(value)}</td>"
            for value, bad in zip(row.values, row.bad, strict=True)
        )
        parts.append(f'<tr><th scope="row">{html.escape(row.label)}</th>{cells}</tr>')
    return "".join(parts) + "</tbody></table></div>"


def _reading(comparison: PolicyComparison) -> str:
    return (
        '<h2>How to read this</h2><p class="quiet">Every place was held, confirmed, cancelled and attended through '
        f"the real engine, on {html.escape(comparison.backend)}, and every request passed the real admission modules, "
        "under a simulated clock. People, programs and brokers are modelled: they decide by what they could know, and "
        "nothing of the result is written into them. Brokers have tried at smaller openings before, and come if these "
        "paid. The same scenario and seed give this same page, byte for byte.</p>"
    )
