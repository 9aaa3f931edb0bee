"""The citizens' pages in a real browser while the store and the workers are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.service.test_kills import KEY
from tests.service.test_runner import Served, served
from tests.support.browser import PhoneBrowser
from tests.support.in_process_service import NIK, OTHER
from tests.support.live_opening import write_opening
from tests.support.page_texts import citizen_text
from tests.support.servers import Server, until, valkey_server_binary

pytestmark = [pytest.mark.browser, pytest.mark.store]

IS_LOST = "document.querySelector('[data-connection] button') !== null"
IS_CONNECTED = "document.querySelector('[data-connection] button') === null"


def says(key: str) -> str:
    return citizen_text(key, "en")


class Setup(NamedTuple):
    """A store, a service with two workers, and a browser with fast timers."""

    store: Server
    service: Served
    phone: PhoneBrowser


@pytest.fixture
def setup(tmp_path: Path, browser: PhoneBrowser) -> Iterator[Setup]:
    made = write_opening(tmp_path, 3_600, weeks_ahead=2)  # next week is open, on a Sunday evening too
    environment = {"QUOTA_ENGINE_IDENTITY_KEY": KEY}
    with Server(valkey_server_binary(), appendfsync="always") as store:
        environment["QUOTA_ENGINE_BACKEND"] = f"{store.url}?durability=fsync&attempts_max=2&timeout_ms=500"
        with (
            served(tmp_path, "--config", str(made.config), "--workers", "2", **environment) as service,
            browser.visiting(service.url) as phone,
        ):
            until(lambda: len(service.workers()) == 2, "two workers")
            phone.speed_up_timers()
            yield Setup(store, service, phone)
    assert service.process.returncode == 0


def test_a_form_and_a_page_continue_after_an_outage_of_the_store(setup: Setup) -> None:
    """The form is sent until the store answers, and the queue number is the same in a browser without cookies."""
    store, service, phone = setup
    phone.open("/?lang=en")
    phone.reserve("en")
    phone.fill("#name", "Siti Aminah")
    phone.press("#declaration")
    form = phone.driver.current_window_handle

    store.kill()
    phone.press("form[action='/reservation/confirm'] button")
    phone.wait_until(IS_LOST)
    phone.wait_for_text("[data-connection]", says("connection_lost"))
    phone.check_accessibility()
    assert phone.has_value("#name", "Siti Aminah")
    phone.driver.switch_to.new_window("tab")
    phone.speed_up_timers()
    phone.open("/reservation")
    phone.wait_for_heading(says("unavailable_heading"))
    assert phone.text("a.button") == says("try_again")
    store.start()
    phone.wait_for_heading(says("held_heading"), says("confirmed_heading"))
    phone.driver.switch_to.window(form)
    phone.driver.execute_cdp_cmd("Page.bringToFront", {})  # a hidden tab may wait a minute for a timer
    phone.wait_for_heading(says("confirmed_heading"))
    number = phone.text(".number strong")

    phone.driver.delete_all_cookies()
    phone.open("/?lang=en")
    phone.press(".slot.open input:not(:disabled)")
    phone.fill("#nik", NIK)
    phone.press("form[action='/reserve'] button.large")
    phone.wait_for_heading(says("confirmed_heading"))
    assert phone.text(".number strong") == number
    assert NIK not in phone.driver.page_source
    audit = httpx.get(f"{service.url}/v1/audit", headers=service.token("auditor"), timeout=30).json()
    assert (audit["ok"], audit["findings"]) == (True, [])


def test_a_waiting_room_page_survives_the_store_and_every_worker(setup: Setup) -> None:
    """It reports the lost connection, and continues without a reload."""
    store, service, phone = setup
    phone.join_room("en", OTHER)
    phone.wait_for_heading(says("room_heading_NOT_OPEN"))
    phone.driver.execute_script("window.isSame = true")
    store.kill()
    os.kill(service.workers()[0], signal.SIGKILL)
    phone.wait_until(IS_LOST)
    phone.press("[data-connection] button")
    # A poll may still be answered from a cached view of some seconds, so the note can disappear for a moment.
    phone.wait_for_text("[data-connection]", says("connection_lost"))
    store.start()
    phone.wait_until(IS_CONNECTED)
    until(lambda: len(service.workers()) == 2, "two workers")
    for worker in service.workers():
        os.kill(worker, signal.SIGKILL)
        service.wait_for(rf"worker ({worker}) ended")
    until(lambda: len(service.workers()) == 2, "two new workers")
    assert phone.text("[data-text=people]") == says("room_people_one")
    phone.wait_until(IS_CONNECTED)
    assert phone.driver.execute_script("return window.isSame"), "the page was loaded again"
