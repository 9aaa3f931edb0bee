"""Encoded responses about waiting rooms: each view of a room is encoded once for all clients that poll it."""

from __future__ import annotations

__all__ = ["RoomResponseCache", "RoomStreamState"]

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from quota_engine.api_schema.rooms import room_body
from quota_engine.service.http.responses import ApiResponse, etag_response
from quota_engine.service.shared_cache import SharedCache
from quota_engine.waiting_room.results import RoomView

_ROOMS_MAX: Final = 1_000


class RoomStreamState(NamedTuple):
    """State of a room as event streams compare it: equal snapshots mean that no ticket's status has changed."""

    content: bytes
    """The room's body as JSON."""
    changed_at_ms: int
    """Time of the room's last change. Some changes move tickets on without changing the body."""


class RoomResponseCache:
    """The last response of each room."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._rooms: SharedCache[tuple[ApiResponse, RoomStreamState]] = SharedCache(_ROOMS_MAX, now_ms)

    def response(self, room: str, view: RoomView) -> ApiResponse:
        """Return the response to a poll of the room."""
        return self._get(room, view)[0]

    def snapshot(self, room: str, view: RoomView) -> RoomStreamState:
        """Return the state that event streams of the room compare."""
        return self._get(room, view)[1]

    def _get(self, room: str, view: RoomView) -> tuple[ApiResponse, RoomStreamState]:
        def make() -> tuple[tuple[ApiResponse, RoomStreamState], float]:
            response = etag_response(room_body(room, view))
            return (response, RoomStreamState(response.body, view.changed_at_ms)), math.inf

        return self._rooms.get(room, (view,), make)
