"""Every page in a real browser, each when it is asked for: the service's clock is the test's. axe-core looks at all of
them in both languages; and what they do while they are looked at.

With ``python -m tests.support.screenshots`` the documents' pictures are taken on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from selenium.webdriver.common.keys import Keys

from quota_engine import RoomSettings
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.service.pages.citizen.test_booking import TEXTS
from tests.support.browser import NIK, Phone
from tests.support.browser_service import Stage, staged, wait_list_catalog
from tests.support.in_process_service import DAY, OTHER

HOUR_MS: Final = 3_600_000
CLAIM_MS: Final = 300_000
ROOMS: Final = WaitingRoomsConfig(
    WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=CLAIM_MS, per_minute_min=60, per_minute_max=60, burst=1)
)
DAY_MS: Final = 24 * HOUR_MS
LANGUAGES: Final = ("id", "en")
OTHERS: Final = 40
CROWD: Final = 3578990000000000


def says(name: str, language: str) -> str:
    return str(TEXTS[name][language])


class Tour:
    """A browser that goes from page to page, and looks at each in both languages, light and dark."""

    def __init__(self, stage: Stage, phone: Phone) -> None:
        self.stage = stage
        self.phone = phone
        self.seen: list[str] = []

    def see(self, name: str, path: str = "") -> None:
        """The page that is at this address (the present one if left out), which has this text as its heading."""
        if not path:
            self.phone.heading(*TEXTS[name].values())
        address = path or self.phone.driver.execute_script("return location.pathname + location.search")
        for language in LANGUAGES:
            self.phone.open(f"{address}{'&' if '?' in address else '?'}lang={language}")
            self.look(name, language)

    def look(self, name: str, language: str) -> None:
        """The same, as it stands."""
        self.phone.heading(says(name, language))
        self.phone.scheme(dark=language == "id")
        self.phone.check()
        self.phone.resize(320)
        width = self.phone.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 320, "it has to be moved sideways"
        self.phone.resize()
        self.phone.scheme(dark=False)
        self.seen.append(name)

    def alone(self) -> None:
        """Another person, who has been here never before."""
        self.phone.driver.delete_all_cookies()

    def pass_s(self, duration_s: int) -> None:
        """Let time pass second by second, as rooms move on."""
        client = self.stage.client
        room = client.service.engine.room(self.room)

        async def go() -> None:
            for _ in range(duration_s):
                client.clock.advance_ms(1_000)
                await room.view()

        self.stage.run(go())

    @property
    def room(self) -> str:
        room = self.stage.client.service.current_room("surabaya")
        assert room is not None
        return room

    def fill_room(self, first: int) -> None:
        """Others join."""
        room = self.stage.client.service.engine.room(self.room)

        async def join() -> None:
            for number in range(OTHERS):
                await room.join(f"{CROWD + first + number}")

        self.stage.run(join())


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    """A service an hour before its room opens, and a browser."""
    with (
        staged(before_ms=HOUR_MS, waiting_rooms=ROOMS, catalog=wait_list_catalog()) as stage,
        Phone(stage.url, tmp_path / "profile") as phone,
    ):
        yield Tour(stage, phone)


def test_every_page(tour: Tour, monkeypatch: pytest.MonkeyPatch) -> None:
    """axe finds nothing to say of any page, from the first to the last words, and none is wider than a phone."""
    phone, stage = tour.phone, tour.stage
    tour.see("step_choose", "/")
    phone.press("form[action='/room/join'] button")
    phone.until("document.activeElement.id === 'mistakes'")
    tour.look("step_choose", "en")
    tour.fill_room(0)
    phone.join("en")
    tour.see("room_head_NOT_OPEN")
    phone.take_picture("room-not-open")
    tour.pass_s(1)
    stage.advance_ms(HOUR_MS)
    tour.pass_s(1)

    tour.alone()
    phone.join("id", OTHER)
    tour.see("room_head_SHUFFLING")
    tour.pass_s(12)
    tour.see("room_head_WAITING")
    phone.take_picture("waiting-room")
    phone.resize(1280, 900)
    phone.check()
    phone.take_picture("waiting-room-wide")
    phone.resize()
    tour.pass_s(OTHERS)
    tour.see("room_turn")
    phone.take_picture("turn")
    phone.press("form[action='/reserve'] button.large")
    phone.until("document.activeElement.id === 'mistakes'")
    tour.look("room_turn", "en")
    stage.advance_ms(CLAIM_MS)
    tour.pass_s(1)
    tour.see("room_head_TURN_MISSED", "/room")

    phone.press("form[action='/room/join'] button")
    phone.until("document.activeElement.id === 'mistakes'")
    tour.look("room_head_TURN_MISSED", "en")
    stage.advance_ms(2 * HOUR_MS)
    tour.pass_s(1)
    tour.see("room_head_ROOM_CLOSED", "/room")
    phone.press(".button")
    phone.heading(says("step_choose", "en"))


def test_every_page_of_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same from the choice to the number, the wait list and the ends; and a store that is away."""
    with (
        staged(catalog=wait_list_catalog(capacity=1)) as stage,
        Phone(stage.url, tmp_path / "profile") as phone,
    ):
        phone.hurry()
        tour, client = Tour(stage, phone), stage.client
        tour.see("step_choose", "/")
        phone.press("form[action='/reserve'] button.large")
        phone.until("document.activeElement.id === 'mistakes'")
        tour.look("step_choose", "en")
        phone.choose("en")
        tour.see("held_title")
        phone.take_picture("form")
        phone.press("form[action='/place/confirm'] button")
        phone.until("document.activeElement.id === 'mistakes'")
        tour.look("held_title", "en")
        stage.advance_ms(13 * 60_000 + 58_000)  # a minute and two seconds are left, and then one minute
        phone.open("/place")
        phone.until("document.querySelector('.clock.soon') !== null")
        tour.look("held_title", "en")
        left = f"{says('remaining', 'en')}: 1:00"
        phone.until("document.querySelector('[data-announce]').textContent === arguments[0]", left)
        phone.press("#declare")
        phone.press("form[action='/place/confirm'] button")
        phone.heading(says("done_title", "en"))
        tour.see("done_title")
        phone.take_picture("confirmation")
        phone.open("/place?lang=id")
        phone.scheme(dark=True)
        phone.take_picture("confirmation-dark")
        phone.scheme(dark=False)
        tour.see("step_choose", "/?service=new")  # with a note of the place that one has
        phone.open("/place")
        phone.press("summary")
        phone.press("form[action='/place/cancel'] button")
        tour.see("ended_title")

        sold = stage.run(client.reserve(f"{CROWD}")).json()["reservation"]["reference"]
        ahead = [
            stage.run(client.reserve(f"{CROWD + number}", join_wait_list=True)).json()["reservation"]["reference"]
            for number in (1, 2)
        ]
        stage.advance_ms(2_000)  # so that the page looks again
        for language in LANGUAGES:
            tour.alone()
            phone.open(f"/?lang={language}&service=new")
            phone.press("#more-days summary")
            phone.press(f".slot.wait input[value='{DAY}|morning']")
            phone.one("#nik").send_keys(OTHER)
            phone.press("form[action='/reserve'] button.large")
            tour.look("sorry_title", language)
        phone.press("form[action='/reserve'] button")
        tour.see("waiting_title")
        phone.take_picture("wait-list")

        # Whoever is ahead gives up, and so does who has the place: the page tells, and turns into the form.
        phone.driver.execute_script("window.same = true")
        phone.until("document.querySelector('[data-text=position]').textContent === '3'")
        stage.run(client.step(ahead[0], "release"))
        phone.until("document.querySelector('[data-text=position]').textContent === '2'")
        phone.until("document.title.startsWith(arguments[0])", says("waiting_title_position", "en").format(position=2))
        stage.run(client.step(ahead[1], "release"))
        phone.until("document.querySelector('[data-text=ahead]').textContent === arguments[0]", says("room_next", "en"))
        assert phone.driver.execute_script("return window.same"), "it was loaded anew"
        stage.run(client.step(sold, "release"))
        phone.heading(says("held_title", "en"))
        phone.press("form[action='/place/release'] button")
        phone.heading(says("ended_title", "en"))

        # Who leaves the list, whose day ends before a place comes back, and whose time runs out.
        stage.run(client.reserve(f"{CROWD + 3}"))
        for name in ("ended_left", "ended_unserved"):
            tour.alone()
            phone.open(f"/?lang=en&service=new&slot={DAY}")
            phone.press("#more-days summary")
            phone.press(f".slot.wait input[value='{DAY}|morning']")
            phone.one("#nik").send_keys(OTHER)
            phone.press("form[action='/reserve'] button.large")
            phone.heading(says("sorry_title", "en"))
            phone.press("form[action='/reserve'] button")
            phone.heading(says("waiting_title", "en"))
            if name == "ended_left":
                phone.press("summary")
                phone.press("form[action='/place/release'] button")
            else:
                stage.advance_ms(4 * DAY_MS)
            phone.heading(says("ended_title", "en"))
            assert says(name, "en") in phone.one(".lead").text
            tour.see("ended_title", "/place")

        monkeypatch.setattr(client.service.engine, "lookup", away)
        tour.see("away_title", "/place")
        monkeypatch.undo()
        phone.heading(says("ended_title", "en"))


