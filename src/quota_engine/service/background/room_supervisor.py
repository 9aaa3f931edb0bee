"""Which release of an office is next or running, its waiting room, and whether a reserve of its days needs a pass.

Releases come from the catalog: all days that open at one moment are one. :class:`Releases` is worked out from the
catalog, the configuration and the time alone, and from what a :class:`RoomKeeper` has told it of rooms that ended
early. The keeper makes the rooms and looks after them, as a task of the service; any number of processes may do the
same.
"""

from __future__ import annotations

__all__ = ["ROOM_POLICY", "Release", "ReleasePass", "Releases", "RoomKeeper", "WaitingRooms", "room_id"]

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from quota_engine.admission import room_pass
from quota_engine.admission.policy import PassRequiredPolicy, PolicyRequest, PolicyResult
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, day_terms, get_office, next_release, opens_at_ms
from quota_engine.domain.errors import QuotaEngineError, UnknownName
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.waiting_room.machine import RoomStatus
from quota_engine.workflows.waiting_rooms import RoomSettings

CHANNEL: Final = "online"
"""The channel that waits. Who books at a kiosk or a counter stands in the office already."""
ROOM_POLICY: Final = "room"
"""The name of the policy that asks for passes."""
CLOCK_MARGIN_MS: Final = 300_000
"""So long before the opening a pass is asked for already: the clock of this process may be late by as much."""
TICK_MS: Final = 1_000
_LOOK_MS: Final = 30_000
"""How often a room is looked after that does not open soon."""
_RETRY_MS: Final = 5_000
_KEPT_MAX: Final = 50_000

_logger = logging.getLogger("quota_engine.service")


class WaitingRooms(msgspec.Struct, frozen=True):
    """Which offices have waiting rooms, when people may join before an opening, how long a room lasts after it, and
    how it works.
    """

    offices: tuple[str, ...]
    joins_before_ms: int = 3_600_000
    lasts_ms: int = 7_200_000
    settings: RoomSettings = RoomSettings()


class Release(NamedTuple):
    """The days of an office that open at one moment, and their waiting room."""

    office: str
    room: str
    opens_at_ms: int
    closes_at_ms: int
    join_opens_at_ms: int
    first_day: datetime.date
    last_day: datetime.date


def room_id(office: str, opens_at_ms: int) -> str:
    """The id of the room of a release: the office, and the opening in UTC, as in ``surabaya-20261204T0700``."""
    opening = datetime.datetime.fromtimestamp(opens_at_ms / 1_000, tz=datetime.UTC)
    return f"{office}-{opening:%Y%m%dT%H%M}"


class _Plan(NamedTuple):
    """The releases of an office that run or come next, and until when that holds."""

    releases: tuple[Release, ...]
    until_ms: int


class Releases:
    """The releases of the offices that have waiting rooms. Asks nobody."""

    def __init__(self, catalog: Catalog, rooms: WaitingRooms) -> None:
        self.catalog = catalog
        self.rooms = rooms
        self._offices = frozenset(rooms.offices)
        self._plans: dict[str, _Plan] = {}
        self._of_day: dict[tuple[str, int], Release | None] = {}
        self._ends: dict[str, int] = {}

    def of_day(self, office: str, day: int) -> Release | None:
        """The release that a day (an ordinal) belongs to; ``None`` if it has no waiting room.

        Raises:
            InvalidRequest: a day before 1972 or after 2098.
        """
        if office not in self._offices:
            return None
        key = (office, day)
        if key not in self._of_day:
            if len(self._of_day) >= _KEPT_MAX:
                self._of_day.clear()
            self._of_day[key] = self._release_of(office, day)
        return self._of_day[key]

    def rooms_of(self, office: str, now_ms: int) -> tuple[Release, ...]:
        """The releases of an office that are running, first to last, and the next one."""
        if office not in self._offices:
            return ()
        return tuple(one for one in self._plan(office, now_ms).releases if now_ms < self.end_ms(one))

    def room_of(self, office: str, now_ms: int) -> str | None:
        """The id of the room that people should go to: the running one, or else the next; ``None`` if there is none."""
        found = self.rooms_of(office, now_ms)
        return found[0].room if found else None

    def end_ms(self, release: Release) -> int:
        """When its room ends, or has ended, as far as is known here."""
        return self._ends.get(release.room, release.closes_at_ms)

    def needs_pass(self, office: str, day: int, channel: str, now_ms: int) -> bool:
        """Whether a reserve needs the pass of a room: from shortly before the opening to the end of the room.

        (Before that the quota is not open, which is for the store to say.)
        """
        if channel != CHANNEL:
            return False
        release = self.of_day(office, day)
        return release is not None and release.opens_at_ms - CLOCK_MARGIN_MS <= now_ms < self.end_ms(release)

    def told(self, release: Release, end_ms: int) -> None:
        """Its room ends then: it was closed early, say, or it was never made (0)."""
        if len(self._ends) >= _KEPT_MAX:
            self._ends.clear()
        self._ends[release.room] = end_ms

    def _release_of(self, office: str, day: int) -> Release | None:
        date = datetime.date.fromordinal(day)
        day_terms(self.catalog, office, date)  # says which days there can be
        view = get_office(self.catalog, office)
        # A day on which nobody works may be on sale all the same: it was published before it became a holiday.
        opening_ms = opens_at_ms(view.schedule, view.zone, view.calendar, date)
        found = next_release(self.catalog, office, opening_ms - 1)
        return None if found is None or found[0] != opening_ms else self._release(office, *found)

    def _release(self, office: str, opening_ms: int, days: tuple[datetime.date, ...]) -> Release:
        return Release(
            office,
            room_id(office, opening_ms),
            opening_ms,
            opening_ms + self.rooms.lasts_ms,
            max(0, opening_ms - self.rooms.joins_before_ms),
            days[0],
            days[-1],
        )

    def _plan(self, office: str, now_ms: int) -> _Plan:
        plan = self._plans.get(office)
        if plan is not None and now_ms < plan.until_ms:
            return plan
        releases: list[Release] = []
        after_ms = max(0, now_ms - self.rooms.lasts_ms)
        until_ms = now_ms + 86_400_000
        while True:
            found = next_release(self.catalog, office, after_ms)
            if found is None:
                break
            after_ms, days = found
            releases.append(self._release(office, after_ms, days))
            if after_ms > now_ms:
                until_ms = after_ms
                break
        plan = self._plans[office] = _Plan(tuple(releases), until_ms)
        return plan


