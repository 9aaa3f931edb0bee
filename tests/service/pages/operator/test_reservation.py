"""The page of one reservation: its people and history, and moving, extending and taking people out."""

from __future__ import annotations

import datetime
import html
import re

import httpx
import pytest

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK, OTHER, Client, running
from tests.support.page_texts import operator_text
from tests.support.seeded_service import two_offices

NEXT = DAY + datetime.timedelta(days=1)


async def _reserved(client: Client, *niks: str, key: str = "", confirm: bool = True) -> str:
    reference = str((await client.reserve(*niks, key=key)).json()["reservation"]["reference"])
    if confirm:
        assert (await client.step(reference, "confirm")).status_code == 200
    return reference


def _history(page: str) -> list[str]:
    found = re.findall(r'<ol class="history">(.*?)</ol>', page, re.DOTALL)[0]
    return re.findall(r"<li><b>([^<]*)</b>", found)


def _version(page: httpx.Response | str) -> str:
    text = page if isinstance(page, str) else page.text
    return str(re.findall(r'name="version" value="(\d+)"', text)[0])


async def test_a_registration_is_found_by_number_code_and_reference(browser: OperatorBrowser, client: Client) -> None:
    await _reserved(client, NIK)
    reference = await _reserved(client, OTHER, nik(1), key="7K3M91XZ")
    await browser.sign_in(Role.OFFICE)
    assert f"/operator/reservation?office=surabaya&day={DAY}&number=" in await browser.get(f"/operator/queue?day={DAY}")
    for query in (f"day={DAY}&number=2", f"day={DAY}&number=3", "number=7k3m-91xz", f"number={reference}"):
        page = await browser.get(f"/operator/reservation?{query}&lang=en")
        assert "<dd>7K3M-91XZ</dd>" in page, query
        assert re.findall(r"<li>Queue number <b>(\d)</b>", page) == ["2", "3"]
        assert OTHER not in page
    for query in (f"day={DAY}&number=99", "number=7k3m-91xy", "number=other~7K3M91XZ", "number=", f"number={NIK}"):
        assert (await browser.http.get(f"/operator/reservation?{query}")).status_code == 404, query
    await browser.sign_in(Role.AUDITOR)
    assert (await browser.http.get(f"/operator/reservation?number={reference}")).status_code == 403


async def test_a_registration_shows_each_change_with_what_it_was(browser: OperatorBrowser, client: Client) -> None:
    for number in range(30):
        await _reserved(client, nik(100 + number))
    reference = await _reserved(client, NIK, OTHER)
    await _reserved(client, nik(1))
    await client.step(reference, "remove-applicant", applicant=OTHER)
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/reservation?number={reference}&lang=en")
    assert _history(page) == ["Place taken", "Confirmed", "Person taken out"]
    assert "State: <del>held</del> → <ins>expected</ins>" in page
    assert "People: <del>2</del> → <ins>1</ins>" in page
    assert operator_text("history_gaps", "en") not in page
    await client.operate("POST", "/v1/offices/surabaya/events/trim", {"through": 70})
    client.clock.advance_ms(61_000)
    page = await browser.get(f"/operator/reservation?number={reference}&lang=en")
    assert operator_text("history_gaps", "en") in page


async def test_a_move_shows_both_places_before_and_after(browser: OperatorBrowser, client: Client) -> None:
    """The question changes nothing. A form of a page that is out of date changes nothing either."""
    reference = await _reserved(client, NIK)
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/reservation/move?number={reference}&lang=en")
    assert f'value="{NEXT}~afternoon"' in page
    assert f'value="{DAY}~morning" required disabled' in page
    asked = await browser.submit(
        "reservation/move", number=reference, place=f"{NEXT}~afternoon", version=_version(page)
    )
    question = html.unescape(asked.text)
    assert "Before: </span>Monday, 7 December 2026</del>" in question
    assert "After: </span>Tuesday, 8 December 2026</ins>" in question
    assert (await client.step(reference, "confirm")).json()["reservation"]["day"] == str(DAY)
    fields = {"number": reference, "place": f"{NEXT}~afternoon", "version": _version(asked), "confirm": "yes"}
    moved = await browser.submit("reservation/move", **fields)
    assert operator_text("done_moved", "en") in moved.text
    assert "Day: <del>Monday, 7 December 2026</del> → <ins>Tuesday, 8 December 2026</ins>" in html.unescape(moved.text)
    assert (await client.step(reference, "confirm")).json()["reservation"]["session"] == "afternoon"
    stale = await browser.submit("reservation/move", **{**fields, "place": f"{DAY}~morning"})
    assert (stale.status_code, operator_text("why_STALE", "en") in html.unescape(stale.text)) == (409, True)
    again = await browser.submit("reservation/move", **{**fields, "place": f"{DAY}~morning", "version": "0"})
    assert operator_text("why_MOVES_EXCEEDED", "en") in html.unescape(again.text)
    for place in ("", "tomorrow~morning", f"{DAY}~nix"):
        wrong = await browser.submit("reservation/move", **{**fields, "place": place, "version": "0"})
        assert wrong.status_code in (400, 422), place


