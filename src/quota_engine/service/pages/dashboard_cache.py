"""What all who look at the same page are shown: asked of the store once, and kept for a moment."""

from __future__ import annotations

__all__ = ["Board", "Slot", "slots_of"]

import asyncio
import dataclasses
import datetime
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from quota_engine.catalog import Catalog, ResolvedOffice, choice_of, packed_places
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView
from quota_engine.draws.ledger import DrawView
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.pages.operator.opening_report import Opening, read_opening
from quota_engine.waiting_room.summary import RoomSummary, summarize_room

KEPT_MS: Final = 1_000
OPENING_KEPT_MS: Final = 5_000
VERDICT_KEPT_MS: Final = 600_000
DAYS_SHOWN_MAX: Final = 62
OPENING_DAYS_BACK: Final = 31
"""So far back an opening is looked for whose days are over by now."""
_OFFICES_KEPT_MAX: Final = 1_000
_LISTS_KEPT_MAX: Final = 8

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A day and a session that can be asked for, and how many single applicants fit in now."""

    day: datetime.date
    session: str
    session_name: str
    hours: tuple[datetime.time, datetime.time] | None
    """From when to when the session is."""
    places: int
    state: str
    """``open``, ``full``, ``closed``, or ``early``: it opens at ``opens_at_ms``."""
    opens_at_ms: int

    @property
    def value(self) -> str:
        """How a form says it."""
        return f"{self.day.isoformat()}|{self.session}"


class _Kept(Generic[T]):
    """Answers to questions of one kind. Whoever asks meanwhile waits for the same answer."""

    def __init__(self, kept_ms: int, now_ms: Callable[[], int], kept_max: int) -> None:
        self._kept_ms = kept_ms
        self._now_ms = now_ms
        self._kept_max = kept_max
        self._seen: dict[Hashable, tuple[int, T]] = {}
        self._asking: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]], since_ms: int = 0) -> tuple[int, T]:
        """When it was asked, and the answer; not one from before ``since_ms``."""
        if len(self._asking) >= self._kept_max and key not in self._asking:
            self._asking = {one: lock for one, lock in self._asking.items() if lock.locked()}
            self._seen = {one: seen for one, seen in self._seen.items() if one in self._asking}
        async with self._asking.setdefault(key, asyncio.Lock()):
            now_ms = self._now_ms()
            seen = self._seen.get(key)
            if seen is None or not 0 <= now_ms - seen[0] < self._kept_ms or seen[0] < since_ms:
                seen = self._seen[key] = now_ms, await ask()
            return seen

    def forget(self, key: Hashable) -> None:
        """Ask again the next time."""
        self._seen.pop(key, None)


class Board:
    """What there is to see of each office. However many look, the store is asked once a moment and office."""

    def __init__(self, engine: Callable[[], AsyncQuotaEngine], now_ms: Callable[[], int], catalog: Catalog) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._catalog = catalog
        self._days: _Kept[list[DayView]] = _Kept(KEPT_MS, now_ms, _OFFICES_KEPT_MAX)
        self._records: _Kept[list[Reservation]] = _Kept(KEPT_MS, now_ms, _LISTS_KEPT_MAX)
        self._openings: _Kept[Opening | None] = _Kept(OPENING_KEPT_MS, now_ms, _LISTS_KEPT_MAX)
        self._verdicts: _Kept[AuditSummary] = _Kept(VERDICT_KEPT_MS, now_ms, _OFFICES_KEPT_MAX)

    async def days(self, office: ResolvedOffice) -> tuple[int, list[DayView]]:
        """When they were asked for, and the office's days from today on that are known and not over."""

        async def ask() -> list[DayView]:
            now_ms = self._now_ms()
            first = self._today(office)
            last = first + datetime.timedelta(days=DAYS_SHOWN_MAX - 1)
            views = await self._engine().availability(office.id, first, last)
            return [view for view in views if now_ms < view.ends_at_ms]

        return await self._days.get(office.id, ask)

    async def day(self, office: ResolvedOffice, day: datetime.date) -> tuple[int, DayView | None]:
        """The same for one day, also if it is over; ``None``: not known."""
        seen_ms, views = await self.days(office)
        for view in views:
            if view.day == day.toordinal():
                return seen_ms, view
        found = await self._engine().availability(office.id, day)
        return self._now_ms(), found[0] if found else None

    async def room(self, room: str) -> RoomSummary | None:
        """How a waiting room goes; ``None`` if there is none of this id. (The engine looks once for all who ask.)"""
        try:
            return summarize_room(room, await self._engine().room(room).view())
        except InvalidRequest:  # that is also an unknown name
            return None

    async def draw(self, draw: str) -> DrawView | None:
        """How a draw stands; ``None`` if there is none of this id."""
        try:
            return await self._engine().draw(draw).view()
        except InvalidRequest:
            return None

    async def records(self, office: str, day: datetime.date) -> list[Reservation]:
        """The reservations of a day, by queue number."""
        _, records = await self._records.get((office, day), lambda: self._engine().list_reservations(office, day))
        return records

    async def opening(self, office: ResolvedOffice) -> Opening | None:
        """The office's last opening."""

        async def ask() -> Opening | None:
            today = self._today(office)
            first = today - datetime.timedelta(days=OPENING_DAYS_BACK)
            last = today + datetime.timedelta(days=DAYS_SHOWN_MAX - 1)
            views = await self._engine().availability(office.id, first, last)
            return await read_opening(self._engine(), self._catalog, office, views, self._now_ms())

        _, found = await self._openings.get(office.id, ask)
        return found

    async def audit(self, office: str | None, since_ms: int = 0) -> AuditSummary:
        """Everything worked out again, for one office or all, not before ``since_ms``. Those who ask meanwhile get the
        same verdict, and it is kept for a while: an audit reads all that there is.
        """

        async def ask() -> AuditSummary:
            at_ms = self._now_ms()
            report = await self._engine().audit(office)
            return AuditSummary(at_ms, report.offices, tuple(report.findings))

        _, verdict = await self._verdicts.get(office, ask, since_ms)
        return verdict

    def forget(self, office: str, day: datetime.date | None = None) -> None:
        """Ask again the next time: somebody has just changed something, and wants to see it."""
        self._days.forget(office)
        self._records.forget((office, day))

    def _today(self, office: ResolvedOffice) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._now_ms() / 1000, tz=office.zone).date()


def slots_of(
    catalog: Catalog, office: ResolvedOffice, views: list[DayView], service: str, group: str, now_ms: int, language: str
) -> list[Slot]:
    """What can be asked for on these days, session by session; nothing, if the office has nothing of the kind."""
    needs_session = bool(office.sessions) and office.services[service].needs_session
    slots: list[Slot] = []
    for session in office.sessions.values() if needs_session else (None,):
        session_id = session.id if session else ""
        try:
            choice = choice_of(catalog, office.id, service=service, session=session_id, group=group)
        except InvalidRequest:
            continue
        needed = {name for option in choice.options for name in option}
        for view in views:
            if not needed <= view.quotas.keys():
                continue
            places = packed_places(choice.options, {name: view.quotas[name].available for name in needed})
            if view.closed:
                state = "closed"
            elif now_ms < view.opens_at_ms:
                state = "early"
            else:
                state = "open" if places else "full"
            day = datetime.date.fromordinal(view.day)
            name, hours = (session.display_name(language), (session.start, session.end)) if session else ("", None)
            slots.append(Slot(day, session_id, name, hours, places, state, view.opens_at_ms))
    return sorted(slots, key=lambda slot: (slot.day, list(office.sessions).index(slot.session) if slot.session else 0))
