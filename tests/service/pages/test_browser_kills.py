"""A real browser while the store and the workers of its service are killed: what does not answer is said, nothing that
was typed or taken is lost, and the pages go on by themselves.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from tests.service.pages.citizen.test_booking import TEXTS
from tests.service.test_kills import KEY
from tests.service.test_runner import served
from tests.support.browser import Phone
from tests.support.in_process_service import NIK, OTHER
from tests.support.live_opening import write_opening
from tests.support.servers import Server, until, valkey_server_binary

IS_LOST = "document.querySelector('[data-lost] button') !== null"
IS_BACK = "document.querySelector('[data-lost] button') === null"


def says(name: str) -> str:
    return str(TEXTS[name]["en"])


def test_pages_while_the_store_and_the_workers_die(tmp_path: Path) -> None:
    """A form is sent until it is answered, a page that can not come comes later, a waiting room says that it is not up
    to date: each with a button to try again, and without anybody pressing it.
    """
    made = write_opening(tmp_path, 3_600)
    environment = {"QUOTA_ENGINE_IDENTITY_KEY": KEY}
    with Server(valkey_server_binary(), appendfsync="always") as store:
        environment["QUOTA_ENGINE_BACKEND"] = f"{store.url}?durability=fsync&attempts_max=2&timeout_ms=500"
        with (
            served(tmp_path, "--config", str(made.config), "--workers", "2", **environment) as service,
            Phone(service.url, tmp_path / "profile") as phone,
        ):
            until(lambda: len(service.workers()) == 2, "two workers")
            phone.hurry()
            phone.open("/?lang=en")
            phone.choose("en")
            phone.one("#name").send_keys("Siti Aminah")
            phone.press("#declare")
            form = phone.driver.current_window_handle

            store.kill()
            phone.press("form[action='/place/confirm'] button")
            phone.until(IS_LOST)
            assert says("lost") in phone.one("[data-lost]").text
            phone.check()
            assert phone.one("#name").get_attribute("value") == "Siti Aminah"
            phone.driver.switch_to.new_window("tab")
            phone.hurry()
            phone.open("/place")
            phone.heading(says("away_title"))
            assert phone.one("a.button").text == says("try_again")
            store.start()
            phone.heading(says("held_title"), says("done_title"))
            phone.driver.switch_to.window(form)
            phone.heading(says("done_title"))
            number = phone.one(".number strong").text

            # Somebody in the waiting room: the store dies, a worker with it, and then each of the workers.
            phone.driver.delete_all_cookies()
            phone.join("en", OTHER)
            phone.heading(says("room_head_NOT_OPEN"))
            phone.driver.execute_script("window.same = true")
            store.kill()
            os.kill(service.workers()[0], signal.SIGKILL)
            phone.until(IS_LOST)
            phone.press("[data-lost] button")
            # Rooms are answered from a view of some seconds, so it may have been back in between.
            phone.until("document.querySelector('[data-lost]').textContent.includes(arguments[0])", says("lost"))
            store.start()
            phone.until(IS_BACK)
            until(lambda: len(service.workers()) == 2, "two workers")
            for worker in service.workers():
                os.kill(worker, signal.SIGKILL)
                service.wait_for(rf"worker ({worker}) has ended")
            until(lambda: len(service.workers()) == 2, "two new workers")
            assert phone.one("[data-text=tickets]").text == says("room_tickets_one")
            phone.until(IS_BACK)
            assert phone.driver.execute_script("return window.same"), "it was loaded anew"

            # And nothing was lost or sold twice: the same NIK has the same number, from a browser that knows nothing.
            phone.driver.delete_all_cookies()
            phone.open("/?lang=en")
            phone.press(".slot.open input:not(:disabled)")
            phone.one("#nik").send_keys(NIK)
            phone.press("form[action='/reserve'] button.large")
            phone.heading(says("done_title"))
            assert phone.one(".number strong").text == number
            assert NIK not in phone.driver.page_source
            audit = httpx.get(f"{service.url}/v1/audit", headers=service.token("auditor"), timeout=30).json()
            assert (audit["ok"], audit["findings"]) == (True, [])
    assert service.process.returncode == 0
