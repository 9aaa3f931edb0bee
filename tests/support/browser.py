"""Debian's chromium at the size of a phone. Without it, tests fail if ``CI=true`` and skip otherwise."""

from __future__ import annotations

__all__ = ["NIK", "PATIENCE_S", "PICTURES", "POLL_S", "PhoneBrowser"]

import base64
import contextlib
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    JavascriptException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.page_texts import citizen_text

PICTURES: Final = "QUOTA_ENGINE_PICTURES"
"""Environment variable with the folder for the documents' pictures. Without it, no picture is taken."""
AXE: Final = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
NIK: Final = "3578012345678901"
PATIENCE_S: Final = 40
POLL_S: Final = 0.05
T = TypeVar("T")

_SCRIPT_S: Final = 120
"""Time for axe-core and for the verification of a whole room, also on a machine with other work."""
_SCREEN_WIDTH_MIN: Final = 800
_COLORS: Final = 48
_TABS_MAX: Final = 60
_ATTEMPTS_MAX: Final = 5
_PAGE_CHANGES: Final = (
    StaleElementReferenceException,
    NoSuchElementException,
    ElementClickInterceptedException,
    ElementNotInteractableException,
    JavascriptException,
)
"""Errors of a command that meets a page while it loads, or while its script replaces a part."""
_REPLACED: Final = "does not belong to the document"
"""Part of the message of a general error, for an element that is replaced while it is read."""


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        problem = f"no {name}: install Debian's packages chromium and chromium-driver"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(problem)
        pytest.skip(problem)
    return found


