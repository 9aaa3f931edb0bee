"""What ``quota-engine watch`` looks at: a store, or a service in front of one. Both tell the same."""

from __future__ import annotations

__all__ = ["OfficeSnapshot", "ServiceSource", "StoreSource", "WatchSelection", "WatchSnapshot", "WatchSource"]

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from quota_engine.cli.status import Office, offices_of
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.day_summary import day_to_builtins
from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.domain.outcomes import DayView
from quota_engine.draws.ledger import DrawView, ReadDraw
from quota_engine.draws.ledger import address_of as draw_place
from quota_engine.draws.summary import DrawSummary, summarize_draw
from quota_engine.ports import Audit, Query, Store, View
from quota_engine.waiting_room.machine import RoomStatus, ViewRoom
from quota_engine.waiting_room.releases import room_id
from quota_engine.waiting_room.summary import RoomSummary, room_opening_times, summarize_room

if TYPE_CHECKING:
    from quota_engine.cli.service_client import OperatorClient

T = TypeVar("T")

_ROOM_DAYS: Final = 62
"""Waiting rooms are looked for among the openings of so many days."""


class OfficeSnapshot(msgspec.Struct, frozen=True):
    """One office: its days, and its waiting rooms as far as there are any."""

    office: str
    days: tuple[DayView, ...]
    rooms: tuple[RoomSummary, ...]


class WatchSnapshot(msgspec.Struct, frozen=True):
    """Everything that is watched, at a moment."""

    at_ms: int
    offices: tuple[OfficeSnapshot, ...]
    draws: tuple[DrawSummary, ...] = ()

    def plain(self, verdict: AuditSummary | None) -> dict[str, Any]:
        """It as JSON, with the verdict of the last audit."""
        return {
            "at_ms": self.at_ms,
            "offices": [
                {
                    "office": one.office,
                    "days": [day_to_builtins(view) for view in one.days],
                    "rooms": [msgspec.to_builtins(room) for room in one.rooms],
                }
                for one in self.offices
            ],
            "draws": [msgspec.to_builtins(draw) for draw in self.draws],
            "verdict": verdict.to_builtins() if verdict else None,
        }


class WatchSelection(msgspec.Struct, frozen=True):
    """What is wanted of it: offices (none named: all), waiting rooms besides those of the offices' releases, draws,
    and days (ordinals, one after the other).
    """

    offices: Office
    rooms: tuple[str, ...]
    draws: tuple[str, ...]
    days: tuple[int, ...]


class WatchSource(Protocol):
    """Where looks come from."""

    noun: str
    """What it is called."""

    def take_snapshot(self) -> WatchSnapshot:
        """Look now."""
        ...

    def audit(self) -> AuditSummary:
        """Work everything out again. Takes its time, and may run beside a look."""
        ...


class _Watched:
    """What a look is put together from. Each kind of subject says how it asks for the parts."""

    noun = ""

    def __init__(self, subject: WatchSelection, now_ms: Callable[[], int]) -> None:
        self._subject = subject
        self._now_ms = now_ms

    def take_snapshot(self) -> WatchSnapshot:
        now_ms = self._now_ms()
        subject = self._subject
        offices = [self._office(office, now_ms) for office in self._offices()]
        known = {room.room for one in offices for room in one.rooms}
        named = [
            self._there(self._room(name), "--room", name, "waiting room") for name in subject.rooms if name not in known
        ]
        draws = [self._there(self._draw(name), "--draw", name, "draw") for name in subject.draws]
        return WatchSnapshot(now_ms, tuple(_with_rooms(one, named) for one in offices), tuple(draws))

    def audit(self) -> AuditSummary:
        at_ms, offices = self._now_ms(), self._offices()
        return AuditSummary(at_ms, len(offices), tuple(line for office in offices for line in self._findings(office)))

    def _there(self, found: T | None, where: str, name: str, kind: str) -> T:
        if found is None:
            raise InvalidRequest(where, repr(name), f"the id of a {kind} that the {self.noun} has")
        return found

    def _office(self, office: str, now_ms: int) -> OfficeSnapshot:
        days = self._subject.days
        first = min(days[0], datetime.datetime.fromtimestamp(now_ms / 1000, tz=datetime.UTC).toordinal())
        last = max(days[-1], first + _ROOM_DAYS - 1)
        views = self._views(office, first, last)
        found = [self._room(room_id(office, moment)) for moment in room_opening_times(views, now_ms)]
        shown = tuple(view for view in views if days[0] <= view.day <= days[-1])
        return OfficeSnapshot(office, shown, tuple(room for room in found if room is not None))

    def _offices(self) -> list[str]:
        raise NotImplementedError

    def _views(self, office: str, first: int, last: int) -> list[DayView]:
        raise NotImplementedError

    def _room(self, room: str) -> RoomSummary | None:
        raise NotImplementedError

    def _draw(self, draw: str) -> DrawSummary | None:
        raise NotImplementedError

    def _findings(self, office: str) -> list[str]:
        raise NotImplementedError


class StoreSource(_Watched):
    """A store, looked at directly: needs no catalog, and moves no waiting room on."""

    noun = "store"

    def __init__(self, store: Store, subject: WatchSelection, now_ms: Callable[[], int]) -> None:
        super().__init__(subject, now_ms)
        self._store = store

    def _offices(self) -> list[str]:
        return offices_of(self._store, self._subject.offices)

    def _views(self, office: str, first: int, last: int) -> list[DayView]:
        return self._store.execute(View(office, tuple(range(first, last + 1))))

    def _room(self, room: str) -> RoomSummary | None:
        answer = self._store.execute(Query(f"~room.{room}", ViewRoom()))
        return (
            None if answer.status is RoomStatus.NOT_FOUND or answer.view is None else summarize_room(room, answer.view)
        )

    def _draw(self, draw: str) -> DrawSummary | None:
        view: DrawView | None = self._store.execute(Query(draw_place(draw), ReadDraw()))
        return None if view is None else summarize_draw(view)

    def _findings(self, office: str) -> list[str]:
        return self._store.execute(Audit(office))


class ServiceSource(_Watched):
    """A running service, looked at over HTTP: the offices are those of its catalog."""

    noun = "service"

    def __init__(self, client: OperatorClient, subject: WatchSelection, now_ms: Callable[[], int]) -> None:
        super().__init__(subject, now_ms)
        self._client = client
        known = [one.id for one in client.describe_offices().offices]  # a service has one catalog as long as it runs
        for name in subject.offices:
            if name not in known:
                raise InvalidRequest("--office", repr(name[:64]), f"one of {', '.join(known[:12])}")
        self._known = [name for name in known if not subject.offices or name in subject.offices]

    def _offices(self) -> list[str]:
        return self._known

    def _views(self, office: str, first: int, last: int) -> list[DayView]:
        return self._client.availability(office, first, last)

    def _room(self, room: str) -> RoomSummary | None:
        try:
            return self._client.summarize_room(room)
        except UnknownName:
            return None

    def _draw(self, draw: str) -> DrawSummary | None:
        return self._client.summarize_draw(draw)

    def _findings(self, office: str) -> list[str]:
        return list(self._client.audit(office).findings)


def _with_rooms(one: OfficeSnapshot, named: list[RoomSummary]) -> OfficeSnapshot:
    return OfficeSnapshot(one.office, one.days, (*one.rooms, *(room for room in named if room.office == one.office)))
