"""Finish on this computer: the visit's cookies go, and nothing of the visit is shown or stored afterwards."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import httpx
import pytest

from quota_engine import RoomSettings
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.form_browser import DECLARED, SLOT, CitizenBrowser
from tests.support.in_process_service import DAY, NIK, Client, running
from tests.support.page_texts import citizen_text

FINISH = 'action="/finish"'
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=60_000))


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


def _cookies(response: httpx.Response) -> dict[str, str]:
    """Return the Set-Cookie lines by the name of the cookie."""
    return {line.partition("=")[0]: line for line in response.headers.get_list("set-cookie")}


async def _visible(browser: CitizenBrowser) -> str:
    """Return everything that the pages of a visit show to this browser."""
    paths = ("/", "/reservation", "/reservation/state", "/room", "/room/state")
    return "".join([(await browser.get(path)).text for path in paths])


async def test_every_page_of_a_reservation_offers_to_finish(browser: CitizenBrowser) -> None:
    assert FINISH not in (await browser.get("/")).text
    assert FINISH in (await browser.submit("/reserve", {"nik": "12"})).text, "the form shows what was typed"
    await browser.reserve()
    assert FINISH in browser.page, "held"
    await browser.submit("/reservation/confirm", DECLARED)
    assert FINISH in browser.page, "confirmed"
    assert FINISH in (await browser.get("/?service=new")).text, "the start page mentions the registration"
    await browser.get("/reservation")
    await browser.submit("/reservation/cancel")
    assert FINISH in browser.page, "ended"


async def test_finishing_shows_nothing_of_the_reservation_afterwards(browser: CitizenBrowser, client: Client) -> None:
    """The place itself stays: the same NIK leads back to it."""
    await browser.reserve()
    await browser.submit("/reservation/confirm", DECLARED)
    (reservation,) = await client.service.engine.list_reservations("surabaya", DAY)
    assert reservation.reference in browser.page
    cookie = browser.http.cookies["reservation"]
    response = await browser.submit("/finish")
    assert str(response.url).endswith("/finished")
    assert citizen_text("finished_heading") in response.text
    assert not {"reservation", "ticket"} & set(browser.http.cookies)
    shown = await _visible(browser)
    for secret in (NIK, reservation.reference, cookie, citizen_text("confirmed_heading"), FINISH):
        assert secret not in shown
    await browser.reserve()
    assert citizen_text("confirmed_heading") in browser.page
    await browser.submit("/reservation/code", {"code": reservation.id})
    assert reservation.reference in browser.page


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_finishing_deletes_cookies_with_their_attributes(scheme: str) -> None:
    async with running(public_origins=(f"{scheme}://service",)) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            form = {"office": "surabaya", "service": "new", "slot": SLOT, "nik": NIK}
            reserved = await browser.http.post("/reserve", data=form, follow_redirects=False)
            finished = await browser.http.post("/finish", follow_redirects=False)
    assert (finished.status_code, finished.headers["location"]) == (303, "/finished")
    assert finished.headers["clear-site-data"] == '"cache", "storage"'
    assert finished.headers["cache-control"] == "no-store"
    assert _cookies(finished).keys() == {"reservation", "ticket", "notice", "draw"}
    for line in _cookies(finished).values():
        assert "Max-Age=0" in line
    given = _cookies(reserved)["reservation"]
    for attribute in ("HttpOnly", "Path=/", "SameSite=lax"):
        assert attribute in given
        assert attribute in _cookies(finished)["reservation"]
    for line in (given, _cookies(finished)["reservation"]):
        assert ("Secure" in line) is (scheme == "https")


async def test_another_site_cannot_finish_a_visit(browser: CitizenBrowser) -> None:
    await browser.reserve()
    response = await browser.http.post("/finish", headers={"origin": "http://elsewhere"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert _cookies(response) == {}
    assert "clear-site-data" not in response.headers
    assert (await browser.http.get("/finish")).status_code == 405


async def test_finishing_shows_nothing_of_the_waiting_room_afterwards() -> None:
    """The position stays: the same NIK leads back to the same ticket."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            await browser.get("/")
            await browser.submit("/room/join", {"nik": NIK})
            assert FINISH in browser.page
            ticket = browser.http.cookies["ticket"].split("|")[-1].split(".")[0]
            assert FINISH in (await browser.get("/?service=new")).text, "the start page mentions the ticket"
            await browser.submit("/finish")
            shown = await _visible(browser)
            assert ticket not in shown
            assert FINISH not in shown
            await browser.get("/")
            await browser.submit("/room/join", {"nik": NIK})
            assert browser.http.cookies["ticket"].split("|")[-1].split(".")[0] == ticket
            client.clock.advance_ms(HOUR_MS)
            await client.service.engine.room(client.service.current_room("surabaya") or "").view()
            assert FINISH in (await browser.get("/room")).text, "the turn"


