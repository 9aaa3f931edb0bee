"""A visitor's own reservation in a browser without JavaScript: the wait list, the end of a hold, and its cookie."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import AsyncIterator

import pytest

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.i18n import LANGUAGES
from tests.support.browser_service import wait_list_catalog
from tests.support.form_browser import DECLARED, CitizenBrowser, heading
from tests.support.identities import nik
from tests.support.in_process_service import NIK, OTHER, Client, connected, listening, running
from tests.support.page_texts import citizen_text


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


@pytest.fixture
async def full_service() -> AsyncIterator[Client]:
    """A service with a wait list, whose only place is taken."""
    async with running(catalog=wait_list_catalog(capacity=1)) as client:
        yield client


async def test_the_wait_list_shows_the_position_and_becomes_the_form(full_service: Client) -> None:
    client = full_service
    holder, waiting = CitizenBrowser(client), CitizenBrowser(client)
    async with holder.http, waiting.http:
        await holder.reserve(OTHER)
        outcome = await client.reserve("3578012345678909", join_wait_list=True)
        ahead = outcome.json()["reservation"]["reference"]
        client.clock.advance_ms(2_000)  # the pages cache their figures for a second
        refusal = await waiting.reserve()
        assert citizen_text("wait_list_length_one", count=1) in html.unescape(refusal.text)
        assert waiting.fields("/reserve")["join_wait_list"] == "yes"
        listed = await waiting.submit("/reserve")
        assert (listed.url.path, heading(listed.text)) == ("/reservation", citizen_text("waiting_heading"))
        assert '<strong data-text="ahead_number">1</strong>' in listed.text
        assert citizen_text("applicants_ahead_one") in html.unescape(listed.text)
        assert '<noscript><meta http-equiv="refresh" content="20"></noscript>' in listed.text
        state = (await waiting.http.get("/reservation/state?lang=en")).json()
        assert (state["state"], state["texts"]["position"], state["phase"]) == ("WAITING", "2", "waiting 1")
        assert (await waiting.get("/")).url.path == "/reservation"
        await client.step(ahead, "release")
        assert citizen_text("next_in_line") in html.unescape((await waiting.get("/reservation")).text)
        await holder.submit("/reservation/release")
        assert heading((await waiting.get("/reservation")).text) == citizen_text("offer_heading")
        assert (await waiting.http.get("/reservation/state")).json()["phase"] == "held 2"
        assert (await waiting.http.get("/reservation/stream")).status_code == 204
        ended = html.unescape((await waiting.submit("/reservation/release")).text)
        assert citizen_text("ended_RELEASED") in ended
        assert "Pembukaan berikutnya Jumat, 11 Desember 2026 14.00 WIB" in ended


async def test_an_offer_can_be_declined_and_the_position_stays() -> None:
    """The offer's page says what a decline means; after the last allowed one, it offers none."""
    async with running(catalog=wait_list_catalog(capacity=1, declines_max=1)) as client:
        holder, waiting = CitizenBrowser(client), CitizenBrowser(client)
        async with holder.http, waiting.http:
            held = await holder.reserve(OTHER)
            assert citizen_text("offer_note") not in html.unescape(held.text), "a hold that is no offer"
            assert "/reservation/decline" not in held.text
            await waiting.reserve()
            await waiting.submit("/reserve")
            await holder.submit("/reservation/release")
            offer = html.unescape((await waiting.get("/reservation")).text)
            assert citizen_text("offer_note") in offer
            assert citizen_text("decline_warning_one", count=1, pause="60 menit") in offer
            listed = await waiting.submit("/reservation/decline")
            assert heading(listed.text) == citizen_text("waiting_heading")
            paused = citizen_text("waiting_paused", when="Jumat, 4 Desember 2026 15.00 WIB")
            assert paused in html.unescape(listed.text)
            state = (await waiting.http.get("/reservation/state?lang=en")).json()
            assert (state["phase"], state["texts"]["position"]) == ("waiting 3", "1")
            client.clock.advance_ms(3_600_000)
            again = html.unescape((await waiting.get("/reservation")).text)
            assert heading(again) == citizen_text("offer_heading")
            assert citizen_text("offer_last_note") in again
            assert "/reservation/decline" not in again


