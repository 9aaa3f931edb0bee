"""Report of a load test: one HTML page without external resources, for light and dark."""

from __future__ import annotations

__all__ = ["html_report", "write_reports"]

import html
import itertools
from pathlib import Path

import msgspec

from quota_engine.loadtest.result import ComparedFigure, LoadTestResult
from quota_engine.reporting.page import page
from quota_engine.reporting.svg_plot import Plot
from quota_engine.reporting.table import Cell, render_table
from quota_engine.simulation.reports.formatting import duration, number
from quota_engine.simulation.reports.opening import parameters, sampled_figure
from quota_engine.simulation.reports.plots import PlottedRun, plots_of


def write_reports(result: LoadTestResult, prefix: str | Path) -> list[Path]:
    """Write the result as HTML, CSV and JSON, and return the three files.

    Args:
        result: the result of a load test.
        prefix: path of the files without their suffix; missing folders are made.
    """
    base = Path(prefix)
    base.parent.mkdir(parents=True, exist_ok=True)
    as_json = msgspec.json.format(msgspec.json.encode(result.as_dict()), indent=2).decode() + "\n"
    written = []
    for suffix, content in ((".html", html_report(result)), (".csv", result.as_csv()), (".json", as_json)):
        path = base.with_name(base.name + suffix)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def html_report(result: LoadTestResult) -> str:
    """Return the whole report as one HTML page."""
    title = f"Load test: {result.scenario.title}"
    body = "".join(
        [
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="quiet">{html.escape(result.headline)}. Run {html.escape(result.plan.options.run)}, '
            f"{_many(result.plan.shares, 'process', 'es')}.</p>",
            _findings_and_limits(result),
            _cards(result),
            "<h2>What happened</h2>",
            '<div class="plots">',
            *(sampled_figure(plot) for plot in _plots(result)),
            "</div>",
            f"<h2>Measured and {'computed again' if result.draw_result else 'predicted by the simulation'}</h2>",
            _table(result.figures()),
            _role_table(result),
            "<h2>How to read this</h2>",
            *(f'<p class="quiet">{html.escape(note)}</p>' for note in (*result.notes(), *_READING)),
            parameters(result.scenario),
        ]
    )
    return page(title, body)


_READING = (
    "Measured figures come from the responses over the network. Predicted figures come from the simulation of the same "
    "people and places, with the scenario's networks and servers. Times start at the moment at which a person meant to "
    "act, so waiting for a free connection counts.",
    "The checks compare three sources: the test's observations, the target's events, replayed here, and its audit.",
)


def _plots(result: LoadTestResult) -> list[Plot]:
    """Return the plots; a draw sells nothing over time, so it has no sales plot."""
    return [plot for plot in plots_of(_runs(result)) if not (result.draw_result and plot.name == "sales")]


def _runs(result: LoadTestResult) -> list[PlottedRun]:
    return [
        PlottedRun("measured", "engine", "measured", "the service", result.observations.metrics, shows_taken=True),
        *(
            []
            if result.draw_result
            else [PlottedRun("predicted", "old", "predicted", "the simulation", result.predicted)]
        ),
    ]


def _findings_and_limits(result: LoadTestResult) -> str:
    parts = []
    if result.ok:
        parts.append(
            '<p class="good"><b>\u2713 Nothing is wrong: no place was sold twice, none was lost, '
            "and everyone has an answer.</b></p>"
        )
    else:
        found = "".join(f"<li><b>{html.escape(one.kind)}</b>: {html.escape(one.text)}</li>" for one in result.findings)
        parts.append(
            f'<div class="bad"><b>\u2717 {_many(len(result.findings), "finding", "s")}:</b><ul>{found}</ul></div>'
        )
    if result.limits:
        rows: list[list[str | Cell]] = [
            [
                limit.name,
                f"{limit.limit:g}",
                "never" if limit.measured is None else f"{limit.measured:.4g}",
                Cell(_kept(limit.kept), "good" if limit.kept else "bad"),
            ]
            for limit in result.limits
        ]
        parts.append(render_table(["Limit of the scenario", "at most", "measured", "verdict"], rows))
    return "".join(parts)


