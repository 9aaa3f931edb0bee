"""Writes the list of offices in ``data/indonesia.toml`` anew from ``data/offices.csv``.

Run ``python -m quota_engine.catalog.build_national`` in a source tree after a change of the CSV file. Everything
outside
the two marker lines is written by hand and stays as it is.
"""

from __future__ import annotations

__all__ = ["replace_offices"]

import csv
import io
from pathlib import Path
from typing import Final

_BEGIN: Final = "# >>> offices: generated from offices.csv by quota_engine.catalog.build_national\n"
_END: Final = "# <<< offices\n"

_KNOWN_FIGURES: Final = {
    "batam": 'plan = "batam"',
    "jakarta-pusat": "capacities = { ordinary = 384, priority = 40, morning = 255, afternoon = 169 }",
    "pontianak": 'plan = "pontianak"',
    "surabaya": "capacities = { ordinary = 100, priority = 20, morning = 72, afternoon = 48 }",
}
"""What is publicly known by office; all others go by class. Priority and sessions are assumptions (see the TOML)."""


def replace_offices(toml_text: str, csv_text: str) -> str:
    """Return the TOML text with one line per office of the CSV text between its markers.

    The CSV has the columns ``id,name,class,province,time_zone``. Raises ``ValueError`` if a marker is missing.
    """
    head, _, rest = toml_text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    if not rest or not tail:
        raise ValueError(f"the markers {_BEGIN!r} and {_END!r} must both be there")
    rows = csv.DictReader(io.StringIO(csv_text))
    lines = "".join(f"    {_office(row)},\n" for row in rows)
    return f"{head}{_BEGIN}offices = [\n{lines}]\n{_END}{tail}"


def _office(row: dict[str, str]) -> str:
    keys = ("id", "name", "class", "province", "time_zone")
    parts = [f"{key} = {_quoted(row[key])}" for key in keys]
    parts.append(_KNOWN_FIGURES.get(row["id"], 'plan = "standard"'))
    if "plan" not in parts[-1]:
        parts.insert(-1, 'plan = "standard"')
    return "{ " + ", ".join(parts) + " }"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def main() -> None:
    """Rewrite the file in place."""
    data = Path(__file__).parent / "data"
    target = data / "indonesia.toml"
    written = replace_offices(target.read_text("utf-8"), (data / "offices.csv").read_text("utf-8"))
    target.write_text(written, "utf-8")


if __name__ == "__main__":
    main()
