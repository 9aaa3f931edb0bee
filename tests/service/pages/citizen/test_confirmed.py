"""The page of a queue number: the code, what happens next, and the file for a calendar."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import AsyncIterator

import msgspec
import pytest

from quota_engine.catalog import Catalog, load_catalog
from quota_engine.service.pages.i18n import LANGUAGES
from quota_engine.service.pages.signed_cookies import CookieSigner
from tests.support.form_browser import DECLARED, CitizenBrowser, heading
from tests.support.in_process_service import NIK, OTHER, Client, running
from tests.support.page_texts import citizen_text

ADDRESS = "Jl. Raya Juanda KM 3-4; Sidoarjo, Jawa Timur"
BRING = {"id": ("KTP asli", "Kartu Keluarga"), "en": ("your identity card", "your family card")}
CALENDAR = "/reservation/calendar.ics"


def _catalog() -> Catalog:
    """Return Surabaya's catalog with an address and a list of what to bring."""
    catalog = load_catalog("surabaya")
    office = catalog.offices["surabaya"]
    new = msgspec.structs.replace(office.services["new"], bring=BRING["id"], bring_en=BRING["en"])
    office = dataclasses.replace(office, address=ADDRESS, contact="031 8688", services={**office.services, "new": new})
    return dataclasses.replace(catalog, offices={"surabaya": office})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running(catalog=_catalog()) as client:
        yield client


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_confirmation_has_code_next_steps_and_address(browser: CitizenBrowser, language: str) -> None:
    await browser.get(f"/?lang={language}")
    await browser.reserve()
    page = html.unescape((await browser.submit("/reservation/confirm", DECLARED)).text)
    assert heading(page) == citizen_text("confirmed_heading", language)
    assert re.search(r'<p class="code"><span>[^<]+</span> <strong>[0-9A-Z]{4}-[0-9A-Z]{4}</strong></p>', page)
    for key in ("next_heading", "next_show", "next_not_coming"):
        assert citizen_text(key, language) in page
    assert citizen_text("next_come_at", language, address=ADDRESS) in page
    assert citizen_text("next_contact", language, contact="031 8688") in page
    assert all(f"<li>{one}</li>" in page for one in BRING[language])
    assert f'href="{CALENDAR}" download' in page
    assert "data-print" in page


async def test_the_calendar_file_has_the_session_and_folds_its_lines(browser: CitizenBrowser) -> None:
    """The morning session is from 8 to 12 in Surabaya, which is 7 hours before UTC."""
    await browser.get("/?lang=en")
    assert (await browser.get(CALENDAR)).url.path == "/", "no reservation"
    await browser.reserve(NIK, OTHER)
    assert (await browser.get(CALENDAR)).url.path == "/reservation", "not confirmed"
    await browser.submit("/reservation/confirm", DECLARED)
    (code,) = re.findall(r"<strong>([0-9A-Z]{4}-[0-9A-Z]{4})</strong>", browser.page)
    file = await browser.http.get(CALENDAR)
    assert file.headers["content-type"] == "text/calendar; charset=utf-8"
    assert file.headers["cache-control"] == "no-store"
    assert file.text.endswith("END:VCALENDAR\r\n")
    assert all(len(line.encode()) <= 75 for line in file.text.split("\r\n"))
    content = file.text.replace("\r\n ", "")
    for line in (
        "DTSTART:20261207T010000Z",
        "DTEND:20261207T050000Z",
        "SUMMARY:Passport queue: Queue number 1\\, 2",
        "LOCATION:Kantor Imigrasi Kelas I Khusus TPI Surabaya\\, Jl. Raya Juanda KM 3-4\\; Sidoarjo\\, Jawa Timur",
        f"DESCRIPTION:Service: New passport\\nRegistration code: {code}\\n"
        "Bring: your identity card\\, your family card",
    ):
        assert f"{line}\r\n" in content
    assert NIK not in content


async def test_the_calendar_file_of_a_found_place_has_no_code(browser: CitizenBrowser, client: Client) -> None:
    await browser.reserve()
    await browser.submit("/reservation/confirm", DECLARED)
    (code,) = re.findall(r"<strong>([0-9A-Z]{4}-[0-9A-Z]{4})</strong>", browser.page)
    own = (await browser.http.get(CALENDAR)).text
    stranger = CitizenBrowser(client)
    async with stranger.http:
        await stranger.reserve()
        file = (await stranger.http.get(CALENDAR)).text
    (uid,) = set(re.findall(r"UID:(\S+)@quota_engine", own + file))
    key = bytes(client.service.config.identity_key)
    reference = f"surabaya~{code.replace('-', '')}"
    assert uid == CookieSigner(key).fingerprint(f"calendar {reference}"), "the name of the event is keyed"
    assert "BEGIN:VEVENT" in file
    assert code not in file
    assert code.replace("-", "") not in file