async def test_a_session_of_the_same_day_is_a_move_too(browser: OperatorBrowser, client: Client) -> None:
    reference = await _reserved(client, NIK)
    await browser.sign_in(Role.OPERATOR)
    await browser.submit("reservation/move", number=reference, place=f"{DAY}~afternoon", confirm="yes")
    now = (await client.step(reference, "confirm")).json()["reservation"]
    assert (now["day"], now["session"], now["queue_numbers"]) == (str(DAY), "afternoon", [1])


@pytest.mark.slow
async def test_a_registration_moves_to_another_office_that_the_token_covers() -> None:
    async with running(catalog=two_offices()) as client:
        browser = OperatorBrowser(client)
        async with browser.http:
            reference = await _reserved(client, NIK)
            await browser.sign_in(Role.OPERATOR)
            page = await browser.get(f"/operator/reservation/move?office=surabaya&number={reference}&to=other")
            assert f'value="{DAY}~morning" required>' in page
            moved = await browser.submit(
                "reservation/move", number=reference, to="other", place=f"{DAY}~morning", confirm="yes"
            )
            assert moved.status_code == 200
            assert "office=other" in str(moved.url)
            assert operator_text("verb_move_in_confirmed") in moved.text
            second = await _reserved(client, OTHER)
            unknown = await browser.submit("reservation/move", number=second, to="nix", place=f"{DAY}~morning")
            assert unknown.status_code == 404


async def test_a_hold_is_extended_as_often_as_the_rules_allow(browser: OperatorBrowser, client: Client) -> None:
    reference = await _reserved(client, NIK, confirm=False)
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/reservation?number={reference}&lang=en")
    assert operator_text("extensions_left", "en", count=2) in page
    for left in (1, 0):
        done = await browser.submit("reservation/extend", number=reference)
        assert operator_text("done_extended", "en") in done.text
        key = "extensions_left_one" if left else "extensions_left"
        assert operator_text(key, "en", count=left) in done.text
    refused = await browser.submit("reservation/extend", number=reference)
    assert operator_text("why_EXTENSIONS_EXCEEDED", "en") in html.unescape(refused.text)
    page = await browser.get(f"/operator/reservation?number={reference}")
    assert "reservation/extend" not in page
    assert "Kept until: <del>14:15 WIB</del> → <ins>14:20 WIB</ins>" in page
    await client.step(reference, "release")
    assert (await browser.submit("reservation/extend", number=reference)).status_code == 409


async def test_one_person_leaves_and_the_others_stay(browser: OperatorBrowser, client: Client) -> None:
    reference = await _reserved(client, NIK, OTHER, nik(1))
    await browser.sign_in(Role.OPERATOR)
    page = await browser.get(f"/operator/reservation?number={reference}&lang=en")
    version = _version(page)
    for applicant, status in (("", 422), ("12", 422), (nik(9), 409)):
        wrong = await browser.submit("reservation/remove", number=reference, applicant=applicant, version=version)
        assert (wrong.status_code, 'id="applicant-error"' in wrong.text) == (status, True), applicant
        assert nik(9) not in wrong.text
    done = await browser.submit("reservation/remove", number=reference, applicant=OTHER, version=version)
    assert operator_text("done_removed", "en") in done.text
    assert re.findall(r"<li>Queue number <b>(\d)</b>", done.text) == ["1", "3"]
    assert OTHER not in str(done.url) + done.text
    await browser.sign_in(Role.OFFICE)
    for form in ("reservation/remove", "reservation/extend", "reservation/move"):
        assert (await browser.submit(form, number=reference, applicant=NIK)).status_code == 403, form


async def test_a_ticket_has_one_slip_for_each_person(browser: OperatorBrowser, client: Client) -> None:
    reference = await _reserved(client, NIK, OTHER)
    held = await _reserved(client, nik(1), confirm=False)
    await browser.sign_in(Role.OFFICE)
    page = await browser.get(f"/operator/reservation/ticket?number={reference}")
    assert page.count('<article class="slip">') == 2
    assert re.findall(r"</span><strong>(\d)</strong>", page) == ["1", "2"]
    assert page.count("<svg") == 2
    assert (await browser.http.get(f"/operator/reservation/ticket?number={held}")).status_code == 409
