"""A citizen changes the day of a confirmed reservation in a browser without JavaScript."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator

import pytest

from quota_engine import Outcome, RoomSettings, Status
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.daily_releases import DULL, RELEASE, catalog_of
from tests.support.form_browser import DECLARED, CitizenBrowser, heading
from tests.support.in_process_service import NIK, Client, running
from tests.support.page_texts import citizen_text

HOUR_MS = 3_600_000
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("east",)), RoomSettings(turn_ms=60_000))
CHANGE = "/reservation/change"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A service an hour before the release, with the day before open since 23 hours."""
    async with running(
        catalog=catalog_of(), office="east", day=DULL, before_ms=-23 * HOUR_MS, waiting_rooms=ROOMS
    ) as client:
        yield client


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[CitizenBrowser]:
    """A browser with a confirmed reservation of the day before."""
    browser = CitizenBrowser(client)
    async with browser.http:
        await browser.get("/?office=east&service=new")
        await browser.submit("/reserve", {"nik": NIK, "slot": f"{DULL}|morning"})
        await browser.submit("/reservation/confirm", DECLARED)
        yield browser


async def open_room(client: Client) -> None:
    client.clock.advance_ms(HOUR_MS)
    await client.service.engine.room(client.service.current_room("east") or "").view()


async def test_another_time_of_the_same_day_needs_no_turn(client: Client, browser: CitizenBrowser) -> None:
    assert f'href="{CHANGE}"' in (await browser.get("/reservation")).text
    assert heading((await browser.get(CHANGE)).text) == citizen_text("change_heading")
    assert (await browser.submit(CHANGE)).status_code == 422
    changed = await browser.submit(CHANGE, {"slot": f"{DULL}|afternoon"})
    assert (changed.url.path, heading(changed.text)) == ("/reservation", citizen_text("confirmed_heading"))
    assert "13.00" in changed.text


async def test_an_overloaded_store_leads_to_the_retrying_page(
    client: Client, browser: CitizenBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overloaded(*_: object, **__: object) -> Outcome:
        return Outcome(Status.OVERLOADED)

    with monkeypatch.context() as patched:
        patched.setattr(client.service.engine, "reschedule", overloaded)
        failed = await browser.http.post(CHANGE, data={"slot": f"{DULL}|afternoon"})
    assert failed.status_code == 503
    assert f'data-retry="{CHANGE}"' in failed.text


@pytest.mark.parametrize("language", ["id", "en"])
async def test_a_day_with_a_waiting_room_leads_through_it(
    client: Client, browser: CitizenBrowser, language: str
) -> None:
    """Without a turn the page says why, keeps the place and has the form to join. The turn leads to the change."""
    await browser.get(f"{CHANGE}?lang={language}")
    assert citizen_text("change_room", language) in html.unescape(browser.page)
    await browser.submit("/room/join", {"nik": NIK})
    await open_room(client)
    await browser.get(CHANGE)
    refused = await browser.http.post(CHANGE, data={"slot": f"{RELEASE}|morning"})
    text = html.unescape(refused.text)
    assert refused.status_code == 409
    assert citizen_text("change_kept", language) in text
    assert citizen_text("change_needs_turn", language).partition("{")[0].partition(",")[0] in text
    assert 'href="/room"' in text
    turn = await browser.get("/room")
    assert citizen_text("turn_lead_change", language) in html.unescape(turn.text)
    other = await browser.submit(CHANGE, {"slot": f"{RELEASE}|morning", "nik": "3578012345678999"})
    assert other.status_code == 422
    assert citizen_text("error_nik_other", language) in html.unescape(other.text)
    changed = await browser.submit(CHANGE, {"slot": f"{RELEASE}|morning", "nik": NIK})
    assert heading(changed.text) == citizen_text("confirmed_heading", language)
    assert ("11 Desember 2026" if language == "id" else "11 December 2026") in changed.text


async def test_a_change_without_a_ticket_offers_the_waiting_room(client: Client, browser: CitizenBrowser) -> None:
    await open_room(client)
    refused = await browser.http.post(CHANGE, data={"slot": f"{RELEASE}|morning"})
    browser.page = refused.text
    joined = await browser.submit("/room/join", {"nik": NIK})
    assert joined.url.path == "/room"
    found = await client.service.engine.availability("east", RELEASE)
    assert found[0].quotas["online"].held == 0


async def test_the_change_page_belongs_to_confirmed_reservations(client: Client) -> None:
    browser = CitizenBrowser(client)
    async with browser.http:
        assert (await browser.get(CHANGE)).url.path == "/"
        await browser.get("/?office=east&service=new")
        await browser.submit("/reserve", {"nik": NIK, "slot": f"{DULL}|morning"})
        assert (await browser.get(CHANGE)).url.path == "/reservation"
        assert f'href="{CHANGE}"' not in browser.page
        refused = await browser.http.post(CHANGE, data={"slot": f"{RELEASE}|morning"})
        assert refused.url.path == "/reservation"


@pytest.mark.parametrize("language", ["id", "en"])
async def test_people_of_a_closed_day_can_leave(client: Client, browser: CitizenBrowser, language: str) -> None:
    """The day has begun, so that neither step would be possible on an open day. Neither is counted."""
    assert (await client.service.engine.close_day("east", DULL)).ok
    client.clock.advance_ms(24 * HOUR_MS)
    text = html.unescape((await browser.get(f"/reservation?lang={language}")).text)
    for name in ("closed_heading", "closed_lead", "closed_next", "closed_cancel_warning"):
        assert citizen_text(name, language) in text
    assert citizen_text("confirmed_lead", language) not in text
    assert f'href="{CHANGE}"' in text
    changed = await browser.submit("/reservation/cancel", {"sure": "yes"})
    assert changed.url.path == "/reservation"
    assert heading(changed.text) == citizen_text("ended_heading_CANCELLED", language)
