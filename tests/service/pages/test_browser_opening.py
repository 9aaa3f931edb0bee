"""A real browser in real time: from the waiting room to the queue number while 200 applicants compete."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.service.test_runner import Served, served
from tests.support.browser import NIK, PhoneBrowser
from tests.support.effort import PROFILE
from tests.support.live_opening import Opening, write_opening
from tests.support.page_texts import citizen_text

pytestmark = pytest.mark.browser

OTHERS: Final = 200
CAPACITY: Final = 40
ATTEMPTS_MAX: Final = 5
ENTRIES_MAX: Final = 200
"""Attempts of an applicant to enter, half a second apart."""
STARTED_BEFORE_MS: Final = 4_000
"""A service that has started this long before an opening creates its room in time."""


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[tuple[Served, Opening]]:
    """Run a service with an opening soon, or with a later one if a busy machine took that long to start it.

    A service creates no room for an opening that is over. The pages wait up to ``PATIENCE_S`` for it.
    """
    for in_s in (12, 36):
        made = write_opening(folder, in_s, capacity=CAPACITY, per_minute_min=6_000, per_minute_max=6_000)
        with served(folder, "--config", str(made.config)) as service:
            if time.time() * 1_000 < made.opens_at_ms - STARTED_BEFORE_MS:
                yield service, made
                return
    raise AssertionError("no service started before its opening")


async def _compete(service: Served, made: Opening, number: int) -> None:
    """Let ``number`` applicants join the room, take a pass and reserve the first day through the API."""
    async with httpx.AsyncClient(base_url=service.url, headers=service.token("service"), timeout=30) as http:

        async def post(path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
            """Send a request, which is safe to repeat, until a connection survives it."""
            for _ in range(ATTEMPTS_MAX):
                with contextlib.suppress(httpx.TransportError):
                    return await http.post(path, json=body, headers=headers)
            raise AssertionError(f"no response to {path} in {ATTEMPTS_MAX} attempts")

        async def apply(index: int) -> None:
            identity = f"{3578990000000000 + index}"
            ticket = (await post(f"/v1/rooms/{made.room}/tickets", {"identity": identity})).json()["ticket"]
            for _ in range(ENTRIES_MAX):
                response = await post(f"/v1/rooms/{made.room}/enter", {"ticket": ticket, "identity": identity})
                if response.status_code == 200:
                    break
                await asyncio.sleep(0.5)
            else:
                return
            selection = {
                "applicants": [identity],
                "service": "new",
                "session": "morning",
                "admission_pass": response.json()["admission_pass"],
            }
            path = f"/v1/offices/surabaya/days/{made.first_day}/reservations"
            await post(path, selection, **{"idempotency-key": f"other-{index}"})

        await asyncio.gather(*(apply(index) for index in range(number)))


@pytest.mark.parametrize(("language", "dark"), [("id", False)] if PROFILE == "gate" else [("id", False), ("en", True)])
def test_one_applicant_gets_one_place_from_several_browsers(tmp_path: Path, language: str, dark: bool) -> None:
    """Two browsers reserve at the same moment; then a tab is closed, a browser is killed, and a third one continues."""

    def says(key: str) -> str:
        return citizen_text(key, language)

    profile = tmp_path / "one"
    with (
        opening(tmp_path) as (service, made),
        PhoneBrowser(service.url, profile, dark=dark) as first,
        PhoneBrowser(service.url, tmp_path / "two", dark=dark) as second,
    ):
        others = threading.Thread(target=lambda: asyncio.run(_compete(service, made, OTHERS)), daemon=True)
        others.start()
        try:
            places = _reserve_together(first, second, language)
            _reopen_in_another_tab(first, says)
            first.kill()
            second.quit()
            with PhoneBrowser(service.url, tmp_path / "three", dark=dark) as third:
                third.join_room(language)
                third.wait_for_heading(says("held_heading"))
                assert third.text(".facts") == places
                third.press("#declaration")
                third.press("form[action='/reservation/confirm'] button")
                third.wait_for_heading(says("confirmed_heading"))
                number = third.text(".number strong")
                assert NIK not in third.driver.page_source + str(third.driver.get_cookies())
            with PhoneBrowser(service.url, profile, dark=dark) as again:
                again.open("/reservation")
                keys = ("choose_heading", "room_start_heading")
                starts = [citizen_text(key, one) for key in keys for one in ("id", "en")]
                if again.wait_for_heading(says("confirmed_heading"), *starts) != says("confirmed_heading"):
                    again.join_room(language)  # the killed browser had not written its cookies to the disk
                again.wait_for_heading(says("confirmed_heading"))
                assert again.text(".number strong") == number
        finally:
            others.join(120)  # an error in the thread is one of this test
        _check_sales(service, made)


def _reserve_together(first: PhoneBrowser, second: PhoneBrowser, language: str) -> str:
    """Reserve in both browsers at the same moment, and return the details of the one place that they get."""
    for phone in (first, second):
        phone.join_room(language)
    for phone in (first, second):
        phone.wait_for_heading(citizen_text("turn_heading", language))
        phone.wait_until("document.title === arguments[0]", citizen_text("room_title_CALLED", language))
    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda phone: phone.reserve(language, together=together), (first, second)))
    places = [phone.text(".facts") for phone in (first, second)]
    assert places[0] == places[1], "the applicant got two places"
    return places[0]


def _reopen_in_another_tab(phone: PhoneBrowser, says: Callable[[str], str]) -> None:
    """Close the tab with the form, and find the hold and the typed details in a new one."""
    phone.fill("#name", "Siti Aminah")
    tab = phone.driver.current_window_handle
    phone.driver.switch_to.new_window("tab")
    other_tab = phone.driver.current_window_handle
    phone.driver.switch_to.window(tab)
    phone.driver.close()
    phone.driver.switch_to.window(other_tab)
    phone.open()
    phone.wait_for_heading(says("held_heading"))
    phone.attempt(lambda: phone.has_value("#name", "Siti Aminah"))


def _check_sales(service: Served, made: Opening) -> None:
    """Check that the first day is sold out, and that the applicant has one place."""
    audit = httpx.get(f"{service.url}/v1/audit", headers=service.token("auditor")).json()
    assert (audit["ok"], audit["findings"]) == (True, [])
    last_day = made.first_day + datetime.timedelta(days=6)
    span = {"first_day": str(made.first_day), "last_day": str(last_day)}
    path = "/v1/offices/surabaya/availability"
    days = httpx.get(f"{service.url}{path}", params=span, headers=service.token("auditor")).json()["days"]
    online = [quota for day in days for quota in day["quotas"] if quota["name"] == "online"]
    assert sum(quota["confirmed"] for quota in online) == 1
    taken = [quota["held"] + quota["confirmed"] for quota in online]
    assert taken[0] == CAPACITY, "the first day is not sold out"
    assert sum(taken) in (CAPACITY, CAPACITY + 1)
