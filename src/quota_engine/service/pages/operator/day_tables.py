"""The counters of days as the board shows them: named in the reader's language, in the catalog's order, with a bar."""

from __future__ import annotations

__all__ = ["COUNTERS", "DayRows", "QuotaRow", "day_rows", "totals"]

import dataclasses
import datetime
from collections.abc import Iterable
from typing import Final

from quota_engine.catalog import ResolvedOffice
from quota_engine.domain.day_summary import DayState, day_state
from quota_engine.domain.outcomes import DayView, QuotaView
from quota_engine.service.pages.i18n import Words

COUNTERS: Final = ("capacity", "confirmed", "held", "cooling", "available", "overbooked")
_BAR: Final = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class QuotaRow:
    """A quota on the board: its name in the reader's language, its counters, and a bar of them."""

    id: str
    name: str
    quota: QuotaView
    bar: list[tuple[str, int, int]]
    """Kind, begin and width of each part, in thousandths of the bar."""


@dataclasses.dataclass(frozen=True, slots=True)
class DayRows:
    """A day on the board. ``quotas`` first those that people are given places of, and then what guards them."""

    day: datetime.date
    view: DayView
    state: DayState
    quotas: list[QuotaRow]


def day_rows(words: Words, office: ResolvedOffice, view: DayView, now_ms: int) -> DayRows:
    """A day as the board shows it."""
    known = {one.id: one.display_name(words.language) for one in (*office.allotments, *office.quotas)}
    order = [name for name in known if name in view.quotas] + [name for name in view.quotas if name not in known]
    rows = [QuotaRow(name, known.get(name, name), view.quotas[name], _bar(view.quotas[name])) for name in order]
    return DayRows(datetime.date.fromordinal(view.day), view, day_state(view, now_ms), rows)


def _bar(quota: QuotaView) -> list[tuple[str, int, int]]:
    counts = (
        ("confirmed", quota.confirmed),
        ("held", quota.held),
        ("cooling", quota.cooling),
        ("available", quota.available),
    )
    whole = max(1, quota.capacity + quota.overbooked)
    parts, begin = [], 0
    for kind, count in counts:
        width = count * _BAR // whole
        if width:
            parts.append((kind, begin, width))
        begin += width
    return parts


def totals(office: ResolvedOffice, views: Iterable[DayView]) -> dict[str, int]:
    """The sums over days that sell, of the quotas that people are given places of. What guards them counts the same
    people again.
    """
    allotments = {allotment.id for allotment in office.allotments}
    quotas = [quota for view in views for name, quota in view.quotas.items() if name in allotments or not allotments]
    return {name: sum(getattr(quota, name) for quota in quotas) for name in COUNTERS}
