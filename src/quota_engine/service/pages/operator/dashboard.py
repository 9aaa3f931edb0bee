"""The dashboard: counters of an office's days and of all offices, with a stream that reports changes."""

from __future__ import annotations

__all__ = ["DashboardPages"]

import asyncio
import contextlib
import datetime
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.responses import Response

from quota_engine.catalog import name_of
from quota_engine.domain.day_summary import DayState, day_state
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.domain.outcomes import QuotaView
from quota_engine.service.http.auth import Role
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.sse import EventStream, StreamEvent
from quota_engine.service.pages.operator.alerts import Alerts
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.csv_export import csv_response
from quota_engine.service.pages.operator.day_tables import (
    COUNTERS,
    DayTable,
    calendar_weeks,
    day_row,
    day_table,
    sessions_with_quotas,
    sum_counters,
)
from quota_engine.service.pages.operator.fields import queue_number
from quota_engine.service.pages.operator.request import FieldError, OperatorRequest

_DAYS_SHOWN: Final = 10
_WEEKS_SHOWN: Final = 5
_OFFICES_SHOWN_MAX: Final = 500
_OFFICES_SHOWN: Final = 25
"""Rows of a page. With more of them, and the list of all offices above, the page could exceed 40 kB."""
_STREAM_EVERY_MS: Final = 1_000


