"""Calling numbers, the screen in the hall, the list to print, and the button that scans."""

from __future__ import annotations

import datetime
import html
import re
from pathlib import Path

import pytest

from quota_engine.service.http.auth import Role
from quota_engine.service.pages.operator.called_numbers import CalledNumbers, NumberCall
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, NIK, Client
from tests.support.page_texts import operator_text


async def _day_with(client: Client, count: int) -> None:
    """Confirm registrations of the first day, and let the day start."""
    for number in range(count):
        reserved = await client.reserve(f"{3578010000000000 + number}")
        await client.step(reserved.json()["reservation"]["reference"], "confirm")
    client.clock.set_ms((await client.service.engine.availability("surabaya", DAY))[0].starts_at_ms)


async def test_the_next_number_is_called_and_shown_on_the_screen(browser: OperatorBrowser, client: Client) -> None:
    await _day_with(client, 4)
    await browser.sign_in(Role.OFFICE)
    page = await browser.get("/operator/call?lang=en&counter=3")
    assert "Call 1 · Counter 3" in page
    assert operator_text("screen_none", "en") in await browser.get("/operator/screen")
    called = await browser.submit("call", number="1", counter="3")
    assert "Call 2 · Counter 3" in called.text
    screen = await browser.get("/operator/screen")
    assert '<li class="new"><span class="only-reader">Queue number </span><strong>1</strong>' in screen
    assert "<span>Counter 3</span>" in screen
    assert operator_text("call_after", "en", numbers="2, 3, 4") in screen
    assert "tabs" not in screen
    taken = await browser.submit("call", number="1", counter="4")
    assert (taken.status_code, operator_text("call_taken", "en", number=1) in html.unescape(taken.text)) == (409, True)
    assert (await browser.submit("call", number="99")).status_code == 409
    assert NIK[:11] not in (await browser.submit("call", number="3", counter=NIK)).text
    await browser.submit("call", number="2", counter="4")
    again = await browser.submit("call", number="1", counter="3", again="yes")
    assert again.status_code == 200
    assert re.findall(r"<strong>(\d)</strong>", await browser.get("/operator/screen/rows")) == ["1", "2", "3"]
    client.clock.advance_ms(16_000)
    assert 'class="new"' not in await browser.get("/operator/screen/rows")


async def test_a_called_number_is_checked_in_from_the_calls(browser: OperatorBrowser, client: Client) -> None:
    await _day_with(client, 2)
    await browser.sign_in(Role.OFFICE)
    page = (await browser.submit("call", number="1", counter="3")).text
    (reference,) = re.findall(r'form="row-check-in" name="number" value="([^"]+)"', page)
    done = await browser.submit("queue/check-in", number=reference, next="call", counter="3")
    assert (done.url.path, "counter=3" in str(done.url)) == ("/operator/call", True)
    assert 'form="row-check-in"' not in done.text
    await browser.sign_in(Role.AUDITOR)
    for path in ("/operator/call", "/operator/screen"):
        assert (await browser.http.get(path)).status_code == 403


@pytest.mark.slow
async def test_calls_are_shared_by_all_workers(tmp_path: Path) -> None:
    """Two workers read each other's calls. Files of days before are deleted, and damaged lines are left out."""
    ours, theirs = CalledNumbers(tmp_path), CalledNumbers(tmp_path)
    for number in range(1, 401):
        await (ours if number % 2 else theirs).add("surabaya", DAY, NumberCall(number, "3", number))
    with next(tmp_path.iterdir()).open("ab") as file:
        file.write(b'{"number": 7\n')
    assert not await ours.add("surabaya", DAY, NumberCall(399, "4", 500)), "another counter has called it"
    assert await ours.add("surabaya", DAY, NumberCall(399, "4", 500, again=True))
    last = await theirs.last("surabaya", DAY)
    assert [(call.number, call.counter) for call in last[:3]] == [(399, "4"), (400, "3"), (398, "3")]
    assert len({call.number for call in last}) == len(last) > 100
    await ours.add("surabaya", DAY + datetime.timedelta(days=3), NumberCall(1, "", 600))
    assert [path.name for path in tmp_path.iterdir()] == ["calls-surabaya-2026-12-10.jsonl"]
    assert await theirs.last("other", DAY) == []


async def test_the_list_to_print_has_every_number_and_no_identity(browser: OperatorBrowser, client: Client) -> None:
    await _day_with(client, 5)
    await browser.sign_in(Role.OFFICE)
    assert f"/operator/queue/print?office=surabaya&day={DAY}" in await browser.get(f"/operator/queue?day={DAY}")
    sheet = await browser.get(f"/operator/queue/print?day={DAY}&session=morning&lang=en")
    assert re.findall(r'<tr><th scope="row">(\d)</th>', sheet) == ["1", "2", "3", "4", "5"]
    assert "35780100" not in sheet
    assert operator_text("queue_empty", "en") in await browser.get(f"/operator/queue/print?day={DAY}&session=afternoon")


@pytest.mark.parametrize("path", ["/operator/queue", "/operator/call", "/operator/screen", "/operator/queue/print"])
async def test_scripts_come_from_this_site_only(browser: OperatorBrowser, client: Client, path: str) -> None:
    """The button for the camera is hidden until the script has found a detector."""
    await _day_with(client, 1)
    await browser.sign_in(Role.OFFICE)
    response = await browser.http.get(path)
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert all(source.startswith("/static/") for source in re.findall(r'<script src="([^"]+)"', response.text))
    assert "<script>" not in response.text
    is_list = path == "/operator/queue"
    assert (re.search(r"<button[^>]*data-scan=[^>]* hidden>", response.text) is not None) is is_list
