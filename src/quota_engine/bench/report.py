"""HTML report of a benchmark: one file without external resources."""

from __future__ import annotations

__all__ = ["html_report"]

import dataclasses
import html
from collections.abc import Iterable

from quota_engine.bench.compare import BenchComparison, ChangeVerdict
from quota_engine.bench.formatting import RULE, goal_cells, headline, machine_line, microseconds, percent, rate, times
from quota_engine.bench.goals import goals_of
from quota_engine.bench.plan import Implementation
from quota_engine.bench.plots import BenchPlot, change_chart, latency_chart, plots_of_backend
from quota_engine.bench.results import BenchResult, CaseResult
from quota_engine.reporting.figure import NARROW_PX, figure, plot_figure
from quota_engine.reporting.page import page
from quota_engine.reporting.svg_plot import PlotLine
from quota_engine.reporting.svg_ranges import RangeChart, render_ranges
from quota_engine.reporting.table import Cell, render_table

_TITLE = "Reservation benchmark"
_WIDE_PX = 760


def html_report(result: BenchResult, comparison: BenchComparison | None = None) -> str:
    """Return the report. The same result gives the same bytes."""
    parts = [
        f"<h1>{_TITLE}</h1>",
        f'<p class="quiet">{_escaped(headline(result))}. {_escaped(machine_line(result.machine))}.</p>',
    ]
    if comparison is not None:
        parts.append(_verdict(comparison))
    if result.settings.preset:
        parts.append(_goals(result))
    for backend in result.backends:
        cases = result.cases_of(backend)
        parts += [f"<h2>{_escaped(backend)}</h2>", _cards(cases), '<div class="plots">']
        parts += [plot_figure(shown.plot, _data(shown)) for shown in plots_of_backend(result, backend)]
        distributions = latency_chart(cases, f"b{result.backends.index(backend)}")
        parts += ["</div>", _range_figure(distributions)]
        parts += ["<h3>All results</h3>", _cases(cases)]
    if comparison is not None:
        parts.append(_comparison(comparison))
    return page(_TITLE, "".join([*parts, _reading_notes(result), _parameters(result)]))


def _escaped(text: str) -> str:
    return html.escape(text)


def _verdict(comparison: BenchComparison) -> str:
    slower = comparison.regressions
    if not slower:
        return '<p class="good"><b>Compared with the earlier run: no regression.</b></p>'
    items = "".join(
        f"<li>{_escaped(f'{one.backend} {one.name}, {one.concurrency} at once: {one.ratio - 1:+.0%}')}</li>"
        for one in slower
    )
    return f'<div class="bad"><b>Slower than in the earlier run:</b><ul>{items}</ul></div>'


def _goals(result: BenchResult) -> str:
    """Return the goals of the project with the measured values, backend by backend."""
    rows: list[list[str | Cell]] = []
    backend = ""
    for goal in goals_of(result):
        if goal.backend != backend:
            backend = goal.backend
            rows.append([backend])
        measured, wanted, verdict = goal_cells(goal)
        name = goal.name if goal.primaries == 1 else f"{goal.name} ({goal.primaries} primaries)"
        rows.append([name, measured, wanted, Cell(verdict, "good" if goal.is_met else "bad")])
    return f"<h2>Goals</h2>{render_table(['goal', 'measured', 'wanted', 'result'], rows)}"


def _cards(cases: list[CaseResult]) -> str:
    """Return the main results: the highest rate of plain callers, and the latency of a single call."""
    in_memory = _has(cases, Implementation.DICT) and not _has(cases, Implementation.BY_HAND)
    lone = [case for case in cases if case.name == "reserve, lone"]
    # In memory, concurrent callers only wait for each other.
    plain = lone if in_memory else [case for case in cases if case.name == "reserve"]
    cards = []
    if plain:
        best = max(plain, key=lambda case: case.ops_per_s)
        callers = "one caller" if best.concurrency == 1 else f"{best.concurrency} concurrent callers"
        by_hand = best.ratio_to_handwritten
        note = callers if by_hand is None or in_memory else f"{callers}; {times(by_hand)} the rate by hand"
        cards.append(_card("Reservations a second", rate(best.ops_per_s), note))
        if best.ratio_to_limit is not None:
            of_what = "a dict behind a lock" if in_memory else "the plain script's limit"
            cards.append(_card(f"Share of {of_what}", percent(best.ratio_to_limit), callers))
        cards.append(_card("99th percentile of the latency", microseconds(best.p99_us), callers))
    if lone:
        by_hand = lone[0].ratio_to_handwritten
        note = "median"
        if by_hand is not None:
            note += f"; {times(by_hand)} the speed by hand"
        cards.append(_card("Latency of a single caller", microseconds(lone[0].p50_us), note))
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _has(cases: Iterable[CaseResult], subject: Implementation) -> bool:
    return any(case.kind == subject for case in cases)


def _card(title: str, value: str, note: str) -> str:
    return f'<div class="card"><h3>{_escaped(title)}</h3><b>{_escaped(value)}</b><span>{_escaped(note)}</span></div>'


