"""Waiting rooms through the clients: the engine's methods, answers and errors, sync and async alike."""

from __future__ import annotations

import inspect

import pytest

from quota_engine import InvalidRequest, Phase, Room, RoomSettings, RoomStatus, UnknownName
from quota_engine.faces.client.rooms import AsyncServiceRoom, ServiceRoom
from quota_engine.faces.service.access import Role
from tests.service.serving import DAY, NIK, OTHER, running
from tests.service.test_client import over
from tests.service.test_releases import HOUR_MS, OPENS_AT_MS, ROOM, ROOMS


def methods(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_the_clients_rooms_have_the_engines_methods() -> None:
    """The same names, and the same arguments in both."""
    assert methods(ServiceRoom) == methods(AsyncServiceRoom) == methods(Room)
    for name in methods(ServiceRoom):
        parameters = [
            list(inspect.signature(getattr(kind, name)).parameters) for kind in (ServiceRoom, AsyncServiceRoom)
        ]
        assert parameters[0] == parameters[1], name
        assert set(parameters[0]) <= set(inspect.signature(getattr(Room, name)).parameters), name


async def test_from_a_ticket_to_a_place() -> None:
    """Join, wait, enter, and reserve with the pass, where nobody gets in without one; and what operators do."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client, over(client) as service:
        room = service.room(ROOM)
        joined = await room.join(NIK)
        assert (joined.status, joined.ok, joined.replayed) == (RoomStatus.JOINED, True, False)
        assert await room.join(NIK) == type(joined)(RoomStatus.JOINED, joined.ticket, replayed=True)
        early = await room.enter(joined.ticket, NIK)
        assert (early.ok, early.standing.phase, early.admission_pass) == (False, Phase.NOT_OPEN, "")
        client.clock.advance_ms(HOUR_MS)
        assert (await room.status(joined.ticket)).poll_after_ms == 0
        wanted = {"service": "new", "session": "morning"}
        refused = await service.reserve("surabaya", DAY, NIK, **wanted)  # type: ignore[arg-type]
        assert (refused.status, refused.reason) == ("NOT_ADMITTED", "no_pass")
        entered = await room.enter(joined.ticket, NIK)
        assert entered.ok
        held = await service.reserve("surabaya", DAY, NIK, admission_pass=entered.admission_pass, **wanted)  # type: ignore[arg-type]
        assert held.ok
        paced = await room.set_pace(10, 20)
        assert paced.view is not None
        assert (paced.ok, paced.view.per_minute_max) == (True, 20)
        assert (await room.close()).ok
        assert (await room.view()).phase == "OVER"
        assert (await room.record()).room == ROOM
        assert (await room.join(OTHER)).status is RoomStatus.OVER
        assert (await room.set_pace(1, 2)).status is RoomStatus.OVER


async def test_refusals_and_errors() -> None:
    """A conflict, too early, a source of chance, a ticket that is none, a room that is not there."""
    async with running(before_ms=HOUR_MS) as client, over(client) as service, over(client, Role.SERVICE) as applicants:
        room = service.room("public")
        opens_at = "2026-12-04T14:00:00+07:00"
        settings = RoomSettings(claim_ms=60_000)

        async def create(last_day: str) -> RoomStatus:
            return await room.create(
                "surabaya", DAY, last_day, opens_at=opens_at, entropy_source="the index", settings=settings
            )

        assert await create("2026-12-11") is RoomStatus.DONE
        assert await create("2026-12-10") is RoomStatus.CONFLICT
        early = await room.open("7")
        assert (early.status, early.retry_at_ms) == (RoomStatus.NOT_OPEN, OPENS_AT_MS)
        client.clock.set_ms(OPENS_AT_MS)
        assert (await room.open("7")).ok
        assert (await room.open("8")).status is RoomStatus.CONFLICT
        with pytest.raises(InvalidRequest, match="ticket"):
            await applicants.room("public").enter("forged", NIK)
        with pytest.raises(InvalidRequest, match="opens_at"):
            await room.create("surabaya", DAY, opens_at="noon")
        with pytest.raises(UnknownName, match="room"):
            await applicants.room("nowhere").join(NIK)
