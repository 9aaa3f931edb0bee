"""The operators' pages in a real browser: nothing that axe-core finds, on a screen and on a phone, in both languages,
light and dark; live figures, and what they say when nobody answers. Without a browser: an error where ``CI=true``, or
else a skip.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from quota_engine.service.http.auth import Role
from tests.service.pages.citizen.test_booking import TEXTS
from tests.support.browser import PATIENCE_S, PICTURES, Phone
from tests.support.in_process_service import TOKENS, Client, listening
from tests.support.seeded_service import DRAW, TODAY, seeded

SIZES: Final = (1280, 390)
PAGES: Final = {
    "board": f"/operator?draw={DRAW}",
    "offices": "/operator/offices",
    "day": "/operator/day?day=2026-12-07",
    "day-close": "/operator/day?day=2026-12-08&ask=close",
    "room": "/operator/room?ask=close",
    "room-unknown": "/operator/room?room=nix",
    "queue": "/operator/queue",
    "no-show": "/operator/queue/no-show?number=25",
    "opening": "/operator/opening",
    "audit": "/operator/audit",
    "unknown": "/operator?office=nix",
}
DRAWN: Final = (("board", 1280), ("opening", 1280), ("queue", 390))
"""What the documents have pictures of."""


class Screen(Phone):
    """A browser window of any width."""

    def sign_in(self, language: str) -> None:
        self.driver.delete_all_cookies()
        self.open(f"/operator?lang={language}")
        self.one("#token").send_keys(TOKENS[Role.OPERATOR], Keys.ENTER)
        self.one("nav.tabs")

    def look(self, name: str, language: str) -> None:
        """Nothing to find, and nothing that sticks out: Indonesian on a screen, English on a phone; and the other way
        round where pictures are taken, since that takes twice as long.
        """
        for width in SIZES if os.environ.get(PICTURES) else (SIZES[language == "en"],):
            dark = (width == SIZES[0]) is (language == "en")
            self.resize(width, 900)
            self.scheme(dark=dark)
            widest = self.driver.execute_script("return Math.max(innerWidth, document.documentElement.scrollWidth)")
            assert widest == width, f"{name} needs {widest} pixels"
            self.check()
            if (name, width) in DRAWN and language == "en":
                self.scheme(dark=False)
                self.resize(width, 1_200 if width == SIZES[0] else 844)
                self.take_picture(f"operator-{name}", colors=192)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def wait_for(self, condition: Any) -> None:
        WebDriverWait(self.driver, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]).until(
            lambda _: condition()
        )


async def test_the_operators_pages_in_a_browser(tmp_path: Path) -> None:
    async with seeded() as client, listening(client.app) as port:
        loop = asyncio.get_running_loop()

        def sold() -> None:
            asyncio.run_coroutine_threadsafe(_sell(client), loop).result(PATIENCE_S)

        def look() -> None:
            with Screen(f"http://127.0.0.1:{port}", tmp_path / "profile") as screen:
                _every_page(screen)
                _mistakes_take_the_focus(screen)
                _figures_are_live(screen, sold)
                _the_desk(screen)

        await asyncio.to_thread(look)


async def _sell(client: Client) -> None:
    client.clock.advance_ms(2_000)
    found = await client.reserve(
        "3578999999999999", session="morning", channel="kiosk", path="/v1/offices/surabaya/days/2026-12-09"
    )
    assert found.status_code == 201, found.text


def _every_page(screen: Screen) -> None:
    for language in ("id", "en"):
        screen.driver.delete_all_cookies()
        screen.open(f"/operator?lang={language}")
        screen.look("login", language)
        screen.sign_in(language)
        for name, path in PAGES.items():
            screen.open(path)
            screen.look(name, language)


def _mistakes_take_the_focus(screen: Screen) -> None:
    """The field that is wrong is focused, with its text; so is the question whether somebody is sure."""
    screen.open(PAGES["day"])
    for typed, focused in (("many", "capacity-online"), ("3", "sure")):
        field = screen.one("#capacity-online")
        field.clear()
        field.send_keys(typed, Keys.ENTER)
        screen.one(f"#{focused}-wrong" if focused != "sure" else "#sure")
        screen.wait_for(lambda: screen.driver.switch_to.active_element.get_attribute("id") == focused)  # noqa: B023
        screen.look(f"day-{typed}", "en")


def _figures_are_live(screen: Screen, sold: Any) -> None:
    """A place that is sold is seen without reloading, and the focus stays where it was; when nobody answers any more,
    the page says that its figures are old.
    """
    screen.open(PAGES["board"])
    screen.driver.execute_script("window.sameDocument = true; document.getElementById('day-2026-12-09').focus()")
    row = "#day-2026-12-09"
    held = (
        "return document.querySelector(arguments[0]).closest('tbody')"
        ".querySelectorAll('tr')[3].querySelector('td.held span:last-child').textContent"
    )
    assert screen.driver.execute_script(held, row) == "0"
    sold()
    screen.wait_for(lambda: screen.driver.execute_script(held, row) == "1")
    assert screen.driver.execute_script("return window.sameDocument === true")
    assert screen.driver.switch_to.active_element.get_attribute("id") == "day-2026-12-09"
    stale = screen.driver.find_element(By.CSS_SELECTOR, "[data-stale]")
    assert not stale.is_displayed()
    screen.driver.execute_cdp_cmd("Network.enable", {})
    conditions = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    screen.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
    screen.wait_for(stale.is_displayed)
    screen.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**conditions, "offline": False})
    screen.wait_for(lambda: not stale.is_displayed())


def _the_desk(screen: Screen) -> None:
    """The field for numbers has the focus: what a scanner types, with Enter behind it, checks in; and the next one."""
    screen.open(f"/operator/queue?day={TODAY}")
    for number in ("24", "26"):
        screen.driver.switch_to.active_element.send_keys(number, Keys.ENTER)
        told = TEXTS["op_done_check-in"]["en"].format(number=number)
        screen.wait_for(lambda: told in screen.text("main"))  # noqa: B023
    screen.driver.switch_to.active_element.send_keys("24", Keys.ENTER)
    screen.one("#number-wrong")
