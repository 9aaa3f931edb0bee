"""Finish on this computer, in a real browser: the Back button and a reload show nothing of the person before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from quota_engine.service.http.auth import Role
from tests.support.browser import NIK, PhoneBrowser
from tests.support.browser_service import BrowserService, browser_service
from tests.support.in_process_service import TOKENS
from tests.support.page_texts import citizen_text

pytestmark = pytest.mark.browser

NAME: Final = "Siti Aminah"
STEPS_BACK: Final = 5
IS_SHOWN: Final = "document.readyState === 'complete' && !document.documentElement.hidden"
"""A page from the browser's memory is hidden until it is loaded again."""


@pytest.fixture
def service() -> Iterator[BrowserService]:
    with browser_service() as service:
        yield service


def _book(phone: PhoneBrowser) -> str:
    """Book a place and confirm it, and return its registration code."""
    phone.open("/?lang=en")
    phone.reserve("en")
    if phone.driver.execute_script("return 'BroadcastChannel' in window"):
        phone.fill("#name", NAME)
    phone.press("#declaration")
    phone.press("form[action='/reservation/confirm'] button")
    phone.wait_for_heading(citizen_text("confirmed_heading", "en"))
    return phone.text("figcaption code")


def _shown(phone: PhoneBrowser) -> str:
    """Return all that the next person can read: the page, its fields, and what the browser stores.

    The empty page of a new tab may not read the storage.
    """
    script = """return [document.documentElement.outerHTML, document.title, location.href,
        ...[...document.querySelectorAll("input")].map((one) => one.value),
        ...(origin === "null" ? [] : [JSON.stringify(localStorage), JSON.stringify(sessionStorage)])].join(" ")"""
    return f"{phone.driver.execute_script(script)} {phone.driver.get_cookies()}"


def _check_nothing_of(phone: PhoneBrowser, code: str) -> None:
    shown = _shown(phone)
    for secret in (code, NIK, NAME, citizen_text("confirmed_heading", "en"), citizen_text("held_heading", "en")):
        assert secret not in shown, f"{secret} at {phone.driver.current_url}"


def test_back_and_reload_show_nothing_of_a_finished_visit(service: BrowserService, browser: PhoneBrowser) -> None:
    with browser.visiting(service.url) as phone:
        code = _book(phone)
        assert NAME in _shown(phone), "the test looks in the right place"
        assert "reservation" in {cookie["name"] for cookie in phone.driver.get_cookies()}
        phone.press("form[action='/finish'] button")
        phone.wait_for_heading(citizen_text("finished_heading", "en"))
        phone.check_accessibility()
        _check_nothing_of(phone, code)
        assert {cookie["name"] for cookie in phone.driver.get_cookies()} <= {"lang"}
        for _ in range(STEPS_BACK):
            phone.driver.back()
            phone.wait_until(IS_SHOWN)
            _check_nothing_of(phone, code)
            if phone.driver.current_url.startswith(service.url):
                phone.driver.refresh()
                _check_nothing_of(phone, code)
        phone.open("/reservation")
        phone.wait_for_heading(citizen_text("choose_heading", "en"))
        _check_nothing_of(phone, code)


def test_page_in_another_tab_ends_with_the_visit(service: BrowserService, browser: PhoneBrowser) -> None:
    with browser.visiting(service.url) as phone:
        code = _book(phone)
        first = phone.driver.current_window_handle
        phone.driver.switch_to.new_window("tab")
        phone.open("/reservation")
        phone.wait_for_heading(citizen_text("confirmed_heading", "en"))
        phone.press("form[action='/finish'] button")
        phone.wait_for_heading(citizen_text("finished_heading", "en"))
        phone.driver.switch_to.window(first)
        phone.wait_for_heading(citizen_text("choose_heading", "en"))
        _check_nothing_of(phone, code)


def test_page_from_the_browsers_memory_is_hidden_and_loaded_again(
    service: BrowserService, browser: PhoneBrowser
) -> None:
    """The events of a page that the browser keeps in its memory are made by the test, because it keeps few pages."""
    with browser.visiting(service.url) as phone:
        code = _book(phone)
        hide = "dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))"
        phone.driver.execute_script(hide)
        assert phone.driver.execute_script("return getComputedStyle(document.documentElement).display") == "none"
        phone.driver.delete_all_cookies()
        phone.driver.execute_script("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        starts = [citizen_text("choose_heading", language) for language in ("id", "en")]
        phone.wait_for_heading(*starts)
        assert code not in phone.driver.page_source


def test_back_shows_no_page_of_an_operator_who_has_signed_out(service: BrowserService, browser: PhoneBrowser) -> None:
    for script in (True, False):
        with browser.visiting(service.url, script=script) as phone:
            phone.open("/operator?lang=en")
            phone.fill("#token", TOKENS[Role.OPERATOR])
            phone.press("form[action='/operator/login'] button")
            phone.press("form[action='/operator/logout'] button")
            phone.find("#token")
            phone.driver.back()
            phone.wait_until(IS_SHOWN)
            assert "/operator/logout" not in phone.driver.page_source


def test_finishing_works_without_javascript(service: BrowserService, browser: PhoneBrowser) -> None:
    with browser.visiting(service.url, script=False) as phone:
        phone.open("/?lang=en")
        phone.press(".slot.open input:not(:disabled)")
        phone.fill("#nik", NIK)
        phone.press("form[action='/reserve'] button.large")
        phone.press("form[action='/finish'] button")
        phone.wait_for_heading(citizen_text("finished_heading", "en"))
        for _ in range(2):
            phone.driver.back()
            source = phone.driver.page_source
            assert citizen_text("held_heading", "en") not in source
            assert NIK not in source + str(phone.driver.get_cookies())