def _range_figure(chart: RangeChart) -> str:
    """Return a chart of ranges as a figure, with its rows as a table and as a file."""
    pictures = (
        render_ranges(chart, _WIDE_PX),
        render_ranges(dataclasses.replace(chart, name=f"{chart.name}-narrow"), NARROW_PX),
    )
    values = [["case", "low", "middle", "high"]]
    values += [[row.label, f"{row.low:.4g}", f"{row.middle:.4g}", f"{row.high:.4g}"] for row in chart.rows]
    table = render_table(["case", ""], [[row.label, row.value] for row in chart.rows])
    return figure(chart.name, chart.title, chart.description, pictures, values, table, is_large=True)


def _data(shown: BenchPlot) -> str:
    """Return the plot as a table, for people who cannot see it: a row for every x at which a line has a point."""
    plot = shown.plot
    heads = [plot.x_title, *(line.label for line in plot.lines)]
    rows = []
    for place in sorted({round(x, 9) for line in plot.lines for x, _ in line.points}):
        cells = [_value(line, place) for line in plot.lines]
        rows.append([shown.x_text(place), *("" if cell is None else shown.y_text(cell) for cell in cells)])
    return render_table(heads, rows)


def _value(line: PlotLine, place: float) -> float | None:
    at = [y for x, y in line.points if abs(x - place) < 1e-6]
    if at:
        return at[-1]
    if line.stepped:
        earlier = [y for x, y in line.points if x < place]
        return earlier[-1] if earlier else None
    # Two points of the same height stand for a constant line.
    return line.points[0][1] if len({y for _, y in line.points}) == 1 else None


def _cases(cases: list[CaseResult]) -> str:
    heads = ["case", "at once", "a second", "\u00b1", "p50", "p99"]
    in_memory = _has(cases, Implementation.DICT) and not _has(cases, Implementation.BY_HAND)
    has_by_hand = _has(cases, Implementation.BY_HAND)
    heads += ["of dict"] if in_memory else ["of limit", "by hand"] if has_by_hand else []

    def row(case: CaseResult) -> list[str]:
        cells = [case.name, str(case.concurrency), rate(case.ops_per_s), percent(case.spread)]
        cells += [microseconds(case.p50_us), microseconds(case.p99_us)]
        cells += [percent(case.ratio_to_limit)] if in_memory or has_by_hand else []
        cells += [times(case.ratio_to_handwritten)] if has_by_hand else []
        return cells

    engine = [row(case) for case in cases if not case.is_yardstick]
    yardsticks = [row(case) for case in cases if case.is_yardstick]
    return render_table(heads, [["Engine"], *engine, *([["Yardsticks"], *yardsticks] if yardsticks else [])])


def _comparison(comparison: BenchComparison) -> str:
    heads = ["case", "backend", "at once", "before", "now", "change", ""]
    rows = [
        [
            one.name,
            one.backend,
            str(one.concurrency),
            rate(one.old_ops_per_s),
            rate(one.new_ops_per_s),
            f"{one.ratio - 1:+.0%}",
            "" if one.verdict is ChangeVerdict.SAME else str(one.verdict),
        ]
        for one in comparison.changes
    ]
    notes = [f"Different: {difference}." for difference in comparison.differences]
    notes += [f"Only before: {case}." for case in comparison.only_old]
    notes += [f"Only now: {case}." for case in comparison.only_new]
    return (
        f'<h2>Compared with the earlier run</h2><p class="quiet">{_escaped(" ".join([RULE, *notes]))}</p>'
        f"{_range_figure(change_chart(comparison.changes)) if comparison.changes else ''}{render_table(heads, rows)}"
    )


def _reading_notes(result: BenchResult) -> str:
    notes = []
    if _has(result.cases, Implementation.LIMIT):
        notes.append(
            "By hand is a plain script of 25 lines, without this library: one EVALSHA for each operation, by as many "
            "callers, with redis-py and 50 connections to each primary. It checks the id and the identity, takes a "
            "place, and keeps a record, a deadline and an event. The limit is that script with prepared batches of "
            "128, four of them in flight. The bare DECR of the server does nothing else, in batches of as many."
        )
    if _has(result.cases, Implementation.DICT):
        notes.append("In memory, and for the sold-out cache, the yardstick is a dict behind a lock.")
    if _has(result.cases, Implementation.LIMITS):
        notes.append("limits is a rate limiter; a hit of it counts an identity, and keeps no reservation.")
    notes.append("\u00b1 is half the range of the rounds; smaller differences mean nothing.")
    return f'<h2>How to read this page</h2><p class="quiet">{" ".join(map(_escaped, notes))}</p>'


def _parameters(result: BenchResult) -> str:
    settings = result.settings
    values = {
        **{name: value for name, value in result.machine.items() if not isinstance(value, dict)},
        **result.machine["servers"],
        **{name: getattr(settings, name) for name in settings.__struct_fields__},
    }
    rows = "".join(
        f'<tr><th scope="row"><code>{_escaped(name)}</code></th><td class="value">{_escaped(_plain(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<details><summary>Machine and settings</summary><table><tbody>{rows}</tbody></table></details>"


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
