"""Stacked bars as SVG, drawn by hand like the lines of ``report_svg``: what each of several wholes is made of."""

from __future__ import annotations

__all__ = ["BAR_STYLE", "Bar", "BarChart", "BarPart", "render_bars"]

import dataclasses
import html
from collections.abc import Sequence
from typing import Final

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
    + "}.bars svg{min-width:600px}"
)
"""The rules of bars, beside those of ``report_svg.STYLE``. There are eight fills; a page puts bars into ``.bars``."""

_FONT_PX: Final = 13
_BAR_PX, _GAP_PX = 28, 12


@dataclasses.dataclass(frozen=True, slots=True)
class BarPart:
    """A part of a bar: an index into the kinds, and its share of the whole (0 to 1)."""

    kind: int
    share: float


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """One bar; its parts add up to 1 at the most. ``note`` stands under the label."""

    label: str
    parts: Sequence[BarPart]


@dataclasses.dataclass(frozen=True, slots=True)
class BarChart:
    """A picture of bars: its text, what the parts can be (at most eight), and the bars from top to bottom."""

    name: str
    title: str
    description: str
    kinds: Sequence[str]
    bars: Sequence[Bar]


def render_bars(bars: BarChart, width: int = 760, *, alone: bool = False) -> str:
    """The bars as an ``<svg>`` element of ``width`` units; ``alone`` makes it a file of its own."""
    left = 12 + round(max(len(bar.label) for bar in bars.bars) * _FONT_PX * 0.58)
    keys, key_rows = _keys(bars.kinds, width - 16)
    top = (34 if alone else 8) + 20 * key_rows + 8
    height = top + len(bars.bars) * (_BAR_PX + _GAP_PX)
    title = html.escape(bars.title)
    parts = [
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-labelledby="{bars.name}-title {bars.name}-text"'
        + (f' width="{width}" height="{height}">' if alone else ">"),
        f'<title id="{bars.name}-title">{title}</title>',
        f'<desc id="{bars.name}-text">{html.escape(bars.description)}</desc>',
    ]
    if alone:
        parts.append(f"<style>{STYLE}{BAR_STYLE}</style>")
        parts.append(f'<text class="key" x="8" y="20" style="font-weight:600">{title}</text>')
    for number, ((x, row), kind) in enumerate(zip(keys, bars.kinds, strict=True)):
        y = (34 if alone else 8) + 20 * row
        parts.append(f'<rect class="fill{number}" x="{x}" y="{y}" width="14" height="12" rx="2"/>')
        parts.append(f'<text class="key" x="{x + 20}" y="{y + 11}">{html.escape(kind)}</text>')
    for row, bar in enumerate(bars.bars):
        parts += _bar(bar, top + row * (_BAR_PX + _GAP_PX), left, width - 8)
    parts.append("</svg>")
    return "".join(parts)


def _bar(bar: Bar, y: int, left: int, right: int) -> list[str]:
    parts = [f'<text class="key" x="{left - 8}" y="{y + 19}" text-anchor="end">{html.escape(bar.label)}</text>']
    x = float(left)
    for part in bar.parts:
        size = part.share * (right - left)
        if size <= 0:
            continue
        # A gap of a unit between neighbours, so that their edges show without their colours.
        shown = f'x="{x:.1f}" y="{y}" width="{max(size - 1, 0.5):.1f}" height="{_BAR_PX}"'
        parts.append(f'<rect class="fill{part.kind}" {shown}/>')
        text = f"{100 * part.share:.0f}%"
        if size > len(text) * _FONT_PX * 0.7 + 8:
            place = f'x="{x + size / 2:.1f}" y="{y + 19}" text-anchor="middle"'
            parts.append(f'<text class="on{part.kind}" {place}>{text}</text>')
        x += size
    return parts


def _keys(kinds: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where the key of each kind stands, as x and row, and how many rows there are."""
    keys, x, row = [], 8, 0
    for kind in kinds:
        needed = 20 + round(len(kind) * _FONT_PX * 0.56) + 18
        if x > 8 and x + needed > width:
            x, row = 8, row + 1
        keys.append((x, row))
        x += needed
    return keys, row + 1
