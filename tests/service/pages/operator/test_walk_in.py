"""A place for people at the counter: reserve and confirm in one step, and print the ticket."""

from __future__ import annotations

import html
import re

from quota_engine.service.http.auth import Role
from tests.support.form_browser import OperatorBrowser
from tests.support.in_process_service import DAY, NIK, OTHER, Client
from tests.support.page_texts import operator_text


def _form(page: str) -> dict[str, str]:
    (form,) = re.findall(r'<form method="post" action="/operator/walk-in">.*?</form>', page, re.DOTALL)
    hidden = re.findall(r'<input type="hidden" name="([\w-]+)" value="([^"]*)">', form)
    return {name: html.unescape(value) for name, value in hidden}


async def test_people_at_the_counter_get_a_number_at_once(browser: OperatorBrowser, client: Client) -> None:
    """The same form sent twice has one effect, and no page or address has a NIK."""
    await browser.sign_in(Role.OFFICE)
    page = await browser.get(f"/operator/walk-in?day={DAY}&lang=en")
    assert operator_text("places_available", "en", count=50) in page
    assert 'value="online"' not in page
    fields = {**_form(page), "session": "morning", "nik-1": NIK, "nik-2": OTHER}
    for _ in range(2):
        done = await browser.submit("walk-in", **fields)
        assert operator_text("done_walk-in", "en", number="1, 2") in done.text
        assert NIK not in str(done.url) + done.text
    assert "<dd>Manual queue in the office</dd>" in done.text
    assert "/operator/reservation/ticket?" in done.text
    view = (await client.service.engine.availability("surabaya", DAY))[0]
    assert (view.quotas["walk-in"].confirmed, view.quotas["morning"].confirmed) == (2, 2)


async def test_a_walk_in_that_is_refused_says_why(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.OFFICE)
    page = await browser.get(f"/operator/walk-in?day={DAY}&lang=en")
    fields = {**_form(page), "session": "morning"}
    attempts: list[dict[str, str]] = [{}, {"nik-1": "12"}, {"nik-1": NIK, "nik-2": NIK}]
    for niks in attempts:
        wrong = await browser.submit("walk-in", **fields, **niks)
        assert (wrong.status_code, operator_text("walk_in_niks", "en") in wrong.text) == (422, True), niks
    online = await browser.submit("walk-in", **{**fields, "channel": "online", "nik-1": NIK})
    assert online.status_code == 422
    held = (await client.reserve(NIK)).json()["reservation"]["reference"]
    resumed = await browser.submit("walk-in", **fields, **{"nik-1": NIK})
    assert operator_text("done_already", "en") in resumed.text
    assert operator_text("state_HELD", "en") in resumed.text
    await client.step(held, "confirm")
    limited = await browser.submit("walk-in", **fields, **{"nik-1": NIK})
    assert (limited.status_code, operator_text("why_IDENTITY_LIMIT", "en") in limited.text) == (409, True)
    assert NIK not in limited.text
    await client.service.engine.close_day("surabaya", DAY)
    client.clock.advance_ms(2_000)
    page = await browser.get(f"/operator/walk-in?day={DAY}&lang=en")
    assert operator_text("walk_in_closed", "en", day="Monday, 7 December 2026") in page
    await browser.sign_in(Role.AUDITOR)
    assert (await browser.http.get("/operator/walk-in")).status_code == 403
