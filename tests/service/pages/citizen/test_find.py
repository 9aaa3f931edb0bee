"""A place belongs to the browser that took it, and to everyone who has its registration code."""

from __future__ import annotations

import base64
import contextlib
import html
import re
from collections.abc import AsyncIterator

import pytest

from quota_engine import RoomSettings
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.service.pages.registration_codes import format_code
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.browser_service import wait_list_catalog
from tests.support.form_browser import DECLARED, SLOT, CitizenBrowser, heading
from tests.support.in_process_service import DAY, NIK, OTHER, Client, running
from tests.support.page_texts import citizen_text

HOUR_MS = 3_600_000
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=60_000))
STEPS = ("cancel", "release", "decline", "leave-party")


@pytest.fixture
async def owner(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


@pytest.fixture
async def stranger(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


async def _reservation_id(client: Client) -> str:
    (reservation,) = await client.service.engine.list_reservations("surabaya", DAY)
    return reservation.id


def _known_to(browser: CitizenBrowser) -> str:
    """Return all that a browser has received: its page, and its cookies with every part that base64 hides."""
    values = list(browser.http.cookies.values())
    parts = [part for value in values for part in re.split(r"[.|]", value)]
    decoded = []
    for part in parts:
        with contextlib.suppress(ValueError):
            decoded.append(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return browser.page + " ".join(values) + " ".join(one.decode("latin-1") for one in decoded)


async def _try_everything(stranger: CitizenBrowser, state: str) -> None:
    """Check that no step changes the reservation, and that no address with a form for a change opens."""
    for step in STEPS:
        refused = await stranger.http.post(f"/reservation/{step}", data={"nik": NIK, "version": "2", "sure": "yes"})
        assert refused.status_code == 422, step
        assert citizen_text("error_code_needed") in html.unescape(refused.text)
        assert (await stranger.http.get("/reservation/state")).json()["state"] == state, step
    change = await stranger.http.post("/reservation/change", data={"slot": "2026-12-08|morning"})
    assert change.url.path == "/reservation"
    assert (await stranger.http.get("/reservation/change")).url.path == "/reservation"


async def test_a_stranger_who_knows_the_nik_cannot_give_the_place_up(
    owner: CitizenBrowser, stranger: CitizenBrowser, client: Client
) -> None:
    """The NIK shows the place. The code stays hidden, and every step that loses something is refused."""
    await owner.reserve(NIK, OTHER)
    code = await _reservation_id(client)
    assert format_code(code) in owner.page
    for state in ("HELD", "CONFIRMED"):
        await stranger.reserve(NIK, OTHER)
        assert (await stranger.http.get("/reservation/state")).json()["state"] == state
        await stranger.get("/reservation")
        assert all(f'action="/reservation/{step}"' not in stranger.page for step in STEPS)
        for secret in (code, format_code(code)):
            assert secret not in _known_to(stranger)
        await _try_everything(stranger, state)
        await owner.submit("/reservation/confirm", DECLARED) if state == "HELD" else None
    ended = await owner.submit("/reservation/cancel")
    assert citizen_text("ended_CANCELLED") in html.unescape(ended.text)


async def test_the_registration_code_opens_a_found_place(
    owner: CitizenBrowser, stranger: CitizenBrowser, client: Client
) -> None:
    """A wrong code does not. The right one is accepted as a person says it."""
    await owner.reserve()
    code = await _reservation_id(client)
    await stranger.reserve()
    for wrong in ("", "ZZZZ-ZZZ2", "x" * 300, f"surabaya~{code[:-1]}", "\u00e9" * 8):
        refused = await stranger.submit("/reservation/code", {"code": wrong})
        assert refused.status_code == 422
        assert citizen_text("error_code") in html.unescape(refused.text)
    spoken = f" {format_code(code).lower().replace('1', 'l').replace('0', 'o')} "
    opened = await stranger.submit("/reservation/code", {"code": spoken})
    assert format_code(code) in opened.text
    ended = await stranger.submit("/reservation/release")
    assert citizen_text("ended_RELEASED") in html.unescape(ended.text)


async def test_nik_and_code_find_a_registration_in_another_browser(
    owner: CitizenBrowser, stranger: CitizenBrowser, client: Client
) -> None:
    await owner.reserve()
    await owner.submit("/reservation/confirm", DECLARED)
    code = await _reservation_id(client)
    start = await stranger.get("/")
    assert 'href="/find?office=surabaya"' in start.text
    await stranger.get("/find")
    for nik, typed, error in (
        (OTHER, code, "error_not_found"),
        (NIK, "ZZZZZZZ2", "error_not_found"),
        (NIK, "malang~", "error_not_found"),
        (NIK, "", "error_code_missing"),
        (NIK, "x" * 200, "error_code_missing"),
    ):
        refused = await stranger.submit("/find", {"nik": nik, "code": typed})
        assert refused.status_code == 422
        assert citizen_text(error) in html.unescape(refused.text)
        assert "reservation" not in stranger.http.cookies
    for typed in (code, format_code(code).lower(), f"surabaya~{code}"):
        stranger.http.cookies.clear()
        await stranger.get("/find")
        found = await stranger.submit("/find", {"nik": NIK, "code": typed})
        assert heading(found.text) == citizen_text("confirmed_heading")
    ended = await stranger.submit("/reservation/cancel")
    assert citizen_text("ended_CANCELLED") in html.unescape(ended.text)


async def test_a_reservation_of_the_api_is_found_by_its_reference(stranger: CitizenBrowser, client: Client) -> None:
    for nik, key, typed in ((NIK, "web-order-17", "surabaya~web-order-17"), (OTHER, "web-order-18", "web-order-18")):
        await client.reserve(nik, key=key)
        await stranger.get("/find")
        found = await stranger.submit("/find", {"nik": nik, "code": typed})
        assert heading(found.text) == citizen_text("held_heading")
        assert key in found.text


async def test_a_wait_list_position_cannot_be_given_up_by_a_stranger() -> None:
    async with running(catalog=wait_list_catalog(capacity=1)) as client:
        owner, stranger = CitizenBrowser(client), CitizenBrowser(client)
        async with owner.http, stranger.http:
            await client.reserve(OTHER)
            for one in (owner, stranger):
                await one.reserve()
                if one is owner:
                    await one.submit("/reserve")
            assert heading((await stranger.get("/reservation")).text) == citizen_text("waiting_heading")
            await _try_everything(stranger, "WAITING")
            ended = await owner.submit("/reservation/release")
            assert citizen_text("ended_left_wait_list") in html.unescape(ended.text)


async def test_the_ticket_of_a_nik_does_not_give_its_place_to_a_stranger() -> None:
    """Both browsers have the same ticket. The place belongs to the one that joined first, also if its form is late."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        owner, stranger = CitizenBrowser(client), CitizenBrowser(client)
        async with owner.http, stranger.http:
            for one in (owner, stranger):
                await one.get("/")
                await one.submit("/room/join", {"nik": NIK})
            client.clock.advance_ms(HOUR_MS)
            await client.service.engine.room(client.service.current_room("surabaya") or "").view()
            for one in (owner, stranger, owner):
                await one.get("/room") if one.http.cookies.get("ticket") else None
                data = {"office": "surabaya", "service": "new", "turn": "yes", "nik": NIK, "slot": SLOT}
                await one.http.post("/reserve", data=data)
            code = await _reservation_id(client)
            assert format_code(code) in (await owner.get("/reservation")).text
            await stranger.get("/reservation")
            assert heading(stranger.page) == citizen_text("held_heading")
            assert code not in _known_to(stranger)
            await _try_everything(stranger, "HELD")


async def test_a_code_that_is_taken_by_chance_is_replaced(
    owner: CitizenBrowser, stranger: CitizenBrowser, client: Client
) -> None:
    """The other applicant's reservation is neither shown nor changed."""
    await owner.reserve()
    taken = await _reservation_id(client)
    await stranger.get("/?service=new")
    await stranger.submit("/reserve", {"nik": OTHER, "slot": SLOT, "idempotency_key": taken})
    assert heading((await stranger.get("/reservation")).text) == citizen_text("held_heading")
    assert format_code(taken) not in stranger.page
    ids = {one.id for one in await client.service.engine.list_reservations("surabaya", DAY)}
    assert len(ids) == 2


async def test_an_old_page_leads_to_the_place_that_was_taken_with_it(owner: CitizenBrowser, client: Client) -> None:
    """The Back button shows the form with the same code. Another choice in it makes no second place."""
    await owner.get("/?service=new")
    page = owner.page
    await owner.submit("/reserve", {"nik": NIK, "slot": SLOT})
    owner.page = page
    again = await owner.submit("/reserve", {"nik": NIK, "slot": "2026-12-08|morning"})
    assert heading(again.text) == citizen_text("held_heading")
    assert format_code(await _reservation_id(client)) in again.text
