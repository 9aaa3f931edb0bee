"""CSV downloads that a spreadsheet opens without running formulas."""

from __future__ import annotations

__all__ = ["csv_response", "escape_formula", "people_csv"]

import csv
import io
import re
from collections.abc import Iterable, Sequence

from starlette.responses import Response

from quota_engine.service.pages.i18n import Translator

_is_number = re.compile(r"-?[0-9]+").fullmatch


def escape_formula(text: str) -> str:
    """Return a cell with a leading ``'`` if a spreadsheet would take it for a formula."""
    starts_formula = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{text}" if starts_formula and not _is_number(text) else text


def people_csv(translator: Translator, name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Response:
    """Return a CSV download that a spreadsheet of the reader's language opens in columns, with all its letters.

    Where the comma is the decimal sign, as in Indonesian, spreadsheets split at semicolons. A byte order mark names
    the encoding. The arguments are those of :func:`csv_response`.
    """
    return csv_response(name, columns, rows, separator=";" if translator.language == "id" else ",", mark="\ufeff")


def csv_response(
    name: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, separator: str = ",", mark: str = ""
) -> Response:
    """Return a CSV download.

    Args:
        name: File name of letters, digits, ``.``, ``-`` and ``_``.
        columns: First row.
        rows: Other rows, whose cells are escaped.
        separator: Character between two cells.
        mark: Text before the first row.
    """
    text = io.StringIO(newline="")
    text.write(mark)
    table = csv.writer(text, delimiter=separator)
    table.writerow(columns)
    table.writerows([escape_formula(cell) for cell in row] for row in rows)
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return Response(text.getvalue(), headers=headers, media_type="text/csv")
