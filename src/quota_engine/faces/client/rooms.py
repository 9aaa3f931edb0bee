"""Waiting rooms through a service: what :class:`quota_engine.Room` and :class:`quota_engine.AsyncRoom` do, over HTTP.

A refusal is an answer, as with the engine. A ticket that is not a good one is an
:class:`~quota_engine.InvalidRequest`, a room that is not there an :class:`~quota_engine.UnknownName`.
"""

from __future__ import annotations

__all__ = ["AsyncServiceRoom", "ClientAdmission", "RoomCalls", "RoomChanged", "ServiceRoom"]

import datetime
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from quota_engine.admission.room import RoomStatus
from quota_engine.admission.room_record import RoomRecord
from quota_engine.admission.room_standing import Phase
from quota_engine.faces.client.talk import Retries, Talk, ask, asked
from quota_engine.faces.service.wire.core import ProblemBody
from quota_engine.faces.service.wire.rooms import AdmissionBody, RoomBody, StandingBody, TicketBody
from quota_engine.flow.rooms import Moment, RoomSettings, RoomTicket, moment_ms

T = TypeVar("T")
Day = datetime.date | str
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


class ClientAdmission(msgspec.Struct, frozen=True):
    """What came of entering: the pass, good until ``until_ms``, if the ticket has its turn (``standing`` tells)."""

    standing: StandingBody
    admission_pass: str = ""
    until_ms: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is a pass."""
        return self.standing.phase is Phase.CALLED


class RoomCalls:
    """Makes the calls of one room."""

    def __init__(self, retries: Retries, room: str) -> None:
        self._retries = retries
        self._path = f"/v1/rooms/{quote(room, safe='')}"

    def create(self, body: dict[str, object]) -> Talk[RoomStatus]:
        """See :meth:`quota_engine.Room.create`."""
        return (yield from self._change("PUT", "", body)).status

    def join(self, identity: str, instead_of: str | None) -> Talk[RoomTicket]:
        """See :meth:`quota_engine.Room.join`."""
        body = {"identity": identity, "instead_of": instead_of}
        found = yield from asked(self._retries, "POST", f"{self._path}/tickets", TicketBody, body=body)
        if isinstance(found, ProblemBody):
            return RoomTicket(RoomStatus(str(found.outcome)), retry_at_ms=found.retry_at_ms or 0)
        return RoomTicket(RoomStatus.JOINED, found.ticket, found.replayed)

    def status(self, ticket: str) -> Talk[StandingBody]:
        """See :meth:`quota_engine.Room.status`."""
        return ask(self._retries, "GET", f"{self._path}/tickets/{quote(ticket, safe='')}", StandingBody)

    def enter(self, ticket: str, identity: str) -> Talk[ClientAdmission]:
        """See :meth:`quota_engine.Room.enter`."""
        body = {"ticket": ticket, "identity": identity}
        found = yield from asked(self._retries, "POST", f"{self._path}/admission", AdmissionBody, body=body)
        if isinstance(found, ProblemBody):
            assert isinstance(found.standing, StandingBody)
            return ClientAdmission(found.standing)
        return ClientAdmission(found.standing, found.admission_pass, found.until_at_ms)

    def change(self, method: str, rest: str, body: dict[str, object] | None) -> Talk[RoomChanged]:
        """A command of an operator."""
        return self._change(method, rest, body)

    def view(self) -> Talk[RoomBody]:
        """See :meth:`quota_engine.Room.view`."""
        return ask(self._retries, "GET", self._path, RoomBody)

    def record(self) -> Talk[RoomRecord]:
        """See :meth:`quota_engine.Room.record`."""
        return ask(self._retries, "GET", f"{self._path}/record", RoomRecord)

    def _change(self, method: str, rest: str, body: dict[str, object] | None) -> Talk[RoomChanged]:
        found = yield from asked(self._retries, method, f"{self._path}{rest}", RoomBody, body=body)
        if isinstance(found, ProblemBody):
            return RoomChanged(RoomStatus(str(found.outcome)), found.retry_at_ms or 0)
        return RoomChanged(RoomStatus.DONE, view=found)


def _creation(
    office: str,
    first_day: Day,
    last_day: Day | None,
    opens_at: Moment,
    closes_at: Moment | None,
    joins_from: Moment | None,
    more: dict[str, object],
    settings: RoomSettings,
) -> dict[str, object]:
    return {
        "office": office,
        "first_day": str(first_day),
        "last_day": None if last_day is None else str(last_day),
        "opens_at_ms": moment_ms(opens_at, "opens_at"),
        "closes_at_ms": None if closes_at is None else moment_ms(closes_at, "closes_at"),
        "joins_from_at_ms": None if joins_from is None else moment_ms(joins_from, "joins_from"),
        "settings": msgspec.structs.asdict(settings),
        **more,
    }


class ServiceRoom:
    """A waiting room, as ``client.room("id")`` gives it. The methods are those of :class:`quota_engine.Room`."""

    def __init__(self, calls: RoomCalls, run: Callable[[Talk[Any]], Any]) -> None:
        self._calls = calls
        self._run = run

    def create(
        self, office: str, first_day: Day, last_day: Day | None = None, *, opens_at: Moment,
        closes_at: Moment | None = None, joins_from: Moment | None = None, entropy_source: str = "",
        channel: str = "online", group: str = "", settings: RoomSettings = _DEFAULT_SETTINGS,
    ) -> RoomStatus:  # fmt: skip
        """See :meth:`quota_engine.Room.create`."""
        more: dict[str, object] = {"entropy_source": entropy_source, "channel": channel, "group": group}
        body = _creation(office, first_day, last_day, opens_at, closes_at, joins_from, more, settings)
        status: RoomStatus = self._run(self._calls.create(body))
        return status

    def join(self, identity: str, *, instead_of: str | None = None) -> RoomTicket:
        """See :meth:`quota_engine.Room.join`."""
        found: RoomTicket = self._run(self._calls.join(identity, instead_of))
        return found

    def status(self, ticket: str) -> StandingBody:
        """See :meth:`quota_engine.Room.status`; ``poll_after_ms`` says when to ask again."""
        found: StandingBody = self._run(self._calls.status(ticket))
        return found

    def enter(self, ticket: str, identity: str) -> ClientAdmission:
        """See :meth:`quota_engine.Room.enter`."""
        found: ClientAdmission = self._run(self._calls.enter(ticket, identity))
        return found

    def open(self, entropy: str) -> RoomChanged:
        """See :meth:`quota_engine.Room.open`."""
        found: RoomChanged = self._run(self._calls.change("POST", "/open", {"entropy": entropy}))
        return found

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> RoomChanged:
        """See :meth:`quota_engine.Room.set_pace`."""
        body: dict[str, object] = {"per_minute_min": per_minute_min, "per_minute_max": per_minute_max}
        found: RoomChanged = self._run(self._calls.change("PUT", "/pace", body))
        return found

    def close(self) -> RoomChanged:
        """See :meth:`quota_engine.Room.close`."""
        found: RoomChanged = self._run(self._calls.change("POST", "/close", None))
        return found

    def view(self) -> RoomBody:
        """See :meth:`quota_engine.Room.view`."""
        found: RoomBody = self._run(self._calls.view())
        return found

    def record(self) -> RoomRecord:
        """See :meth:`quota_engine.Room.record`."""
        found: RoomRecord = self._run(self._calls.record())
        return found


class AsyncServiceRoom:
    """The same for asyncio."""

    def __init__(self, calls: RoomCalls, run: Callable[[Talk[Any]], Awaitable[Any]]) -> None:
        self._calls = calls
        self._run = run

    async def create(
        self, office: str, first_day: Day, last_day: Day | None = None, *, opens_at: Moment,
        closes_at: Moment | None = None, joins_from: Moment | None = None, entropy_source: str = "",
        channel: str = "online", group: str = "", settings: RoomSettings = _DEFAULT_SETTINGS,
    ) -> RoomStatus:  # fmt: skip
        """See :meth:`ServiceRoom.create`."""
        more: dict[str, object] = {"entropy_source": entropy_source, "channel": channel, "group": group}
        body = _creation(office, first_day, last_day, opens_at, closes_at, joins_from, more, settings)
        status: RoomStatus = await self._run(self._calls.create(body))
        return status

    async def join(self, identity: str, *, instead_of: str | None = None) -> RoomTicket:
        """See :meth:`ServiceRoom.join`."""
        found: RoomTicket = await self._run(self._calls.join(identity, instead_of))
        return found

    async def status(self, ticket: str) -> StandingBody:
        """See :meth:`ServiceRoom.status`."""
        found: StandingBody = await self._run(self._calls.status(ticket))
        return found

    async def enter(self, ticket: str, identity: str) -> ClientAdmission:
        """See :meth:`ServiceRoom.enter`."""
        found: ClientAdmission = await self._run(self._calls.enter(ticket, identity))
        return found

    async def open(self, entropy: str) -> RoomChanged:
        """See :meth:`ServiceRoom.open`."""
        found: RoomChanged = await self._run(self._calls.change("POST", "/open", {"entropy": entropy}))
        return found

    async def set_pace(self, per_minute_min: int, per_minute_max: int) -> RoomChanged:
        """See :meth:`ServiceRoom.set_pace`."""
        body: dict[str, object] = {"per_minute_min": per_minute_min, "per_minute_max": per_minute_max}
        found: RoomChanged = await self._run(self._calls.change("PUT", "/pace", body))
        return found

    async def close(self) -> RoomChanged:
        """See :meth:`ServiceRoom.close`."""
        found: RoomChanged = await self._run(self._calls.change("POST", "/close", None))
        return found

    async def view(self) -> RoomBody:
        """See :meth:`ServiceRoom.view`."""
        found: RoomBody = await self._run(self._calls.view())
        return found

    async def record(self) -> RoomRecord:
        """See :meth:`ServiceRoom.record`."""
        found: RoomRecord = await self._run(self._calls.record())
        return found
