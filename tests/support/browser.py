"""A real browser, Debian's chromium, of a phone's size. Without one: an error where ``CI=true``, or else a skip."""

from __future__ import annotations

__all__ = ["NIK", "PATIENCE_S", "PICTURES", "Phone"]

import base64
import contextlib
import io
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any, Final, Self

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import (
    JavascriptException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.service.pages.citizen.test_booking import TEXTS

PICTURES: Final = "QUOTA_ENGINE_PICTURES"
"""The variable with the folder for the documents' pictures. Without it none are taken."""
AXE: Final = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
NIK: Final = "3578012345678901"
PATIENCE_S: Final = 40
POLL_S: Final = 0.05
_COLORS: Final = 48


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
        self.resize()
        self.scheme(dark=dark)

    def resize(self, width: int = 390, height: int = 844) -> None:
        """A phone, or something else."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def hurry(self) -> None:
        """From the next page on, what a page does after a while it does ten times as soon."""
        source = (
            "const later = setTimeout; window.setTimeout = (done, wait, ...more) => later(done, wait / 10, ...more)"
        )
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})

    def scheme(self, *, dark: bool) -> None:
        """Light or dark."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, path: str = "/") -> None:
        self.driver.get(self.url + path)

    def one(self, selector: str) -> Any:
        """The element, once it is there."""
        return WebDriverWait(self.driver, PATIENCE_S, POLL_S).until(lambda d: d.find_element(By.CSS_SELECTOR, selector))

    def until(self, script: str, *values: Any) -> Any:
        """Wait for an expression to be true."""
        return WebDriverWait(self.driver, PATIENCE_S, POLL_S).until(
            lambda d: d.execute_script(f"return {script}", *values)
        )

    def heading(self, *texts: str) -> str:
        """Wait for one of some pages, and say which it is."""
        script = "return [...document.querySelectorAll('h1')].map((one) => one.innerText)"
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.driver, PATIENCE_S, POLL_S).until(lambda d: set(d.execute_script(script)) & set(texts))
        (text,) = self.driver.execute_script(script)
        assert text in texts, text
        return str(text)

    def press(self, selector: str) -> None:
        """Press it where it is, with a pointer."""

        def pressed(driver: webdriver.Chrome) -> bool:
            found = driver.find_element(By.CSS_SELECTOR, selector)
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            found.click()
            return True

        ignored = [StaleElementReferenceException, NoSuchElementException]
        WebDriverWait(self.driver, PATIENCE_S, POLL_S, ignored_exceptions=ignored).until(pressed)

    def tab_to(self, selector: str) -> None:
        """With the key only."""
        for _ in range(60):
            if self.driver.switch_to.active_element == self.one(selector):
                return
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
        raise AssertionError(f"no Tab leads to {selector}")

    def keys(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def join(self, language: str, nik: str = NIK) -> None:
        self.open(f"/?lang={language}")
        self.one("#join-nik").send_keys(nik)
        self.press("form[action='/room/join'] button")

    def choose(self, language: str, nik: str = NIK, *, together: threading.Barrier | None = None) -> None:
        """Take a place, and another one if somebody else was sooner; the first time in the same moment as others."""
        for attempt in range(5):
            self.press(".slot.open input:not(:disabled)")
            self.one("#nik").send_keys(nik)
            if together is not None and attempt == 0:
                together.wait(PATIENCE_S)
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
                raise FileNotFoundError("no axe-core: npm ci --prefix tests/support/axe")
            return
        script = AXE.read_text(encoding="utf-8") + (
            "; axe.run(document, {runOnly: arguments[0], resultTypes: ['violations'], iframes: false}).then("
            "(found) => arguments[1](found.violations.map((one) => one.id + ': ' + one.nodes[0].html)))"
        )
        try:
            found = self.driver.execute_async_script(script, list(RULES))
        except JavascriptException:  # the page has just loaded itself anew, as it does when a room opens
            found = self.driver.execute_async_script(script, list(RULES))
        assert found == [], self.driver.current_url

    def take_picture(self, name: str, *, whole: bool = False, colors: int = _COLORS) -> None:
        """Take a picture for the documents, if they are asked for: of what is seen, or of the whole page."""
        folder = os.environ.get(PICTURES)
        if not folder:
            return
        self.driver.execute_script("scrollTo(0, 0); document.activeElement.blur()")
        self.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        size = self.driver.execute_script(
            "return [innerWidth, arguments[0] ? document.documentElement.scrollHeight : innerHeight]", whole
        )
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 2 if size[0] < 800 else 1}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        image = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
        image.quantize(colors, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)

    def quit(self) -> None:
        """Close the browser with all its tabs; its profile is left."""
        self.driver.quit()

    def kill(self) -> None:
        """The browser is gone from one moment to the next, as on a phone that is out of memory."""
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
