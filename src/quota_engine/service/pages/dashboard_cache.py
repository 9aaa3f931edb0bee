"""Cache of figures that many viewers of a page share, so that the store gets one request a second at most."""

from __future__ import annotations

__all__ = ["DAYS_SHOWN_MAX", "DashboardCache"]

import datetime
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import Catalog, ResolvedOffice
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import AbandonedHolds, DayView
from quota_engine.draws.queries import DrawView
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.pages.opening_report import OpeningReport, read_opening
from quota_engine.service.pages.reservation_history import ReservationHistory, read_history
from quota_engine.service.shared_cache import SharedCache
from quota_engine.waiting_room.summary import RoomSummary, summarize_room

DAYS_SHOWN_MAX: Final = 62
_FIGURES_TTL_MS: Final = 1_000
_OPENING_TTL_MS: Final = 5_000
_HOLDS_TTL_MS: Final = 10_000
_AUDIT_TTL_MS: Final = 600_000
_OPENING_DAYS_BACK: Final = 92
"""Days before today among which openings are searched."""
_OFFICES_MAX: Final = 1_000
_LISTS_MAX: Final = 8
_HISTORIES_MAX: Final = 256
_HISTORY_TTL_MS: Final = 60_000
_PEOPLE_MAX: Final = 10_000
_ENDED_TTL_MS: Final = 600_000
"""Time that the people of an ended day are kept, because only check-ins, no-shows and their undo change them."""


