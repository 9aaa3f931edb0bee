"""The counters of offices and days as a table of at most 80 columns."""

from __future__ import annotations

__all__ = ["COUNTERS", "day_table"]

import datetime
from typing import TYPE_CHECKING, Final

from quota_engine.domain.day_summary import DayState, day_state
from quota_engine.domain.outcomes import DayView

if TYPE_CHECKING:
    from rich.table import Table

COUNTERS: Final = {
    "capacity": "cap.",
    "held": "held",
    "confirmed": "conf.",
    "cooling": "cool.",
    "available": "avail.",
    "overbooked": "over",
}
"""Counters of a quota, with their heads."""


def day_table(found: dict[str, list[DayView]], now_ms: int) -> Table:
    """Return a table with a row for each quota. An office and a day are named once.

    Args:
        found: Days by office.
        now_ms: Current time, which decides whether a day is open.
    """
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
            # The notes of a day are below its date, because the row has no space for them.
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
    withheld = sum(quota.withheld for quota in view.quotas.values())
    counts = {"waiting": view.waiting, "withheld": withheld}
    return [*notes[day_state(view, now_ms)], *(f"{count} {name}" for name, count in counts.items() if count)]
