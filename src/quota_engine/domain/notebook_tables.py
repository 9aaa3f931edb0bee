"""Tables of HTML, in which a notebook shows outcomes, availability, audits and simulations."""

from __future__ import annotations

__all__ = ["html_table"]

from collections.abc import Iterable, Sequence


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as HTML. All texts are escaped.

    Args:
        caption: its caption.
        head: the texts of the first row; empty for a table without one.
        rows: the cells of each further row; ``str`` shows a cell.
    """
    import html  # Only notebooks need it, and every program imports this module.

    def row(cells: Iterable[object], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(str(cell))}</{kind}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><caption>{html.escape(caption)}</caption>{row(head, 'th') if head else ''}{body}</table>"
