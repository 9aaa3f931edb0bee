"""Waiting rooms. A ticket that is not a good one is an :class:`~quota_engine.InvalidRequest`, a room that is not there
an :class:`~quota_engine.UnknownName`.
"""

from __future__ import annotations

__all__ = ["RoomCalls", "RoomChanged"]

from typing import Final

import msgspec

from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.rooms import EnterResultBody, RoomBody, TicketBody
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.client.call_protocol import Retries, Speaker, Talk, segment
from quota_engine.client.calls.common import day_text
from quota_engine.client.decoding import ServiceTicketStatus, ticket_status_of
from quota_engine.waiting_room.machine import RoomStatus
from quota_engine.waiting_room.ticket_status import TicketPhase
from quota_engine.waiting_room.transcript import RoomTranscript
from quota_engine.workflows.arguments import Day, Moment, moment_ms
from quota_engine.workflows.room_config import RoomSettings
from quota_engine.workflows.room_view_cache import EnterResult
from quota_engine.workflows.waiting_rooms import JoinResult

_DEFAULT_SETTINGS: Final = RoomSettings()


class RoomChanged(msgspec.Struct, frozen=True):
    """What a command of an operator came to, and the room as it is then, unless it was refused."""

    status: RoomStatus
    retry_at_ms: int = 0
    view: RoomBody | None = None

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status is RoomStatus.DONE


class RoomCalls(Speaker):
    """The calls of one room."""

    def __init__(self, retries: Retries, room: str) -> None:
        super().__init__(retries)
        self._path = f"/v1/rooms/{segment(room, 'room')}"

    def create(
        self,
        office: str,
        first_day: Day,
        last_day: Day | None = None,
        *,
        opens_at: Moment,
        closes_at: Moment | None = None,
        join_opens_at: Moment | None = None,
        entropy_source: str = "",
        channel: str = "online",
        group: str = "",
        settings: RoomSettings = _DEFAULT_SETTINGS,
    ) -> Talk[RoomStatus]:
        """See :meth:`quota_engine.Room.create`."""
        body: dict[str, object] = {
            "office": office,
            "first_day": day_text(first_day),
            "last_day": None if last_day is None else day_text(last_day),
            "opens_at_ms": moment_ms(opens_at, "opens_at"),
            "closes_at_ms": None if closes_at is None else moment_ms(closes_at, "closes_at"),
            "join_opens_at_ms": None if join_opens_at is None else moment_ms(join_opens_at, "join_opens_at"),
            "entropy_source": entropy_source,
            "channel": channel,
            "group": group,
            "settings": msgspec.structs.asdict(settings),
        }
        return (yield from self._change("PUT", "", body)).status

    def join(self, identity: str, *, replaces_ticket: str | None = None) -> Talk[JoinResult]:
        """See :meth:`quota_engine.Room.join`."""
        body: dict[str, object] = {"identity": identity, "replaces_ticket": replaces_ticket}
        found = yield from self._asked("POST", f"{self._path}/tickets", TicketBody, RoomStatus, body=body)
        if isinstance(found, ProblemBody):
            return JoinResult(RoomStatus(str(found.outcome)), retry_at_ms=found.retry_at_ms or 0)
        return JoinResult(RoomStatus.JOINED, found.ticket, found.replayed)

    def status(self, ticket: str) -> Talk[ServiceTicketStatus]:
        """See :meth:`quota_engine.Room.status`; ``poll_after_ms`` says when to ask again."""
        path = f"{self._path}/tickets/{segment(ticket, 'ticket')}"
        return ticket_status_of((yield from self._ask("GET", path, TicketStatusBody)))

    def enter(self, ticket: str, identity: str) -> Talk[EnterResult]:
        """See :meth:`quota_engine.Room.enter`; the standing is a :class:`ServiceTicketStatus`."""
        body: dict[str, object] = {"ticket": ticket, "identity": identity}
        found = yield from self._asked("POST", f"{self._path}/enter", EnterResultBody, TicketPhase, body=body)
        assert found.ticket_status, "whoever is refused in the word of a phase is told how the ticket stands"
        if isinstance(found, ProblemBody):
            return EnterResult(ticket_status_of(found.ticket_status))
        return EnterResult(ticket_status_of(found.ticket_status), found.admission_pass, found.until_at_ms)

    def open(self, entropy: str) -> Talk[RoomChanged]:
        """See :meth:`quota_engine.Room.open`."""
        return self._change("POST", "/open", {"entropy": entropy})

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> Talk[RoomChanged]:
        """See :meth:`quota_engine.Room.set_pace`."""
        return self._change("PUT", "/pace", {"per_minute_min": per_minute_min, "per_minute_max": per_minute_max})

    def close(self) -> Talk[RoomChanged]:
        """See :meth:`quota_engine.Room.close`."""
        return self._change("POST", "/close", None)

    def view(self) -> Talk[RoomBody]:
        """The room as everybody is told of it; see :meth:`quota_engine.Room.view`."""
        return self._ask("GET", self._path, RoomBody)

    def transcript(self) -> Talk[RoomTranscript]:
        """See :meth:`quota_engine.Room.record`."""
        return self._ask("GET", f"{self._path}/transcript", RoomTranscript)

    def _change(self, method: str, rest: str, body: dict[str, object] | None) -> Talk[RoomChanged]:
        found = yield from self._asked(method, f"{self._path}{rest}", RoomBody, RoomStatus, body=body)
        if isinstance(found, ProblemBody):
            return RoomChanged(RoomStatus(str(found.outcome)), found.retry_at_ms or 0)
        return RoomChanged(RoomStatus.DONE, view=found)
