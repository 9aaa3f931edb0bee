"""Parts that SVG plots and bar charts share: the head of the file and the legend."""

from __future__ import annotations

__all__ = ["FONT_PX", "legend_positions", "svg_head"]

import html
from collections.abc import Iterable
from typing import Final

FONT_PX: Final = 13
_LEGEND_GAP: Final = 18


def svg_head(
    name: str, title: str, description: str, width: int, height: int, standalone: bool, attributes: str = ""
) -> list[str]:
    """Return the opening tag with its title and description, in escaped markup.

    Args:
        name: Prefix of the element ids, unique on a page.
        title: Title, read by screen readers.
        description: Description, read by screen readers.
        width: Width in user units.
        height: Height in user units.
        standalone: Set the size in pixels too, for a separate file, and leave the attributes out.
        attributes: Further attributes as markup, with a space before each.
    """
    return [
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-labelledby="{name}-title {name}-text"'
        + (f' width="{width}" height="{height}">' if standalone else f"{attributes}>"),
        f'<title id="{name}-title">{html.escape(title)}</title>',
        f'<desc id="{name}-text">{html.escape(description)}</desc>',
    ]


def legend_positions(
    labels: Iterable[str], width: int, symbol_width: int, character_width: float
) -> tuple[list[tuple[int, int]], int]:
    """Return x and row of each entry of a legend, and the number of rows.

    Args:
        labels: Labels of the entries.
        width: Width in user units at which a row ends.
        symbol_width: Width of the symbol before a label.
        character_width: Mean width of a character, as a share of the font size.
    """
    positions, x, row = [], 8, 0
    for label in labels:
        needed = symbol_width + round(len(label) * FONT_PX * character_width) + _LEGEND_GAP
        if x > 8 and x + needed > width:
            x, row = 8, row + 1
        positions.append((x, row))
        x += needed
    return positions, row + 1
