"""What all who look at the same page are shown: asked of the store once, and kept for a moment."""

from __future__ import annotations

__all__ = ["Board", "Slot", "slots_of"]

import asyncio
import dataclasses
import datetime
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import Catalog, OfficeView, choice_of, packed_places
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView
from quota_engine.faces.engine import AsyncQuotaEngine

KEPT_MS: Final = 1_000
DAYS_SHOWN_MAX: Final = 62
_OFFICES_KEPT_MAX: Final = 1_000


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


class Board:
    """The days of each office, for all who look. However many that are, the store is asked once a moment and office."""

    def __init__(self, engine: Callable[[], AsyncQuotaEngine], now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._seen: dict[str, tuple[int, list[DayView]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def days(self, office: OfficeView) -> tuple[int, list[DayView]]:
        """When they were asked for, and the office's days from today on that are known and not over."""
        lock = self._asking.setdefault(office.id, asyncio.Lock())
        async with lock:
            now_ms = self._now_ms()
            seen = self._seen.get(office.id)
            if seen is None or not 0 <= now_ms - seen[0] < KEPT_MS:
                today = datetime.datetime.fromtimestamp(now_ms / 1000, tz=office.zone).date()
                last = today + datetime.timedelta(days=DAYS_SHOWN_MAX - 1)
                views = await self._engine().availability(office.id, today, last)
                if len(self._seen) >= _OFFICES_KEPT_MAX:
                    self._seen.clear()
                seen = self._seen[office.id] = now_ms, [view for view in views if now_ms < view.ends_at_ms]
            return seen

    def forget(self, office: str) -> None:
        """Ask again the next time: somebody has just changed something, and wants to see it."""
        self._seen.pop(office, None)


def slots_of(
    catalog: Catalog, office: OfficeView, views: list[DayView], service: str, group: str, now_ms: int, language: str
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
            name, hours = (session.named(language), (session.start, session.end)) if session else ("", None)
            slots.append(Slot(day, session_id, name, hours, places, state, view.opens_at_ms))
    return sorted(slots, key=lambda slot: (slot.day, list(office.sessions).index(slot.session) if slot.session else 0))
