"""Releases of offices with waiting rooms: which one is next or running, and which places need a room's pass.

A release is all days of an office that open at one moment. :class:`Releases` follows from the catalog, a
:class:`WaitingRoomSchedule` and the time, and from the room ends that its owner reports. It calls no store.
"""

from __future__ import annotations

__all__ = [
    "CHANNEL",
    "CLOCK_MARGIN_MS",
    "ROOM_POLICY",
    "ReleasePassPolicy",
    "Releases",
    "ScheduledRelease",
    "WaitingRoomSchedule",
    "room_id",
]

import datetime
from typing import Final, NamedTuple

import msgspec

from quota_engine.admission import room_pass
from quota_engine.admission.policy import PassRequiredPolicy, PolicyRequest, PolicyResult
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, day_terms, get_office, next_release, opens_at_ms

CHANNEL: Final = "online"
"""The channel that needs a pass. Applicants of the other channels are already at the office."""
ROOM_POLICY: Final = "room"
"""Name of the policy that requires passes."""
CLOCK_MARGIN_MS: Final = 300_000
"""Time before the opening from which a pass is required, because this process's clock may be late."""
_DAY_MS: Final = 86_400_000
_CACHED_MAX: Final = 50_000


class WaitingRoomSchedule(msgspec.Struct, frozen=True):
    """Offices with waiting rooms, and the times of their rooms.

    Attributes:
        offices: ids of the catalog's offices.
        join_opens_before_ms: how long before the opening applicants may join, in milliseconds.
        duration_ms: how long after the opening a room closes, in milliseconds.
    """

    offices: tuple[str, ...]
    join_opens_before_ms: int = 3_600_000
    duration_ms: int = 7_200_000


class ScheduledRelease(NamedTuple):
    """The days of an office that open at one moment, and the times of their waiting room."""

    office: str
    room: str
    opens_at_ms: int
    closes_at_ms: int
    join_opens_at_ms: int
    first_day: datetime.date
    last_day: datetime.date


def room_id(office: str, opens_at_ms: int) -> str:
    """Return the id of a release's room: the office and the opening in UTC, such as ``surabaya-20261204T0700``."""
    opening = datetime.datetime.fromtimestamp(opens_at_ms / 1_000, tz=datetime.UTC)
    return f"{office}-{opening:%Y%m%dT%H%M}"


class _ActiveReleases(NamedTuple):
    """An office's running releases and its next one, and the time until which this list is valid."""

    releases: tuple[ScheduledRelease, ...]
    valid_until_ms: int


class Releases:
    """The releases of the offices that have waiting rooms."""

    def __init__(self, catalog: Catalog, schedule: WaitingRoomSchedule) -> None:
        self.catalog = catalog
        self.schedule = schedule
        self._offices = frozenset(schedule.offices)
        self._active: dict[str, _ActiveReleases] = {}
        self._by_day: dict[tuple[str, int], ScheduledRelease | None] = {}
        self._room_ends_ms: dict[str, int] = {}

    def find_by_day(self, office: str, day: int) -> ScheduledRelease | None:
        """Return the release of a day; ``None`` if the day has no waiting room.

        Args:
            day: proleptic Gregorian ordinal.

        Raises:
            InvalidRequest: the day is before 1972 or after 2098.
        """
        if office not in self._offices:
            return None
        key = (office, day)
        if key not in self._by_day:
            if len(self._by_day) >= _CACHED_MAX:
                self._by_day.clear()
            self._by_day[key] = self._find(office, day)
        return self._by_day[key]

    def list_active(self, office: str, now_ms: int) -> tuple[ScheduledRelease, ...]:
        """Return the running releases of an office, oldest first, and the next one."""
        if office not in self._offices:
            return ()
        return tuple(release for release in self._list(office, now_ms) if now_ms < self.room_end_ms(release))

    def current_room(self, office: str, now_ms: int) -> str | None:
        """Return the id of the office's running room, or else of the next one; ``None`` if it has no rooms."""
        releases = self.list_active(office, now_ms)
        return releases[0].room if releases else None

    def room_end_ms(self, release: ScheduledRelease) -> int:
        """Return the time at which the room of a release ends or ended, as far as this process knows."""
        return self._room_ends_ms.get(release.room, release.closes_at_ms)

    def needs_pass(self, office: str, day: int, channel: str, now_ms: int) -> bool:
        """Return True if a place needs a room's pass: from shortly before the opening to the end of the room.

        Earlier the quota is not open, and the store refuses the command itself.
        """
        if channel != CHANNEL:
            return False
        release = self.find_by_day(office, day)
        return release is not None and release.opens_at_ms - CLOCK_MARGIN_MS <= now_ms < self.room_end_ms(release)

    def set_room_end(self, release: ScheduledRelease, end_ms: int) -> None:
        """Note that the room of a release ends at ``end_ms``; 0 if the room does not exist."""
        if len(self._room_ends_ms) >= _CACHED_MAX:
            self._room_ends_ms.clear()
        self._room_ends_ms[release.room] = end_ms

    def _find(self, office: str, day: int) -> ScheduledRelease | None:
        date = datetime.date.fromordinal(day)
        day_terms(self.catalog, office, date)  # raises for a day outside the supported years
        view = get_office(self.catalog, office)
        # The day may be a holiday by now and still on sale, if it was published before it became one.
        opening_ms = opens_at_ms(view.schedule, view.zone, view.calendar, date)
        found = next_release(self.catalog, office, opening_ms - 1)
        return None if found is None or found[0] != opening_ms else self._release(office, *found)

    def _release(self, office: str, opening_ms: int, days: tuple[datetime.date, ...]) -> ScheduledRelease:
        return ScheduledRelease(
            office,
            room_id(office, opening_ms),
            opening_ms,
            opening_ms + self.schedule.duration_ms,
            max(0, opening_ms - self.schedule.join_opens_before_ms),
            days[0],
            days[-1],
        )

    def _list(self, office: str, now_ms: int) -> tuple[ScheduledRelease, ...]:
        active = self._active.get(office)
        if active is not None and now_ms < active.valid_until_ms:
            return active.releases
        releases: list[ScheduledRelease] = []
        opening_ms = max(0, now_ms - self.schedule.duration_ms)
        valid_until_ms = now_ms + _DAY_MS
        while (found := next_release(self.catalog, office, opening_ms)) is not None:
            opening_ms, days = found
            releases.append(self._release(office, opening_ms, days))
            if opening_ms > now_ms:
                valid_until_ms = opening_ms
                break
        self._active[office] = _ActiveReleases(tuple(releases), valid_until_ms)
        return self._active[office].releases


class ReleasePassPolicy:
    """Policy that requires a room's pass for online places of a release's days, until the room has ended.

    Each call that takes such a place asks it: a reserve, a reschedule, a move from another office and a late confirm.

    A reserve without a pass still finds a place that its applicant already has; see
    :func:`~quota_engine.admission.room_pass`.
    """

    def __init__(self, releases: Releases, keys: TicketKeys) -> None:
        self._releases = releases
        self._pass_required: PassRequiredPolicy = room_pass(keys, ROOM_POLICY, finds_existing=True)

    @property
    def name(self) -> str:
        """Always :data:`ROOM_POLICY`."""
        return ROOM_POLICY

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`quota_engine.admission.policy.Policy.decide`."""
        if self._releases.needs_pass(request.office, request.day, request.choice.channel, request.now_ms):
            return self._pass_required.decide(request)
        return PolicyResult()
