"""Stacked bar charts as SVG, in the style of :mod:`.svg_plot`."""

from __future__ import annotations

__all__ = ["BAR_STYLE", "Bar", "BarChart", "BarPart", "render_bars"]

import dataclasses
import html
from collections.abc import Sequence
from typing import Final

from quota_engine.reporting.svg_parts import FONT_PX, legend_positions, svg_head
from quota_engine.reporting.svg_plot import STYLE

_LIGHT: Final = ("#1d5fd1", "#5aa2e8", "#5b3fb5", "#15803d", "#a16207", "#c2410c", "#7f1d1d", "#9aa5b1")
_DARK: Final = ("#6ea8ff", "#a9d0ff", "#b79bff", "#5fd38d", "#e8c15a", "#ff9a5c", "#ff6b6b", "#66727f")
_INK_LIGHT: Final = ("#fff", "#10161d", "#fff", "#fff", "#fff", "#fff", "#fff", "#10161d")
_INK_DARK: Final = ("#10161d", "#10161d", "#10161d", "#10161d", "#10161d", "#10161d", "#10161d", "#fff")

BAR_STYLE: Final = (
    "".join(
        f".plot .fill{number}{{fill:{fill}}}.plot text.on{number}{{fill:{ink}}}"
        for number, (fill, ink) in enumerate(zip(_LIGHT, _INK_LIGHT, strict=True))
    )
    + "@media(prefers-color-scheme:dark){"
    + "".join(
        f".plot .fill{number}{{fill:{fill}}}.plot text.on{number}{{fill:{ink}}}"
        for number, (fill, ink) in enumerate(zip(_DARK, _INK_DARK, strict=True))
    )
    + "}"
)
"""CSS of bars, in addition to ``svg_plot.STYLE``. It has eight fills."""

_BAR_PX, _GAP_PX, _LABEL_PX = 28, 12, 18
_LABELS_BESIDE_FROM: Final = 500
"""Width from which labels are beside their bars, and not above them."""


@dataclasses.dataclass(frozen=True, slots=True)
class BarPart:
    """A part of a bar: an index into the kinds of the chart, and a share of the bar (0 to 1)."""

    kind: int
    share: float


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """One bar. Its parts add up to 1 at most."""

    label: str
    parts: Sequence[BarPart]


@dataclasses.dataclass(frozen=True, slots=True)
class BarChart:
    """A chart: its texts, the kinds of parts (at most eight), and the bars from top to bottom."""

    name: str
    title: str
    description: str
    kinds: Sequence[str]
    bars: Sequence[Bar]


def render_bars(bars: BarChart, width: int = 760, *, standalone: bool = False) -> str:
    """Return a chart as an ``<svg>`` element.

    Args:
        bars: The chart.
        width: Width in user units; below 500 the labels are above their bars.
        standalone: Return a complete file with its own style and a visible title.
    """
    is_beside = width >= _LABELS_BESIDE_FROM
    left = 12 + round(max(len(bar.label) for bar in bars.bars) * FONT_PX * 0.58) if is_beside else 8
    row_px = _BAR_PX + _GAP_PX + (0 if is_beside else _LABEL_PX)
    keys, key_rows = legend_positions(bars.kinds, width - 16, 20, 0.56)
    top = (34 if standalone else 8) + 20 * key_rows + 8
    height = top + len(bars.bars) * row_px
    parts = svg_head(bars.name, bars.title, bars.description, width, height, standalone)
    if standalone:
        parts.append(f"<style>{STYLE}{BAR_STYLE}</style>")
        parts.append(f'<text class="key" x="8" y="20" style="font-weight:600">{html.escape(bars.title)}</text>')
    for number, ((x, row), kind) in enumerate(zip(keys, bars.kinds, strict=True)):
        y = (34 if standalone else 8) + 20 * row
        parts.append(f'<rect class="fill{number}" x="{x}" y="{y}" width="14" height="12" rx="2"/>')
        parts.append(f'<text class="key" x="{x + 20}" y="{y + 11}">{html.escape(kind)}</text>')
    for row, bar in enumerate(bars.bars):
        y = top + row * row_px
        if is_beside:
            place = f'x="{left - 8}" y="{y + 19}" text-anchor="end"'
        else:
            place, y = f'x="{left}" y="{y + 13}"', y + _LABEL_PX
        parts.append(f'<text class="key" {place}>{html.escape(bar.label)}</text>')
        parts += _bar(bar, bars.kinds, y, left, width - 8)
    parts.append("</svg>")
    return "".join(parts)


def _bar(bar: Bar, kinds: Sequence[str], y: int, left: int, right: int) -> list[str]:
    parts = []
    x = float(left)
    for part in bar.parts:
        size = part.share * (right - left)
        if size <= 0:
            continue
        # A gap of one unit shows the edges of neighbors without their colors.
        shown = f'x="{x:.1f}" y="{y}" width="{max(size - 1, 0.5):.1f}" height="{_BAR_PX}"'
        value = html.escape(f"{bar.label}, {kinds[part.kind]}: {100 * part.share:.1f}%")
        parts.append(
            f'<rect class="fill{part.kind}" {shown} tabindex="0" data-value="{value}"><title>{value}</title></rect>'
        )
        text = f"{100 * part.share:.0f}%"
        if size > len(text) * FONT_PX * 0.7 + 8:
            place = f'x="{x + size / 2:.1f}" y="{y + 19}" text-anchor="middle" pointer-events="none"'
            parts.append(f'<text class="on{part.kind}" {place}>{text}</text>')
        x += size
    return parts
