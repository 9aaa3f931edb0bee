"""Numbers and positions count from 1, in every interface."""

from __future__ import annotations

import html
import json
import pathlib

import pytest

from quota_engine import RoomSettings
from quota_engine.cli import main
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.service.http.auth import Role
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from quota_engine.waiting_room.transcript import parse_transcript, position_of
from tests.support.client_parity import in_process
from tests.support.form_browser import CitizenBrowser
from tests.support.identities import nik
from tests.support.in_process_service import running
from tests.support.page_texts import citizen_text

HOUR_MS = 3_600_000
SLOW = RoomSettings(turn_ms=60_000, per_minute_min=60, per_minute_max=60, burst=1)
ROOMS = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), SLOW)


async def test_tickets_and_positions_count_from_1_in_every_interface(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engine, HTTP, client, pages in both languages, transcript and command line show the same numbers."""
    async with running(before_ms=HOUR_MS, waiting_rooms=ROOMS) as service:
        name = service.service.current_room("surabaya") or ""
        room = service.service.engine.room(name)
        client = in_process(service, Role.SERVICE).room(name)
        joined = [await room.join(nik(1)), await client.join(nik(2))]
        path = f"/v1/rooms/{name}"
        body = (await service.call("POST", f"{path}/tickets", {"identity": nik(3)}, Role.SERVICE)).json()
        assert ([one.number for one in joined], body["number"]) == ([1, 2], 3)
        tickets = [*(one.ticket for one in joined), body["ticket"]]
        browsers = {language: CitizenBrowser(service) for language in ("id", "en")}
        for number, (language, browser) in enumerate(browsers.items(), 4):
            await browser.get(f"/?lang={language}")
            page = html.unescape((await browser.submit("/room/join", {"nik": nik(number)})).text)
            assert citizen_text("room_ticket_number", language, number=str(number)) in page
        service.clock.advance_ms(HOUR_MS)
        record = parse_transcript((await service.http.get(f"{path}/transcript")).content)
        positions = [position_of(record, number) for number in range(1, 6)]
        assert sorted(positions, key=str) == [1, 2, 3, 4, 5]
        for number, ticket in enumerate(tickets, 1):
            bodies = [(await service.http.get(f"{path}/tickets/{ticket}")).json()]
            statuses = [await room.status(ticket), await client.status(ticket)]
            found = [(one.number, one.position) for one in statuses]
            found += [(one["number"], one["position"]) for one in bodies]
            assert found == [(number, positions[number - 1])] * 3
        for number, browser in enumerate(browsers.values(), 4):
            state = (await browser.http.get("/room/state")).json()
            expected = "CALLED" if positions[number - 1] == 1 else str(positions[number - 1])
            assert state["texts"].get("position", state["phase"]) == expected
            await browser.http.aclose()
        file = tmp_path / "record.json"
        file.write_bytes((await service.http.get(f"{path}/transcript")).content)
        for ticket, number in ((tickets[2], 3), ("5", 5)):
            assert main.main(["room", "verify", str(file), "--json", "--ticket", ticket]) == 0
            shown = json.loads(capsys.readouterr().out)["ticket"]
            assert (shown["number"], shown["position"]) == (number, positions[number - 1])
