"""The citizens' pages in a real browser, on the test's clock: accessibility, live updates, keyboard and no script.

``python -m tests.support.screenshots`` takes the documents' pictures with these tests.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from selenium.webdriver.common.keys import Keys

from quota_engine import RoomSettings
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.browser import NIK, PhoneBrowser
from tests.support.browser_service import BrowserService, browser_service, wait_list_catalog
from tests.support.effort import PROFILE
from tests.support.in_process_service import DAY, OTHER
from tests.support.page_texts import citizen_text

pytestmark = pytest.mark.browser

HOUR_MS: Final = 3_600_000
TURN_MS: Final = 300_000
ROOMS: Final = WaitingRoomsConfig(
    WaitingRoomSchedule(("surabaya",)),
    RoomSettings(turn_ms=TURN_MS, per_minute_min=60, per_minute_max=60, burst=1),
)
DAY_MS: Final = 24 * HOUR_MS
LANGUAGES: Final = ("id", "en")
SMALL_TARGETS: Final = """return [...document.querySelectorAll(
    "button, .button, summary, select, .slot, .check, header a, input:not([type=radio], [type=checkbox])")]
    .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 44).map((one) => one.outerHTML)"""
OTHERS: Final = 40
FIRST_OTHER: Final = 3578990000000000


class Visit:
    """A browser that checks each page in both languages.

    Indonesian pages are dark and English ones light. In the gate, axe-core looks at every second of them, because the
    other language has the same template.
    """

    def __init__(self, service: BrowserService, phone: PhoneBrowser) -> None:
        self.service = service
        self.phone = phone
        self._checked = 0

    def check(self, heading: str, path: str = "") -> None:
        """Check a page in both languages.

        Args:
            heading: Key of its heading.
            path: Address of the page; the present page if it is empty.
        """
        if not path:
            self.phone.wait_for_heading(*(citizen_text(heading, language) for language in LANGUAGES))
        address = path or self.phone.driver.execute_script("return location.pathname + location.search")
        for language in LANGUAGES:
            self.phone.open(f"{address}{'&' if '?' in address else '?'}lang={language}")
            self.check_present(heading, language)

    def check_present(self, heading: str, language: str) -> None:
        """Check the present page: its heading, axe-core, 320 pixels, targets of 44 pixels, and text of 200 %."""
        self.phone.wait_for_heading(citizen_text(heading, language))
        self.phone.set_scheme(dark=language == "id")
        self._checked += 1
        if self._checked // 2 % 2 == (language == "en") or PROFILE != "gate":
            self.phone.check_accessibility()
        self.phone.resize(320)
        width = self.phone.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 320, "the page scrolls sideways"
        if language == "en":
            self._check_large_text()
        self.phone.resize()
        self.phone.set_scheme(dark=False)

    def _check_large_text(self) -> None:
        """Check that every target has 44 pixels, and that text of 200 % fits into a window of twice the width."""
        driver = self.phone.driver
        assert driver.execute_script(SMALL_TARGETS) == []
        self.phone.resize(640)
        driver.execute_script("document.documentElement.style.fontSize = '225%'")
        width = driver.execute_script("return document.documentElement.scrollWidth")
        driver.execute_script("document.documentElement.style.fontSize = ''")
        assert width <= 640, "the page scrolls sideways with text of 200 %"

    def check_errors(self, heading: str) -> None:
        """Check that the summary of errors has the focus, and check the page."""
        self.phone.wait_until("document.activeElement.id === 'errors'")
        self.check_present(heading, "en")

    def forget(self) -> None:
        """Delete all cookies, as if another person used the browser."""
        self.phone.driver.delete_all_cookies()

    def pass_seconds(self, count: int) -> None:
        """Advance the clock second by second, because the waiting room advances when it is read."""
        client = self.service.client
        room = client.service.engine.room(self.room)

        async def advance() -> None:
            for _ in range(count):
                client.clock.advance_ms(1_000)
                await room.view()

        self.service.run(advance())

    def open_room(self) -> None:
        """Advance the clock from before the opening to the opening."""
        self.pass_seconds(1)
        self.service.advance_ms(HOUR_MS)
        self.pass_seconds(1)

    @property
    def room(self) -> str:
        room = self.service.client.service.current_room("surabaya")
        assert room is not None
        return room

    def fill_room(self) -> None:
        """Let other applicants join the waiting room."""
        room = self.service.client.service.engine.room(self.room)

        async def join() -> None:
            for number in range(OTHERS):
                await room.join(f"{FIRST_OTHER + number}")

        self.service.run(join())

    def reserve(self, number: int, **more: Any) -> str:
        """Reserve for another applicant through the API, and return the reference."""
        response = self.service.run(self.service.client.reserve(f"{FIRST_OTHER + number}", **more))
        return str(response.json()["reservation"]["reference"])

    def release(self, reference: str) -> None:
        """Release a reservation through the API."""
        self.service.run(self.service.client.step(reference, "release"))

    def choose_full_slot(self, language: str) -> None:
        """Ask for a place of a slot that is full, as an old page does."""
        phone = self.phone
        phone.open(f"/?lang={language}&service=new")
        phone.fill("#nik", OTHER)
        script = "const one = document.querySelector(arguments[0]); one.value = arguments[1]; one.checked = true; "
        values = (f"input[value='{DAY}|morning|wait']", f"{DAY}|morning")
        phone.driver.execute_script(script + "one.form.requestSubmit()", *values)
        phone.wait_for_heading(citizen_text("refusal_heading", language))

    def join_wait_list(self) -> None:
        """Choose the wait list of a full slot. The button has that name before it is pressed."""
        phone = self.phone
        phone.open("/?lang=en&service=new")
        phone.press("#more-days summary")
        phone.press(f".slot.wait-list input[value='{DAY}|morning|wait']")
        phone.fill("#nik", OTHER)
        button = "form[action='/reserve'] button.large"
        phone.wait_for_text(button, citizen_text("wait_list_join", "en"))
        phone.press(button)
        phone.wait_for_heading(citizen_text("waiting_heading", "en"))


@pytest.fixture
def visit(browser: PhoneBrowser) -> Iterator[Visit]:
    """A service an hour before its waiting room opens, and a browser."""
    with (
        browser_service(before_ms=HOUR_MS, waiting_rooms=ROOMS, catalog=wait_list_catalog()) as service,
        browser.visiting(service.url) as phone,
    ):
        yield Visit(service, phone)


@contextlib.contextmanager
def fast_visit(browser: PhoneBrowser, **changes: Any) -> Iterator[Visit]:
    """Yield a visit of a service with these changes, by a browser with fast timers."""
    with browser_service(**changes) as service, browser.visiting(service.url) as phone:
        phone.speed_up_timers()
        yield Visit(service, phone)


@pytest.fixture
def full_visit(browser: PhoneBrowser) -> Iterator[Visit]:
    """A service with one place in a session and a wait list, and a browser with fast timers."""
    with fast_visit(browser, catalog=wait_list_catalog(capacity=1)) as visit:
        yield visit


# --- Every page is accessible ---


def test_the_waiting_rooms_pages_are_accessible(visit: Visit) -> None:
    phone, service = visit.phone, visit.service
    visit.check("room_start_heading", "/")
    phone.press("form[action='/room/join'] button")
    visit.check_errors("room_start_heading")
    visit.fill_room()
    phone.join_room("en")
    visit.check("room_heading_NOT_OPEN")
    phone.take_picture("room-not-open")
    visit.open_room()

    visit.forget()
    phone.join_room("id", OTHER)
    visit.check("room_heading_SHUFFLING")
    visit.pass_seconds(12)
    visit.check("room_heading_WAITING")
    phone.take_picture("waiting-room")
    phone.resize(1280, 900)
    phone.check_accessibility()
    phone.take_picture("waiting-room-wide")
    phone.resize()
    visit.pass_seconds(OTHERS)
    visit.check("turn_heading")
    phone.take_picture("turn")
    phone.press("form[action='/reserve'] button.large")
    visit.check_errors("turn_heading")
    service.advance_ms(TURN_MS)
    visit.pass_seconds(1)
    visit.check("room_heading_TURN_MISSED", "/room")

    phone.press("form[action='/room/join'] button")
    visit.check_errors("room_heading_TURN_MISSED")
    service.advance_ms(2 * HOUR_MS)
    visit.pass_seconds(1)
    visit.check("room_heading_ROOM_CLOSED", "/room")
    phone.press(".button")
    phone.wait_for_heading(citizen_text("choose_heading", "en"))


def test_a_reservations_pages_are_accessible(full_visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the choice of a day to the queue number, the cancellation, and an unavailable store."""
    visit, phone = full_visit, full_visit.phone
    visit.check("choose_heading", "/")
    phone.press("form[action='/reserve'] button.large")
    visit.check_errors("choose_heading")
    phone.reserve("en")
    visit.check("held_heading")
    phone.take_picture("form")
    phone.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    clock = "document.querySelector('.clock').getBoundingClientRect().top"
    scrolled, top = phone.driver.execute_script(f"return [scrollY, {clock}]")
    assert scrolled > 0
    assert top >= 0, "the clock is out of sight"
    phone.press("form[action='/reservation/confirm'] button")
    visit.check_errors("held_heading")
    visit.service.advance_ms(13 * 60_000 + 58_000)  # leaves a minute and two seconds
    phone.open("/reservation")
    # The browser is busy for five seconds, and announces the last minute when it can.
    phone.driver.execute_script("const now = performance.now.bind(performance); performance.now = () => now() + 5000")
    phone.wait_until("document.querySelector('.clock.urgent') !== null")
    announced = phone.driver.execute_script("return document.querySelector('[data-announce]').textContent")
    assert re.fullmatch(re.escape(citizen_text("time_left", "en")) + r": 0:\d\d", announced)
    visit.check_present("held_heading", "en")
    phone.press("#declaration")
    phone.press("form[action='/reservation/confirm'] button")
    phone.wait_for_heading(citizen_text("confirmed_heading", "en"))
    visit.check("confirmed_heading")
    phone.take_picture("confirmation")
    phone.open("/reservation?lang=id")
    phone.set_scheme(dark=True)
    phone.take_picture("confirmation-dark")
    phone.set_scheme(dark=False)
    visit.check("choose_heading", "/?service=new")  # with a note about the reservation
    visit.check("change_heading", "/reservation/change")
    phone.press("form[action='/reservation/change'] button.large")
    visit.check_errors("change_heading")
    phone.open("/reservation")
    phone.press("summary")
    phone.press("form[action='/reservation/cancel'] button")
    visit.check("ended_heading_CANCELLED")
    with monkeypatch.context() as patched:
        patched.setattr(visit.service.client.service.engine, "lookup", unavailable)
        visit.check("unavailable_heading", "/reservation")
    phone.wait_for_heading(citizen_text("ended_heading_CANCELLED", "en"))