def test_what_is_live(tour: Tour) -> None:
    """Pages keep themselves up to date without being loaded anew, and take the focus and the choice from nobody: by a
    stream, by one that ends again and again, and by polls where there is none. Screen readers are told politely.
    """
    phone, stage = tour.phone, tour.stage
    phone.hurry()
    tour.fill_room(0)
    tour.pass_s(1)
    stage.advance_ms(HOUR_MS)
    tour.pass_s(1)
    phone.join("en", OTHER)
    phone.heading(says("room_head_SHUFFLING", "en"))
    tour.pass_s(12)
    phone.heading(says("room_head_WAITING", "en"))

    def shown() -> str:
        return str(phone.one("[data-text=ahead]").text)

    def moves_on() -> None:
        before = shown()
        tour.pass_s(1)
        phone.until("document.querySelector('[data-text=ahead]').textContent !== arguments[0]", before)
        assert phone.driver.execute_script("return window.same === document.activeElement"), "the focus was moved"

    keep = "window.same = document.querySelector('main a.button'); window.same.focus()"
    phone.driver.execute_script(keep)
    moves_on()
    assert (
        phone.driver.execute_script("return document.querySelectorAll('[aria-live=assertive], [role=alert]').length")
        == 0
    )
    assert phone.one("[data-announce]").get_attribute("textContent") == "", "it is told each time"
    phone.driver.execute_script("const now = performance.now.bind(performance); performance.now = () => now() + 31000")
    moves_on()
    assert phone.one("[data-announce]").get_attribute("textContent").startswith("30 people")

    streams = stage.client.service.streams
    stage.run(called(streams.drain))
    moves_on()
    moves_on()
    streams.streams_max = 0
    phone.open("/room")
    phone.heading(says("room_head_WAITING", "en"))
    phone.driver.execute_script(keep)
    moves_on()
    moves_on()
    assert streams.count == 0

    # The days of the first page: what is chosen stays chosen, and what has the focus keeps it.
    tour.alone()
    stage.advance_ms(2 * HOUR_MS)
    phone.open("/?lang=en&service=new")
    chosen = f"input[value='{DAY}|afternoon']"
    phone.press(chosen)
    phone.driver.execute_script("window.same = document.querySelector(arguments[0]); window.same.focus()", chosen)
    places = f"document.querySelector(\"input[value='{DAY}|morning']\").parentNode.querySelector('.count').textContent"
    before = phone.driver.execute_script(f"return {places}")
    stage.run(stage.client.reserve(f"{CROWD + 900}"))
    stage.advance_ms(2_000)
    phone.until(f"{places} !== arguments[0]", before)
    assert phone.driver.execute_script("return window.same === document.activeElement && window.same.checked")


