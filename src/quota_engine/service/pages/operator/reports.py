"""Reports of an office by day, week and month: places, and how many people booked, came and canceled."""

from __future__ import annotations

__all__ = ["PERIODS_SHOWN", "ReportPages", "ReportRow", "first_day_of", "report_rows"]

import datetime
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from starlette.responses import Response

from quota_engine.domain.lifecycle import State
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.csv_export import people_csv
from quota_engine.service.pages.operator.day_tables import sum_counters
from quota_engine.service.pages.operator.request import OperatorRequest, PageError

PERIODS_SHOWN: Final = {"day": 14, "week": 6, "month": 3}
"""Kinds of periods, with the number of them on a page. Each day is one request to the store."""
_BOOKED: Final = (State.CONFIRMED, State.ATTENDED, State.NO_SHOW)
_COLUMNS: Final = ("report_days", "capacity", "report_booked", "report_attended", "report_no_show", "report_canceled")


class ReportRow(NamedTuple):
    """One period.

    Attributes:
        first: First day of the period.
        last: Last day of the period.
        days: Days of the period that the office has published.
        capacity: Places of these days.
        booked: People who have or had a confirmed place: attended, absent or still expected.
        attended: People who came.
        no_show: People who did not come.
        canceled: People whose places were canceled.
    """

    first: datetime.date
    last: datetime.date
    days: int
    capacity: int
    booked: int
    attended: int
    no_show: int
    canceled: int

    @property
    def counts(self) -> tuple[int, ...]:
        """The counts in the order of the page's columns."""
        return self[2:]

    @property
    def no_show_percent(self) -> int:
        """No-shows among the people whose appointment is decided, in percent; 0 without any."""
        decided = self.attended + self.no_show
        return round(100 * self.no_show / decided) if decided else 0


class ReportPages:
    """Handlers of the reports."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def report(self, request: OperatorRequest) -> Response:
        """Render the periods up to a day, the latest first."""
        kind, last = self._period(request)
        rows = await self._rows(request, kind, last)
        return self._pages.render(
            request,
            "report.html",
            "report",
            kind=kind,
            kinds=list(PERIODS_SHOWN),
            rows=[(period_text(request.translator, kind, row), row) for row in rows],
            columns=_COLUMNS,
            total=_total(rows),
            earlier=rows[-1].first - datetime.timedelta(days=1),
            query=request.query("by", "until"),
        )

    async def csv(self, request: OperatorRequest) -> Response:
        """Return the same rows as a file for a spreadsheet."""
        kind, last = self._period(request)
        translator = request.translator
        heads = ("report_first", "report_last", *_COLUMNS)
        rows = [
            (row.first.isoformat(), row.last.isoformat(), *map(str, row.counts))
            for row in await self._rows(request, kind, last)
        ]
        name = f"{request.office.id}-{kind}-{last.isoformat()}.csv"
        return people_csv(translator, name, [translator(head) for head in heads], rows)

    def _period(self, request: OperatorRequest) -> tuple[str, datetime.date]:
        """Return the kind of the periods and their last day."""
        kind, until = request.field("by") or "week", request.field("until")
        if kind not in PERIODS_SHOWN:
            raise PageError(404, "unknown_day")
        try:
            return kind, datetime.date.fromisoformat(until) if until else self._pages.today(request.office)
        except ValueError:
            raise PageError(404, "unknown_day") from None

    async def _rows(self, request: OperatorRequest, kind: str, last: datetime.date) -> list[ReportRow]:
        first = last
        for _ in range(PERIODS_SHOWN[kind]):
            start, first = first_day_of(kind, first), first_day_of(kind, first) - datetime.timedelta(days=1)
        views = await self._pages.cache.past_days(request.office, start, last)
        sums = {view.day: sum_counters(request.office, [view])["capacity"] for view in views}
        people = {view.day: await self._pages.cache.people_of_day(request.office, view) for view in views}
        return report_rows(kind, start, last, sums, people)


def first_day_of(kind: str, day: datetime.date) -> datetime.date:
    """Return the first day of the day, the week (from Monday on) or the month of a day."""
    if kind == "week":
        return day - datetime.timedelta(days=day.weekday())
    return day.replace(day=1) if kind == "month" else day


def report_rows(
    kind: str,
    first: datetime.date,
    last: datetime.date,
    capacities: Mapping[int, int],
    people: Mapping[int, Mapping[State, int]],
) -> list[ReportRow]:
    """Return a row for each period from ``last`` back to ``first``.

    Args:
        kind: A key of :data:`PERIODS_SHOWN`.
        first: First day of the first period.
        last: Last day.
        capacities: Places of each published day, by ordinal.
        people: People of each published day by the state of their reservation, by ordinal.
    """
    rows = []
    while last >= first:
        start = first_day_of(kind, last)
        days = [day for day in range(start.toordinal(), last.toordinal() + 1) if day in capacities]

        def count(*states: State, days: Iterable[int] = tuple(days)) -> int:
            return sum(people[day].get(state, 0) for day in days for state in states)

        rows.append(
            ReportRow(
                first=start,
                last=last,
                days=len(days),
                capacity=sum(capacities[day] for day in days),
                booked=count(*_BOOKED),
                attended=count(State.ATTENDED),
                no_show=count(State.NO_SHOW),
                canceled=count(State.CANCELLED),
            )
        )
        last = start - datetime.timedelta(days=1)
    return rows


def period_text(translator: Translator, kind: str, row: ReportRow) -> str:
    """Return the name of a period: a date, or two."""
    if kind == "day" or row.first == row.last:
        return translator.date(row.first)
    return translator("date_range", first=translator.date(row.first), last=translator.date(row.last))


def _total(rows: Iterable[ReportRow]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(row.counts for row in rows), strict=True)))
