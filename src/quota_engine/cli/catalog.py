"""``quota-engine catalog``: check a catalog file, compare two catalogs, and show the offices of a catalog."""

from __future__ import annotations

__all__ = ["app"]

import dataclasses
import datetime
import sys
import zoneinfo
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cyclopts import App

from quota_engine.cli.output import BAD_INPUT, DONE, AsJson, print_json
from quota_engine.clocks import SystemClock
from quota_engine.domain.errors import CatalogError

if TYPE_CHECKING:
    from quota_engine.catalog import Catalog, Named

_CLOCK_CHANGES_CHECKED = datetime.timedelta(days=2 * 366)

app = App(name="catalog", help="Check a catalog file, compare two catalogs, and show offices.")


@app.command
def check(file: str, /, *, as_json: AsJson = False) -> int:
    """Read a catalog and report every error in it.

    A time that a clock change of the next two years skips or repeats is a warning. Exit code 0: no errors; 2: errors.

    Example:  quota-engine catalog check my-catalog.toml

    Args:
        file: a catalog file (TOML, JSON or YAML), or a built-in catalog (surabaya, indonesia).
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.catalog import ClockChangeWarning, list_clock_change_warnings, load_catalog

    issues: list[dict[str, str]] = []
    warnings: tuple[ClockChangeWarning, ...] = ()
    offices = 0
    try:
        catalog = load_catalog(file)
        offices = len(catalog.offices)
        today = datetime.datetime.now(datetime.UTC).date()
        warnings = list_clock_change_warnings(catalog, today, today + _CLOCK_CHANGES_CHECKED)
    except CatalogError as error:
        issues = [
            {"file": each.file, "key": each.key, "value": each.value, "expected": each.expected}
            for each in error.issues
        ]
    if as_json:
        shown = [{**dataclasses.asdict(each), "day": str(each.day)} for each in warnings]
        print_json({"file": file, "ok": not issues, "offices": offices, "issues": issues, "warnings": shown})
    elif issues:
        for each in issues:
            sys.stdout.write(f"{each['file']}: {each['key']}: {each['value']}; expected {each['expected']}\n")
    else:
        for warning in warnings:
            sys.stdout.write(f"{file}: warning: {warning}\n")
        sys.stdout.write(f"{file}: no errors, {offices} office{'' if offices == 1 else 's'}\n")
    return BAD_INPUT if issues else DONE


@app.command
def diff(
    old: str, new: str, backend: str = "", /, *, first_day: str = "", days: int = 92, as_json: AsJson = False
) -> int:
    """Show what a new catalog changes, and whom: days that close, quotas that appear or vanish, other times.

    Publishing the new catalog closes those days, and removes vanished quotas without people. This command changes
    nothing. With a store it counts the people affected. For that it scans every office that differs; avoid that during
    an opening.

    Example:  quota-engine catalog diff old.toml new.toml redis://127.0.0.1

    Args:
        old: the catalog in use: a built-in catalog, or a catalog file (TOML, JSON or YAML).
        new: the new catalog.
        backend: URL of the store with the published days; without it, no people are counted.
        first_day: first day as an ISO date; default: today (UTC).
        days: number of days, 1 to 400.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.catalog import diff_catalogs, load_catalog
    from quota_engine.cli.catalog_diff import diff_lines, diff_to_builtins
    from quota_engine.cli.store_access import day_ordinals, open_store
    from quota_engine.workflows.catalog_changes import OfficeImpact, measure_impact
    from quota_engine.workflows.generator_drivers import run

    ordinals = day_ordinals(first_day, days)
    first, last = datetime.date.fromordinal(ordinals[0]), datetime.date.fromordinal(ordinals[-1])
    catalog = load_catalog(new)
    changes = diff_catalogs(load_catalog(old), catalog, first, last)
    impacts: dict[str, OfficeImpact] = {}
    if backend:
        with open_store(backend) as store:
            impacts = {impact.office: impact for impact in run(measure_impact(catalog, changes, first, last), store)}
    if as_json:
        offices = [diff_to_builtins(one, impacts.get(one.office)) for one in changes]
        print_json({"first_day": str(first), "last_day": str(last), "offices": offices})
        return DONE
    for one in changes:
        for line in diff_lines(one, impacts.get(one.office)):
            sys.stdout.write(f"{line}\n")
    if not changes:
        sys.stdout.write("no differences\n")
    return DONE


@app.command
def show(name: str = "surabaya", /, *, as_json: AsJson = False) -> int:
    """Show the offices of a catalog, with the places of a working day and the next opening.

    Example:  quota-engine catalog show indonesia

    Args:
        name: a built-in catalog (surabaya, indonesia), or a catalog file (TOML, JSON or YAML).
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.catalog import load_catalog

    catalog = load_catalog(name)
    now_ms = SystemClock().now_ms()
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
            **_next_opening(catalog, office.id, now_ms),
        }
        for office in catalog.offices.values()
    ]
    if as_json:
        print_json({"title": catalog.title, "offices": offices})
    else:
        _print_offices(catalog.title, offices)
    return DONE


def _next_opening(catalog: Catalog, office: str, now_ms: int) -> dict[str, Any]:
    """Return the moment of an office's next opening, and its days. The moment is ``None`` if no day opens."""
    from quota_engine.catalog import next_release

    release = next_release(catalog, office, now_ms)
    at_ms, days = release or (None, ())
    return {"next_opens_at_ms": at_ms, "next_opening_days": [day.isoformat() for day in days]}


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
        table.add_row("", "", "", Text(_opening_text(office), style="dim"))
    console.print(table)


def _opening_text(office: dict[str, Any]) -> str:
    """Return the next opening in the office's time zone, with the days that it opens."""
    if office["next_opens_at_ms"] is None:
        return "opens no further day"
    zone = zoneinfo.ZoneInfo(office["time_zone"])
    moment = datetime.datetime.fromtimestamp(office["next_opens_at_ms"] / 1_000, tz=zone)
    days = office["next_opening_days"]
    opened = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"next: {moment:%Y-%m-%d %H:%M %Z}, {opened}"