class DashboardCache:
    """Figures of offices for the pages. The number of viewers does not change the load on the store."""

    def __init__(self, engine: Callable[[], AsyncQuotaEngine], now_ms: Callable[[], int], catalog: Catalog) -> None:
        """``engine`` returns the engine, which exists once the service has started."""
        self._engine = engine
        self._now_ms = now_ms
        self._catalog = catalog
        self._days: SharedCache[list[DayView]] = SharedCache(_OFFICES_MAX, now_ms)
        self._reservations: SharedCache[list[Reservation]] = SharedCache(_LISTS_MAX, now_ms)
        self._openings: SharedCache[OpeningReport | None] = SharedCache(_LISTS_MAX, now_ms)
        self._opening_days: SharedCache[dict[int, list[DayView]]] = SharedCache(_OFFICES_MAX, now_ms)
        self._abandoned: SharedCache[AbandonedHolds] = SharedCache(_OFFICES_MAX, now_ms)
        self._histories: SharedCache[ReservationHistory] = SharedCache(_HISTORIES_MAX, now_ms)
        self._people: SharedCache[dict[State, int]] = SharedCache(_PEOPLE_MAX, now_ms)
        self._audits: SharedCache[AuditSummary] = SharedCache(_OFFICES_MAX, now_ms)

    async def days(self, office: ResolvedOffice) -> tuple[int, list[DayView]]:
        """Return the time of the figures, and the known days of an office from today that have not ended.

        At most :data:`DAYS_SHOWN_MAX` days.
        """

        async def load() -> list[DayView]:
            now_ms = self._now_ms()
            first = self._today(office)
            last = first + datetime.timedelta(days=DAYS_SHOWN_MAX - 1)
            views = await self._engine().availability(office.id, first, last)
            return [view for view in views if now_ms < view.ends_at_ms]

        return await self._days.load(office.id, load, _FIGURES_TTL_MS)

    async def day(self, office: ResolvedOffice, day: datetime.date) -> tuple[int, DayView | None]:
        """Return the time of the figures and a day, which may have ended; ``None`` if the office does not know it."""
        read_at_ms, views = await self.days(office)
        for view in views:
            if view.day == day.toordinal():
                return read_at_ms, view
        found = await self._engine().availability(office.id, day)
        return self._now_ms(), found[0] if found else None

    async def room(self, room: str) -> RoomSummary | None:
        """Return the figures of a waiting room, or ``None`` for an unknown id. The engine itself caches the view."""
        try:
            return summarize_room(room, await self._engine().room(room).view())
        except InvalidRequest:  # includes UnknownName
            return None

    async def draw(self, draw: str) -> DrawView | None:
        """Return a draw, or ``None`` for an unknown id."""
        try:
            return await self._engine().draw(draw).view()
        except InvalidRequest:
            return None

    async def reservations(self, office: str, day: datetime.date) -> list[Reservation]:
        """Return the reservations of a day, by queue number."""
        _, reservations = await self._reservations.load(
            (office, day), lambda: self._engine().list_reservations(office, day), _FIGURES_TTL_MS
        )
        return reservations

    async def past_days(self, office: ResolvedOffice, first: datetime.date, last: datetime.date) -> list[DayView]:
        """Return the days of an office from ``first`` to ``last`` that it knows, at most 400."""
        return await self._engine().availability(office.id, first, last)

    async def people_of_day(self, office: ResolvedOffice, view: DayView) -> dict[State, int]:
        """Return the number of people of a day by the state of their reservation.

        A day that has ended is read every ten minutes at most, because the store reads the whole office for it.
        """

        async def load() -> dict[State, int]:
            counts: dict[State, int] = {}
            for one in await self._engine().list_reservations(office.id, view.day):
                counts[one.state] = counts.get(one.state, 0) + one.units
            return counts

        has_ended = view.ends_at_ms <= self._now_ms()
        _, counts = await self._people.load(
            (office.id, view.day, has_ended), load, _ENDED_TTL_MS if has_ended else _HOLDS_TTL_MS
        )
        return counts

    async def abandoned_holds(self, office: str) -> AbandonedHolds:
        """Return the counts of an office's holds that ended without a confirm, at most ten seconds old."""
        _, found = await self._abandoned.load(office, lambda: self._engine().abandoned_holds(office), _HOLDS_TTL_MS)
        return found

    async def history(self, reservation: Reservation) -> ReservationHistory:
        """Return the history of a reservation up to its present version."""
        _, found = await self._histories.load(
            (reservation.reference, reservation.version),
            lambda: read_history(self._engine(), reservation),
            _HISTORY_TTL_MS,
        )
        return found

    async def openings(self, office: ResolvedOffice) -> dict[int, list[DayView]]:
        """Return the days of each past opening, the last opening first.

        The keys are the times of the openings in milliseconds since 1970 (UTC). A day is known until it is forgotten.
        """

        async def load() -> dict[int, list[DayView]]:
            today, now_ms = self._today(office), self._now_ms()
            first = today - datetime.timedelta(days=_OPENING_DAYS_BACK)
            last = today + datetime.timedelta(days=DAYS_SHOWN_MAX - 1)
            found: dict[int, list[DayView]] = {}
            for view in await self._engine().availability(office.id, first, last):
                if view.opens_at_ms <= now_ms:
                    found.setdefault(view.opens_at_ms, []).append(view)
            return dict(sorted(found.items(), reverse=True))

        _, openings = await self._opening_days.load(office.id, load, _OPENING_TTL_MS)
        return openings

    async def opening(self, office: ResolvedOffice, opens_at_ms: int = 0) -> OpeningReport | None:
        """Return an opening of an office, the last one for 0; ``None`` if there is none at this time."""
        openings = await self.openings(office)
        views = openings.get(opens_at_ms or next(iter(openings), 0))
        if not views:
            return None

        async def load() -> OpeningReport | None:
            return await read_opening(self._engine(), self._catalog, office, views, self._now_ms())

        key = (office.id, views[0].opens_at_ms)
        _, report = await self._openings.load(key, load, _OPENING_TTL_MS)
        return report

    async def audit(self, office: str | None, not_before_ms: int = 0) -> AuditSummary:
        """Return the result of an audit of one office, or of all for ``None``.

        An audit reads everything, so its result is kept for ten minutes.

        Args:
            office: Id of the office.
            not_before_ms: Time before which a cached result does not count.
        """

        async def load() -> AuditSummary:
            at_ms = self._now_ms()
            report = await self._engine().audit(office)
            return AuditSummary(at_ms, report.offices, tuple(report.findings))

        _, summary = await self._audits.load(office, load, _AUDIT_TTL_MS, not_before_ms)
        return summary

    def invalidate(self, office: str, day: datetime.date | None = None) -> None:
        """Remove the days of an office and the reservations of a day, so that a changed figure shows at once."""
        self._days.invalidate(office)
        self._reservations.invalidate((office, day))

    def _today(self, office: ResolvedOffice) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._now_ms() / 1000, tz=office.zone).date()