def test_the_wait_lists_pages_are_accessible(full_visit: Visit) -> None:
    """The refusal, the position, an offer, and the ends of a wait."""
    visit, phone = full_visit, full_visit.phone
    holder = visit.reserve(0)
    ahead = [visit.reserve(number, join_wait_list=True) for number in (1, 2)]
    visit.service.advance_ms(2_000)  # the pages cache their figures for a second
    for language in LANGUAGES:
        visit.forget()
        visit.choose_full_slot(language)
        visit.check_present("refusal_heading", language)
    phone.press("section form[action='/reserve'] button")
    visit.check("waiting_heading")
    phone.take_picture("wait-list")
    _follow_the_wait_list(visit, holder, ahead)

    visit.reserve(3)
    for key in ("ended_left_wait_list", "ended_without_offer"):
        visit.forget()
        visit.join_wait_list()
        if key == "ended_left_wait_list":
            phone.press("details:has([action='/reservation/release']) summary")
            phone.press("form[action='/reservation/release'] button")
        else:
            visit.service.advance_ms(4 * DAY_MS)
        phone.wait_for_heading(citizen_text("ended_heading", "en"))
        # The page may just be loading again.
        phone.wait_until("document.querySelector('.lead')?.innerText.includes(arguments[0])", citizen_text(key, "en"))
        visit.check("ended_heading", "/reservation")


