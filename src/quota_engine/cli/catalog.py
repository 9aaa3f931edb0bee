"""``quota-engine catalog``: check a catalog file, and show the offices of a catalog."""

from __future__ import annotations

__all__ = ["app"]

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cyclopts import App

from quota_engine.cli.output import BAD_INPUT, DONE, AsJson, print_json
from quota_engine.domain.errors import CatalogError

if TYPE_CHECKING:
    from quota_engine.catalog import Named

app = App(name="catalog", help="Check a catalog file, and show its offices.")


@app.command
def check(file: str, /, *, as_json: AsJson = False) -> int:
    """Read a catalog and report every error in it.

    Exit code 0: no errors; 2: errors.

    Args:
        file: a catalog file (TOML, JSON or YAML), or a built-in catalog (surabaya, indonesia).
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.catalog import load_catalog

    issues: list[dict[str, str]] = []
    offices = 0
    try:
        offices = len(load_catalog(file).offices)
    except CatalogError as error:
        issues = [
            {"file": each.file, "key": each.key, "value": each.value, "expected": each.expected}
            for each in error.issues
        ]
    if as_json:
        print_json({"file": file, "ok": not issues, "offices": offices, "issues": issues})
    elif issues:
        for each in issues:
            sys.stdout.write(f"{each['file']}: {each['key']}: {each['value']}; expected {each['expected']}\n")
    else:
        sys.stdout.write(f"{file}: no errors, {offices} office{'' if offices == 1 else 's'}\n")
    return BAD_INPUT if issues else DONE


@app.command
def show(name: str = "surabaya", /, *, as_json: AsJson = False) -> int:
    """Show the offices of a catalog, with the places of a working day.

    Args:
        name: a built-in catalog (surabaya, indonesia), or a catalog file (TOML, JSON or YAML).
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.catalog import load_catalog

    catalog = load_catalog(name)
    offices: list[dict[str, Any]] = [
        {
            "id": office.id,
            "name": office.name,
            "class": office.office_class,
            "province": office.province,
            "time_zone": office.zone.key,
            "schedule": office.schedule.id,
            "services": _names(office.services),
            "sessions": _names(office.sessions),
            "quotas": {quota.id: quota.capacity for quota in office.quotas},
            "allotments": {allotment.id: allotment.capacity for allotment in office.allotments},
        }
        for office in catalog.offices.values()
    ]
    if as_json:
        print_json({"title": catalog.title, "offices": offices})
    else:
        _print_offices(catalog.title, offices)
    return DONE


def _names(items: Mapping[str, Named]) -> dict[str, dict[str, str]]:
    return {item: {language: one.display_name(language) for language in ("id", "en")} for item, one in items.items()}


def _print_offices(title: str, offices: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(title, style="bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("office", no_wrap=True)
    table.add_column("class", no_wrap=True)
    table.add_column("opens", no_wrap=True)
    table.add_column("places a day by allotment")
    for office in offices:
        places = office["allotments"] or office["quotas"]
        cells = ", ".join(f"{quota} {capacity:,}" for quota, capacity in places.items())
        table.add_row(*(Text(cell) for cell in (office["id"], office["class"], office["schedule"], cells)))
    console.print(table)
