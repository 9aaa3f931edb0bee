"""Typed text survives an opening, a reload and another language, and a stranger changes nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest
from selenium.webdriver.support.ui import Select

from tests.service.api.test_draws import DRAW, TERMS
from tests.support.browser import NIK, PhoneBrowser
from tests.support.browser_service import BrowserService, browser_service
from tests.support.draw_runs import MONDAY, NOW_MS, OPENS_AT_MS, catalog_with_draw
from tests.support.in_process_service import DAY, OTHER
from tests.support.page_texts import citizen_text

pytestmark = pytest.mark.browser

SLOW: Final = citizen_text("still_sending", "en")
START: Final = "/?lang=en&service=new"
BEFORE_MS: Final = 60_000
WEEK_MS: Final = 7 * 86_400_000
THIRD: Final = "3578012345678903"
FOURTH: Final = "3578012345678904"
LATE_PAGES: Final = """
    const [fetchNow, held] = [window.fetch, []];
    const answer = (url, options) => fetchNow(url, options).then(async (response) => {
        await response.clone().text();
        setTimeout(() => (window.havePagesCome = true), 50);
        return response;
    });
    window.fetch = (url, options) => options.method === "POST" ? fetchNow(url, options) : new Promise((resolve) => {
        held.push(() => resolve(answer(url, options)));
        window.arePagesLate = true;
    });
    window.letPagesCome = () => held.forEach((come) => come());
    followMain(document.querySelector("[data-refresh]"));
"""
"""Hold all pages back that the script of a page loads from now on, and let it load the main part."""
NEWS: Final = "document.querySelector('[data-news]').textContent === arguments[0]"


@pytest.fixture
def service() -> Iterator[BrowserService]:
    """A service a minute before an opening without a waiting room. The next week opens a week later."""
    with browser_service(before_ms=BEFORE_MS) as service:
        next_week = {"first_day": "2026-12-14", "last_day": "2026-12-14"}
        service.run(service.client.operate("POST", "/v1/publish", next_week))
        yield service


@pytest.fixture
def phone(service: BrowserService, browser: PhoneBrowser) -> Iterator[PhoneBrowser]:
    with browser.visiting(service.url) as phone:
        phone.speed_up_timers()
        yield phone


def _press_in(phone: PhoneBrowser, selector: str) -> None:
    """Press an element, also if a note covers it."""
    phone.driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def _hold_reserves_back(
    service: BrowserService, monkeypatch: pytest.MonkeyPatch
) -> tuple[threading.Event, list[object]]:
    """Hold all reserves back until an event. Return it, and a list with an element for each call."""
    engine = service.client.service.engine
    reserve, answer, calls = engine.reserve, threading.Event(), list[object]()

    async def slow(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        while not answer.is_set():
            await asyncio.sleep(0.02)
        return await reserve(*arguments, **more)

    monkeypatch.setattr(engine, "reserve", slow)
    return answer, calls


def test_an_open_page_becomes_able_to_book_at_the_opening(service: BrowserService, phone: PhoneBrowser) -> None:
    """The countdown runs by the server's clock. At its end the fields and the button come without a reload."""
    phone.open(START)
    assert phone.driver.execute_script("return document.querySelector('#nik')") is None
    phone.wait_for_text(".clock", citizen_text("days_open_in", "en"))
    phone.wait_until("/^(1:00|0:\\d\\d)$/.test(document.querySelector('[data-countdown]').textContent)")
    phone.driver.execute_script("window.isSame = true")
    service.advance_ms(BEFORE_MS)
    phone.find("#nik")
    assert phone.driver.execute_script("return window.isSame"), "the page was loaded again"
    phone.wait_until(NEWS, citizen_text("now_possible", "en"))
    assert phone.driver.execute_script("return document.querySelector('.clock')") is None