async def test_a_second_click_does_not_decline_an_offer_that_was_not_shown(full_service: Client) -> None:
    client = full_service
    browser = CitizenBrowser(client)
    async with browser.http:
        held = (await client.reserve(OTHER)).json()["reservation"]["reference"]
        await browser.reserve()
        await browser.submit("/reserve")
        await client.step(held, "release")
        await browser.get("/reservation")
        fields = browser.fields("/reservation/decline")
        assert fields == {"version": "2"}
        await browser.http.post("/reservation/decline", data=fields)
        client.clock.advance_ms(3_600_000)
        assert (await browser.http.get("/reservation/state")).json()["phase"] == "held 4"
        await browser.http.post("/reservation/decline", data=fields)
        assert (await browser.http.get("/reservation/state")).json()["phase"] == "held 4"
        await browser.http.post("/reservation/decline", data={"version": "1" * 5_000})  # no version: not checked
        assert (await browser.http.get("/reservation/state")).json()["phase"] == "waiting 5"


@pytest.mark.slow
async def test_the_stream_offers_a_place_when_a_hold_expires(full_service: Client) -> None:
    """No command reaches the day. The stream's own reads move the wait list on."""
    client = full_service
    browser = CitizenBrowser(client)
    async with listening(client.app) as port, browser.http, connected(port) as raw:
        await client.reserve(OTHER)
        await browser.reserve()
        await browser.submit("/reserve")
        assert (await browser.http.get("/reservation/state")).json()["phase"] == "waiting 1"
        cookie = f"reservation={browser.http.cookies['reservation']}"
        request = f"GET /reservation/stream HTTP/1.1\r\nhost: service\r\ncookie: {cookie}\r\n\r\n"
        await raw.send(request.encode())
        assert b'"phase":"waiting 1"' in await raw.until(b"}}\n\n")
        client.clock.advance_ms(900_000)
        assert b'"phase":"held 2"' in await raw.until(b"}}\n\n")


async def test_a_person_asks_for_more_time(browser: CitizenBrowser, client: Client) -> None:
    """Each click of one page is one extension; the last one takes the button away."""
    await browser.reserve()
    first = html.unescape((await browser.get("/reservation")).text)
    assert citizen_text("extend", duration="5 menit") in first
    assert citizen_text("extensions_left", count=2) in first
    client.clock.advance_ms(899_000)
    again = {"extension": "1"}
    second = html.unescape((await browser.submit("/reservation/extend")).text)
    assert citizen_text("extensions_left_one") in second
    await browser.http.post("/reservation/extend", data=again)
    state = (await browser.http.get("/reservation/state")).json()
    assert state["deadline_at_ms"] == client.clock.now_ms() + 1_000 + 300_000
    last = await browser.submit("/reservation/extend")
    assert "/reservation/extend" not in last.text
    for extension in ("", "x", "0", "9999", "3"):
        await browser.http.post("/reservation/extend", data={"extension": extension})
    assert (await browser.http.get("/reservation/state")).json()["phase"] == "held 3"
    client.clock.advance_ms(600_999)
    assert (await browser.submit("/reservation/confirm", DECLARED)).status_code == 200


async def test_one_of_a_party_does_not_come(browser: CitizenBrowser, client: Client) -> None:
    """The page takes a person out by their NIK, and keeps the numbers of the rest."""
    await browser.reserve(NIK, OTHER, nik(1))
    held = await browser.get("/reservation")
    assert citizen_text("leave_party") in html.unescape(held.text)
    await browser.submit("/reservation/confirm", DECLARED)
    wrong = await browser.submit("/reservation/leave-party", {"nik": nik(2)})
    assert wrong.status_code == 422
    assert citizen_text("error_not_member") in html.unescape(wrong.text)
    for text in ("", "x"):
        assert (await browser.submit("/reservation/leave-party", {"nik": text})).status_code == 422
    left = await browser.submit("/reservation/leave-party", {"nik": OTHER})
    assert left.status_code == 200
    assert "<strong>1, 3</strong>" in left.text
    last = await browser.submit("/reservation/leave-party", {"nik": nik(1)})
    assert citizen_text("leave_party") not in html.unescape(last.text)
    assert (await browser.http.post("/reservation/leave-party", data={"nik": NIK})).status_code == 200
    assert (await browser.http.get("/reservation/state")).json()["state"] == "CONFIRMED"
    assert "leave-party" not in (await browser.get("/")).text


