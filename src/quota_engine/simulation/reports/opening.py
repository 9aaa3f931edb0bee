"""HTML report of a simulation: one file without external resources, for light and dark, screen and phone."""

from __future__ import annotations

__all__ = ["html_report", "parameters", "picture", "sampled_figure"]

import html
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from quota_engine.reporting.figure import plot_figure
from quota_engine.reporting.page import page
from quota_engine.reporting.svg_plot import Plot, render
from quota_engine.reporting.table import Cell, render_table
from quota_engine.simulation.reports.formatting import NO_FINDINGS, MetricRow, duration, headline, metric_rows, number
from quota_engine.simulation.reports.plots import all_plots, sales_plot
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.simulation import SimulationResult


def picture(result: SimulationResult) -> str:
    """Return the plot of places sold against the capacity as an SVG file."""
    plot = sales_plot(result)
    return render(plot, 760, 380, standalone=True) + "\n"


def html_report(result: SimulationResult) -> str:
    """Return the report. The same result gives the same bytes."""
    title = html.escape(result.prepared.scenario.title)
    body = "".join(
        [
            f"<h1>{title}</h1>",
            f'<p class="quiet">{html.escape(headline(result))}.</p>',
            findings_block(result.findings),
            _cards(result),
            "<h2>Course of the opening</h2>",
            '<div class="plots">',
            *(sampled_figure(plot) for plot in all_plots(result)),
            "</div>",
            "<h2>All metrics</h2>",
            _metric_table(metric_rows(result), result.baseline is not None),
            _reading_notes(result),
            parameters(result.prepared.scenario),
        ]
    )
    return page(result.prepared.scenario.title, body)


def findings_block(findings: Sequence[str]) -> str:
    """Return the findings as HTML, or a line that there are none."""
    if not findings:
        return f'<p class="good"><b>{NO_FINDINGS}</b></p>'
    items = "".join(f"<li>{html.escape(finding)}</li>" for finding in findings)
    return f'<div class="bad"><b>Findings of the audit:</b><ul>{items}</ul></div>'


def _cards(result: SimulationResult) -> str:
    engine, baseline = result.engine, result.baseline

    def card(title: str, value: str, text: str, bad: bool) -> str:
        # The tick or cross repeats the color, which some readers cannot see.
        mark = "\u2717" if bad else "\u2713"
        return (
            f'<div class="card"><h3>{title}</h3><b><span class="{"bad" if bad else "good"}">{mark}</span> {value}</b>'
            f"<span>{text}</span></div>"
        )

    def note(value: str) -> str:
        return f"baseline: {value}" if baseline is not None else "with quota_engine"

    return (
        '<div class="cards">'
        + card(
            "Places oversold",
            number(engine.oversold),
            note(number(baseline.oversold) if baseline else ""),
            engine.oversold > 0,
        )
        + card(
            "Places sold",
            f"{number(engine.confirmed)} of {number(engine.capacity)}",
            note(number(baseline.confirmed) if baseline else ""),
            engine.oversold > 0,
        )
        + card(
            "Median time to yes or no",
            duration(engine.answer_us.percentile(0.5) / 1000),
            note(duration(baseline.answer_us.percentile(0.5) / 1000) if baseline else ""),
            engine.errors > 0,
        )
        + card(
            "Requests without an answer",
            number(engine.errors),
            note(number(baseline.errors) if baseline else ""),
            engine.errors > 0,
        )
        + "</div>"
    )


def sampled_figure(plot: Plot) -> str:
    """Return a plot with its caption, its values and a table of some of them."""
    return plot_figure(plot, _data(plot))


def _data(plot: Plot, rows_max: int = 16) -> str:
    """Return the plot as a table, for people who cannot see it: the values of all lines at ``rows_max + 1`` points."""
    low, high = plot.x_range
    if plot.x_is_log:
        ratio = (high / low) ** (1 / rows_max)
        points = [low * ratio**index for index in range(rows_max + 1)]
    else:
        points = [low + (high - low) * index / rows_max for index in range(rows_max + 1)]
    rows = [
        [_x_text(x, plot.x_is_log), *(_value_at(line.points, x, plot.x_is_log) for line in plot.lines)] for x in points
    ]
    return render_table([_first_head(plot), *(line.label for line in plot.lines)], rows)


def _first_head(plot: Plot) -> str:
    """Return the head of the first column. The axis names a unit, but the times of the table have their own."""
    return plot.x_title.replace("seconds ", "time ").replace("minutes ", "time ")


def _x_text(x: float, is_log: bool) -> str:
    if is_log:
        return duration(x / 1000)
    return ("\u2212" if x < 0 else "") + (duration(abs(x) * 1000) if x else "0")


def _value_at(points: Sequence[tuple[float, float]], x: float, is_share: bool) -> str:
    value = 0.0
    for at, y in itertools.takewhile(lambda point: point[0] <= x * (1 + 1e-9), points):
        del at
        value = y
    return f"{value:.1f}%" if is_share else number(value)


def _metric_table(rows: Iterable[MetricRow], with_baseline: bool) -> str:
    shown: list[list[str | Cell]] = []
    for section, metrics in itertools.groupby(rows, key=lambda row: row.section):
        shown.append([section])
        for row in metrics:
            cells = [Cell(row.engine, _bad(row.engine_bad)), Cell(row.baseline, _bad(row.baseline_bad))]
            shown.append([row.label, *cells[: 2 if with_baseline else 1]])
    return render_table(["", "quota_engine", "Baseline"][: 3 if with_baseline else 2], shown)


def _bad(is_bad: bool) -> str:
    return "bad" if is_bad else ""


def _reading_notes(result: SimulationResult) -> str:
    baseline = (
        "The baseline is a model of the previous application: each worker takes one request at a time from a bounded "
        "queue, reads the quota at the start of a request, and writes the booking at its end. It oversells for that "
        "reason alone. "
        if result.baseline is not None
        else ""
    )
    return (
        '<h2>How to read this page</h2><p class="quiet">The real engine answered every request of the first column, '
        f"on {html.escape(result.backend)}, under a simulated clock. Applicants, networks and servers are models. "
        f"{baseline}The same scenario and seed give the same page, byte for byte.</p>"
    )


def parameters(scenario: Scenario) -> str:
    """Return every parameter of a scenario, in a collapsed block."""
    rows = "".join(
        f'<tr><th scope="row"><code>{html.escape(key)}</code></th><td class="value">{html.escape(value)}</td></tr>'
        for key, value in _flat(msgspec.to_builtins(scenario), "")
    )
    return (
        f"<details><summary>All parameters (seed {scenario.seed})</summary>"
        f"<table><tbody>{rows}</tbody></table></details>"
    )


def _flat(value: Any, key: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield from _flat(item, f"{key}[{index}]")
    elif isinstance(value, list | tuple):
        yield key, ", ".join(str(item) for item in value) or ("none" if key.startswith("load_test.") else "all")
    elif value is None:
        yield key, "none" if key.startswith("limits.") else "by the policy"
    else:
        yield key, str(value) if value != "" else "the catalog's"
