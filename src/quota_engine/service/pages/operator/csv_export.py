"""Tables as files that a spreadsheet opens and does not carry out."""

from __future__ import annotations

__all__ = ["csv_file", "no_formula"]

import csv
import io
import re
from collections.abc import Iterable, Sequence

from starlette.responses import Response

_is_number = re.compile(r"-?[0-9]+").fullmatch


def no_formula(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    starts_like_one = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{text}" if starts_like_one and not _is_number(text) else text


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Response:
    """A download of this name (letters, digits, ``.``, ``-`` and ``_``)."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(columns)
    table.writerows([no_formula(cell) for cell in row] for row in rows)
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return Response(text.getvalue(), headers=headers, media_type="text/csv")
