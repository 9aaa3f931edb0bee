"""A real browser on a phone's size: from the waiting room to the queue number while 200 others compete, and back to the
same place after a closed tab, a killed browser and a new one. Without a browser: an error where ``CI=true``, or
else a skip.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.service.opening import Opening, write_opening
from tests.service.test_pages import TEXTS
from tests.service.test_running import Served, served

AXE: Final = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
OTHERS: Final = 200
CAPACITY: Final = 40
NIK: Final = "3578012345678901"
PATIENCE_S: Final = 40


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        problem = f"no {name}: install Debian's packages chromium and chromium-driver"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(problem)
        pytest.skip(problem)
    return found


class Phone:
    """A browser of a phone's size, with its profile in a folder."""

    def __init__(self, url: str, profile: Path, *, dark: bool = False, script: bool = True) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = _tool("chromium")
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        if not script:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        self.driver = webdriver.Chrome(options=options, service=Service(_tool("chromedriver")))
        self.url = url
        size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, path: str = "/") -> None:
        self.driver.get(self.url + path)

    def one(self, selector: str) -> Any:
        """The element, once it is there."""
        return WebDriverWait(self.driver, PATIENCE_S).until(lambda d: d.find_element(By.CSS_SELECTOR, selector))

    def heading(self, *texts: str) -> str:
        """Wait for one of some pages, and say which it is."""

        def found() -> list[str]:
            return [one.text for one in self.driver.find_elements(By.TAG_NAME, "h1")]

        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.driver, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]).until(
                lambda _: set(found()) & set(texts)
            )
        (text,) = found()
        assert text in texts
        return text

    def press(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.one(selector))
        self.one(selector).click()

    def join(self, language: str, nik: str = NIK) -> None:
        self.open(f"/?lang={language}")
        self.one("#join-nik").send_keys(nik)
        self.press("form[action='/room/join'] button")

    def choose(self, language: str, nik: str = NIK) -> None:
        """Take a place, and another one if somebody else was sooner."""
        for _ in range(5):
            self.press(".slot.open input:not(:disabled)")
            self.one("#nik").send_keys(nik)
            self.press("form[action='/reserve'] button.large")
            held = TEXTS["held_title"][language]
            if self.heading(held, TEXTS["sorry_title"][language]) == held:
                return
            self.press("a.button.quiet")
        raise AssertionError("no place after five tries")

    def check(self) -> None:
        """See that axe finds nothing. Scripts of the driver run beside the page's own policy."""
        if not AXE.exists():
            if os.environ.get("CI") == "true":
                raise FileNotFoundError("no axe-core: npm ci --prefix tests/service/axe")
            return
        self.driver.execute_script(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "axe.run(document, {runOnly: arguments[0]}).then((found) => arguments[1]("
            "found.violations.map((one) => one.id + ': ' + one.nodes[0].html)))",
            list(RULES),
        )
        assert found == [], self.driver.current_url

    def kill(self) -> None:
        """The browser is gone, with all its tabs; only its profile is left."""
        self.driver.quit()

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.driver.quit()


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
    """While 200 compete: called, held, and found again by a new tab, a new start and another browser; sold once."""

    def says(name: str) -> str:
        return str(TEXTS[name][language])

    profile = tmp_path / "one"
    with opening(tmp_path, 10) as (service, made), Phone(service.url, profile, dark=dark) as first:
        rivals = threading.Thread(target=lambda: asyncio.run(_compete(service, made, OTHERS)), daemon=True)
        rivals.start()
        first.join(language)
        first.heading(says("room_head_NOT_OPEN"))
        first.check()
        first.heading(says("room_turn"))
        assert first.driver.title == says("room_turn_title")
        first.check()
        first.choose(language)
        first.heading(says("held_title"))
        first.check()
        first.one("#name").send_keys("Siti Aminah")
        first.driver.switch_to.new_window("tab")
        first.open()
        first.heading(says("held_title"))
        first.kill()
        with Phone(service.url, profile, dark=dark) as again, Phone(service.url, tmp_path / "two", dark=dark) as other:
            again.open()
            again.heading(says("held_title"))
            other.join(language)
            other.heading(says("held_title"))
            again.press("#declare")
            again.press("form[action='/place/confirm'] button")
            again.heading(says("done_title"))
            again.check()
            other.open("/place")
            other.heading(says("done_title"))
            numbers = [one.one(".number strong").text for one in (again, other)]
            assert numbers[0] == numbers[1]
            assert NIK not in again.driver.page_source + str(again.driver.get_cookies())
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


def test_with_the_keyboard_only(tmp_path: Path) -> None:
    """No pointer: Tab, Space and Enter lead from the choice to the queue number; mistakes take the focus."""
    with opening(tmp_path, 3_600) as (service, _), Phone(service.url, tmp_path / "keys") as phone:
        phone.open("/?lang=en")

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if phone.driver.switch_to.active_element == phone.one(selector):
                    return
                phone.driver.switch_to.active_element.send_keys(Keys.TAB)
            raise AssertionError(f"no Tab leads to {selector}")

        tab_to("form[action='/reserve'] button.large")
        phone.driver.switch_to.active_element.send_keys(Keys.ENTER)
        phone.one("#mistakes")
        WebDriverWait(phone.driver, PATIENCE_S).until(
            lambda d: d.switch_to.active_element.get_attribute("id") == "mistakes"
        )
        phone.check()
        tab_to(".slot.open input")
        phone.driver.switch_to.active_element.send_keys(Keys.SPACE)
        tab_to("#nik")
        phone.driver.switch_to.active_element.send_keys(NIK, Keys.ENTER)
        phone.heading(TEXTS["held_title"]["en"])
        tab_to("#declare")
        phone.driver.switch_to.active_element.send_keys(Keys.SPACE)
        tab_to("form[action='/place/confirm'] button")
        phone.driver.switch_to.active_element.send_keys(Keys.ENTER)
        phone.heading(TEXTS["done_title"]["en"])


def test_without_javascript(tmp_path: Path) -> None:
    """The waiting room goes on by reloading itself, and the rest by forms."""
    with opening(tmp_path, 8) as (service, _), Phone(service.url, tmp_path / "plain", script=False) as phone:
        phone.join("id")
        phone.heading(TEXTS["room_turn"]["id"])
        phone.choose("id")
        phone.heading(TEXTS["held_title"]["id"])
        phone.press("#declare")
        phone.press("form[action='/place/confirm'] button")
        phone.heading(TEXTS["done_title"]["id"])
