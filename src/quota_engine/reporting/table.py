"""Tables of a report. On a phone a row becomes a block that names each value, so no column is out of sight."""

from __future__ import annotations

__all__ = ["TABLE_STYLE", "Cell", "render_table"]

import html
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

TABLE_STYLE: Final = (
    "@media(max-width:480px){.stacks,.stacks tbody,.stacks tr,.stacks th,.stacks td{display:block}"
    ".stacks thead{display:none}.stacks tbody th{border:0;font-weight:600;padding-bottom:0}"
    ".stacks td,.stacks td.value{display:flex;justify-content:space-between;gap:12px;white-space:normal;border:0;"
    "padding:1px 8px;text-align:right}.stacks td:empty{display:none}.stacks tr{border-bottom:1px solid var(--line);"
    "padding-bottom:4px}.stacks td::before{content:attr(data-head);color:var(--quiet);text-align:left}}"
)
"""CSS of tables, in addition to that of the page."""


class Cell(NamedTuple):
    """A value with its CSS classes: ``bad``, ``good``, ``quiet``, or ``value`` for a sentence."""

    text: str
    classes: str = ""


def render_table(heads: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> str:
    """Return a table as HTML.

    Args:
        heads: Texts of the columns, that of the row heads first; ``""`` for a column without a name.
        rows: Head and values of each row. A row without values is the title of the rows below it.
    """
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' if each else "<td></td>" for each in heads)
    body = "".join(f"<tr>{_row(heads, first, rest)}</tr>" for first, *rest in rows)
    return (
        f'<div class="scroll"><table class="stacks"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(heads: Sequence[str], first: str | Cell, rest: Sequence[str | Cell]) -> str:
    label = html.escape(first.text if isinstance(first, Cell) else first)
    if not rest:
        return f'<th class="section" colspan="{len(heads)}" scope="rowgroup">{label}</th>'
    cells = [f'<th scope="row">{label}</th>']
    for name, value in zip(heads[1:], rest, strict=True):
        cell = value if isinstance(value, Cell) else Cell(value)
        classes = f' class="{cell.classes}"' if cell.classes else ""
        cells.append(f'<td{classes} data-head="{html.escape(name)}">{html.escape(cell.text)}</td>')
    return "".join(cells)