class PhoneBrowser:
    """A browser of the size of a phone, with its profile in a folder."""

    def __init__(self, url: str, profile: Path, *, dark: bool = False, script: bool = True) -> None:
        """Start the browser.

        Args:
            url: Address of the service, without a path.
            profile: Folder of the profile.
            dark: True for the dark color scheme.
            script: False to disable JavaScript.
        """
        options = webdriver.ChromeOptions()
        options.binary_location = _find_program("chromium")
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-gpu",  # a process that emulates one takes a tenth of the processor time
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        if not script:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        self.driver = webdriver.Chrome(options=options, service=Service(_find_program("chromedriver")))
        self.driver.set_script_timeout(_SCRIPT_S)
        self.url = url
        self.resize()
        self.set_scheme(dark=dark)

    @contextlib.contextmanager
    def visiting(self, url: str, *, script: bool = True) -> Iterator[Self]:
        """Use this browser for one visitor of a service, who finds no cookie, no cached page and no history.

        To start a browser takes 2 s of processor time, so tests of a module share one. The end of the visit closes its
        tabs, and with them what a tab stores and its connections to the service.

        Args:
            url: Address of the service, without a path.
            script: False to disable JavaScript.
        """
        self.url = url
        for command in ("Network.clearBrowserCookies", "Network.clearBrowserCache"):
            self.driver.execute_cdp_cmd(command, {})
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        self.resize()
        self.set_scheme(dark=False)
        try:
            yield self
        finally:
            used = self.driver.window_handles
            self.driver.switch_to.new_window("tab")
            unused = self.driver.current_window_handle
            for tab in used:
                self.driver.switch_to.window(tab)
                self.driver.close()
            self.driver.switch_to.window(unused)

    # --- Window ---

    def resize(self, width: int = 390, height: int = 844) -> None:
        """Set the size of the window in CSS pixels, and wait until the page is laid out for it."""
        is_phone = width < _SCREEN_WIDTH_MIN
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # The inner width of a phone also depends on the page.
        self.wait_until(f"{'outerWidth' if is_phone else 'innerWidth'} === arguments[0]", width)

    def set_scheme(self, *, dark: bool) -> None:
        """Set the color scheme."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def speed_up_timers(self) -> None:
        """Run the timers of all pages that are opened from now on ten times as fast."""
        source = (
            "const later = setTimeout; window.setTimeout = (done, wait, ...more) => later(done, wait / 10, ...more)"
        )
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})

    # --- Read ---

    def open(self, path: str = "/") -> None:
        """Open a page of the service."""
        self.driver.get(self.url + path)

    def attempt(self, act: Callable[[], T]) -> T:
        """Repeat a function until its result is true, and return the result.

        A page may load or replace a part at any moment, so the errors that this causes are no failures.
        """
        problem: WebDriverException | None = None

        def is_done(_: object) -> tuple[T] | None:
            nonlocal problem
            try:
                result = act()
            except WebDriverException as error:
                if not isinstance(error, _PAGE_CHANGES) and _REPLACED not in str(error):
                    raise
                problem = error
                return None
            return (result,) if result else None

        try:
            done = WebDriverWait(self.driver, PATIENCE_S, POLL_S).until(is_done)
        except TimeoutException as error:
            raise error from problem
        assert done is not None
        return done[0]

    def find(self, selector: str) -> Any:
        """Wait for an element, and return it."""
        return self.attempt(lambda: self.driver.find_element(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        """Wait for an element, and return its visible text."""
        return self.attempt(lambda: (self.driver.find_element(By.CSS_SELECTOR, selector).text,))[0]

    def wait_until(self, expression: str, *values: Any) -> Any:
        """Wait until a JavaScript expression is true."""
        return self.attempt(lambda: self.driver.execute_script(f"return {expression}", *values))

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until an element shows a text, with others or alone."""
        self.wait_until("document.querySelector(arguments[0]).innerText.includes(arguments[1])", selector, text)

    def wait_for_heading(self, *texts: str) -> str:
        """Wait for a page with one of these headings, and return the heading."""
        script = "return [...document.querySelectorAll('h1')].map((one) => one.innerText)"
        shown: list[str] = []

        def is_shown() -> list[str]:
            shown[:] = self.driver.execute_script(script)
            return [one for one in shown if one in texts]

        try:
            return self.attempt(is_shown)[0]
        except TimeoutException as error:
            raise AssertionError(f"{shown} instead of {texts} at {self.driver.current_url}") from error

    # --- Act ---

    def press(self, selector: str) -> None:
        """Scroll an element into view, and click it."""

        def click() -> bool:
            found = self.driver.find_element(By.CSS_SELECTOR, selector)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            found.click()
            return True

        self.attempt(click)

    def tab_to(self, selector: str) -> None:
        """Move the focus to an element with the Tab key."""
        self.find(selector)
        for _ in range(_TABS_MAX):
            if self.driver.execute_script("return document.activeElement.matches(arguments[0])", selector):
                return
            self.type(Keys.TAB)
        raise AssertionError(f"no Tab leads to {selector}")

    def type(self, *keys: str) -> None:
        """Type into the focused element."""

        def send() -> bool:
            self.driver.switch_to.active_element.send_keys(*keys)
            return True

        self.attempt(send)

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field."""

        def is_filled() -> bool:
            field = self.driver.find_element(By.CSS_SELECTOR, selector)
            field.send_keys(Keys.CONTROL, "a", Keys.NULL, text)
            return self.has_value(selector, text)

        self.attempt(is_filled)

    def has_value(self, selector: str, text: str) -> bool:
        """Return True if a field has this value."""
        script = "return document.querySelector(arguments[0])?.value === arguments[1]"
        return bool(self.driver.execute_script(script, selector, text))

    def join_room(self, language: str, nik: str = NIK) -> None:
        """Open the start page, and join the waiting room."""
        self.open(f"/?lang={language}")
        self.fill("#join-nik", nik)
        self.press("form[action='/room/join'] button")

    def reserve(self, language: str, nik: str = NIK, *, together: threading.Barrier | None = None) -> None:
        """Reserve the first free slot, and try again if another applicant was faster.

        ``together``: barrier at which several browsers meet before their first attempt.
        """
        held, refused = citizen_text("held_heading", language), citizen_text("refusal_heading", language)
        for attempt in range(_ATTEMPTS_MAX):
            self.press(".slot.open input:not(:disabled)")
            self.fill("#nik", nik)
            if together is not None and attempt == 0:
                together.wait(PATIENCE_S)
            self.press("form[action='/reserve'] button.large")
            if self.wait_for_heading(held, refused) == held:
                return
            self.press("a.button.quiet")
        raise AssertionError(f"no place after {_ATTEMPTS_MAX} attempts")

    # --- Check ---

    def check_accessibility(self) -> None:
        """Check that axe-core finds no violation. Scripts of the driver are exempt from the page's own policy."""
        if not AXE.exists():
            if os.environ.get("CI") == "true":
                raise FileNotFoundError("no axe-core: npm ci --prefix tests/support/axe")
            return
        script = AXE.read_text(encoding="utf-8") + (
            "; axe.run(document, {runOnly: arguments[0], resultTypes: ['violations'], iframes: false}).then("
            "(found) => arguments[1](found.violations.map((one) => one.id + ': ' + one.nodes[0].html)))"
        )
        # A new document may come meanwhile, such as the one that follows the page of an outage.
        (found,) = self.attempt(lambda: (self.driver.execute_async_script(script, list(RULES)),))
        assert found == [], f"{self.driver.current_url}: {found}"

    def take_picture(self, name: str, *, whole: bool = False, colors: int = _COLORS) -> None:
        """Take a picture for the documents, if :data:`PICTURES` is set.

        Args:
            name: File name without its ending.
            whole: True for the whole page, False for the visible part.
            colors: Number of colors, which keeps the file small.
        """
        folder = os.environ.get(PICTURES)
        if not folder:
            return
        self.driver.execute_script("scrollTo(0, 0); document.activeElement.blur()")
        self.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        size = self.driver.execute_script(
            "return [innerWidth, arguments[0] ? document.documentElement.scrollHeight : innerHeight]", whole
        )
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 2 if size[0] < _SCREEN_WIDTH_MIN else 1}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        image = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
        image.quantize(colors, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)

    # --- Close ---

    def quit(self) -> None:
        """Close the browser with all its tabs. The profile remains."""
        self.driver.quit()

    def kill(self) -> None:
        """Kill the browser, as a phone does that runs out of memory."""
        driver = self.driver.service.process.pid
        for pid in Path(f"/proc/{driver}/task/{driver}/children").read_text(encoding="ascii").split():
            os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.driver.quit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.driver.quit()
