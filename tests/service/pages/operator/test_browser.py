"""The operators' pages in a real browser: accessibility on a screen and on a phone, focus, and live figures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from quota_engine.service.http.auth import Role
from tests.support.browser import PATIENCE_S, PICTURES, PhoneBrowser
from tests.support.effort import PROFILE
from tests.support.in_process_service import TOKENS, Client, listening
from tests.support.page_texts import operator_text
from tests.support.seeded_service import DRAW, TODAY, seeded_service

pytestmark = pytest.mark.browser

SIZES: Final = (1280, 390)
PAGES: Final = {
    "dashboard": f"/operator?draw={DRAW}",
    "offices": "/operator/offices",
    "day": "/operator/day?day=2026-12-07",
    "day-close": "/operator/day?day=2026-12-08&ask=close",
    "room": "/operator/room?ask=close",
    "room-unknown": "/operator/room?room=nix",
    "queue": "/operator/queue",
    "no-show": "/operator/queue/no-show?number=25",
    "registration": "/operator/reservation?number=26&day=2026-12-04",
    "walk-in": "/operator/walk-in?day=2026-12-09",
    "call": "/operator/call?counter=3",
    "screen": "/operator/screen",
    "print": "/operator/queue/print",
    "catalog": "/operator/catalog",
    "report": "/operator/report",
    "commands": "/operator/commands",
    "opening": "/operator/opening",
    "audit": "/operator/audit",
    "unknown": "/operator?office=nix",
}
PICTURED: Final = (("dashboard", 1280), ("opening", 1280), ("queue", 390))
"""Pages and widths of which the documents have pictures."""


class OperatorWindow(PhoneBrowser):
    """A browser window of any width."""

    def sign_in(self, language: str) -> None:
        """Sign in as an operator."""
        self.driver.delete_all_cookies()
        self.open(f"/operator?lang={language}")
        self.fill("#token", TOKENS[Role.OPERATOR])
        self.type(Keys.ENTER)
        self.find("nav.tabs")

    def check(self, name: str, language: str, *, by_axe: bool = True) -> None:
        """Check that the page is not too wide, and that axe-core finds nothing.

        Indonesian is checked on a screen and English on a phone. Where pictures are taken, both are checked on both.

        Args:
            name: Name of the page, for messages and pictures.
            language: Language of the page.
            by_axe: False to leave axe-core out.
        """
        for width in SIZES if os.environ.get(PICTURES) else (SIZES[language == "en"],):
            self.resize(width, 900)
            self.set_scheme(dark=(width == SIZES[0]) is (language == "en"))
            widest = self.driver.execute_script("return Math.max(innerWidth, document.documentElement.scrollWidth)")
            assert widest == width, f"{name} needs {widest} pixels"
            if by_axe:
                self.check_accessibility()
            if (name, width) in PICTURED and language == "en":
                self.set_scheme(dark=False)
                self.resize(width, 1_200 if width == SIZES[0] else 844)
                self.take_picture(f"operator-{name}", colors=192)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition is true. An element that is replaced meanwhile is looked up again."""
        self.attempt(condition)

    @property
    def focused_id(self) -> str:
        """Id of the focused element."""
        return str(self.driver.execute_script("return document.activeElement.id"))


async def test_the_operators_pages_are_accessible_and_live(tmp_path: Path) -> None:
    """One service and one browser for all checks, because both take long to start."""
    async with seeded_service() as client, listening(client.app) as port:
        loop = asyncio.get_running_loop()

        def reserve() -> None:
            asyncio.run_coroutine_threadsafe(_reserve(client), loop).result(PATIENCE_S)

        def check() -> None:
            with OperatorWindow(f"http://127.0.0.1:{port}", tmp_path / "profile") as window:
                _every_page_is_accessible(window)
                _errors_and_questions_take_the_focus(window)
                _figures_are_live(window, reserve)
                _a_scanner_checks_in(window)
                _a_check_in_is_undone(window)
                _a_camera_checks_in(window)

        await asyncio.to_thread(check)


async def _reserve(client: Client) -> None:
    client.clock.advance_ms(2_000)
    found = await client.reserve(
        "3578999999999999", session="morning", channel="kiosk", path="/v1/offices/surabaya/days/2026-12-09"
    )
    assert found.status_code == 201, found.text


