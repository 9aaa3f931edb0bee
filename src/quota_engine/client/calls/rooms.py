"""Calls about waiting rooms.

An invalid ticket raises :class:`~quota_engine.InvalidRequest`, an unknown room :class:`~quota_engine.UnknownName`.
"""

from __future__ import annotations

__all__ = ["RoomCalls", "RoomChanged"]

from typing import Final

import msgspec

from quota_engine.api_schema.problems import ProblemBody
from quota_engine.api_schema.rooms import EnterResultBody, RoomBody, TicketBody
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.client.call_protocol import CallBase, CallFlow, Retries, segment
from quota_engine.client.calls.common import day_text
from quota_engine.client.decoding import ServiceTicketStatus, ticket_status_of
from quota_engine.client.service_clock import ServiceClock
from quota_engine.waiting_room.results import RoomStatus
from quota_engine.waiting_room.ticket_status import TicketPhase
from quota_engine.waiting_room.transcript import RoomTranscript
from quota_engine.workflows.arguments import Day, Moment, moment_ms
from quota_engine.workflows.room_config import RoomSettings
from quota_engine.workflows.room_view_cache import EnterResult
from quota_engine.workflows.waiting_rooms import JoinResult

_DEFAULT_SETTINGS: Final = RoomSettings()


class RoomChanged(msgspec.Struct, frozen=True):
    """Result of an operator's command: the status, and the room after it unless it was refused.

    ``room_epoch`` is the present epoch of the room, for ``EPOCH_CHANGED``.
    """

    status: RoomStatus
    retry_at_ms: int = 0
    view: RoomBody | None = None
    room_epoch: int = 0

    @property
    def ok(self) -> bool:
        """True if the command was applied."""
        return self.status is RoomStatus.DONE


class RoomCalls(CallBase):
    """Calls of one room."""

    def __init__(self, retries: Retries, room: str, clock: ServiceClock | None = None) -> None:
        super().__init__(retries, clock)
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
    ) -> CallFlow[RoomStatus]:
        """See :meth:`quota_engine.WaitingRoom.create`."""
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

    def join(self, identity: str, *, replaces_ticket: str | None = None) -> CallFlow[JoinResult]:
        """See :meth:`quota_engine.WaitingRoom.join`."""
        body: dict[str, object] = {"identity": identity, "replaces_ticket": replaces_ticket}
        found = yield from self._request_or_problem("POST", f"{self._path}/tickets", TicketBody, RoomStatus, body=body)
        if isinstance(found, ProblemBody):
            return JoinResult(RoomStatus(str(found.outcome)), retry_at_ms=found.retry_at_ms or 0)
        return JoinResult(RoomStatus.JOINED, found.ticket, found.number, found.replayed)

    def status(self, ticket: str) -> CallFlow[ServiceTicketStatus]:
        """See :meth:`quota_engine.WaitingRoom.status`.

        The client polls again after ``poll_after_ms``.
        """
        path = f"{self._path}/tickets/{segment(ticket, 'ticket')}"
        return ticket_status_of((yield from self._request("GET", path, TicketStatusBody)))

    def enter(self, ticket: str, identity: str) -> CallFlow[EnterResult]:
        """See :meth:`quota_engine.WaitingRoom.enter`.

        Its ``ticket_status`` is a :class:`ServiceTicketStatus`.
        """
        body: dict[str, object] = {"ticket": ticket, "identity": identity}
        found = yield from self._request_or_problem(
            "POST", f"{self._path}/enter", EnterResultBody, TicketPhase, body=body
        )
        assert found.ticket_status, "a refusal by phase carries the ticket's status"
        if isinstance(found, ProblemBody):
            return EnterResult(ticket_status_of(found.ticket_status))
        return EnterResult(ticket_status_of(found.ticket_status), found.admission_pass, found.until_at_ms)

    def open(self, entropy: str, *, epoch: int = 0) -> CallFlow[RoomChanged]:
        """See :meth:`quota_engine.WaitingRoom.open`."""
        return self._change("POST", "/open", {"entropy": entropy, "epoch": epoch})

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> CallFlow[RoomChanged]:
        """See :meth:`quota_engine.WaitingRoom.set_pace`."""
        return self._change("PUT", "/pace", {"per_minute_min": per_minute_min, "per_minute_max": per_minute_max})

    def close(self) -> CallFlow[RoomChanged]:
        """See :meth:`quota_engine.WaitingRoom.close`."""
        return self._change("POST", "/close", None)

    def view(self) -> CallFlow[RoomBody]:
        """Return the public state of the room; see :meth:`quota_engine.WaitingRoom.view`."""
        return self._request("GET", self._path, RoomBody)

    def transcript(self) -> CallFlow[RoomTranscript]:
        """See :meth:`quota_engine.WaitingRoom.transcript`."""
        return self._request("GET", f"{self._path}/transcript", RoomTranscript)

    def _change(self, method: str, rest: str, body: dict[str, object] | None) -> CallFlow[RoomChanged]:
        found = yield from self._request_or_problem(method, f"{self._path}{rest}", RoomBody, RoomStatus, body=body)
        if isinstance(found, ProblemBody):
            return RoomChanged(RoomStatus(str(found.outcome)), found.retry_at_ms or 0, room_epoch=found.epoch or 0)
        return RoomChanged(RoomStatus.DONE, view=found)
