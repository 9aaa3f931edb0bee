"""Rows of the dashboard's tables: counters of days with translated names, in the order of the catalog."""

from __future__ import annotations

__all__ = [
    "COUNTERS",
    "DayTable",
    "QuotaRow",
    "calendar_weeks",
    "day_row",
    "day_table",
    "sessions_with_quotas",
    "sum_counters",
]

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


def sum_counters(office: ResolvedOffice, views: Iterable[DayView], session: str = "") -> dict[str, int]:
    """Return the sums of the counters over some days, each person counted once.

    The allotments are added up. The other quotas guard them and count the same people again; they are added up if the
    office has no allotments. With a session, the quotas of the session are added up instead.

    Args:
        office: Office of the catalog.
        views: Days of the office.
        session: Id of a session of :func:`sessions_with_quotas`, or ``""`` for all sessions.
    """
    counted = _quotas_of_session(office, session) if session else {allotment.id for allotment in office.allotments}
    quotas = [quota for view in views for name, quota in view.quotas.items() if name in counted or not counted]
    return {name: sum(getattr(quota, name) for quota in quotas) for name in COUNTERS}


def day_row(office: ResolvedOffice, view: DayView, name: str, session: str = "") -> QuotaRow:
    """Return the row of a whole day, or of one session of it. ``name`` is its heading."""
    sums = sum_counters(office, [view], session)
    # Guards may be full while the allotments are not. The sums of the allotments do not show it.
    overbooked = sums["overbooked"] or max((quota.overbooked for quota in view.quotas.values()), default=0)
    total = QuotaView(
        sums["capacity"], sums["available"], sums["held"], sums["confirmed"], sums["cooling"], 0, overbooked
    )
    return QuotaRow(str(view.day), name, total, _bar(total))


def sessions_with_quotas(office: ResolvedOffice) -> list[str]:
    """Return the sessions of an office that have their own counters, in the order of the catalog."""
    return [session for session in office.sessions if _quotas_of_session(office, session)]


def _quotas_of_session(office: ResolvedOffice, session: str) -> set[str]:
    """Return the guard that counts every booking of a session; without one, the allotments of this session alone."""
    guards = [one.id for one in office.quotas if one.session == session and not one.service and not one.service_unit]
    return set(guards[:1]) or {one.id for one in office.allotments if tuple(one.sessions) == (session,)}


def calendar_weeks(
    tables: Iterable[DayTable], first: datetime.date
) -> list[list[tuple[datetime.date, DayTable | None]]]:
    """Return the weeks, Monday to Sunday, from that of ``first`` to that of the last table.

    A day without a table has ``None``.
    """
    by_day = {table.day: table for table in tables}
    last = max(by_day, default=first)
    first -= datetime.timedelta(days=first.weekday())
    weeks = (last - first).days // 7 + 1
    days = [first + datetime.timedelta(days=ahead) for ahead in range(7 * weeks)]
    return [[(day, by_day.get(day)) for day in days[start : start + 7]] for start in range(0, len(days), 7)]
