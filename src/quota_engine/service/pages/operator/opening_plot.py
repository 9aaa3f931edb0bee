"""An opening as a plot, and as rows of a file: what is drawn, from when to when, and which times stand below it."""

from __future__ import annotations

__all__ = ["COLUMNS", "POINTS_MAX", "opening_plot", "opening_rows", "span", "time_ticks"]

import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from zoneinfo import ZoneInfo

from quota_engine.catalog import ResolvedOffice
from quota_engine.reporting.svg_plot import Plot, PlotLine, nice_ticks, render
from quota_engine.service.pages.i18n import Words
from quota_engine.service.pages.operator.opening_report import Opening, Step, Window, window_of

POINTS_MAX: Final = 400
"""Nobody sees more points of a line than a plot has pixels."""
COLUMNS: Final = ("at", "after_ms", "taken", "confirmed", "given_back", "waiting")
_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
_STEPS_MS: Final = (
    *(seconds * _SECOND_MS for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * _MINUTE_MS for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR_MS for hours in (1, 2, 3, 6, 12, 24)),
)
_TICKS_MAX: Final = 6
_Y_TOP: Final = 1.08


def opening_plot(words: Words, office: ResolvedOffice, opening: Opening, size: tuple[int, int], name: str) -> str:
    """The plot as SVG of ``size``, its elements called by ``name``; ``""`` if nothing was sold."""
    if not opening.sold:
        return ""
    window = window_of(opening)
    steps = _thin(_within(opening.steps, window))
    start_ms, end_ms = window.start_ms, window.end_ms

    def line(text: str, style: str, value: Callable[[Step], int]) -> PlotLine:
        points = [(float(step.at_ms), float(value(step))) for step in steps]
        return PlotLine(words(text), style, [*points, (float(end_ms), points[-1][1])], stepped=True)

    lines = [PlotLine(words("op_plot_places"), "limit", [(start_ms, opening.places), (end_ms, opening.places)])]
    lines.append(line("op_plot_taken", "engine", lambda step: step.taken))
    if not opening.from_records:
        lines.append(line("op_plot_confirmed", "confirmed", lambda step: step.confirmed))
        if any(step.given_back for step in steps):
            lines.append(line("op_plot_given_back", "back", lambda step: step.given_back))
        if any(step.waiting for step in steps):
            lines.append(line("op_plot_waiting", "waiting", lambda step: step.waiting))
    y_max = max(1.0, max(value for one in lines for _, value in one.points)) * _Y_TOP

    def said(moment: datetime.datetime, step_ms: int) -> str:
        if step_ms >= _DAY_MS:
            return f"{moment:%d/%m}"
        form = "%H:%M:%S" if step_ms < _MINUTE_MS else "%H:%M"
        text = f"{moment:{form}}"
        return text.replace(":", ".") if words.language == "id" else text

    plot = Plot(
        name=name,
        title=words("op_opening"),
        description=words("op_plot_text", taken=opening.taken, places=opening.places, confirmed=opening.confirmed),
        lines=lines,
        x_range=(start_ms, end_ms),
        x_ticks=time_ticks(start_ms, end_ms, office.zone, said, _TICKS_MAX if size[0] > 600 else _TICKS_MAX // 2),
        x_title=words("op_plot_x"),
        y_max=y_max,
        y_ticks=[(tick, words.number(int(tick))) for tick in nice_ticks(0, y_max) if tick == int(tick)],
    )
    return render(plot, *size)


def opening_rows(opening: Opening, zone: ZoneInfo) -> Iterator[tuple[str, ...]]:
    """Every step as a row: the time at the office, milliseconds since the opening, and the counters."""
    for step in opening.steps:
        at = datetime.datetime.fromtimestamp(step.at_ms / 1000, tz=zone).isoformat(timespec="milliseconds")
        numbers = (step.at_ms - opening.opens_at_ms, step.taken, step.confirmed, step.given_back, step.waiting)
        yield at, *map(str, numbers)


def time_ticks(
    start_ms: int,
    end_ms: int,
    zone: ZoneInfo,
    say: Callable[[datetime.datetime, int], str],
    count_max: int = _TICKS_MAX,
) -> list[tuple[float, str]]:
    """At most ``count_max`` + 1 round times of the clock in ``zone``. ``say`` gets each, and the step between two."""
    span_ms = end_ms - start_ms
    step_ms = next((step for step in _STEPS_MS if span_ms // step <= count_max), 0)
    if not step_ms:
        step_ms = _DAY_MS * -(-span_ms // (_DAY_MS * count_max))
    offset = datetime.datetime.fromtimestamp(start_ms / 1000, tz=zone).utcoffset() or datetime.timedelta()
    offset_ms = round(offset.total_seconds() * 1000)
    first_ms = -(-(start_ms + offset_ms) // step_ms) * step_ms - offset_ms
    return [
        (float(at_ms), say(datetime.datetime.fromtimestamp(at_ms / 1000, tz=zone), step_ms))
        for at_ms in range(first_ms, end_ms + 1, step_ms)
    ]


def span(words: Words, span_ms: int) -> str:
    """How long something took: tenths of a second, minutes, or hours; ``–`` if it never happened."""
    if span_ms < 0:
        return "–"
    value, unit = (
        (span_ms / _SECOND_MS, "s")
        if span_ms < 90 * _SECOND_MS
        else (span_ms / _MINUTE_MS, "min")
        if span_ms < 90 * _MINUTE_MS
        else (span_ms / _HOUR_MS, words("op_hours"))
    )
    text = f"{value:.1f}"
    return f"{text.replace('.', ',') if words.language == 'id' else text} {unit}"


def _within(steps: Sequence[Step], window: Window) -> list[Step]:
    """The steps of the window, and one at its start that says how things stood then."""
    before = [step for step in steps if step.at_ms <= window.start_ms]
    first = before[-1]._replace(at_ms=window.start_ms) if before else Step(window.start_ms, 0, 0, 0, 0)
    return [first, *(step for step in steps if window.start_ms < step.at_ms <= window.end_ms)]


def _thin(steps: list[Step]) -> list[Step]:
    """At most :data:`POINTS_MAX` of them, and the last."""
    return steps if len(steps) <= POINTS_MAX else [*steps[:: -(-len(steps) // POINTS_MAX)], steps[-1]]
