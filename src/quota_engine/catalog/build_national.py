"""Generate the list of offices in ``data/indonesia.toml`` from ``data/offices.csv``.

Run ``python -m quota_engine.catalog.build_national`` in a source tree after a change of the CSV file. The text outside
the two marker lines is written by hand and is kept.
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
"""Offices with published figures. All others use the figures of their class. See the TOML file for the assumptions."""


def replace_offices(toml_text: str, csv_text: str) -> str:
    """Return the TOML text with a new list of offices between its markers.

    Args:
        toml_text: the catalog.
        csv_text: the offices, with the columns ``id,name,class,province,time_zone``.

    Raises:
        ValueError: a marker is missing.
    """
    head, _, rest = toml_text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    if not rest or not tail:
        raise ValueError(f"a marker is missing: the file must contain {_BEGIN!r} and {_END!r}")
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
    """Rewrite ``data/indonesia.toml`` in place."""
    data = Path(__file__).parent / "data"
    target = data / "indonesia.toml"
    written = replace_offices(target.read_text("utf-8"), (data / "offices.csv").read_text("utf-8"))
    target.write_text(written, "utf-8")


if __name__ == "__main__":
    main()