def _follow_the_wait_list(visit: Visit, holder: str, ahead: list[str]) -> None:
    """Check that the page follows the wait list without a reload, and turns into the form."""
    phone = visit.phone
    phone.driver.execute_script("window.isSame = true")
    phone.wait_until("document.querySelector('[data-text=position]').textContent === '3'")
    visit.release(ahead[0])
    phone.wait_until("document.querySelector('[data-text=position]').textContent === '2'")
    phone.wait_until("document.title === arguments[0]", citizen_text("wait_list_title", "en", position=2))
    visit.release(ahead[1])
    next_in_line = citizen_text("next_in_line", "en")
    phone.wait_until("document.querySelector('[data-text=ahead]').textContent === arguments[0]", next_in_line)
    assert phone.driver.execute_script("return window.isSame"), "the page was loaded again"
    phone.driver.execute_script("navigator.vibrate = (pattern) => sessionStorage.setItem('vibrated', pattern)")
    phone.press("[data-call]")
    phone.wait_until("document.querySelector('[data-call]').ariaPressed === 'true'")
    visit.release(holder)
    phone.wait_for_heading(citizen_text("offer_heading", "en"))
    assert phone.driver.execute_script("return sessionStorage.getItem('vibrated')") == "400,200,400"
    _decline_the_offer(visit)
    phone.press("details:has([action='/reservation/release']) summary")
    phone.press("form[action='/reservation/release'] button")
    phone.wait_for_heading(citizen_text("ended_heading", "en"))