@pytest.mark.parametrize("failure", [BackendUnavailable("down"), OutcomeUnknown("lost"), Outcome(Status.OVERLOADED)])
@pytest.mark.parametrize(
    ("step", "method", "fields"),
    [
        ("confirm", "confirm", DECLARED),
        ("extend", "extend", {}),
        ("leave-party", "remove_applicant", {"nik": OTHER}),
        ("release", "release", {}),
        ("decline", "decline", {}),
        ("cancel", "cancel", {}),
    ],
)
async def test_a_step_that_the_store_did_not_take_never_looks_done(
    browser: CitizenBrowser,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    method: str,
    fields: dict[str, str],
    failure: Exception | Outcome,
) -> None:
    """The store answers the next request again. The 503 makes a page with script send the form again."""
    await browser.reserve(NIK, OTHER)
    if step == "cancel":
        await browser.submit("/reservation/confirm", DECLARED)
    before = (await browser.http.get("/reservation/state")).json()["phase"]

    async def fail(*_: object, **__: object) -> Outcome:
        if isinstance(failure, Exception):
            raise failure
        return failure

    with monkeypatch.context() as patched:
        patched.setattr(client.service.engine, method, fail)
        failed = await browser.http.post(f"/reservation/{step}", data=fields)
    assert failed.status_code == 503
    assert heading(failed.text) == citizen_text("unavailable_heading")
    assert 'data-retry="/reservation"' in failed.text
    assert (await browser.http.get("/reservation/state")).json()["phase"] == before


async def test_a_repeated_form_of_a_person_who_left_is_no_error(browser: CitizenBrowser) -> None:
    """A page with script sends a form again if it does not know whether the store took it."""
    await browser.reserve(NIK, OTHER)
    for _ in range(2):
        assert (await browser.http.post("/reservation/leave-party", data={"nik": OTHER})).status_code == 200
    assert "leave-party" not in (await browser.get("/reservation")).text


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_step_that_loses_something_asks_once(language: str) -> None:
    """The button is behind its own name and a warning: on the pages of a hold, an offer, a wait and a queue number."""
    losing = {"release", "decline", "cancel", "leave-party"}
    found = set()

    def check(page: str) -> None:
        actions = re.findall(r'action="/reservation/([a-z-]+)"', page)
        asking = re.findall(r"<details.*?</details>", page, re.DOTALL)
        for action in losing.intersection(actions):
            (one,) = (part for part in asking if f'action="/reservation/{action}"' in part)
            assert re.search(r"<summary>[^<]+</summary>\s*<p>[^<]{20,}</p>", one), action
            assert 'class="danger"' in one, action
            found.add(action)

    async with running(catalog=wait_list_catalog(capacity=2)) as client:
        holder, waiting = CitizenBrowser(client), CitizenBrowser(client)
        async with holder.http, waiting.http:
            for one in (holder, waiting):
                await one.get(f"/?lang={language}")
            check((await holder.reserve(OTHER, nik(1))).text)
            await waiting.reserve()
            check((await waiting.submit("/reserve")).text)
            check((await holder.submit("/reservation/confirm", DECLARED)).text)
            await holder.submit("/reservation/cancel")
            check((await waiting.get("/reservation")).text)
    assert found == losing


async def test_an_expired_hold_cannot_be_confirmed(browser: CitizenBrowser, client: Client) -> None:
    await browser.reserve()
    client.clock.advance_ms(900_000)
    ended = await browser.submit("/reservation/confirm", DECLARED)
    assert heading(ended.text) == citizen_text("ended_heading_EXPIRED")
    assert citizen_text("ended_EXPIRED") in html.unescape(ended.text)
    assert (await browser.http.get("/reservation/state")).json()["state"] == "EXPIRED"


