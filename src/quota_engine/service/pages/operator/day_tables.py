"""Rows of the dashboard's tables: counters of days with translated names, in the order of the catalog."""

from __future__ import annotations

__all__ = ["COUNTERS", "DayTable", "QuotaRow", "day_table", "sum_counters"]

import dataclasses
import datetime
from collections.abc import Iterable
from typing import Final

from quota_engine.catalog import Catalog, DayCorrection, ResolvedOffice
from quota_engine.domain.day_summary import DayState, day_state
from quota_engine.domain.outcomes import DayView, QuotaView
from quota_engine.service.pages.i18n import Translator
from quota_engine.workflows.catalog_changes import corrections_of

COUNTERS: Final = ("capacity", "confirmed", "held", "cooling", "available", "overbooked")
_BAR_WIDTH: Final = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class QuotaRow:
    """A row of a quota.

    Attributes:
        id: Id of the quota.
        name: Name in the operator's language.
        quota: Counters of the quota.
        bar: Name, start and width of each part of the bar, in thousandths of its width.
    """

    id: str
    name: str
    quota: QuotaView
    bar: list[tuple[str, int, int]]


@dataclasses.dataclass(frozen=True, slots=True)
class DayTable:
    """A day with its rows: first the allotments, then the quotas that guard them.

    ``correction`` is what the next publication changes for the people of the day.
    """

    day: datetime.date
    view: DayView
    state: DayState
    quotas: list[QuotaRow]
    correction: DayCorrection | None


def day_table(translator: Translator, catalog: Catalog, office: ResolvedOffice, view: DayView, now_ms: int) -> DayTable:
    """Return the table of a day at ``now_ms``, in milliseconds since 1970 (UTC)."""
    names = {one.id: one.display_name(translator.language) for one in (*office.allotments, *office.quotas)}
    order = [name for name in names if name in view.quotas] + [name for name in view.quotas if name not in names]
    rows = [QuotaRow(name, names.get(name, name), view.quotas[name], _bar(view.quotas[name])) for name in order]
    state = day_state(view, now_ms)
    corrections = corrections_of(catalog, office.id, [view] if state is not DayState.OVER else [])
    return DayTable(datetime.date.fromordinal(view.day), view, state, rows, next(iter(corrections), None))


def _bar(quota: QuotaView) -> list[tuple[str, int, int]]:
    counts = (
        ("confirmed", quota.confirmed),
        ("held", quota.held),
        ("cooling", quota.cooling),
        ("available", quota.available),
    )
    total = max(1, quota.capacity + quota.overbooked)
    parts, start = [], 0
    for name, count in counts:
        width = count * _BAR_WIDTH // total
        if width:
            parts.append((name, start, width))
        start += width
    return parts


def sum_counters(office: ResolvedOffice, views: Iterable[DayView]) -> dict[str, int]:
    """Return the sums of the allotments' counters over some days.

    The other quotas guard the allotments and count the same people again. They are included if the office has no
    allotments.
    """
    allotments = {allotment.id for allotment in office.allotments}
    quotas = [quota for view in views for name, quota in view.quotas.items() if name in allotments or not allotments]
    return {name: sum(getattr(quota, name) for quota in quotas) for name in COUNTERS}
