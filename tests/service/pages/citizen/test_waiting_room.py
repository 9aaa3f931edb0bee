"""The waiting room on the citizens' pages, as a browser without JavaScript goes through it."""

from __future__ import annotations

import html

from quota_engine import RoomSettings
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.service.pages.citizen.test_booking import DECLARED, SLOT, TEXTS, Browser, title
from tests.support.in_process_service import DAY, NIK, OTHER, running

HOUR_MS = 3_600_000
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=60_000))


async def test_from_the_waiting_room_to_the_queue_number() -> None:
    """Join, wait by reloading, be called, choose with one's own NIK; from another browser it is the same place."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as client:
        browser, other = Browser(client), Browser(client)
        async with browser.http, other.http:
            await browser.get("/")
            assert 'value="yes"' not in browser.page
            wrong = await browser.send("/room/join", {"nik": "123"})
            assert wrong.status_code == 422
            joined = await browser.send("/room/join", {"nik": NIK})
            assert title(joined.text) == TEXTS["room_head_NOT_OPEN"]["id"]
            assert NIK not in joined.text + str(joined.url) + str(dict(browser.http.cookies))
            assert (await browser.get("/")).url.path == "/room"
            client.clock.advance_ms(HOUR_MS)
            await client.service.engine.room(client.service.current_room("surabaya") or "").view()
            turn = await browser.get("/room")
            assert title(turn.text) == TEXTS["room_turn"]["id"]
            refused = await browser.send("/reserve", {"nik": OTHER, "slot": SLOT})
            assert refused.status_code == 422
            assert TEXTS["nik_other"]["id"] in html.unescape(refused.text)
            held = await browser.send("/reserve", {"nik": NIK, "slot": SLOT})
            assert title(held.text) == TEXTS["held_title"]["id"]
            await other.get(f"/?office=surabaya&service=new&day={DAY}")
            found = await other.send("/room/join", {"nik": NIK})
            assert (found.url.path, title(found.text)) == ("/place", TEXTS["held_title"]["id"])
            done = await other.send("/place/confirm", DECLARED)
            assert "<strong>1</strong>" in done.text
            assert title((await browser.get("/place")).text) == TEXTS["done_title"]["id"]
