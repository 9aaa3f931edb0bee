"""Line plots as SVG of a few kilobytes, without a library, for light and dark."""

from __future__ import annotations

__all__ = ["STYLE", "Plot", "PlotLine", "axis_end", "log_ticks", "nice_ticks", "render"]

import dataclasses
import html
import math
from collections.abc import Callable, Sequence
from typing import Final

from quota_engine.reporting.svg_parts import FONT_PX, legend_positions, svg_head

_LABEL_GAP: Final = 8
"""Free units between the labels of two ticks."""

STYLE: Final = (
    ".plot{--ink:#1f2933;--soft:#5b6875;--grid:#dfe4ea;--engine:#1d5fd1;--old:#c2410c;--limit:#1f2933}"
    "@media(prefers-color-scheme:dark){.plot{--ink:#e6e9ed;--soft:#a3afbb;--grid:#36404b;--engine:#6ea8ff;"
    "--old:#ff9a5c;--limit:#e6e9ed}}"
    ".plot text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--soft)}"
    ".plot .key{fill:var(--ink)}.plot .grid{stroke:var(--grid);stroke-width:1}.plot path{fill:none;stroke-width:2;"
    "stroke-linejoin:round}.plot .engine{stroke:var(--engine)}.plot .old{stroke:var(--old)}"
    ".plot .thin{stroke-width:1.5;opacity:.55}.plot .limit{stroke:var(--limit);stroke-width:1.5;"
    "stroke-dasharray:7 4}.plot .range{stroke-width:1.5;opacity:.8}"
)
"""CSS of a plot. A page contains it once, and a standalone file contains its own copy."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlotLine:
    """One line of a plot.

    Attributes:
        label: Label in the legend.
        style: CSS classes.
        points: Points in the plot's units, x ascending.
        stepped: Keep a value until the next point.
        ranges: Lowest and highest value at an x, as ``(x, low, high)``; drawn as error bars.
    """

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    stepped: bool = False
    ranges: Sequence[tuple[float, float, float]] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Plot:
    """A plot: its texts, its lines, and its axes. Ticks are pairs of value and label.

    Attributes:
        x_unit: Unit of the x values in a file of the values, unless the title of the axis has it.
        y_unit: Unit of the y values in such a file; empty for counts.
    """

    name: str
    title: str
    description: str
    lines: Sequence[PlotLine]
    x_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    x_title: str
    y_max: float
    y_ticks: Sequence[tuple[float, str]]
    x_is_log: bool = False
    x_unit: str = ""
    y_unit: str = ""


def axis_end(highest: float, count: int = 4) -> float:
    """Return the end of an axis from 0: the first round value that is not below the highest value.

    Args:
        highest: Highest value of the plot; the end for 0 or less is 1.
        count: About the number of ticks, as for :func:`nice_ticks`.
    """
    if highest <= 0:
        return 1.0
    ticks = nice_ticks(0, highest, count)
    step = ticks[1] if len(ticks) > 1 else highest
    return math.ceil(highest / step - 1e-9) * step


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round values from ``low`` to ``high``."""
    span = max(high - low, 1e-9)
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(each * magnitude for each in (1, 2, 5, 10) if each * magnitude >= raw - 1e-12)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten from ``low`` to ``high``."""
    return [10.0**power for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def render(plot: Plot, width: int = 480, height: int = 290, *, standalone: bool = False) -> str:
    """Return a plot as an ``<svg>`` element.

    Args:
        plot: The plot.
        width: Width in user units.
        height: Height in user units.
        standalone: Return a complete file with its own style and a visible title.
    """
    widest = max((len(label) for _, label in plot.y_ticks), default=1)
    left, right = 14 + round(widest * FONT_PX * 0.58), 16
    keys, legend_rows = legend_positions((line.label for line in plot.lines), width + 2, 28, 0.58)
    top, bottom = 14 + 20 * legend_rows + (26 if standalone else 0), 46
    x_of = _x_scale(plot, left, width - right)

    def y_of(value: float) -> float:
        return height - bottom - (height - bottom - top) * min(value, plot.y_max) / plot.y_max

    box = (left, width - right, top, height - bottom)
    parts = svg_head(plot.name, plot.title, plot.description, width, height, standalone, _scale(plot, box))
    if standalone:
        parts.append(f"<style>{STYLE}</style>")
        parts.append(f'<text class="key" x="8" y="20" font-weight="600">{html.escape(plot.title)}</text>')
    parts += _axes(plot, x_of, y_of, box, width, height)
    for line in plot.lines:
        parts.append(f'<path class="{line.style}" d="{_path(line, x_of, y_of)}"/>')
        if line.ranges:
            bars = "".join(_error_bar(x_of(x), y_of(low), y_of(high)) for x, low, high in line.ranges)
            parts.append(f'<path class="range {line.style}" d="{bars}"/>')
    offset = 26 if standalone else 0
    for (x, row), line in zip(keys, plot.lines, strict=True):
        y = 14 + offset + 20 * row
        parts.append(f'<path class="{line.style}" d="M{x},{y}h22"/>')
        parts.append(f'<text class="key" x="{x + 28}" y="{y + 4}">{html.escape(line.label)}</text>')
    parts.append("</svg>")
    return "".join(parts)


def _x_scale(plot: Plot, left: float, right: float) -> Callable[[float], float]:
    low, high = plot.x_range
    if plot.x_is_log:
        low, high = math.log10(low), math.log10(high)
        return lambda x: left + (right - left) * (math.log10(max(x, 1e-9)) - low) / (high - low)
    return lambda x: left + (right - left) * (x - low) / (high - low)


def _axes(
    plot: Plot,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    box: tuple[float, float, float, float],
    width: int,
    height: int,
) -> list[str]:
    left, right, _, bottom = box
    parts = []
    for value, label in plot.y_ticks:
        y = y_of(value)
        parts.append(f'<path class="grid" d="M{_n(left)},{_n(y)}H{_n(right)}"/>')
        parts.append(f'<text x="{_n(left - 6)}" y="{_n(y + 4)}" text-anchor="end">{html.escape(label)}</text>')
    free_from = 0.0  # on a narrow screen, a label that would touch the one before it is left out
    for value, label in plot.x_ticks:
        x = x_of(value)
        parts.append(f'<path class="grid" d="M{_n(x)},{_n(bottom)}v5"/>')
        half = len(label) * FONT_PX * 0.28
        anchor = "end" if x + half > width - 2 else "start" if x - half < 2 else "middle"
        start = min(x, width - 2) - (2 * half if anchor == "end" else 0 if anchor == "start" else half)
        if start < free_from:
            continue
        free_from = start + 2 * half + _LABEL_GAP
        place = f'x="{_n(min(x, width - 2))}" y="{_n(bottom + 19)}" text-anchor="{anchor}"'
        parts.append(f"<text {place}>{html.escape(label)}</text>")
    parts.append(
        f'<text x="{_n((left + right) / 2)}" y="{height - 6}" text-anchor="middle">{html.escape(plot.x_title)}</text>'
    )
    return parts


def _scale(plot: Plot, box: tuple[float, float, float, float]) -> str:
    """Return attributes that say where a value is, for the script of a page."""
    left, right, top, bottom = box
    low, high = plot.x_range
    kind = "log" if plot.x_is_log else "linear"
    place = f"{_n(left)} {_n(right)} {_n(top)} {_n(bottom)}"
    return f' data-box="{place}" data-range="{low:g} {high:g}" data-scale="{kind}"'


def _error_bar(x: float, low_y: float, high_y: float) -> str:
    return f"M{_n(x)},{_n(low_y)}V{_n(high_y)}M{_n(x - 4)},{_n(low_y)}h8M{_n(x - 4)},{_n(high_y)}h8"


def _path(line: PlotLine, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    commands: list[str] = []
    last_y = ""
    for index, (x, y) in enumerate(line.points):
        at_x, at_y = _n(x_of(x)), _n(y_of(y))
        if index == 0:
            commands.append(f"M{at_x},{at_y}")
        elif line.stepped:
            # Equal values in a row need only their two ends.
            if at_y != last_y or index == len(line.points) - 1:
                commands.append(f"H{at_x}V{at_y}")
        else:
            commands.append(f"L{at_x},{at_y}")
        last_y = at_y
    return "".join(commands)


def _n(value: float) -> str:
    """Return a coordinate with a tenth of a unit, in as few characters as possible."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else "0"
