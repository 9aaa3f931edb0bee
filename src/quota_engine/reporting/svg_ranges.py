"""Rows of ranges and distributions on one axis as SVG, in the style of :mod:`.svg_plot`.

A row is a violin (a mirrored histogram), a range with its middle, or both. Its label is above it, so the chart fits
a phone.
"""

from __future__ import annotations

__all__ = ["RANGE_STYLE", "RangeChart", "RangeRow", "render_ranges"]

import dataclasses
import html
import math
from collections.abc import Callable, Sequence
from typing import Final

from quota_engine.reporting.svg_parts import FONT_PX, svg_head

RANGE_STYLE: Final = (
    ".plot .violin{fill:var(--engine);opacity:.35;stroke:none}.plot .violin.old{fill:var(--old)}"
    ".plot .violin.limit{fill:var(--soft)}.plot .mark{stroke-width:3}.plot .label{fill:var(--ink)}"
)
"""CSS of ranges, in addition to ``svg_plot.STYLE``."""

_LABEL_PX, _BAND_PX, _GAP_PX = 18, 24, 8
_VALUE_BESIDE_FROM: Final = 400
"""Width from which the value of a row is beside its label, and not below it."""
_LEFT_PX, _RIGHT_PX, _AXIS_PX = 10, 14, 42


@dataclasses.dataclass(frozen=True, slots=True)
class RangeRow:
    """One row.

    Attributes:
        label: Text above the row, on the left.
        value: Text above the row, on the right, with units.
        low: Start of the range.
        middle: Value that is marked.
        high: End of the range.
        style: CSS class: ``engine``, ``old`` or ``limit``.
        density: Steps of a distribution, as ``(start, end, share)``; empty for a range alone.
    """

    label: str
    value: str
    low: float
    middle: float
    high: float
    style: str = "engine"
    density: Sequence[tuple[float, float, float]] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class RangeChart:
    """A chart: its texts, its rows from top to bottom, and a logarithmic axis. Ticks are pairs of value and label.

    Attributes:
        name: Prefix of its element ids, unique on a page.
        title: Title.
        description: Sentence that says what it shows.
        rows: The rows.
        x_range: Ends of the axis, above 0.
        x_ticks: Ticks of the axis.
        x_title: Title of the axis.
        reference: Value of a line through all rows, if any.
    """

    name: str
    title: str
    description: str
    rows: Sequence[RangeRow]
    x_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    x_title: str
    reference: float | None = None


def render_ranges(chart: RangeChart, width: int = 480) -> str:
    """Return a chart as an ``<svg>`` element.

    Args:
        chart: The chart.
        width: Width in user units.
    """
    label_px = _LABEL_PX * (1 if width >= _VALUE_BESIDE_FROM else 2)
    row_px = label_px + _BAND_PX + _GAP_PX
    bottom = 4 + row_px * len(chart.rows)
    height = bottom + _AXIS_PX
    low, high = (math.log10(end) for end in chart.x_range)

    def x_of(value: float) -> float:
        share = (math.log10(max(value, 1e-12)) - low) / (high - low)
        return _LEFT_PX + (width - _RIGHT_PX - _LEFT_PX) * min(max(share, 0.0), 1.0)

    parts = svg_head(chart.name, chart.title, chart.description, width, height, standalone=False)
    parts += _axis(chart, x_of, bottom, width)
    parts += [_row(row, x_of, 4 + row_px * number, width, label_px) for number, row in enumerate(chart.rows)]
    parts.append("</svg>")
    return "".join(parts)


def _axis(chart: RangeChart, x_of: Callable[[float], float], bottom: int, width: int) -> list[str]:
    parts, free_from = [], 0.0
    for value, label in chart.x_ticks:
        x, half = x_of(value), len(label) * FONT_PX * 0.3
        parts.append(f'<path class="grid" d="M{x:.1f},4V{bottom + 4}"/>')
        at = min(max(x, half), width - half)
        if at - half < free_from:
            continue
        free_from = at + half + _GAP_PX
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{html.escape(label)}</text>')
    parts.append(f'<text x="{width / 2:g}" y="{bottom + 36}" text-anchor="middle">{html.escape(chart.x_title)}</text>')
    if chart.reference is not None:
        parts.append(f'<path class="limit" d="M{x_of(chart.reference):.1f},4V{bottom}"/>')
    return parts


def _row(row: RangeRow, x_of: Callable[[float], float], top: int, width: int, label_px: int) -> str:
    label, value = html.escape(row.label), html.escape(row.value)
    middle = top + label_px + _BAND_PX / 2
    parts = [
        f'<g tabindex="0" data-value="{label}: {value}"><title>{label}: {value}</title>',
        f'<rect x="0" y="{top}" width="{width}" height="{label_px + _BAND_PX}" fill="none" pointer-events="all"/>',
        f'<text class="label" x="2" y="{top + 13}">{label}</text>',
        f'<text x="{width - 2}" y="{top + label_px - 5}" text-anchor="end">{value}</text>',
    ]
    most = max((share for _, _, share in row.density), default=0.0)
    if most > 0:
        upper, lower = [], []
        for start, end, share in row.density:
            half = share / most * _BAND_PX / 2
            upper.append(f"{x_of(start):.1f},{middle - half:.1f} {x_of(end):.1f},{middle - half:.1f}")
            lower.append(f"{x_of(end):.1f},{middle + half:.1f} {x_of(start):.1f},{middle + half:.1f}")
        parts.append(f'<polygon class="violin {row.style}" points="{" ".join([*upper, *reversed(lower)])}"/>')
    low, at, high = (f"{x_of(each):.1f}" for each in (row.low, row.middle, row.high))
    parts.append(
        f'<path class="{row.style}" d="M{low},{middle:g}H{high}M{low},{middle - 5:g}v10M{high},{middle - 5:g}v10"/>'
    )
    parts.append(f'<path class="mark {row.style}" d="M{at},{middle - 9:g}v18"/></g>')
    return "".join(parts)
