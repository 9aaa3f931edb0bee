"""Creates the waiting room of each release, and keeps it running while no client polls it."""

from __future__ import annotations

__all__ = ["TICK_INTERVAL_MS", "RoomSupervisor"]

import asyncio
import datetime
import logging
from collections.abc import Callable
from typing import Final

from quota_engine.catalog import day_terms
from quota_engine.domain.errors import QuotaEngineError, UnknownName
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.background.periodic_task import PeriodicTask
from quota_engine.service.background.publication_records import PublicationRecords
from quota_engine.waiting_room.releases import CHANNEL, CLOCK_MARGIN_MS, Releases, ScheduledRelease
from quota_engine.waiting_room.results import RoomStatus
from quota_engine.waiting_room.transcript import transcript_of
from quota_engine.workflows.room_config import RoomSettings

TICK_INTERVAL_MS: Final = 1_000
_CHECK_INTERVAL_MS: Final = 30_000
"""Time between two checks of a room that does not open soon."""
_RETRY_INTERVAL_MS: Final = 5_000

_logger = logging.getLogger("quota_engine.service")


class RoomSupervisor(PeriodicTask):
    """Creates rooms as soon as their release is the next one, and reads them, which moves them on.

    Any number of processes may run one: creating a room again changes nothing. Errors are logged and retried. A room
    that operators close early, or that did not exist at its opening, is reported to the releases within
    :data:`TICK_INTERVAL_MS`, so that reserves need no pass any more.
    """

    def __init__(
        self,
        engine: AsyncQuotaEngine,
        releases: Releases,
        settings: RoomSettings,
        now_ms: Callable[[], int],
        publications: PublicationRecords,
    ) -> None:
        """``settings`` apply to the rooms that this supervisor creates; ``publications`` records their transcripts."""
        super().__init__("supervising waiting rooms", self.tick, TICK_INTERVAL_MS / 1_000)
        self._engine = engine
        self._releases = releases
        self._settings = settings
        self._now_ms = now_ms
        self._publications = publications
        self._created: set[str] = set()
        self._days_checked: set[str] = set()
        self._due_ms: dict[str, int] = {}

    async def tick(self) -> None:
        """Create or check the rooms that are due."""
        now_ms = self._now_ms()
        offices = self._releases.schedule.offices
        active = [release for office in offices for release in self._releases.list_active(office, now_ms)]
        rooms = {release.room for release in active}
        self._created &= rooms
        self._days_checked &= rooms
        self._due_ms = {room: due_ms for room, due_ms in self._due_ms.items() if room in rooms}
        due = [release for release in active if self._due_ms.get(release.room, 0) <= now_ms]
        await asyncio.gather(*(self._supervise(release, now_ms) for release in due))

    async def _supervise(self, release: ScheduledRelease, now_ms: int) -> None:
        room = release.room
        opens_soon = now_ms >= release.opens_at_ms - CLOCK_MARGIN_MS
        self._due_ms[room] = now_ms + (0 if opens_soon else _CHECK_INTERVAL_MS)
        try:
            if room not in self._created:
                await self._create(release)
            else:
                await self._check(release)
            if now_ms >= release.join_opens_at_ms and room not in self._days_checked:
                await self._warn_of_missing_days(release)
                self._days_checked.add(room)
        except UnknownName:  # the store has lost the room
            self._created.discard(room)
            self._due_ms[room] = now_ms
        except QuotaEngineError as error:
            _logger.warning("waiting room %s: %s", room, error)
            self._due_ms[room] = now_ms + (0 if room in self._created else _RETRY_INTERVAL_MS)

    async def _create(self, release: ScheduledRelease) -> None:
        status = await self._engine.room(release.room).create(
            release.office,
            release.first_day,
            release.last_day,
            opens_at=release.opens_at_ms,
            closes_at=release.closes_at_ms,
            join_opens_at=release.join_opens_at_ms,
            channel=CHANNEL,
            settings=self._settings,
        )
        if status is RoomStatus.OVERLOADED:
            return
        self._created.add(release.room)
        if status is RoomStatus.ROOM_CLOSED:
            _logger.warning("waiting room %s: its opening time has passed; reserves need no pass", release.room)
            self._releases.set_room_end(release, 0)
        elif status is RoomStatus.CONFLICT:
            _logger.warning("waiting room %s: it exists with other values, and keeps them", release.room)
        else:
            _logger.info("waiting room %s is created", release.room)

    async def _check(self, release: ScheduledRelease) -> None:
        view = await self._engine.room(release.room).view()
        self._publications.check_room(transcript_of(release.room, view))
        self._releases.set_room_end(release, view.closed_at_ms or view.config.closes_at_ms)

    async def _warn_of_missing_days(self, release: ScheduledRelease) -> None:
        """Log the days of a release that nothing has published: they would appear later, without the room."""
        views = await self._engine.availability(release.office, release.first_day, release.last_day)
        known = {view.day for view in views}
        last = release.last_day.toordinal()
        days = [datetime.date.fromordinal(day) for day in range(release.first_day.toordinal(), last + 1)]
        catalog = self._releases.catalog
        missing = [
            day for day in days if day.toordinal() not in known and day_terms(catalog, release.office, day) is not None
        ]
        if missing:
            _logger.warning(
                "waiting room %s: %d days of its release are not published, from %s to %s; publish them now",
                release.room,
                len(missing),
                missing[0],
                missing[-1],
            )
