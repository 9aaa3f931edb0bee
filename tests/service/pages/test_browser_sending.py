"""Forms that are being sent while the store fails, time passes or another tab changes the reservation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import pytest
from selenium.webdriver.support.ui import Select

from quota_engine.domain.errors import BackendUnavailable
from tests.service.pages.test_browser_pages import (
    HOUR_MS,
    OTHERS,
    ROOMS,
    TURN_MS,
    Visit,
    call_in_loop,
    fast_visit,
    unavailable,
)
from tests.support.browser import NIK, PhoneBrowser
from tests.support.browser_service import wait_list_catalog
from tests.support.in_process_service import DAY, OTHER
from tests.support.page_texts import citizen_text

pytestmark = pytest.mark.browser

CONFIRM: Final = "form[action='/reservation/confirm'] button"
RESERVE: Final = "form[action='/reserve'] button.large"
FINISH: Final = "form[action='/finish'] button"
FORM: Final = "application/x-www-form-urlencoded"
QUARTER_MS: Final = 900_000
"""Longer than a hold lasts."""
HELD_FORMS: Final = """
    window.isSame = true;
    window.held = [];
    window.seenPhases = [];
    window.fetchNow = window.fetch;
    const note = (phase) => setTimeout(() => seenPhases.push(phase), 100);
    window.fetch = async (url, options) => {
        if (options.method === "POST") await new Promise((resolve) => (held ? held.push(resolve) : resolve()));
        const response = await fetchNow(url, options);
        if (url.includes("/state")) response.clone().json().then((state) => note(state.phase));
        return response;
    };
    window.releaseForms = () => {
        for (const release of held) release();
        held = null;
    };
    for (const source of streams.values())
        source.addEventListener("state", (event) => note(JSON.parse(event.data).phase));
"""
"""Hold all forms back in the page, and note the phases that its polls and streams report."""
IS_PHASE_SEEN: Final = "seenPhases.some((phase) => phase.startsWith(arguments[0]))"
IS_LOST: Final = "document.querySelector('[data-connection] button') !== null"
STOPPED_TIMERS: Final = "for (let id = setTimeout(() => 0); id; id--) clearTimeout(id); window.setTimeout = () => 0"
"""Run no timer from now on, as in a hidden page that the browser has frozen."""


def says(key: str) -> str:
    """Return an English text of the citizens' pages."""
    return citizen_text(key, "en")


@pytest.fixture
def visit(browser: PhoneBrowser) -> Iterator[Visit]:
    """A service after an opening, with a wait list, and a browser with fast timers."""
    with fast_visit(browser, catalog=wait_list_catalog(capacity=1)) as visit:
        yield visit


@pytest.fixture
def room_visit(browser: PhoneBrowser) -> Iterator[Visit]:
    """A service an hour before its waiting room opens, and a browser with fast timers."""
    with fast_visit(browser, before_ms=HOUR_MS, waiting_rooms=ROOMS) as visit:
        yield visit


def _hold(phone: PhoneBrowser) -> None:
    """Hold a place, and tick the declaration."""
    phone.open("/?lang=en")
    phone.reserve("en")
    phone.press("#declaration")


def _press_and_hold_back(phone: PhoneBrowser, selector: str) -> None:
    """Press the button of a form, which stays in the page until ``releaseForms()``."""
    phone.driver.execute_script(HELD_FORMS)
    phone.press(selector)
    phone.wait_until("held.length === 1")


def _release_form(phone: PhoneBrowser, *headings: str) -> None:
    """Send the form, and wait for its page, which no other page has replaced."""
    phone.driver.execute_script("releaseForms()")
    phone.wait_for_heading(*headings)
    assert phone.driver.execute_script("return window.isSame === true"), "a new document was loaded"


def _leave_and_return(phone: PhoneBrowser) -> None:
    """Show another tab for a moment."""
    tab = phone.driver.current_window_handle
    phone.driver.switch_to.new_window("tab")
    phone.driver.close()
    phone.driver.switch_to.window(tab)
    phone.driver.execute_cdp_cmd("Page.bringToFront", {})


def _set_offline(phone: PhoneBrowser, *, value: bool) -> None:
    """Cut the browser's network off, or connect it again."""
    phone.driver.execute_cdp_cmd("Network.enable", {})
    conditions = {"offline": value, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    phone.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)


def _pass_ms(visit: Visit, duration_ms: int) -> None:
    """Advance the service's clock and the browser's."""
    visit.service.advance_ms(duration_ms)
    script = "const now = performance.now.bind(performance); performance.now = () => now() + arguments[0]"
    visit.phone.driver.execute_script(script, duration_ms)


def _choose_in_turn(visit: Visit, nik: str = NIK) -> None:
    """Wait for the turn, and choose the first free slot."""
    phone = visit.phone
    phone.join_room("en", nik)
    phone.wait_for_heading(says("room_heading_NOT_OPEN"))
    visit.open_room()
    phone.wait_for_heading(says("turn_heading"))
    phone.press(".slot.open input:not(:disabled)")
    phone.fill("#nik", nik)


