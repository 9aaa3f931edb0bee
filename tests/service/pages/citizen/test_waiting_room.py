"""The waiting room in a browser without JavaScript."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator

import pytest

from quota_engine import RoomSettings
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.form_browser import DECLARED, SLOT, CitizenBrowser, heading
from tests.support.in_process_service import DAY, NIK, OTHER, Client, running
from tests.support.page_texts import citizen_text

HOUR_MS = 3_600_000
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=60_000))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A service whose waiting room opens in an hour."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        yield client


async def _open_room(client: Client) -> None:
    client.clock.advance_ms(HOUR_MS)
    await client.service.engine.room(client.service.current_room("surabaya") or "").view()


@pytest.mark.slow
async def test_a_called_visitor_gets_one_place_in_every_browser(client: Client) -> None:
    browser, other = CitizenBrowser(client), CitizenBrowser(client)
    async with browser.http, other.http:
        await browser.get("/")
        assert heading(browser.page) == citizen_text("room_start_heading")
        assert citizen_text("room_start_lead") in html.unescape(browser.page)
        assert 'value="yes"' not in browser.page
        assert (await browser.submit("/room/join", {"nik": "123"})).status_code == 422
        joined = await browser.submit("/room/join", {"nik": NIK})
        assert heading(joined.text) == citizen_text("room_heading_NOT_OPEN")
        assert NIK not in joined.text + str(joined.url) + str(dict(browser.http.cookies))
        assert (await browser.get("/")).url.path == "/room"
        await _open_room(client)
        assert heading((await browser.get("/room")).text) == citizen_text("turn_heading")
        refused = await browser.submit("/reserve", {"nik": OTHER, "slot": SLOT})
        assert refused.status_code == 422
        assert citizen_text("error_nik_other") in html.unescape(refused.text)
        held = await browser.submit("/reserve", {"nik": NIK, "slot": SLOT})
        assert heading(held.text) == citizen_text("held_heading")
        await other.get(f"/?office=surabaya&service=new&day={DAY}")
        found = await other.submit("/room/join", {"nik": NIK})
        assert (found.url.path, heading(found.text)) == ("/reservation", citizen_text("held_heading"))
        confirmed = await other.submit("/reservation/confirm", DECLARED)
        assert "<strong>1</strong>" in confirmed.text
        assert heading((await browser.get("/reservation")).text) == citizen_text("confirmed_heading")


@pytest.mark.parametrize("language", ["id", "en"])
async def test_a_visitor_whose_ticket_was_lost_joins_again(client: Client, language: str) -> None:
    """The page says that the system is at fault, and has the form to join again."""
    browser = CitizenBrowser(client)
    async with browser.http:
        await browser.get(f"/?lang={language}")
        room = client.service.current_room("surabaya")
        tail = client.lost_tail(f"~room.{room}")
        tail.save()
        await browser.submit("/room/join", {"nik": NIK})
        tail.fail_over()
        client.clock.advance_ms(1_000)
        lost = await browser.get("/room")
        assert heading(lost.text) == citizen_text("room_heading_TICKET_LOST", language)
        assert citizen_text("room_lead_TICKET_LOST", language) in html.unescape(lost.text)
        joined = await browser.submit("/room/join", {"nik": NIK})
        assert heading(joined.text) == citizen_text("room_heading_NOT_OPEN", language)


async def test_a_turn_leads_a_second_form_to_the_existing_place(client: Client) -> None:
    """The second browser asks for another day with the same turn."""
    browser, other = CitizenBrowser(client), CitizenBrowser(client)
    async with browser.http, other.http:
        for one in (browser, other):
            await one.get("/")
            await one.submit("/room/join", {"nik": NIK})
        await _open_room(client)
        for one in (browser, other):
            await one.get("/room")
        await browser.submit("/reserve", {"nik": NIK, "slot": SLOT})
        second = await other.submit("/reserve", {"nik": NIK, "slot": "2026-12-08|afternoon"})
        assert (second.url.path, heading(second.text)) == ("/reservation", citizen_text("held_heading"))
        assert "Senin, 7 Desember 2026" in second.text


async def test_a_visitor_who_gave_the_place_up_is_not_led_back_to_it(client: Client) -> None:
    browser, other = CitizenBrowser(client), CitizenBrowser(client)
    async with browser.http, other.http:
        await browser.get("/")
        await browser.submit("/room/join", {"nik": NIK})
        await _open_room(client)
        await browser.get("/room")
        await browser.submit("/reserve", {"nik": NIK, "slot": SLOT})
        await browser.submit("/reservation/release")
        await other.get("/?office=surabaya&service=new")
        assert (await other.submit("/room/join", {"nik": NIK})).url.path == "/room"


async def test_the_page_says_how_anyone_can_check_the_order(client: Client) -> None:
    """It has the ticket's number, the published code, the record's address, the page and the command."""
    browser = CitizenBrowser(client)
    async with browser.http:
        await browser.get("/")
        page = (await browser.submit("/room/join", {"nik": NIK})).text
        room = client.service.current_room("surabaya")
        record = f"/v1/rooms/{room}/transcript"
        assert f'href="{record}"' in page
        assert (await client.http.get(record)).json()["commitment"] in page
        assert "quota-engine room verify after.json --ticket 1<" in page
        assert 'href="/check"' in page
        verify = await browser.get("/check")
        assert citizen_text("verify_heading") in verify.text
        assert 'data-right="' in verify.text
