"""The HTML report of a simulation: one file, with nothing to load, for light and dark, screen and phone."""

from __future__ import annotations

__all__ = ["figure", "html_report", "parameters", "picture"]

import html
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from quota_engine.reporting.page import page
from quota_engine.reporting.svg_plot import Plot, render
from quota_engine.simulation.reports.formatting import MetricRow, comparison, duration, headline, number
from quota_engine.simulation.reports.plots import all_plots, sales_plot
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.simulation import SimulationResult


def picture(result: SimulationResult) -> str:
    """The main plot, places sold against places that exist, as an SVG file of its own."""
    plot = sales_plot(result)
    return render(plot, 760, 380, alone=True) + "\n"


def html_report(result: SimulationResult) -> str:
    """The whole report. The same result gives the same file, byte for byte."""
    title = html.escape(result.prepared.scenario.title)
    body = "".join(
        [
            f"<h1>{title}</h1>",
            f'<p class="quiet">{html.escape(headline(result))}.</p>',
            _verdict(result),
            _cards(result),
            "<h2>What happened</h2>",
            '<div class="plots">',
            *(figure(plot) for plot in all_plots(result)),
            "</div>",
            "<h2>All figures</h2>",
            _comparison(comparison(result), result.baseline is not None),
            _reading(result),
            parameters(result.prepared.scenario),
        ]
    )
    return page(result.prepared.scenario.title, body)


def _verdict(result: SimulationResult) -> str:
    if result.ok:
        return '<p class="good"><b>The audit finds nothing: no place was sold twice, and none was lost.</b></p>'
    findings = "".join(f"<li>{html.escape(finding)}</li>" for finding in result.findings)
    return f'<div class="bad"><b>The audit finds:</b><ul>{findings}</ul></div>'


def _cards(result: SimulationResult) -> str:
    engine, old = result.engine, result.baseline

    def card(title: str, value: str, note: str, bad: bool) -> str:
        # A tick or a cross as well as a colour: not everybody sees the colour.
        mark = "\u2717" if bad else "\u2713"
        return (
            f'<div class="card"><h3>{title}</h3><b><span class="{"bad" if bad else "good"}">{mark}</span> {value}</b>'
            f"<span>{note}</span></div>"
        )

    def beside(value: str) -> str:
        return f"old application: {value}" if old is not None else "with quota_engine"

    return (
        '<div class="cards">'
        + card(
            "Sold above what exists",
            number(engine.oversold),
            beside(number(old.oversold) if old else ""),
            engine.oversold > 0,
        )
        + card(
            "Places sold",
            f"{number(engine.confirmed)} of {number(engine.capacity)}",
            beside(number(old.confirmed) if old else ""),
            engine.oversold > 0,
        )
        + card(
            "Half know yes or no within",
            duration(engine.answer_us.percentile(0.5) / 1000),
            beside(duration(old.answer_us.percentile(0.5) / 1000) if old else ""),
            engine.errors > 0,
        )
        + card(
            "Requests without an answer",
            number(engine.errors),
            beside(number(old.errors) if old else ""),
            engine.errors > 0,
        )
        + "</div>"
    )


def figure(plot: Plot) -> str:
    """A plot with its caption, and the same as a table."""
    return (
        f"<figure><figcaption><b>{html.escape(plot.title)}</b>"
        f'<span class="quiet">{html.escape(plot.description)}</span></figcaption>{render(plot)}{_data(plot)}</figure>'
    )


def _data(plot: Plot, rows_max: int = 16) -> str:
    """The plot as a table, for those who cannot see it: the values of all lines at about ``rows_max`` places."""
    low, high = plot.x_range
    if plot.x_is_log:
        ratio = (high / low) ** (1 / rows_max)
        places = [low * ratio**index for index in range(rows_max + 1)]
    else:
        places = [low + (high - low) * index / rows_max for index in range(rows_max + 1)]
    heads = "".join(f'<th scope="col">{html.escape(line.label)}</th>' for line in plot.lines)
    lines = []
    for place in places:
        cells = "".join(f"<td>{_value_at(line.points, place, plot.x_is_log)}</td>" for line in plot.lines)
        lines.append(f'<tr><th scope="row">{_place(place, plot.x_is_log)}</th>{cells}</tr>')
    return (
        '<details><summary>The same as a table</summary><div class="scroll"><table><thead><tr>'
        f'<th scope="col">{html.escape(_first_head(plot))}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _first_head(plot: Plot) -> str:
    """The unit of an axis stands in its title; in the table each time has its own."""
    return plot.x_title.replace("seconds ", "time ").replace("minutes ", "time ")


def _place(x: float, is_log: bool) -> str:
    if is_log:
        return duration(x / 1000)
    return ("\u2212" if x < 0 else "") + (duration(abs(x) * 1000) if x else "0")


def _value_at(points: Sequence[tuple[float, float]], x: float, is_share: bool) -> str:
    value = 0.0
    for at, y in itertools.takewhile(lambda point: point[0] <= x * (1 + 1e-9), points):
        del at
        value = y
    return f"{value:.1f}%" if is_share else number(value)


def _comparison(rows: Iterable[MetricRow], with_old: bool) -> str:
    parts = ['<div class="scroll"><table><thead><tr><th scope="col"></th><th scope="col">quota_engine</th>']
    if with_old:
        parts.append('<th scope="col">Old application</th>')
    parts.append("</tr></thead><tbody>")
    columns = 3 if with_old else 2
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            parts.append(f'<tr><th class="section" colspan="{columns}" scope="rowgroup">{section}</th></tr>')
        parts.append(f'<tr><th scope="row">{row.label}</th><td{_bad(row.engine_bad)}>{row.engine}</td>')
        if with_old:
            parts.append(f"<td{_bad(row.baseline_bad)}>{row.baseline}</td>")
        parts.append("</tr>")
    return "".join(parts) + "</tbody></table></div>"


def _bad(bad: bool) -> str:
    return ' class="bad"' if bad else ""


def _reading(result: SimulationResult) -> str:
    old = (
        "The old application is a model: one request at a time per worker, one bounded queue, and the quota read when "
        "a request starts and the booking written when it ends. What it sells twice follows from that alone. "
        if result.baseline is not None
        else ""
    )
    return (
        '<h2>How to read this</h2><p class="quiet">Every request of the first column was answered by the real engine, '
        f"on {html.escape(result.backend)}, under a simulated clock; applicants, networks and servers are modelled. "
        f"{old}The same scenario and seed give this same page, byte for byte.</p>"
    )


def parameters(scenario: Scenario) -> str:
    """Every parameter of a scenario, folded away."""
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