# --- The store ---


def test_a_form_is_sent_again_if_the_store_fails_for_one_request(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store answers again before the browser's next request. One press confirms the reservation nevertheless."""
    phone, engine, calls = visit.phone, visit.service.client.service.engine, list[object]()
    _hold(phone)
    confirm = engine.confirm

    async def fail_once(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise BackendUnavailable("unavailable")
        return await confirm(*arguments, **more)

    monkeypatch.setattr(engine, "confirm", fail_once)
    phone.press(CONFIRM)
    phone.wait_for_heading(says("confirmed_heading"))
    assert len(calls) == 2


def test_a_form_is_sent_again_at_once_when_its_page_is_seen_again(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a timer: a browser may have frozen the page."""
    phone, engine = visit.phone, visit.service.client.service.engine
    _hold(phone)
    phone.driver.execute_script(STOPPED_TIMERS)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "confirm", unavailable)
        phone.press(CONFIRM)
        phone.wait_until(IS_LOST)
    _leave_and_return(phone)
    phone.wait_for_heading(says("confirmed_heading"))


# --- Time and other tabs, while a form is being sent ---


def test_another_tab_changes_the_hold_while_its_form_is_sent(visit: Visit) -> None:
    """The page waits for the answer to its form, and does not show the changed hold before."""
    phone = visit.phone
    _hold(phone)
    _press_and_hold_back(phone, CONFIRM)
    more_time = {"method": "POST", "body": "extension=1", "headers": {"content-type": FORM}}
    phone.driver.execute_script("fetchNow('/reservation/extend', arguments[0])", more_time)
    phone.wait_until(IS_PHASE_SEEN, "held 2")
    _release_form(phone, says("confirmed_heading"))


def test_a_hold_expires_while_its_form_is_sent(visit: Visit) -> None:
    """The answer to the form reports the end, and no other page comes before it."""
    phone = visit.phone
    _hold(phone)
    _press_and_hold_back(phone, CONFIRM)
    _pass_ms(visit, QUARTER_MS)
    phone.wait_until(IS_PHASE_SEEN, "ended")
    phone.wait_until("document.querySelector('[data-countdown]').textContent === '0:00'")
    _release_form(phone, says("ended_heading_EXPIRED"))


def test_an_offer_comes_while_the_wait_list_is_left(visit: Visit) -> None:
    """The page neither shows the offer nor forgets that the applicant gives it up."""
    phone, holder = visit.phone, visit.reserve(0)
    visit.service.advance_ms(2_000)  # the pages cache their figures for a second
    visit.join_wait_list()
    phone.press("details:has([action='/reservation/release']) summary")
    _press_and_hold_back(phone, "form[action='/reservation/release'] button")
    visit.release(holder)
    phone.wait_until(IS_PHASE_SEEN, "held")
    _release_form(phone, says("ended_heading"))


def test_a_turn_ends_while_its_form_is_sent(room_visit: Visit) -> None:
    """The answer to the form says that the place was not taken. It stays, although the turn's page has ended."""
    visit, phone = room_visit, room_visit.phone
    _choose_in_turn(visit)
    _press_and_hold_back(phone, RESERVE)
    phone.driver.execute_script("window.source = [...streams.values()][0]")
    _pass_ms(visit, TURN_MS)
    visit.pass_seconds(1)
    phone.wait_until(IS_PHASE_SEEN, "TURN_MISSED")
    _release_form(phone, says("refusal_heading"))
    assert phone.driver.execute_script("return source.readyState === EventSource.CLOSED"), "the stream is open"


def test_a_room_opens_while_the_visit_is_finished(room_visit: Visit) -> None:
    """The visit ends with its last page, and not with that of the open room."""
    phone = room_visit.phone
    phone.join_room("en")
    phone.wait_for_heading(says("room_heading_NOT_OPEN"))
    _press_and_hold_back(phone, FINISH)
    room_visit.open_room()
    phone.wait_until("seenPhases.some((phase) => phase !== 'NOT_OPEN')")
    phone.driver.execute_script("releaseForms()")
    phone.wait_for_heading(says("finished_heading"))


def test_a_late_state_does_not_replace_the_page_of_a_form(visit: Visit) -> None:
    """The answer to a poll comes after the one to the form. It is for the former page, and has no effect."""
    phone = visit.phone
    _hold(phone)
    phone.driver.execute_script(
        "window.isSame = true; window.fetchNow = window.fetch;"
        "window.fetch = async (url, options) => {"
        "  if (url.includes('/state')) { window.isAsked = true; await new Promise((come) => (window.come = come)); }"
        "  return fetchNow(url, options); };"
    )
    phone.wait_until("window.isAsked === true")
    phone.press(CONFIRM)
    phone.wait_for_heading(says("confirmed_heading"))
    phone.driver.execute_script("document.querySelector('h1').dataset.first = 'yes'; come()")
    phone.driver.execute_async_script("const done = arguments[0]; setTimeout(done, 5000)")
    assert phone.driver.execute_script("return window.isSame && document.querySelector('h1').dataset.first") == "yes"


# --- Pages that no form has replaced ---


def test_the_page_of_a_hold_survives_its_end_without_a_connection(visit: Visit) -> None:
    """The page reports that it cannot reach the service, and shows the end of the hold when it can."""
    phone = visit.phone
    _hold(phone)
    phone.driver.execute_script("window.isSame = true")
    _set_offline(phone, value=True)
    _pass_ms(visit, QUARTER_MS)
    phone.wait_until("document.querySelector('[data-countdown]').textContent === '0:00'")
    phone.wait_until(IS_LOST)
    _set_offline(phone, value=False)
    phone.wait_for_heading(says("ended_heading_EXPIRED"))
    assert phone.driver.execute_script("return window.isSame"), "a new document was loaded"


def test_days_are_up_to_date_when_their_page_is_seen_again(visit: Visit) -> None:
    """Without a timer: a browser may have frozen the page."""
    phone = visit.phone
    phone.open("/?lang=en&service=new")
    phone.find(".slot.open")
    phone.driver.execute_script(STOPPED_TIMERS)
    morning = f"document.querySelector(\"input[value^='{DAY}|morning']\").parentNode.classList.contains('open')"
    phone.wait_until(morning)
    visit.reserve(0)
    visit.service.advance_ms(2_000)  # the pages cache their figures for a second
    _leave_and_return(phone)
    phone.wait_until(f"!{morning}")


def test_a_request_without_an_answer_ends(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page reports the lost connection after its time-out, and asks again."""
    phone, engine = visit.phone, visit.service.client.service.engine
    _hold(phone)
    answer, lookup = asyncio.Event(), engine.lookup

    async def hang(*arguments: Any, **more: Any) -> Any:
        await answer.wait()
        return await lookup(*arguments, **more)

    phone.driver.execute_script(
        "const after = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = (wait) => after(wait / 100)"
    )
    monkeypatch.setattr(engine, "lookup", hang)
    phone.wait_until(IS_LOST)
    visit.service.run(call_in_loop(answer.set))
    phone.wait_until(f"!({IS_LOST})")


def test_a_choice_is_loaded_again_after_a_failure(visit: Visit) -> None:
    """The forms of the choice before are hidden meanwhile, and no press of a button is needed."""
    phone = visit.phone
    phone.open("/?lang=en&service=new")
    phone.driver.execute_script(
        "window.fetchNow = window.fetch; window.fetch = (url, options) => url.includes('/?')"
        " ? ((window.fetch = fetchNow), Promise.reject(new TypeError('no connection'))) : fetchNow(url, options);"
    )
    Select(phone.find("select[name=service]")).select_by_value("renewal")
    phone.wait_until("location.search.includes('renewal')")
    phone.find("form[action='/reserve']:not([hidden])")


def test_the_last_of_two_quick_choices_is_shown(visit: Visit) -> None:
    """The page of the first choice arrives later, and has no effect."""
    phone = visit.phone
    phone.open("/?lang=en&service=new")
    phone.driver.execute_script(
        "window.fetchNow = window.fetch; window.late = [];"
        "window.fetch = (url, options) => url.includes('/?')"
        " ? new Promise((resolve) => late.push(() => resolve(fetchNow(url, options)))) : fetchNow(url, options);"
    )
    for number, service in enumerate(("renewal", "new"), 1):
        Select(phone.find("select[name=service]")).select_by_value(service)
        if number == 1:
            phone.wait_until("late.length === 1")
    phone.driver.execute_script("window.fetch = fetchNow; for (const come of late) come()")
    phone.find("form[action='/reserve']:not([hidden])")
    assert phone.has_value("select[name=service]", "new")


def test_a_call_that_is_switched_on_stays_on_in_the_next_phase(room_visit: Visit) -> None:
    """The page of the next phase has the same button, and no second press is needed."""
    phone = room_visit.phone
    room_visit.fill_room()
    room_visit.open_room()
    phone.join_room("en", OTHER)
    phone.wait_for_heading(says("room_heading_SHUFFLING"))
    phone.driver.execute_script("navigator.vibrate = (pattern) => (window.vibrated = String(pattern))")
    phone.press("[data-call]")
    room_visit.pass_seconds(12)
    phone.wait_for_heading(says("room_heading_WAITING"))
    phone.wait_until("document.querySelector('[data-call]').ariaPressed === 'true'")
    room_visit.pass_seconds(OTHERS)
    phone.wait_for_heading(says("turn_heading"))
    assert phone.driver.execute_script("return window.vibrated") == "400,200,400"