class ReleasePass:
    """The policy that goes with the rooms: an online reserve of a release's days needs its room's pass, until the room
    has ended. Who brings none finds a place that they have, as with :func:`~quota_engine.admission.room_pass`.
    """

    def __init__(self, releases: Releases, keys: TicketKeys) -> None:
        self._releases = releases
        self._pass: PassRequiredPolicy = room_pass(keys, ROOM_POLICY, finds_existing=True)

    @property
    def name(self) -> str:
        """``room``."""
        return ROOM_POLICY

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`quota_engine.admission.policy.Policy.judge`."""
        if self._releases.needs_pass(request.office, request.day, request.choice.channel, request.now_ms):
            return self._pass.decide(request)
        return PolicyResult()


class RoomKeeper:
    """Makes the room of each release, as soon as it is the next one, and sees that it goes on while nobody polls.

    What fails is logged, and tried again. A room that operators close early, or that could not be made before its
    opening, is told to the releases within :data:`TICK_MS`: then nobody needs a pass any more.
    """

    def __init__(self, engine: AsyncQuotaEngine, releases: Releases, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._releases = releases
        self._now_ms = now_ms
        self._made: set[str] = set()
        self._due_ms: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the rooms that are due now, and go on in a task."""
        await self.tick()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_MS / 1_000)
            try:
                await self.tick()
            except Exception:  # whatever it was, the rooms after it must still be made
                _logger.exception("waiting rooms: a look failed")

    async def tick(self) -> None:
        """Do what is due."""
        now_ms = self._now_ms()
        known = [one for office in self._releases.rooms.offices for one in self._releases.rooms_of(office, now_ms)]
        names = {one.room for one in known}
        self._made &= names
        self._due_ms = {room: at_ms for room, at_ms in self._due_ms.items() if room in names}
        due = [one for one in known if self._due_ms.get(one.room, 0) <= now_ms]
        await asyncio.gather(*(self._see_to(release, now_ms) for release in due))

    async def _see_to(self, release: Release, now_ms: int) -> None:
        room = release.room
        is_near = now_ms >= release.opens_at_ms - CLOCK_MARGIN_MS
        self._due_ms[room] = now_ms + (0 if is_near else _LOOK_MS)
        try:
            if room not in self._made:
                await self._make(release)
            else:
                await self._look(release)
        except UnknownName:
            self._made.discard(room)  # the store has lost it
            self._due_ms[room] = now_ms
        except QuotaEngineError as error:
            _logger.warning("waiting room %s: %s", room, error)
            self._due_ms[room] = now_ms + (0 if room in self._made else _RETRY_MS)

    async def _make(self, release: Release) -> None:
        rooms = self._releases.rooms
        status = await self._engine.room(release.room).create(
            release.office,
            release.first_day,
            release.last_day,
            opens_at=release.opens_at_ms,
            closes_at=release.closes_at_ms,
            join_opens_at=release.join_opens_at_ms,
            channel=CHANNEL,
            settings=rooms.settings,
        )
        if status is RoomStatus.OVERLOADED:
            return
        self._made.add(release.room)
        if status is RoomStatus.ROOM_CLOSED:
            _logger.warning("waiting room %s: it should have opened already; nobody needs a pass", release.room)
            self._releases.told(release, 0)
        elif status is RoomStatus.CONFLICT:
            _logger.warning("waiting room %s: it was made in another way, and stays as it is", release.room)
        else:
            _logger.info("waiting room %s is there", release.room)

    async def _look(self, release: Release) -> None:
        view = await self._engine.room(release.room).view()
        self._releases.told(release, view.closed_at_ms or view.config.closes_at_ms)
