"""A real browser on a phone's size, in real time: from the waiting room to the number while 200 others compete."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.service.pages.citizen.test_booking import TEXTS
from tests.service.test_runner import Served, served
from tests.support.browser import NIK, Phone
from tests.support.live_opening import Opening, write_opening

OTHERS: Final = 200
CAPACITY: Final = 40


@contextlib.contextmanager
def opening(folder: Path, in_s: int) -> Iterator[tuple[Served, Opening]]:
    made = write_opening(folder, in_s, capacity=CAPACITY, per_minute_min=6_000, per_minute_max=6_000)
    with served(folder, "--config", str(made.config)) as service:
        yield service, made


async def _compete(service: Served, made: Opening, number: int) -> None:
    """Applicants through the interface: a ticket, a pass, a place on the first day that has one."""
    async with httpx.AsyncClient(base_url=service.url, headers=service.token("service"), timeout=30) as http:

        async def apply(index: int) -> None:
            identity = f"{3578990000000000 + index}"
            ticket = (await http.post(f"/v1/rooms/{made.room}/tickets", json={"identity": identity})).json()["ticket"]
            body = {"ticket": ticket, "identity": identity}
            for _ in range(60):
                answer = await http.post(f"/v1/rooms/{made.room}/admission", json=body)
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.5)
            else:
                return
            wish = {
                "applicants": [identity],
                "service": "new",
                "session": "morning",
                "admission_pass": answer.json()["admission_pass"],
            }
            await http.post(
                f"/v1/offices/surabaya/days/{made.first_day}/reservations",
                json=wish,
                headers={"idempotency-key": f"other-{index}"},
            )

        await asyncio.gather(*(apply(index) for index in range(number)))


@pytest.mark.parametrize(("language", "dark"), [("id", False), ("en", True)])
def test_from_the_waiting_room_to_the_queue_number(tmp_path: Path, language: str, dark: bool) -> None:
    """While 200 compete: called, and pressed in two browsers of the same person in the same second; kept through a
    closed tab, a killed browser and a new login; finished, and sold once.
    """

    def says(name: str) -> str:
        return str(TEXTS[name][language])

    profile = tmp_path / "one"
    with (
        opening(tmp_path, 12) as (service, made),
        Phone(service.url, profile, dark=dark) as first,
        Phone(service.url, tmp_path / "two", dark=dark) as second,
    ):
        rivals = threading.Thread(target=lambda: asyncio.run(_compete(service, made, OTHERS)), daemon=True)
        rivals.start()
        for phone in (first, second):
            phone.join(language)
        for phone in (first, second):
            phone.heading(says("room_turn"))
            assert phone.driver.title == says("room_turn_title")
        together = threading.Barrier(2)
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda phone: phone.choose(language, together=together), (first, second)))
        places = [phone.one(".place").text for phone in (first, second)]
        assert places[0] == places[1], "they got two places"

        first.one("#name").send_keys("Siti Aminah")
        tab = first.driver.current_window_handle
        first.driver.switch_to.new_window("tab")
        other_tab = first.driver.current_window_handle
        first.driver.switch_to.window(tab)
        first.driver.close()
        first.driver.switch_to.window(other_tab)
        first.open()
        first.heading(says("held_title"))
        assert first.one("#name").get_attribute("value") == "Siti Aminah"
        first.kill()
        second.quit()
        with Phone(service.url, tmp_path / "three", dark=dark) as new:
            new.join(language)
            new.heading(says("held_title"))
            assert new.one(".place").text == places[0]
            new.press("#declare")
            new.press("form[action='/place/confirm'] button")
            new.heading(says("done_title"))
            number = new.one(".number strong").text
            assert NIK not in new.driver.page_source + str(new.driver.get_cookies())
        with Phone(service.url, profile, dark=dark) as again:
            again.open("/place")
            if again.heading(says("done_title"), *TEXTS["step_choose"].values()) != says("done_title"):
                again.join(language)  # its cookies had not come to the disk yet when it was killed
            again.heading(says("done_title"))
            assert again.one(".number strong").text == number

        rivals.join(60)
        audit = httpx.get(f"{service.url}/v1/audit", headers=service.token("auditor")).json()
        assert (audit["ok"], audit["findings"]) == (True, [])
        last_day = made.first_day + datetime.timedelta(days=6)
        span = {"first_day": str(made.first_day), "last_day": str(last_day)}
        days = httpx.get(f"{service.url}/v1/offices/surabaya/availability", params=span).json()["days"]
        online = [quota for day in days for quota in day["quotas"] if quota["name"] == "online"]
        assert sum(quota["confirmed"] for quota in online) == 1
        taken = [quota["held"] + quota["confirmed"] for quota in online]
        assert taken[0] == CAPACITY, "the others sold the first day out"
        assert sum(taken) in (CAPACITY, CAPACITY + 1)
