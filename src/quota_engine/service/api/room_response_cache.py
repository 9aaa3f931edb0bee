"""What all who look at the same room are told, made once for each look at it."""

from __future__ import annotations

__all__ = ["RoomLooks", "RoomSummary"]

from typing import Final, NamedTuple

from quota_engine.api_schema.rooms import room_body
from quota_engine.service.http.endpoint import Reply, tagged_reply
from quota_engine.waiting_room.machine import RoomView

_KEPT_MAX: Final = 1_000


class RoomSummary(NamedTuple):
    """What a stream goes by: two that are equal tell nobody anything new, whatever their tickets."""

    content: bytes
    """The room's body, as JSON."""
    changed_at_ms: int
    """When the room last changed: also what it does not show moves tickets on."""


class _Kept(NamedTuple):
    view: RoomView
    reply: Reply
    look: RoomSummary


class RoomLooks:
    """Keeps the last answer for each room."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def reply(self, room: str, view: RoomView) -> Reply:
        """The answer to a poll."""
        return self._of(room, view).reply

    def look(self, room: str, view: RoomView) -> RoomSummary:
        """What streams go by."""
        return self._of(room, view).look

    def _of(self, room: str, view: RoomView) -> _Kept:
        kept = self._kept.get(room)
        if kept is None or kept.view is not view:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            reply = tagged_reply(room_body(room, view))
            kept = self._kept[room] = _Kept(view, reply, RoomSummary(reply.body, view.changed_at_ms))
        return kept