def _decline_the_offer(visit: Visit) -> None:
    """Check the page of an offer, decline it, and see the next offer an hour later without a reload by hand."""
    phone = visit.phone
    phone.press("summary")
    visit.check_present("offer_heading", "en")
    phone.wait_for_text("main", citizen_text("offer_note", "en"))
    phone.press("form[action='/reservation/decline'] button")
    phone.wait_for_heading(citizen_text("waiting_heading", "en"))
    visit.check_present("waiting_heading", "en")
    phone.wait_for_text("[data-text=position]", "1")
    phone.wait_for_text("main", citizen_text("waiting_paused", "en").split("{")[0])
    visit.service.advance_ms(HOUR_MS)
    phone.wait_for_heading(citizen_text("offer_heading", "en"))


# --- Live updates ---


def test_a_ticket_updates_by_stream_and_by_polls_without_moving_the_focus(visit: Visit) -> None:
    """By a stream, by one that ends repeatedly, and by polls alone. Announcements to screen readers are polite."""
    phone, service = visit.phone, visit.service
    phone.speed_up_timers()
    visit.fill_room()
    visit.open_room()
    phone.join_room("en", OTHER)
    phone.wait_for_heading(citizen_text("room_heading_SHUFFLING", "en"))
    visit.pass_seconds(12)
    phone.wait_for_heading(citizen_text("room_heading_WAITING", "en"))

    def wait_for_update() -> None:
        wait_until_up_to_date()
        visit.pass_seconds(1)
        wait_until_up_to_date()
        assert phone.driver.execute_script("return window.same === document.activeElement"), "the focus has moved"

    def wait_until_up_to_date() -> None:
        """Wait until the page shows the number that the service has now."""
        state = "fetch('/room/state?lang=en').then((one) => one.json()).then((one) => arguments[0](one.texts))"
        texts.update(phone.driver.execute_async_script(state))
        shown = "document.querySelector('[data-text=ahead_number]').textContent === arguments[0]"
        phone.wait_until(shown, texts["ahead_number"])

    texts: dict[str, str] = {}
    # Time that passes in the browser comes from the test, so that a slow machine announces nothing earlier.
    phone.driver.execute_script("const at = performance.now(); window.late = 0; performance.now = () => at + late")
    focus = "window.same = document.querySelector('main a.button'); window.same.focus()"
    phone.driver.execute_script(focus)
    wait_for_update()
    assertive = "return document.querySelectorAll('[aria-live=assertive], [role=alert]').length"
    assert phone.driver.execute_script(assertive) == 0
    announced = "return document.querySelector('[data-announce]').textContent"
    assert phone.driver.execute_script(announced) == "", "announced within 30 seconds"
    phone.driver.execute_script("window.late = 31000")
    wait_for_update()
    assert phone.driver.execute_script(announced) == texts["announce"]

    streams = service.client.service.streams
    service.run(call_in_loop(streams.drain))
    wait_for_update()
    wait_for_update()
    streams.streams_max = 0
    phone.open("/room")
    phone.wait_for_heading(citizen_text("room_heading_WAITING", "en"))
    phone.driver.execute_script(focus)
    wait_for_update()
    wait_for_update()
    assert streams.count == 0


