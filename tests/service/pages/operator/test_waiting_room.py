"""A waiting room's page: its pace, its entropy, and closing it."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator

import pytest

from quota_engine import RoomSettings
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.service.http.auth import Role
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, Client, running
from tests.support.page_texts import operator_text

ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings())


@pytest.fixture
async def room_client() -> AsyncIterator[Client]:
    """A service whose waiting room can be joined and opens in an hour."""
    async with running(before_ms=3_600_000, waiting_rooms=ROOMS) as client:
        yield client


async def test_the_pace_is_set_within_its_limits(room_client: Client) -> None:
    client = room_client
    browser = OperatorBrowser(client)
    async with browser.http:
        await browser.sign_in(Role.OPERATOR)
        assert operator_text("room_phase_JOINING") in await browser.get("/operator")
        room = client.service.current_room("surabaya")
        assert room is not None
        assert room in await browser.get("/operator/room")
        paced = await browser.submit("room/pace", room=room, per_minute_min="30", per_minute_max="90")
        assert operator_text("done_pace") in paced.text
        client.clock.advance_ms(1_000)
        view = await client.service.engine.room(room).view()
        assert (view.per_minute_min, view.per_minute_max) == (30, 90)
        for low, high, field in (
            ("0", "90", "per_minute_min"),
            ("30", "x", "per_minute_max"),
            ("9", "8", "per_minute_max"),
        ):
            wrong = await browser.submit("room/pace", room=room, per_minute_min=low, per_minute_max=high)
            assert wrong.status_code == 422
            assert f'id="{field}-error"' in wrong.text
            assert f'value="{low}"' in wrong.text


async def test_an_operator_closes_a_room_after_confirmation(room_client: Client) -> None:
    client = room_client
    browser = OperatorBrowser(client)
    async with browser.http:
        await browser.sign_in(Role.OPERATOR)
        room = client.service.current_room("surabaya")
        assert room is not None
        view = client.service.engine.room(room).view
        question = html.unescape((await browser.submit("room/close", room=room)).text)
        assert operator_text("room_close_final") in question
        assert not (await view()).is_closed
        await browser.sign_in(Role.AUDITOR)
        assert (await browser.submit("room/close", room=room, confirm="yes")).status_code == 403
        await browser.sign_in(Role.OPERATOR)
        closed = await browser.submit("room/close", room=room, confirm="yes")
        assert operator_text("done_room-closed") in closed.text
        client.clock.advance_ms(1_000)
        assert (await view()).is_closed
        late = await browser.submit("room/pace", room=room, per_minute_min="1", per_minute_max="2")
        assert late.status_code == 409


async def test_an_unknown_room_is_not_found(room_client: Client) -> None:
    browser = OperatorBrowser(room_client)
    async with browser.http:
        await browser.sign_in(Role.OPERATOR)
        for name in ("nix", "a b", "../x"):
            unknown = await browser.http.get("/operator/room", params={"room": name})
            assert (unknown.status_code, 'id="room-error"' in unknown.text) == (404, True)
        assert (await browser.submit("room/close", confirm="yes")).status_code == 404


async def test_a_room_opens_once_with_the_text_of_its_source(browser: OperatorBrowser, client: Client) -> None:
    room = client.service.engine.room("lottery-day")
    opens_at_ms = client.clock.now_ms() + 60_000
    await room.create("surabaya", DAY, opens_at=opens_at_ms, entropy_source="The <index> of that day")
    await browser.sign_in(Role.OPERATOR)
    assert "room/open" not in await browser.get("/operator/room?room=lottery-day")
    early = await browser.submit("room/open", room="lottery-day", entropy="7,1")
    assert early.status_code == 409
    client.clock.advance_ms(61_000)
    page = (await browser.http.get("/operator/room?room=lottery-day")).text
    assert "The &lt;index&gt; of that day" in page
    for entropy in ("", "naïve", "x" * 257):
        wrong = await browser.submit("room/open", room="lottery-day", entropy=entropy)
        assert (wrong.status_code, 'id="entropy-error"' in wrong.text) == (422, True)
    opened = await browser.submit("room/open", room="lottery-day", entropy="7,123.45")
    assert operator_text("done_room-opened") in opened.text
    client.clock.advance_ms(1_000)
    assert (await room.view()).entropy == "7,123.45"
    assert (await browser.submit("room/open", room="lottery-day", entropy="8")).status_code == 409
    assert operator_text("room_phase_OPEN") in await browser.get("/operator?room=lottery-day")


async def test_lost_opening_is_explained_and_repeated(browser: OperatorBrowser, client: Client) -> None:
    """After a failover the first attempt explains what is lost, and its form names the epoch. The text stays."""
    await browser.sign_in(Role.OPERATOR)
    opens_at_ms = client.clock.now_ms() + 1_000
    room = client.service.engine.room("lottery-day")
    await room.create("surabaya", DAY, opens_at=opens_at_ms, entropy_source="an index")
    client.clock.set_ms(opens_at_ms)
    tail = client.lost_tail("~room.lottery-day")
    tail.save()
    client.service.publications.check_room(await room.transcript())
    await room.open("7,1")
    client.service.publications.check_room(await room.transcript())
    tail.fail_over()
    assert (await browser.submit("room/open", room="lottery-day", entropy="8")).status_code == 409
    client.service.engine._rooms.clear()  # another worker, which has not seen the room open
    refused = await browser.submit("room/open", room="lottery-day", entropy="7,1")
    assert refused.status_code == 409
    assert operator_text("why_EPOCH_CHANGED") in html.unescape(refused.text)
    assert 'name="epoch" value="2"' in refused.text
    await browser.submit("room/open", room="lottery-day", entropy="7,1", epoch="2")
    assert (await room.view(max_age_ms=1)).entropy == "7,1"
