"""Sources of ``quota-engine watch``: a store, or a service in front of one. Both give the same snapshots."""

from __future__ import annotations

__all__ = ["OfficeSnapshot", "ServiceSource", "StoreSource", "WatchSelection", "WatchSnapshot", "WatchSource"]

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from quota_engine.cli.store_access import OfficeIds, select_offices
from quota_engine.domain.audit_summary import AuditSummary
from quota_engine.domain.day_summary import day_to_builtins
from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.domain.outcomes import DayView
from quota_engine.draws.ledger import address_of as draw_address
from quota_engine.draws.queries import DrawView, ReadDraw
from quota_engine.draws.summary import DrawSummary, summarize_draw
from quota_engine.ports import Audit, Query, Store, View
from quota_engine.waiting_room.commands import ViewRoom
from quota_engine.waiting_room.releases import room_id
from quota_engine.waiting_room.results import RoomStatus
from quota_engine.waiting_room.summary import RoomSummary, room_opening_times, summarize_room

if TYPE_CHECKING:
    from quota_engine.cli.service_client import OperatorClient

T = TypeVar("T")

_ROOM_DAYS: Final = 62
"""Days whose openings are searched for waiting rooms."""


class OfficeSnapshot(msgspec.Struct, frozen=True):
    """Days and waiting rooms of one office."""

    office: str
    days: tuple[DayView, ...]
    rooms: tuple[RoomSummary, ...]


class WatchSnapshot(msgspec.Struct, frozen=True):
    """State of everything that is watched, at one moment."""

    at_ms: int
    offices: tuple[OfficeSnapshot, ...]
    draws: tuple[DrawSummary, ...] = ()

    def to_builtins(self, audit: AuditSummary | None) -> dict[str, Any]:
        """Return the snapshot for JSON, with the result of the last audit."""
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
            "audit": audit.to_builtins() if audit else None,
        }


class WatchSelection(msgspec.Struct, frozen=True):
    """Parts of a source to watch.

    Attributes:
        offices: Offices; empty selects all.
        rooms: Waiting rooms besides those of the offices' releases.
        draws: Draws.
        days: Ordinals of consecutive days.
    """

    offices: OfficeIds
    rooms: tuple[str, ...]
    draws: tuple[str, ...]
    days: tuple[int, ...]


class WatchSource(Protocol):
    """A source of snapshots."""

    noun: str
    """Word for the source in messages."""

    def take_snapshot(self) -> WatchSnapshot:
        """Return the current state."""
        ...

    def audit(self) -> AuditSummary:
        """Audit all offices. This can take minutes, and may run beside a snapshot."""
        ...


class _SourceBase:
    """Assembly of a snapshot from its parts, which each kind of source reads in its own way."""

    noun = ""

    def __init__(self, selection: WatchSelection, now_ms: Callable[[], int]) -> None:
        self._selection = selection
        self._now_ms = now_ms

    def take_snapshot(self) -> WatchSnapshot:
        now_ms = self._now_ms()
        selection = self._selection
        offices = [self._office(office, now_ms) for office in self._offices()]
        known = {room.room for one in offices for room in one.rooms}
        named = [
            self._require(self._room(name), "--room", name, "waiting room")
            for name in selection.rooms
            if name not in known
        ]
        draws = [self._require(self._draw(name), "--draw", name, "draw") for name in selection.draws]
        return WatchSnapshot(now_ms, tuple(_with_rooms(one, named) for one in offices), tuple(draws))

    def audit(self) -> AuditSummary:
        at_ms, offices = self._now_ms(), self._offices()
        return AuditSummary(at_ms, len(offices), tuple(line for office in offices for line in self._findings(office)))

    def _require(self, found: T | None, where: str, name: str, kind: str) -> T:
        if found is None:
            raise InvalidRequest(where, repr(name), f"the id of a {kind} that the {self.noun} has")
        return found

    def _office(self, office: str, now_ms: int) -> OfficeSnapshot:
        days = self._selection.days
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


class StoreSource(_SourceBase):
    """A store, read directly. It needs no catalog, and no waiting room advances because of it."""

    noun = "store"

    def __init__(self, store: Store, selection: WatchSelection, now_ms: Callable[[], int]) -> None:
        super().__init__(selection, now_ms)
        self._store = store

    def _offices(self) -> list[str]:
        return select_offices(self._store, self._selection.offices)

    def _views(self, office: str, first: int, last: int) -> list[DayView]:
        return self._store.execute(View(office, tuple(range(first, last + 1))))

    def _room(self, room: str) -> RoomSummary | None:
        result = self._store.execute(Query(f"~room.{room}", ViewRoom()))
        return (
            None if result.status is RoomStatus.NOT_FOUND or result.view is None else summarize_room(room, result.view)
        )

    def _draw(self, draw: str) -> DrawSummary | None:
        view: DrawView | None = self._store.execute(Query(draw_address(draw), ReadDraw()))
        return None if view is None else summarize_draw(view)

    def _findings(self, office: str) -> list[str]:
        return self._store.execute(Audit(office))


class ServiceSource(_SourceBase):
    """A running service, read over HTTP. The offices are those of its catalog."""

    noun = "service"

    def __init__(self, client: OperatorClient, selection: WatchSelection, now_ms: Callable[[], int]) -> None:
        super().__init__(selection, now_ms)
        self._client = client
        # The catalog of a running service does not change.
        known = [one.id for one in client.describe_offices().offices]
        for name in selection.offices:
            if name not in known:
                raise InvalidRequest("--office", repr(name[:64]), f"one of {', '.join(known[:12])}")
        self._known = [name for name in known if not selection.offices or name in selection.offices]

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