def test_with_the_keyboard_only(tour: Tour) -> None:
    """No pointer: Tab, Space and Enter lead from the waiting room to the queue number; mistakes take the focus."""
    phone = tour.phone
    phone.open("/?lang=en")
    phone.tab_to("#join-nik")
    phone.keys("123", Keys.ENTER)
    phone.until("document.activeElement.id === 'mistakes'")
    phone.tab_to("#join-nik")
    phone.keys(Keys.CONTROL, "a", Keys.NULL, NIK, Keys.ENTER)
    phone.heading(says("room_head_NOT_OPEN", "en"))
    tour.pass_s(1)
    tour.stage.advance_ms(HOUR_MS)
    tour.pass_s(1)
    phone.heading(says("room_turn", "en"))
    phone.tab_to("form[action='/reserve'] button.large")
    phone.keys(Keys.ENTER)
    phone.until("document.activeElement.id === 'mistakes'")
    phone.tab_to(".slot.open input")
    phone.keys(Keys.SPACE)
    phone.tab_to("#nik")
    phone.keys(NIK, Keys.ENTER)
    phone.heading(says("held_title", "en"))
    phone.tab_to("#declare")
    phone.keys(Keys.SPACE)
    phone.tab_to("form[action='/place/confirm'] button")
    phone.keys(Keys.ENTER)
    phone.heading(says("done_title", "en"))


def test_without_javascript(tmp_path: Path) -> None:
    """The waiting room goes on by reloading itself, and the rest by forms."""
    with (
        staged(before_ms=1_000, waiting_rooms=ROOMS) as stage,
        Phone(stage.url, tmp_path / "plain", script=False) as phone,
    ):
        phone.join("id")
        phone.heading(says("room_head_NOT_OPEN", "id"))
        Tour(stage, phone).pass_s(2)
        phone.heading(says("room_turn", "id"))
        phone.choose("id")
        phone.press("#declare")
        phone.press("form[action='/place/confirm'] button")
        phone.heading(says("done_title", "id"))


async def called(function: Callable[[], None]) -> None:
    """Call it in the service's loop."""
    function()


async def away(*_: object) -> None:
    """What the engine does while its store is away."""
    raise BackendUnavailable("away")