def test_the_days_update_without_losing_the_choice(browser: PhoneBrowser) -> None:
    with browser_service() as service, browser.visiting(service.url) as phone:
        phone.speed_up_timers()
        phone.open("/?lang=en&service=new")
        chosen = f"input[value='{DAY}|afternoon']"
        phone.press(chosen)
        phone.driver.execute_script("window.same = document.querySelector(arguments[0]); window.same.focus()", chosen)
        slot = f"document.querySelector(\"input[value='{DAY}|morning']\").parentNode"
        before = phone.driver.execute_script(f"return {slot}.querySelector('.count').textContent")
        Visit(service, phone).reserve(900)
        service.advance_ms(2_000)
        phone.wait_until(f"{slot}.querySelector('.count').textContent !== arguments[0]", before)
        assert phone.driver.execute_script("return window.same === document.activeElement && window.same.checked")


# --- Keyboard and no script ---


def test_the_keyboard_alone_leads_to_a_queue_number(visit: Visit) -> None:
    phone = visit.phone
    phone.open("/?lang=en")
    phone.tab_to("#join-nik")
    phone.type("123", Keys.ENTER)
    phone.wait_until("document.activeElement.id === 'errors'")
    phone.tab_to("#join-nik")
    phone.type(Keys.CONTROL, "a", Keys.NULL, NIK, Keys.ENTER)
    phone.wait_for_heading(citizen_text("room_heading_NOT_OPEN", "en"))
    visit.open_room()
    phone.wait_for_heading(citizen_text("turn_heading", "en"))
    phone.tab_to("form[action='/reserve'] button.large")
    phone.type(Keys.ENTER)
    phone.wait_until("document.activeElement.id === 'errors'")
    phone.tab_to(".slot.open input")
    phone.type(Keys.SPACE)
    phone.tab_to("#nik")
    phone.type(NIK, Keys.ENTER)
    phone.wait_for_heading(citizen_text("held_heading", "en"))
    phone.tab_to("#declaration")
    phone.type(Keys.SPACE)
    phone.tab_to("form[action='/reservation/confirm'] button")
    phone.type(Keys.ENTER)
    phone.wait_for_heading(citizen_text("confirmed_heading", "en"))


def test_pages_without_script_reload_and_submit_by_themselves(browser: PhoneBrowser) -> None:
    with (
        browser_service(before_ms=1_000, waiting_rooms=ROOMS) as service,
        browser.visiting(service.url, script=False) as phone,
    ):
        phone.join_room("id")
        phone.wait_for_heading(citizen_text("room_heading_NOT_OPEN"))
        Visit(service, phone).pass_seconds(2)
        phone.wait_for_heading(citizen_text("turn_heading"))
        phone.reserve("id")
        phone.press("#declaration")
        phone.press("form[action='/reservation/confirm'] button")
        phone.wait_for_heading(citizen_text("confirmed_heading"))


async def call_in_loop(function: Callable[[], None]) -> None:
    """Call a function in the service's event loop."""
    function()


async def unavailable(*_: object) -> None:
    """Fail as the engine does while the store is unavailable."""
    raise BackendUnavailable("unavailable")