def _cards(result: LoadTestResult) -> str:
    measured, predicted, observations = result.observations.metrics, result.predicted, result.observations
    unanswered = observations.unanswered_count + measured.gave_up

    def card(title: str, value: str, note: str, bad: bool) -> str:
        mark = "\u2717" if bad else "\u2713"
        return (
            f'<div class="card"><h3>{title}</h3><b><span class="{"bad" if bad else "good"}">{mark}</span> {value}</b>'
            f"<span>{note}</span></div>"
        )

    draw = result.draw_result
    if draw:
        totals = draw.head.totals
        is_wrong = any(finding.kind == "draw" for finding in result.findings)
        return (
            '<div class="cards">'
            + card("The draw, computed again", "differs" if is_wrong else "the same", "from the published files",
                   is_wrong)
            + card("Winners with a hold", f"{number(len(draw.references))} of {number(totals.winners)}",
                   f"of {number(totals.applications)} applications", len(draw.references) != totals.winners)
            + card("Receipt, p99", duration(measured.answer_us.percentile(0.99) / 1000), "",
                   any(limit.name == "p99_ms_max" and not limit.kept for limit in result.limits))
            + card("People without a final answer", number(unanswered), f"of {number(predicted.applicants)}",
               unanswered > 0)
            + "</div>"
        )  # fmt: skip
    return (
        '<div class="cards">'
        + card("Sold above capacity", number(measured.oversold), "counted from the responses",
               measured.oversold > 0)
        + card("Places sold", f"{number(measured.confirmed)} of {number(measured.capacity)}",
               f"predicted: {number(predicted.confirmed)}", measured.oversold > 0)
        + card("First answer, p99", duration(measured.answer_us.percentile(0.99) / 1000),
               f"predicted: {duration(predicted.answer_us.percentile(0.99) / 1000)}",
               any(limit.name == "p99_ms_max" and not limit.kept for limit in result.limits))
        + card("People without a final answer", number(unanswered), f"of {number(predicted.applicants)}",
               unanswered > 0)
        + "</div>"
    )  # fmt: skip


def _table(figures: list[ComparedFigure]) -> str:
    shown: list[list[str | Cell]] = []
    for section, rows in itertools.groupby(figures, key=lambda figure: figure.section):
        shown.append([section])
        for row in rows:
            measured, predicted = row.shown(row.measured), row.shown(row.predicted)
            shown.append([row.label, measured, predicted, _difference(row), Cell(row.why, "value quiet")])
    return render_table(["", "Measured", "Predicted", "Difference", "Why"], shown)


def _kept(kept: bool) -> str:
    return "\u2713 kept" if kept else "\u2717 broken"


def _difference(row: ComparedFigure) -> str:
    """Return the difference from the predicted value in per cent of it."""
    if row.measured is None or row.predicted is None:
        return ""
    if row.measured == row.predicted:
        return "="
    if not row.predicted:
        return "new"
    share = row.measured / row.predicted - 1
    return f"{share:+.0%}" if abs(share) >= 0.005 else "\u2248"


def _role_table(result: LoadTestResult) -> str:
    ends: tuple[str, ...] = ("booked", "refused", "abandoned", "waiting", "gave up")
    if result.draw_result:
        ends = ("applied", "withdrawn", "refused", "gave up")
    roles = sorted({key.partition("/")[0] for key in result.observations.ends_by_role})
    rows = [
        [role, *(number(result.observations.ends_by_role.get(f"{role}/{end}", 0)) for end in ends)] for role in roles
    ]
    return f"<h2>Roles</h2>{render_table(['', *ends], rows)}"


def _many(count: int, noun: str, plural: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else plural}"
