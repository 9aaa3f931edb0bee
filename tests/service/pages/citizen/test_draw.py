"""The draw of an office on the citizens' pages: apply with ranked choices, receipt, result and claim."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.service.pages.i18n import LANGUAGES
from tests.service.api.test_draws import DRAW, TERMS
from tests.support.draw_runs import CLOSES_AT_MS, ENTROPY, MONDAY, NOW_MS, OPENS_AT_MS, SEED, TUESDAY, catalog_with_draw
from tests.support.form_browser import CitizenBrowser, heading
from tests.support.in_process_service import Client, running
from tests.support.page_texts import citizen_text

PAGE: Final = "/draw?office=sby"
FIRST: Final = f"{MONDAY}|am"
SECOND: Final = f"{TUESDAY}|am"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A service whose office has a draw that opens in an hour. It offers three places a day."""
    async with running(catalog=catalog_with_draw(), office="sby", day=MONDAY) as client:
        client.clock.set_ms(NOW_MS)
        assert (await client.operate("PUT", DRAW, TERMS)).status_code == 201
        yield client


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


async def _apply(browser: CitizenBrowser, *names: str, **choices: str) -> Any:
    await browser.get(PAGE)
    return await browser.submit("/draw/apply", {"nik": list(names), **choices})


async def _draw(client: Client) -> None:
    client.clock.set_ms(CLOSES_AT_MS)
    for step, body in (("close", {}), ("run", {"seed": SEED, "entropy": ENTROPY}), ("award", {})):
        assert (await client.operate("POST", f"{DRAW}/{step}", body)).status_code == 200, step


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_follows_the_phases_of_the_draw(client: Client, browser: CitizenBrowser, language: str) -> None:
    assert 'href="/draw?office=sby' in (await browser.get(f"/?office=sby&lang={language}")).text
    assert heading((await browser.get(PAGE)).text) == citizen_text("draw_heading_ANNOUNCED", language)
    assert "/draw/apply" not in browser.page
    assert "data-countdown" in browser.page
    client.clock.set_ms(OPENS_AT_MS)
    assert heading((await browser.get(PAGE)).text) == citizen_text("draw_heading_OPEN", language)
    commitment = TERMS["commitment"]
    assert commitment in browser.page
    client.clock.set_ms(CLOSES_AT_MS)
    assert heading((await browser.get(PAGE)).text) == citizen_text("draw_heading_CLOSED", language)
    assert (await browser.get("/draw?office=mlg")).url.path == "/", "an office without a draw"


async def test_an_application_needs_a_choice_and_valid_people(client: Client, browser: CitizenBrowser) -> None:
    client.clock.set_ms(OPENS_AT_MS)
    refused = await _apply(browser)
    assert refused.status_code == 422
    text = html.unescape(refused.text)
    assert citizen_text("draw_error_choice") in text
    assert citizen_text("error_nik_missing") in text
    twice = html.unescape((await _apply(browser, "ani", choice1=FIRST, choice2=FIRST)).text)
    assert citizen_text("draw_error_twice") in twice
    assert f'<option value="{FIRST}" selected>' in twice
    assert 'value="ani"' in twice
    other = await _apply(browser, "ani", choice1="2026-01-01|am")
    assert other.status_code == 409
    assert (await _apply(browser, "ani", choice1="nonsense")).url.path == "/draw"
    assert (await client.http.get(DRAW)).json()["applications"] == 0


async def test_the_receipt_alone_changes_an_application(client: Client, browser: CitizenBrowser) -> None:
    """Another browser with the same NIK can neither change nor withdraw it, and sees no receipt."""
    client.clock.set_ms(OPENS_AT_MS)
    applied = await _apply(browser, "ani", choice1=FIRST)
    assert citizen_text("draw_receipt") in html.unescape(applied.text)
    assert "<strong>1</strong>" in applied.text
    stranger = CitizenBrowser(client)
    async with stranger.http:
        for choice in (SECOND, FIRST):  # another application, and exactly the same one
            refused = await _apply(stranger, "ani", choice1=choice)
            assert refused.status_code == 409
            assert citizen_text("draw_refusal_ALREADY_APPLIED") in html.unescape(refused.text)
        assert "draw" not in stranger.http.cookies
        await stranger.http.post("/draw/withdraw", data={"office": "sby", "nik": "ani"})
        await stranger.http.post("/draw/claim", data={"office": "sby"})
    found = await client.service.engine.draw("dec").find("ani")
    assert found is not None
    assert (found.version, len(found.choices)) == (1, 1)
    changed = await _apply(browser, "ani", choice1=SECOND, choice2=FIRST)
    assert changed.status_code == 200
    wrong = await browser.submit("/draw/withdraw", {"nik": "budi"})
    assert citizen_text("draw_refusal_NOT_FOUND") in html.unescape(wrong.text)
    await browser.submit("/draw/withdraw", {"nik": "ani"})
    assert (await client.http.get(DRAW)).json()["applications"] == 0
    assert "draw" not in browser.http.cookies


@pytest.mark.parametrize("step", ["apply", "withdraw"])
async def test_an_overloaded_store_leads_to_the_retrying_page(
    client: Client, browser: CitizenBrowser, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    client.clock.set_ms(OPENS_AT_MS)
    await _apply(browser, "ani", choice1=FIRST)

    async def overloaded(*_: object, **__: object) -> DrawOutcome:
        return DrawOutcome(DrawStatus.OVERLOADED)

    with monkeypatch.context() as patched:
        patched.setattr(type(client.service.engine.draw("dec")), step, overloaded)
        failed = await browser.http.post(f"/draw/{step}", data={"office": "sby", "nik": "ani", "choice1": SECOND})
    assert failed.status_code == 503
    assert f'data-retry="{PAGE}"' in failed.text


async def test_a_winner_claims_the_place_and_a_loser_hears_the_result(client: Client, browser: CitizenBrowser) -> None:
    """Four people want the three places of Monday. The winner's browser owns the place, without the NIK."""
    client.clock.set_ms(OPENS_AT_MS)
    browsers = [browser, *(CitizenBrowser(client) for _ in range(3))]
    names = ("ani", "budi", "citra", "dewi")
    for one, name in zip(browsers, names, strict=True):
        await _apply(one, name, choice1=FIRST, choice2=f"{MONDAY}|pm")
    await _draw(client)
    won = []
    for one, name in zip(browsers, names, strict=True):
        page = html.unescape((await one.get(PAGE)).text)
        application = await client.service.engine.draw("dec").find(name)
        assert application is not None
        result = (await client.http.get(f"{DRAW}/applications/{application.number}")).json()
        rank = citizen_text("draw_rank", number=application.number, rank=result["rank"], of=4)
        assert rank in page
        key = "draw_heading_won" if result["preference"] else "draw_heading_lost"
        assert heading(page) == citizen_text(key)
        if result["preference"]:
            won.append(one)
        else:
            assert (await one.http.post("/draw/claim", data={"office": "sby"})).url.path == "/draw"
    assert len(won) == 3
    for one in won:
        await one.get(PAGE)
        held = await one.submit("/draw/claim")
        assert (held.url.path, heading(held.text)) == ("/reservation", citizen_text("held_heading"))
        assert "/reservation/release" in held.text, "the browser owns the place"
    for one in browsers[1:]:
        await one.http.aclose()


async def test_finishing_forgets_the_receipt(client: Client, browser: CitizenBrowser) -> None:
    client.clock.set_ms(OPENS_AT_MS)
    await _apply(browser, "ani", choice1=FIRST)
    await browser.submit("/finish")
    assert citizen_text("draw_receipt") not in html.unescape((await browser.get(PAGE)).text)