async def _leave_catalog(client: Client, *, with_office: bool = False) -> None:
    """Replace the catalog by one without the booked service, session and allotments, or without the office."""
    old = client.service.catalog
    office = old.offices["surabaya"]
    services = {name: service for name, service in office.services.items() if name != "new"}
    kept = dataclasses.replace(office, services=services, sessions={}, allotments=())
    offices = {"malang": dataclasses.replace(office, id="malang")} if with_office else {"surabaya": kept}
    catalog = dataclasses.replace(old, offices=offices, groups={})
    client.service.catalog = catalog
    await client.service.engine.publish(catalog, "2027-01-04")
    client.clock.advance_ms(2_000)  # the pages cache their figures for a second


@pytest.mark.parametrize("with_office", [False, True])
async def test_page_shows_ids_of_what_has_left_the_catalog(
    browser: CitizenBrowser, client: Client, with_office: bool
) -> None:
    """The hold, the queue number and the end stay visible, and every step works."""
    await browser.reserve()
    await _leave_catalog(client, with_office=with_office)
    held = await browser.get("/reservation")
    assert heading(held.text) == citizen_text("held_heading")
    assert (await browser.http.get("/reservation/state")).json()["phase"] == "held 1"
    confirmed = await browser.submit("/reservation/confirm", DECLARED)
    assert confirmed.status_code == 200
    assert heading(confirmed.text) == citizen_text("confirmed_heading")
    assert re.search(r"<strong>1</strong>", confirmed.text), "the queue number"
    facts = re.findall(r"<dd>(?:<strong>)?([^<]*)", confirmed.text)
    assert facts[1] == "morning"
    assert facts[3] == "new"
    assert (facts[2] == "surabaya") is with_office
    ended = await browser.submit("/reservation/cancel")
    assert citizen_text("ended_CANCELLED") in html.unescape(ended.text)
    assert (await browser.get("/")).status_code == 200


async def test_a_forged_cookie_leads_to_no_reservation(browser: CitizenBrowser, client: Client) -> None:
    await browser.reserve()
    value = browser.http.cookies["reservation"]
    until, reference, mac = value.split(".")
    for forged in (f"{until}.surabaya~other.{mac}", f"{int(until) + 1}.{reference}.{mac}", value[:-1], "", "x" * 1000):
        response = await client.http.get("/reservation/state", headers={"cookie": f"reservation={forged}"})
        assert response.json()["state"] == ""


async def test_a_block_is_announced_before_and_after_the_last_place_let_go() -> None:
    """The second place let go within a day blocks. The pages announce the block before, and its end after."""
    async with running(catalog=wait_list_catalog(abandoned_holds_max=1)) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            await browser.reserve()
            assert "block_notice" not in (await browser.get("/reservation")).text
            ended = await browser.submit("/reservation/release")
            assert citizen_text("block_notice_next") in html.unescape(ended.text)
            held = html.unescape((await browser.reserve()).text)
            assert citizen_text("block_notice_last", when="Sabtu, 5 Desember 2026 14.15 WIB") in held
            assert held == html.unescape((await browser.get("/reservation")).text)
            client.clock.advance_ms(60_000)
            blocked = html.unescape((await browser.submit("/reservation/release")).text)
            when = "Sabtu, 5 Desember 2026 14.01 WIB"
            assert citizen_text("block_notice_blocked", when=when) in blocked
            assert citizen_text("refusal_BLOCKED_one", when=when) in html.unescape((await browser.reserve()).text)
            # Another reservation on this computer shows no notice of the earlier one.
            assert citizen_text("block_notice_blocked", when=when) not in (await browser.reserve(OTHER)).text


async def test_an_expired_hold_says_until_when_no_place_can_be_booked() -> None:
    async with running(catalog=wait_list_catalog(abandoned_holds_max=2)) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            await browser.reserve()
            await browser.submit("/reservation/release")
            held = html.unescape((await browser.reserve()).text)
            assert citizen_text("block_notice_left_one", count=1) in held
            await browser.submit("/reservation/release")
            await browser.reserve()
            client.clock.advance_ms(900_000)
            expired = html.unescape((await browser.get("/reservation")).text)
            assert citizen_text("block_notice_blocked", when="Sabtu, 5 Desember 2026 14.15 WIB") in expired
