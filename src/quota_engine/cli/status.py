"""``quota-engine status`` and ``audit``: looking into a store. They need neither its catalog nor its key."""

from __future__ import annotations

__all__ = ["COUNTERS", "STORE_VARIABLE", "audit", "days_of", "offices_of", "opened", "status", "table_of"]

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from quota_engine.clocks import SystemClock
from quota_engine.domain.day_summary import DayState, day_state, day_to_builtins
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView
from quota_engine.domain.validation import check_integer
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import Audit, ListOffices, Store, View

if TYPE_CHECKING:
    from rich.table import Table

_DONE, _BAD_FINDING = 0, 1
_DAYS_MAX: Final = 400
COUNTERS: Final = {
    "capacity": "cap.",
    "held": "held",
    "confirmed": "conf.",
    "cooling": "cool.",
    "available": "avail.",
    "overbooked": "over",
}

STORE_VARIABLE: Final = "QUOTA_ENGINE_BACKEND"
"""Where a store's URL may stand, so that its password need not be on the command line."""
Office = tuple[str, ...]
AsJson = Annotated[bool, Parameter(name="--json")]


def status(
    backend: str = "",
    *,
    office: Office = (),
    first_day: str = "",
    days: int = 7,
    as_json: AsJson = False,
) -> int:
    """Show the counters of offices and days, as they are now.

    Args:
        backend: the URL of the store; without one, what the variable QUOTA_ENGINE_BACKEND says.
        office: only these offices (may be given several times); otherwise all that the store has.
        first_day: an ISO date; today if not given.
        days: how many days from the first on.
        as_json: print JSON, and nothing else.
    """
    with opened(backend) as store:
        found = _found(store, office, days_of(first_day, days))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(_plain(found)), indent=2).decode() + "\n")
        return _DONE
    from rich.console import Console

    Console().print(table_of(found, SystemClock().now_ms()))
    return _DONE


def audit(backend: str = "", *, office: Office = (), as_json: AsJson = False) -> int:
    """Work every counter out again, from records and from events, and say what differs; exit code 1 if anything does.

    Args:
        backend: the URL of the store; without one, what the variable QUOTA_ENGINE_BACKEND says.
        office: only these offices (may be given several times); otherwise all that the store has.
        as_json: print JSON, and nothing else.
    """
    with opened(backend) as store:
        offices = offices_of(store, office)
        findings = [finding for one in offices for finding in store.execute(Audit(one))]
    if as_json:
        verdict = {"ok": not findings, "offices": len(offices), "findings": findings}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode() + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding}\n")
        noun = "office" if len(offices) == 1 else "offices"
        verdict_text = f"{len(findings)} findings" if findings else "everything adds up"
        sys.stdout.write(f"{len(offices)} {noun}: {verdict_text}\n")
    return _BAD_FINDING if findings else _DONE


@contextlib.contextmanager
def opened(url: str) -> Iterator[Store]:
    """The store of this URL, closed in the end; without one, of that in :data:`STORE_VARIABLE`."""
    url = url or os.environ.get(STORE_VARIABLE, "")
    if not url:
        raise InvalidRequest("BACKEND", "none is given", f"the URL of a store, here or in {STORE_VARIABLE}")
    store = store_factory(url).open_store(url, None)
    try:
        yield store
    finally:
        store.close()


def days_of(first_day: str, days: int) -> tuple[int, ...]:
    """The ordinals of ``days`` days from an ISO date on; from today on (UTC) if it is ``""``."""
    check_integer(days, "--days", 1, _DAYS_MAX)
    try:
        first = datetime.date.fromisoformat(first_day) if first_day else datetime.datetime.now(datetime.UTC).date()
    except ValueError:
        raise InvalidRequest("--first-day", "no date that exists", "an ISO date such as 2026-12-01") from None
    return tuple(range(first.toordinal(), first.toordinal() + days))


def offices_of(store: Store, wanted: Office) -> list[str]:
    """The offices that the store has a ledger of; only those wanted, if any are."""
    known = store.execute(ListOffices())
    for name in wanted:
        if name not in known:
            raise InvalidRequest("--office", repr(name[:64]), f"one of {', '.join(known[:12]) or 'none: it is empty'}")
    return [name for name in known if not wanted or name in wanted]


def _found(store: Store, wanted: Office, days: tuple[int, ...]) -> dict[str, list[DayView]]:
    return {office: store.execute(View(office, days)) for office in offices_of(store, wanted)}


def _plain(found: dict[str, list[DayView]]) -> dict[str, Any]:
    return {
        "offices": [
            {
                "office": office,
                "days": [day_to_builtins(view) for view in views],
            }
            for office, views in found.items()
        ]
    }


def table_of(found: dict[str, list[DayView]], now_ms: int) -> Table:
    """One row a quota; an office and a day are named once."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("office", no_wrap=True, max_width=16)
    table.add_column("day", no_wrap=True)
    table.add_column("quota", no_wrap=True, max_width=12)
    for header in COUNTERS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for office, views in found.items():
        shown_office = office
        for view in views:
            # Further lines of the day say what there is to say of it: beside the date there is no room.
            texts = [datetime.date.fromordinal(view.day).isoformat(), *_notes(view, now_ms)]
            for name, quota in view.quotas.items():
                counts = [getattr(quota, counter) for counter in COUNTERS]
                style = "bold red" if quota.overbooked else "dim" if not quota.capacity else ""
                table.add_row(shown_office, texts.pop(0) if texts else "", name, *map(str, counts), style=style)
                shown_office = ""
            for text in texts:
                table.add_row("", text)
    return table


def _notes(view: DayView, now_ms: int) -> list[str]:
    notes = {DayState.CLOSED: ["closed"], DayState.NOT_OPEN: ["not open"], DayState.OVER: ["over"], DayState.OPEN: []}
    return [*notes[day_state(view, now_ms)], *([f"{view.waiting} wait"] if view.waiting else [])]