async def test_last_page_makes_the_browser_drop_pages_in_its_memory(client: Client) -> None:
    """Another site cannot clear the cache by showing the picture."""
    assert 'src="/finished/dot.svg"' in (await client.http.get("/finished")).text
    for site, is_cleared in (("", True), ("same-origin", True), ("cross-site", False), ("same-site", False)):
        headers = {"sec-fetch-site": site} if site else {}
        picture = await client.http.get("/finished/dot.svg", headers=headers)
        assert picture.headers["content-type"] == "image/svg+xml"
        assert picture.headers["cache-control"] == "no-store"
        assert (picture.headers.get("clear-site-data") == '"cache"') is is_cleared


async def test_no_page_of_a_visit_may_be_stored(browser: CitizenBrowser) -> None:
    await browser.get("/?service=new")
    pages = [await browser.submit("/reserve", {"nik": NIK}), await browser.reserve()]
    paths = ("/?service=new", "/reservation", "/reservation/state", "/room/state", "/finished")
    pages += [await browser.get(path) for path in paths]
    for page in pages:
        assert page.headers["cache-control"] == "no-store", page.url


async def test_reservation_cookie_ends_a_day_after_the_booked_day(browser: CitizenBrowser, client: Client) -> None:
    form = {"office": "surabaya", "service": "new", "slot": SLOT, "nik": NIK}
    response = await browser.http.post("/reserve", data=form, follow_redirects=False)
    assert (await browser.http.post("/reservation/confirm", data=DECLARED)).status_code == 200
    line = _cookies(response)["reservation"]
    max_age_s = int(line.lower().partition("max-age=")[2].partition(";")[0])
    zone = client.service.get_office("surabaya").zone
    end = datetime.datetime.combine(DAY + datetime.timedelta(days=2), datetime.time.min, tzinfo=zone)
    assert max_age_s == (int(end.timestamp() * 1000) - client.clock.now_ms()) // 1000
    value = line.partition("=")[2].partition(";")[0]
    client.clock.set_ms(int(end.timestamp() * 1000) - 1)
    headers = {"cookie": f"reservation={value}"}
    assert (await client.http.get("/reservation", headers=headers)).status_code == 200
    client.clock.advance_ms(1)
    ended = await client.http.get("/reservation", headers=headers)
    assert (ended.status_code, ended.headers["location"]) == (303, "/")


async def test_page_of_a_moved_reservation_extends_its_cookie(browser: CitizenBrowser, client: Client) -> None:
    await browser.reserve()
    await browser.submit("/reservation/confirm", DECLARED)
    assert "set-cookie" not in (await browser.get("/reservation")).headers
    (reservation,) = await client.service.engine.list_reservations("surabaya", DAY)
    later = DAY + datetime.timedelta(days=3)
    moved = await client.service.engine.reschedule(reservation.reference, later, service="new", session="morning")
    assert moved.ok
    before = browser.http.cookies["reservation"]
    assert "reservation" in _cookies(await browser.get("/reservation"))
    after = browser.http.cookies["reservation"]
    assert int(after.split(".")[0]) - int(before.split(".")[0]) == 3 * DAY_MS
    assert "set-cookie" not in (await browser.get("/reservation")).headers