def _every_page_is_accessible(window: OperatorWindow) -> None:
    """In the gate, axe-core checks half of the pages on a screen in Indonesian, and half on a phone in English."""
    for language in ("id", "en"):
        window.driver.delete_all_cookies()
        window.open(f"/operator?lang={language}")
        window.check("login", language)
        window.sign_in(language)
        for number, (name, path) in enumerate(PAGES.items()):
            window.open(path)
            window.check(name, language, by_axe=PROFILE != "gate" or number % 2 == (language == "en"))


def _errors_and_questions_take_the_focus(window: OperatorWindow) -> None:
    window.open(PAGES["day"])
    for value, focused, shown in (
        ("many", "capacity-online", "#capacity-online-error"),
        ("3", "low-capacity", "#low-capacity"),
    ):
        window.fill("#capacity-online", value)
        window.type(Keys.ENTER)
        window.find(shown)
        window.wait_for(lambda: window.focused_id == focused)  # noqa: B023
        window.check(f"day-{value}", "en")


def _figures_are_live(window: OperatorWindow, reserve: Callable[[], None]) -> None:
    """A sale appears without a reload and without moving the focus; an outage marks the figures as stale."""
    window.open(PAGES["dashboard"])
    window.driver.execute_script("window.isSame = true; document.getElementById('day-2026-12-09').focus()")
    held = (
        "return document.querySelector('#day-2026-12-09').closest('tr').querySelector('td.held span:last-child')"
        ".textContent"
    )
    before = int(window.driver.execute_script(held))
    reserve()
    window.wait_for(lambda: window.driver.execute_script(held) == str(before + 1))
    assert window.driver.execute_script("return window.isSame === true")
    assert window.focused_id == "day-2026-12-09"
    stale = window.driver.find_element(By.CSS_SELECTOR, "[data-stale]")
    assert not stale.is_displayed()
    window.driver.execute_cdp_cmd("Network.enable", {})
    conditions = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    window.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
    window.wait_for(stale.is_displayed)
    window.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**conditions, "offline": False})
    window.wait_for(lambda: not stale.is_displayed())


def _a_camera_checks_in(window: OperatorWindow) -> None:
    """Chromium has no detector on this system, so that a stand-in reads the number from a picture."""
    stand_in = (
        "window.BarcodeDetector = class { async detect() { return [{ rawValue: '28' }]; } };"
        "navigator.mediaDevices.getUserMedia = async () => {"
        " const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');"
        " setInterval(() => pen.fillRect(0, 0, 9, 9), 20); return canvas.captureStream(25); };"
    )
    window.open(f"/operator/queue?day={TODAY}")
    assert not window.find("[data-scan]").is_displayed()
    added = window.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": stand_in})
    window.open(f"/operator/queue?day={TODAY}")
    window.press("[data-scan]")
    done = operator_text("done_check-in", "en", number="28")
    window.wait_for_text("main", done)
    # The camera continues after the check-in, and the same code counts once.
    window.wait_for(lambda: window.driver.execute_script("return document.querySelector('video')?.videoWidth > 0"))
    window.wait_for_text("main", done)
    window.driver.execute_script("sessionStorage.removeItem('scans')")
    window.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def _a_check_in_is_undone(window: OperatorWindow) -> None:
    """The message has the button, and the row gets its other buttons back."""
    window.open(f"/operator/queue?day={TODAY}&show=expected")
    row_button = window.wait_until("document.querySelector('button[id^=in-]').id")
    window.press(f"#{row_button}")
    window.find("#undo-now")
    window.check("queue-undo", "en")
    window.press("#undo-now")
    window.wait_for(lambda: not window.driver.find_elements("css selector", "#undo-now"))
    window.wait_for(lambda: window.find(f"#{row_button}").is_displayed())


def _a_scanner_checks_in(window: OperatorWindow) -> None:
    """The focus stays in the field for numbers, so a scanner that types and presses Enter works without a mouse."""
    window.open(f"/operator/queue?day={TODAY}")
    for number in ("24", "26"):
        # The browser moves the focus some time after the page is there.
        window.wait_for(lambda: window.focused_id == "number")
        window.type(number, Keys.ENTER)
        window.wait_for_text("main", operator_text("done_check-in", "en", number=number))
    window.wait_for(lambda: window.focused_id == "number")
    window.type("24", Keys.ENTER)
    window.find("#number-error")
