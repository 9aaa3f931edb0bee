"""An opening as a plot and as rows of a file."""

from __future__ import annotations

__all__ = ["COLUMNS", "POINTS_MAX", "format_span", "opening_plot", "opening_rows", "time_ticks"]

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from zoneinfo import ZoneInfo

from quota_engine.catalog import ResolvedOffice
from quota_engine.reporting.svg_plot import Plot, PlotLine, axis_end, nice_ticks, render
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.opening_report import OpeningReport, OpeningStep, PlotWindow, plot_window

POINTS_MAX: Final = 400
"""Points of a line; a plot has no more pixels to show them."""
COLUMNS: Final = ("at", "after_ms", "taken", "confirmed", "returned", "waiting")
_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
_TICK_STEPS_MS: Final = (
    *(seconds * _SECOND_MS for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * _MINUTE_MS for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR_MS for hours in (1, 2, 3, 6, 12, 24)),
)
_TICKS_MAX: Final = 6
_WIDE_FROM_PX: Final = 600
_SPAN_FACTOR_MAX: Final = 90
"""A span is formatted in a unit up to 90 of it."""


def opening_plot(
    translator: Translator, office: ResolvedOffice, report: OpeningReport, size: tuple[int, int], name: str
) -> str:
    """Return the plot of an opening as SVG.

    Args:
        translator: Texts of the plot.
        office: Office, whose time zone the ticks use.
        report: The opening.
        size: Width and height in pixels.
        name: Prefix of the ids in the SVG.

    Returns:
        ``""`` if nothing was sold.
    """
    if not report.sold:
        return ""
    window = plot_window(report)
    start_ms, end_ms, _ = window
    lines = _lines(translator, report, window)
    y_max = axis_end(max(1.0, max(value for one in lines for _, value in one.points)), 5)

    def label(moment: datetime.datetime, step_ms: int) -> str:
        if step_ms >= _DAY_MS:
            return f"{moment:%d/%m}"
        text = f"{moment:{'%H:%M:%S' if step_ms < _MINUTE_MS else '%H:%M'}}"
        return text.replace(":", ".") if translator.language == "id" else text

    ticks_max = _TICKS_MAX if size[0] > _WIDE_FROM_PX else _TICKS_MAX // 2
    plot = Plot(
        name=name,
        title=translator("opening"),
        description=translator(
            "plot_description", taken=report.taken, places=report.places, confirmed=report.confirmed
        ),
        lines=lines,
        x_range=(start_ms, end_ms),
        x_ticks=time_ticks(start_ms, end_ms, office.zone, label, ticks_max),
        x_title=translator("plot_x"),
        y_max=y_max,
        y_ticks=[(tick, translator.number(int(tick))) for tick in nice_ticks(0, y_max) if tick == int(tick)],
    )
    return render(plot, *size)


def _lines(translator: Translator, report: OpeningReport, window: PlotWindow) -> list[PlotLine]:
    steps = _thinned(_steps_within(report.steps, window))
    start_ms, end_ms, _ = window

    def line(text: str, style: str, value: Callable[[OpeningStep], int]) -> PlotLine:
        points = [(float(step.at_ms), float(value(step))) for step in steps]
        return PlotLine(translator(text), style, [*points, (float(end_ms), points[-1][1])], stepped=True)

    lines = [
        PlotLine(translator("plot_places"), "limit", [(start_ms, report.places), (end_ms, report.places)]),
        line("plot_taken", "engine", lambda step: step.taken),
    ]
    if not report.from_records:
        lines.append(line("plot_confirmed", "confirmed", lambda step: step.confirmed))
        if any(step.returned for step in steps):
            lines.append(line("plot_returned", "back", lambda step: step.returned))
        if any(step.waiting for step in steps):
            lines.append(line("plot_waiting", "waiting", lambda step: step.waiting))
    return lines


def opening_rows(report: OpeningReport, zone: ZoneInfo) -> Iterator[tuple[str, ...]]:
    """Yield the rows of :data:`COLUMNS`: local time, milliseconds since the opening, and the counters."""
    for step in report.steps:
        at = datetime.datetime.fromtimestamp(step.at_ms / 1000, tz=zone).isoformat(timespec="milliseconds")
        numbers = (step.at_ms - report.opens_at_ms, step.taken, step.confirmed, step.returned, step.waiting)
        yield at, *map(str, numbers)


def time_ticks(
    start_ms: int,
    end_ms: int,
    zone: ZoneInfo,
    label: Callable[[datetime.datetime, int], str],
    count_max: int = _TICKS_MAX,
) -> list[tuple[float, str]]:
    """Return round local times as ticks of an axis.

    Args:
        start_ms: Start of the axis in milliseconds since 1970 (UTC).
        end_ms: End of the axis.
        zone: Time zone in which the times are round.
        label: Returns the text of a tick, from its time and the milliseconds between two ticks.
        count_max: Number of ticks, which rounding can exceed by one.
    """
    span_ms = end_ms - start_ms
    step_ms = next((step for step in _TICK_STEPS_MS if span_ms // step <= count_max), 0)
    if not step_ms:
        step_ms = _DAY_MS * -(-span_ms // (_DAY_MS * count_max))
    offset = datetime.datetime.fromtimestamp(start_ms / 1000, tz=zone).utcoffset() or datetime.timedelta()
    offset_ms = round(offset.total_seconds() * 1000)
    first_ms = -(-(start_ms + offset_ms) // step_ms) * step_ms - offset_ms
    return [
        (float(at_ms), label(datetime.datetime.fromtimestamp(at_ms / 1000, tz=zone), step_ms))
        for at_ms in range(first_ms, end_ms + 1, step_ms)
    ]


def format_span(translator: Translator, span_ms: int) -> str:
    """Format a time span to a tenth of a second, minute or hour; ``–`` for a negative one."""
    if span_ms < 0:
        return "–"
    if span_ms < _SPAN_FACTOR_MAX * _SECOND_MS:
        value, unit = span_ms / _SECOND_MS, "s"
    elif span_ms < _SPAN_FACTOR_MAX * _MINUTE_MS:
        value, unit = span_ms / _MINUTE_MS, "min"
    else:
        value, unit = span_ms / _HOUR_MS, translator("hours_short")
    text = f"{value:.1f}"
    return f"{text.replace('.', ',') if translator.language == 'id' else text} {unit}"


def _steps_within(steps: Sequence[OpeningStep], window: PlotWindow) -> list[OpeningStep]:
    """Return the steps of a window, with one at its start that has the counters of that time."""
    before = [step for step in steps if step.at_ms <= window.start_ms]
    first = before[-1]._replace(at_ms=window.start_ms) if before else OpeningStep(window.start_ms, 0, 0, 0, 0)
    return [first, *(step for step in steps if window.start_ms < step.at_ms <= window.end_ms)]


def _thinned(steps: list[OpeningStep]) -> list[OpeningStep]:
    """Return evenly chosen steps, at most :data:`POINTS_MAX`, and the last one."""
    return steps if len(steps) <= POINTS_MAX else [*steps[:: -(-len(steps) // POINTS_MAX)], steps[-1]]