def test_typed_text_survives_a_reload_and_another_language(service: BrowserService, phone: PhoneBrowser) -> None:
    service.advance_ms(BEFORE_MS)
    phone.open(START)
    phone.press(f"input[value='{DAY}|afternoon']")
    phone.fill("#nik", NIK)
    _press_in(phone, "fieldset.card summary")
    phone.fill("#nik3", "123")
    for act in (phone.driver.refresh, lambda: phone.press("nav a[lang='id']")):
        act()
        phone.wait_until(f"document.querySelector('#nik')?.value === '{NIK}'")
        phone.wait_until("document.querySelector('#nik3').value === '123'")
        phone.wait_until("document.querySelector('#nik3').checkVisibility()")
        phone.wait_until(f"document.querySelector(\"input[value='{DAY}|afternoon']\").checked")
    assert phone.driver.execute_script("return localStorage.length") == 0, "kept after the tab is closed"


def test_a_screen_reader_meets_the_page_in_the_order_of_the_task(service: BrowserService, phone: PhoneBrowser) -> None:
    """The accessibility tree has the heading, the choices, the days, the NIK and the button, in this order."""
    service.advance_ms(BEFORE_MS)
    phone.open(START)
    nodes = phone.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def read(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield role and name of a node and of all below it, in the order of reading."""
        yield node.get("role", {}).get("value", ""), node.get("name", {}).get("value", "")
        for child in node.get("childIds", ()):
            yield from read(by_id[child])

    named = list(read(nodes[0]))
    wanted = [
        ("link", citizen_text("skip_to_content", "en")),
        ("heading", citizen_text("choose_heading", "en")),
        ("combobox", citizen_text("service", "en")),
        ("combobox", citizen_text("group", "en")),
        ("radiogroup", citizen_text("days_heading", "en")),
        ("group", "Monday, 7 December 2026 earliest"),
        ("textbox", citizen_text("nik", "en")),
        ("button", citizen_text("reserve", "en")),
    ]
    assert [one for one in named if one in wanted] == wanted


def test_a_press_answers_at_once_and_loads_one_page(
    service: BrowserService, phone: PhoneBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store takes long, the button is not pressed twice, and the page says what to do."""
    answer, calls = _hold_reserves_back(service, monkeypatch)
    service.advance_ms(BEFORE_MS)
    phone.open(START)
    phone.driver.execute_script("window.isSame = true")
    phone.press(f"input[value='{DAY}|afternoon']")
    phone.fill("#nik", OTHER)
    button = "form[action='/reserve'] button.large"
    for _ in range(2):
        phone.press(button)
    assert phone.text(button) == citizen_text("sending", "en")
    phone.find(f"{button}[aria-disabled=true]")
    phone.wait_until("document.querySelector('form .note[role=status]')?.textContent === arguments[0]", SLOW)
    answer.set()
    phone.wait_for_heading(citizen_text("held_heading", "en"))
    assert phone.driver.execute_script("return window.isSame && location.pathname") == "/reservation"
    assert len(calls) == 1
    phone.driver.back()
    phone.wait_for_heading(citizen_text("choose_heading", "en"))


def test_typed_text_survives_the_next_opening_and_is_forgotten_with_the_place(
    service: BrowserService, phone: PhoneBrowser
) -> None:
    """All days that were open are over. The form stays, and the days of the next opening come into it."""
    service.advance_ms(BEFORE_MS)
    phone.open(START)
    phone.fill("#nik", NIK)
    service.advance_ms(WEEK_MS)
    phone.find("input[value='2026-12-14|morning']:enabled")
    phone.wait_until(f"document.querySelector('#nik')?.value === '{NIK}'")
    phone.press("input[value='2026-12-14|morning']")
    phone.press("form[action='/reserve'] button.large")
    phone.wait_for_heading(citizen_text("held_heading", "en"))
    assert phone.driver.execute_script("return sessionStorage.getItem('typed')") is None


def test_a_stranger_with_the_number_needs_the_code_to_give_a_place_up(
    service: BrowserService, phone: PhoneBrowser
) -> None:
    """Giving a place up takes a second press. Another browser sees the place, and no way to lose it."""
    service.advance_ms(BEFORE_MS)
    release = "form[action='/reservation/release'] button"
    _book_as(phone, THIRD, "held_heading")
    code = phone.text(".note .together")
    assert not phone.find(release).is_displayed()
    phone.press("details:has([action='/reservation/release']) summary")
    phone.wait_for_text("main", citizen_text("release_warning", "en"))
    _book_as(phone, THIRD, "held_heading")  # as a stranger
    assert phone.driver.execute_script("return document.querySelector(arguments[0])", release) is None
    assert code not in phone.driver.page_source
    for entered, shown in (("ZZZZ-ZZZ2", "#errors"), (code.lower(), release)):
        phone.fill("#code", entered)
        phone.press("form[action='/reservation/code'] button")
        phone.find(shown)


def test_a_draw_takes_an_application_and_shows_its_receipt(browser: PhoneBrowser) -> None:
    """An error has the focus; form and receipt are accessible and fit a window of 320 pixels."""
    apply = "form[action='/draw/apply'] button.large"
    with (
        browser_service(catalog=catalog_with_draw(), office="sby", day=MONDAY) as service,
        browser.visiting(service.url) as phone,
    ):
        service.client.clock.set_ms(NOW_MS)
        assert service.run(service.client.operate("PUT", DRAW, TERMS)).status_code == 201
        service.client.clock.set_ms(OPENS_AT_MS)
        phone.open("/draw?office=sby&lang=en")
        phone.wait_for_heading(citizen_text("draw_heading_OPEN", "en"))
        phone.press(apply)
        phone.wait_until("document.activeElement.id === 'errors'")
        phone.wait_for_text("#errors", citizen_text("draw_error_choice", "en"))
        phone.check_accessibility()
        Select(phone.find("#choice1")).select_by_index(1)
        phone.fill("#nik", THIRD)
        phone.press(apply)
        assert phone.text("section:has(#receipt) .number strong") == "1"
        phone.check_accessibility()
        phone.resize(320)
        assert phone.driver.execute_script("return document.documentElement.scrollWidth") <= 320
        phone.resize()


def _book_as(phone: PhoneBrowser, nik: str, heading: str) -> None:
    """Reserve the first free slot in a browser that has seen nothing before."""
    phone.driver.delete_all_cookies()
    phone.open(START)
    phone.driver.execute_script("sessionStorage.clear()")
    phone.open(START)
    phone.press(".slot.open input:not(:disabled)")
    phone.fill("#nik", nik)
    phone.press("form[action='/reserve'] button.large")
    phone.wait_for_heading(citizen_text(heading, "en"))


@pytest.mark.parametrize("is_answered_first", [True, False])
def test_a_late_page_does_not_replace_the_answer_to_a_form(
    service: BrowserService, phone: PhoneBrowser, is_answered_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page loads its main part at an opening, and an applicant sends the form before it has come."""
    answer, _ = _hold_reserves_back(service, monkeypatch)
    service.advance_ms(BEFORE_MS)
    phone.open(START)
    phone.press(f"input[value='{DAY}|afternoon']")
    phone.fill("#nik", FOURTH)
    phone.driver.execute_script(LATE_PAGES)
    phone.wait_until("window.arePagesLate === true")
    phone.press("form[action='/reserve'] button.large")
    if is_answered_first:
        answer.set()
        phone.wait_for_heading(citizen_text("held_heading", "en"))
    phone.driver.execute_script("letPagesCome()")
    phone.wait_until("window.havePagesCome === true")
    if not is_answered_first:
        assert phone.text("form[action='/reserve'] button.large") == citizen_text("sending", "en")
        answer.set()
    phone.wait_for_heading(citizen_text("held_heading", "en"))