class DashboardPages:
    """Handlers of the dashboard."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages
        self._cache = pages.cache
        self._alerts = Alerts(pages)

    async def dashboard(self, request: OperatorRequest) -> Response:
        """Render the counters of an office's days, its waiting room and a named draw.

        A token of the role ``office`` is redirected to its queue list.
        """
        if request.grant.role is Role.OFFICE:
            return self._pages.redirect(request, "/operator/queue")
        return await self._render_days(request, "dashboard.html")

    async def days(self, request: OperatorRequest) -> Response:
        """Render the counters alone, which the page's script refreshes."""
        return await self._render_days(request, "days.html")

    async def _render_days(self, request: OperatorRequest, template: str) -> Response:
        pages, office, translator = self._pages, request.office, request.translator
        read_at_ms, views = await self._cache.days(office)
        now_ms = pages.service.now_ms()
        sessions = sessions_with_quotas(office)
        session = request.field("session") if request.field("session") in sessions else ""
        tables = [day_table(translator, pages.service.catalog, office, view, now_ms) for view in views]
        first = self._first_shown(request, tables)
        shown = tables[first : first + _DAYS_SHOWN]
        draw, draw_id = await pages.draw(request), request.fields.get("draw", "")
        error = FieldError("draw", translator("draw_unknown"), draw_id) if draw_id and draw is None else None
        open_views = [table.view for table in tables if table.state is DayState.OPEN]
        return pages.render(
            request,
            template,
            "dashboard",
            days=[(table, day_row(office, table.view, translator.date(table.day), session)) for table in shown],
            opened=request.field("open"),
            weeks=calendar_weeks(tables, shown[0].day if first else pages.today(office))[:_WEEKS_SHOWN],
            available={table.day: sum_counters(office, [table.view], session)["available"] for table in tables},
            weekdays=translator.weekdays(),
            sessions=[(one, name_of(office.sessions, one, translator.language)) for one in sessions],
            session=session,
            totals=sum_counters(office, open_views, session),
            alerts=await self._alerts.of_office(request, views),
            later=tables[first + _DAYS_SHOWN].day if len(tables) > first + _DAYS_SHOWN else None,
            earlier=tables[max(0, first - _DAYS_SHOWN)].day if first else None,
            updated_at=pages.updated_at(request, read_at_ms),
            moment=lambda at_ms: translator.moment(pages.local_time(at_ms, office)),
            room=await pages.room(request),
            draw=draw,
            draw_id=draw_id,
            query=request.query("first", "open", "session", "room", "draw"),
            day_query=request.query("session", "room", "draw"),
            session_query=request.query("first", "open", "room", "draw"),
            error=error,
        )

    def _first_shown(self, request: OperatorRequest, tables: Sequence[DayTable]) -> int:
        """Return the index of the first day to show: ``first`` of the query, or the page of ten with the open day."""
        for name in ("first", "open"):
            with contextlib.suppress(ValueError):
                day = datetime.date.fromisoformat(request.field(name))
                index = next((index for index, table in enumerate(tables) if table.day >= day), 0)
                return index if name == "first" else index // _DAYS_SHOWN * _DAYS_SHOWN
        return 0

    async def offices(self, request: OperatorRequest) -> Response:
        """Render the totals of each office's open days."""
        return await self._render_offices(request, "offices.html")

    async def office_rows(self, request: OperatorRequest) -> Response:
        """Render the totals alone, which the page's script refreshes."""
        return await self._render_offices(request, "offices_rows.html")

    async def _render_offices(self, request: OperatorRequest, template: str) -> Response:
        pages = self._pages
        now_ms = pages.service.now_ms()
        offices = pages.offices(request.grant)[:_OFFICES_SHOWN_MAX]
        found = await asyncio.gather(*(self._cache.days(office) for office in offices))
        rows = []
        for office, (_, views) in zip(offices, found, strict=True):
            by_state: dict[DayState, list[int]] = {}
            open_days = [view for view in views if day_state(view, now_ms) is DayState.OPEN]
            for view in views:
                by_state.setdefault(day_state(view, now_ms), []).append(view.opens_at_ms)
            later = by_state.get(DayState.NOT_OPEN, [])
            opens = request.translator.moment(pages.local_time(min(later), office)) if later else ""
            closed = len(by_state.get(DayState.CLOSED, []))
            rows.append((office, len(open_days), closed, opens, sum_counters(office, open_days)))
        start = min(queue_number(request.field("from")) or 0, max(0, len(rows) - 1))
        end = start + _OFFICES_SHOWN
        return pages.render(
            request,
            template,
            "offices",
            rows=rows[start:end],
            totals={name: sum(sums[name] for *_, sums in rows) for name in COUNTERS},
            open_days_total=sum(open_days for _, open_days, *_ in rows),
            count=len(rows),
            start=start,
            next_start=end if len(rows) > end else 0,
            previous_start=max(0, start - _OFFICES_SHOWN),
            query=request.query("from"),
            counters=COUNTERS,
            alerts=self._alerts.of_service(request),
            updated_at=pages.updated_at(request, now_ms),
        )

    async def csv(self, request: OperatorRequest) -> Response:
        """Return the counters of the days as a file."""
        _, views = await self._cache.days(request.office)
        rows = [
            (
                datetime.date.fromordinal(view.day).isoformat(),
                name,
                *map(str, msgspec.structs.astuple(quota)),
                str(view.waiting),
                str(view.closed).lower(),
            )
            for view in views
            for name, quota in view.quotas.items()
        ]
        columns = ("day", "quota", *QuotaView.__struct_fields__, "wait_list", "closed")
        return csv_response(f"{request.office.id}-dashboard.csv", columns, rows)

    async def stream(self, request: OperatorRequest) -> Response | EventStream:
        """Return server-sent events that report a change of the figures. All listeners share one check."""
        office = request.office
        names = request.fields.get("room", ""), request.fields.get("draw", "")

        async def read() -> bytes:
            _, views = await self._cache.days(office)
            return msgspec.json.encode((views, await self._pages.room(request), await self._pages.draw(request)))

        async def event(figures: bytes) -> StreamEvent:
            return StreamEvent("changed", b'{"state":"%s"}' % hashlib.sha256(figures).hexdigest()[:16].encode())

        try:
            streams = self._pages.service.streams
            return await streams.open(("dashboard", office.id, *names), read, event, interval_ms=_STREAM_EVERY_MS)
        except (Problem, QuotaEngineError):
            return Response(status_code=503)  # the page polls instead
