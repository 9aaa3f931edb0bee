"""The citizens' pages in a browser without JavaScript: the start page and the reserve form."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import AsyncIterator

import pytest

from quota_engine.catalog import load_catalog
from quota_engine.catalog.schema import SiteSettings
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.identity_format import ANY_FORM
from quota_engine.service.pages.i18n import LANGUAGES
from tests.support.browser_service import wait_list_catalog
from tests.support.form_browser import DECLARED, SLOT, CitizenBrowser, heading
from tests.support.identities import SPELLINGS, nik
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, Client, running
from tests.support.page_texts import citizen_text


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[CitizenBrowser]:
    browser = CitizenBrowser(client)
    async with browser.http:
        yield browser


async def _online(client: Client, counter: str) -> int:
    """Return a counter of the first day's quota ``online``."""
    view = (await client.operate("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"][0]
    return sum(quota[counter] for quota in view["quotas"] if quota["name"] == "online")


async def test_a_visitor_gets_a_queue_number_and_can_cancel(browser: CitizenBrowser) -> None:
    await browser.get("/", **{"accept-language": "en"})
    assert heading(browser.page) == citizen_text("choose_heading", "en")
    assert "Monday, 7 December 2026" in browser.page
    held = await browser.reserve()
    assert (held.url.path, heading(held.text)) == ("/reservation", citizen_text("held_heading"))
    assert NIK not in held.text
    confirmed = await browser.submit("/reservation/confirm", DECLARED)
    assert heading(confirmed.text) == citizen_text("confirmed_heading")
    assert "<strong>1</strong>" in confirmed.text
    assert "<svg" in confirmed.text
    ended = await browser.submit("/reservation/cancel")
    assert citizen_text("ended_CANCELLED") in html.unescape(ended.text)


async def test_a_returning_visitor_finds_the_same_hold(browser: CitizenBrowser, client: Client) -> None:
    """After a closed tab, in another browser with the same NIK, and after the hold is confirmed there."""
    await browser.reserve()
    first = (await browser.http.get("/reservation/state")).json()
    client.clock.advance_ms(60_000)
    await browser.get("/reservation")
    assert heading(browser.page) == citizen_text("held_heading")
    other = CitizenBrowser(client)
    async with other.http:
        assert (await other.reserve()).url.path == "/reservation"
        again = (await other.http.get("/reservation/state")).json()
        assert again == {**first, "now_ms": first["now_ms"] + 60_000}
        await other.submit("/reservation/confirm", DECLARED)
    await browser.get("/reservation")
    assert heading(browser.page) == citizen_text("confirmed_heading")
    assert (await browser.reserve()).url.path == "/reservation"
    assert await _online(client, "confirmed") == 1


async def test_a_session_that_is_over_is_not_shown_as_open(browser: CitizenBrowser, client: Client) -> None:
    path = f"/v1/offices/surabaya/availability?first_day={DAY}"
    morning, _ = (await client.call("GET", path)).json()["days"][0]["sessions"]
    client.clock.set_ms(morning["book_until_ms"] - 2_000)
    await browser.get("/?service=new")
    assert re.search(rf'value="{re.escape(SLOT)}">', browser.page)
    client.clock.set_ms(morning["book_until_ms"])
    for language in LANGUAGES:
        await browser.get(f"/?service=new&lang={language}")
        slot = browser.page.split(f'value="{SLOT}"')[1].split("</label>")[0]
        assert slot.startswith(" disabled")
        assert citizen_text("slot_over", language) in slot
        assert f'value="{DAY}|afternoon">' in browser.page
    refused = await browser.submit("/reserve", {"nik": [NIK], "slot": SLOT})
    assert citizen_text("refusal_SESSION_OVER", LANGUAGES[-1]) in html.unescape(refused.text)


async def test_a_form_sent_twice_reserves_one_place(browser: CitizenBrowser, client: Client) -> None:
    await browser.get("/?service=new")
    page = browser.page
    await browser.submit("/reserve", {"nik": NIK, "slot": SLOT})
    browser.page = page
    await browser.submit("/reserve", {"nik": NIK, "slot": SLOT})
    assert await _online(client, "held") == 1


async def test_a_party_gets_one_queue_number_for_each_applicant(browser: CitizenBrowser) -> None:
    assert (await browser.reserve(NIK, OTHER, "")).url.path == "/reservation"
    confirmed = await browser.submit("/reservation/confirm", DECLARED)
    assert "<strong>1, 2</strong>" in confirmed.text


async def test_a_sold_out_page_names_free_days_and_the_next_opening(browser: CitizenBrowser, client: Client) -> None:
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 0})
    refusal = await browser.reserve()
    text = html.unescape(refusal.text)
    assert refusal.status_code == 409
    assert citizen_text("refusal_SOLD_OUT") in text
    assert citizen_text("places_on", day="Senin, 7 Desember 2026") not in text
    assert citizen_text("places_on", day="Selasa, 8 Desember 2026") in text
    assert "Pembukaan berikutnya Jumat, 11 Desember 2026 14.00 WIB" in text


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_error_links_to_a_field_that_is_marked(browser: CitizenBrowser, language: str) -> None:
    """On every form: the summary leads to the field, and the field names its error."""
    await browser.get(f"/?lang={language}")
    pages = [await browser.submit("/reserve", {"nik": ["1", "2"]})]
    await browser.get("/find")
    pages.append(await browser.submit("/find"))
    await browser.reserve(NIK, OTHER)
    pages.append(await browser.submit("/reservation/confirm"))
    pages.append(await browser.submit("/reservation/leave-party", {"nik": "1"}))
    for page in pages:
        assert page.status_code == 422
        fields = re.findall(r'<li><a href="#([\w-]+)">', page.text)
        assert fields
        for field in fields:
            (tag,) = re.findall(rf'<(?:input|fieldset)[^>]* id="{field}"[^>]*>', page.text)
            assert 'aria-invalid="true"' in tag, tag
            assert re.search(rf'aria-describedby="[^"]*\b{field}-error"', tag), tag
            assert f'<p class="field-error" id="{field}-error">' in page.text


async def test_a_party_hears_how_many_places_are_left(browser: CitizenBrowser, client: Client) -> None:
    """Two people and one place: no day is suggested that has only one."""
    for day, capacity in (("07", 1), ("08", 1), ("09", 2), ("10", 0), ("11", 0)):
        path = f"{DAY_PATH[:-2]}{day}/quotas/online/capacity"
        await client.operate("PUT", path, {"capacity": capacity})
    client.clock.advance_ms(2_000)
    text = html.unescape((await browser.reserve(NIK, OTHER)).text)
    assert citizen_text("refusal_too_few_one", count=1, needed=2) in text
    assert citizen_text("refusal_SOLD_OUT") not in text
    suggested = [day for day in ("Senin", "Selasa", "Rabu", "Kamis", "Jumat") if f"kuota pada {day}" in text]
    assert suggested == ["Rabu"]


async def test_a_limit_is_no_dead_end(browser: CitizenBrowser, client: Client) -> None:
    """The page leads to the place that is there, and suggests nothing that would be refused, too."""
    await browser.reserve()
    again = await browser.reserve(slot="2026-12-08|morning")
    assert again.url.path == "/reservation"
    assert citizen_text("already_there", day="Senin, 7 Desember 2026") in html.unescape(again.text)
    browser.http.cookies.clear()
    found = await browser.reserve(slot="2026-12-08|morning")
    assert citizen_text("already_there_found", day="Senin, 7 Desember 2026") in html.unescape(found.text)
    browser.http.cookies.clear()
    party = html.unescape((await browser.reserve(OTHER, NIK, slot="2026-12-09|morning")).text)
    assert citizen_text("refusal_IDENTITY_LIMIT") in party
    assert 'href="/find?office=surabaya"' in party
    assert "kuota pada" not in party
    await browser.get("/?service=new")
    too_large = await browser.submit("/reserve", {"nik": [nik(one) for one in range(9)], "slot": SLOT})
    party_max = client.service.get_office("surabaya").rules.party_max
    assert citizen_text("refusal_PARTY_TOO_LARGE", max=party_max) in html.unescape(too_large.text)
    assert "kuota pada" not in html.unescape(too_large.text)


async def test_full_days_are_named_with_their_wait_list() -> None:
    """The button says what it does, and choosing the wait list joins it without a refusal in between."""
    async with running(catalog=wait_list_catalog(capacity=1)) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            await client.reserve(OTHER)
            for day in ("08", "09"):
                assert (await client.reserve(nik(int(day)), path=DAY_PATH[:-2] + day)).status_code == 201
            client.clock.advance_ms(2_000)
            page = html.unescape((await browser.get("/?service=new")).text)
            assert f"<summary>{citizen_text('full_days_wait_list', count=3)}</summary>" in page
            assert page.index('value="2026-12-08|morning|wait"') < page.index('value="2026-12-09|morning|wait"')
            assert citizen_text("reserve_or_wait") in page
            assert f'data-wait="{citizen_text("wait_list_join")}"' in page
            listed = await browser.submit("/reserve", {"nik": NIK, "slot": f"{SLOT}|wait"})
            assert heading(listed.text) == citizen_text("waiting_heading")


async def test_a_full_or_missing_wait_list_is_not_offered(browser: CitizenBrowser, client: Client) -> None:
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 0})
    refusal = await browser.reserve()
    assert citizen_text("wait_list") not in refusal.text
    async with running(catalog=wait_list_catalog(capacity=1, wait_list_max=1)) as full:
        last = CitizenBrowser(full)
        async with last.http:
            await full.reserve(OTHER)
            await full.reserve("3578012345678909", join_wait_list=True)
            await last.reserve()
            refused = await last.submit("/reserve")
            assert citizen_text("refusal_WAIT_LIST_FULL") in html.unescape(refused.text)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"nik": "123 Siti", "slot": SLOT}, "error_nik_form"),
        ({"nik": "", "slot": SLOT}, "error_nik_missing"),
        ({"nik": [NIK, NIK], "slot": SLOT}, "error_nik_repeated"),
        ({"nik": [NIK, SPELLINGS[5]], "slot": SLOT}, "error_nik_repeated"),
        ({"nik": [NIK, SPELLINGS[1] + "9"], "slot": SLOT}, "error_nik_digits"),
        ({"nik": NIK}, "error_no_slot"),
    ],
)
async def test_a_form_with_errors_returns_with_its_idempotency_key(
    browser: CitizenBrowser, fields: dict[str, object], key: str
) -> None:
    await browser.get("/?service=new")
    idempotency_key = browser.fields("/reserve")["idempotency_key"]
    response = await browser.submit("/reserve", fields)
    assert response.status_code == 422
    error = citizen_text(key, expected="16 angka", count=17, needed=16, first=1)
    assert error.lower() in html.unescape(response.text).lower()
    assert browser.fields("/reserve")["idempotency_key"] == idempotency_key


async def test_errors_stand_at_the_field_of_the_applicant(browser: CitizenBrowser) -> None:
    """The fields keep what was typed. The error names the applicant, what is wrong and what is right."""
    await browser.get("/?service=new&lang=en")
    typed = ["3578012A", SPELLINGS[2], "12-345", f" {SPELLINGS[5]}", "1"]
    page = html.unescape((await browser.submit("/reserve", {"nik": typed, "slot": SLOT})).text)
    for field, error in {
        "nik": "Applicant 1: enter a NIK with 16 digits.",
        "nik3": "Applicant 3: this number has 5 digits; it needs 16.",
        "nik4": "Applicant 4: this number is the same as the NIK of applicant 2. Enter each person's NIK once.",
        "nik5": "Applicant 5: this number has 1 digit; it needs 16.",
    }.items():
        assert f'<p class="field-error" id="{field}-error">{error}</p>' in page
        assert f'<li><a href="#{field}">{error}</a></li>' in page
    assert 'id="nik2-error"' not in page
    alone = await browser.submit("/reserve", {"nik": "12345", "slot": SLOT})
    assert 'id="nik-error">This number has 5 digits; it needs 16.</p>' in alone.text
    await browser.get("/?service=new&lang=id")
    page = html.unescape((await browser.submit("/reserve", {"nik": typed, "slot": SLOT})).text)
    assert citizen_text("nik_hint", expected="16 angka") in page
    assert all(f'value="{one}"' in page for one in typed)


@pytest.mark.parametrize("nik", SPELLINGS)
async def test_every_spelling_of_a_nik_is_accepted(browser: CitizenBrowser, client: Client, nik: str) -> None:
    assert (await client.reserve(NIK)).status_code == 201
    await browser.get("/?service=new")
    await browser.submit("/reserve", {"nik": nik, "slot": SLOT})
    assert (await browser.http.get("/reservation/state")).json()["phase"] == "held 1"
    assert await _online(client, "held") == 1


async def test_a_catalog_without_a_form_accepts_any_text() -> None:
    catalog = dataclasses.replace(load_catalog("surabaya"), identity_format=ANY_FORM)
    async with running(catalog=catalog) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            page = await browser.get("/?service=new")
            assert "16 angka" not in page.text
            blank = await browser.submit("/reserve", {"nik": "\u200b", "slot": SLOT})
            assert citizen_text("error_nik_missing") in html.unescape(blank.text)
            await browser.submit("/reserve", {"nik": "A 1234567", "slot": SLOT})
            assert (await browser.http.get("/reservation/state")).json()["phase"] == "held 1"


@pytest.mark.parametrize(
    "fields",
    [
        {"nik": NIK, "slot": "yesterday|morning"},
        {"nik": NIK, "slot": f"{DAY}|night"},
        {"nik": NIK, "slot": SLOT, "idempotency_key": "a b"},
        {"nik": NIK, "slot": SLOT, "office": "nix", "service": "nix", "group": "nix", "idempotency_key": "~"},
    ],
)
async def test_a_manipulated_form_reserves_nothing(
    browser: CitizenBrowser, client: Client, fields: dict[str, object]
) -> None:
    await browser.get("/?service=new")
    response = await browser.submit("/reserve", fields)
    assert response.url.path == "/"
    assert await _online(client, "held") == 0


async def test_a_form_of_another_site_changes_nothing(browser: CitizenBrowser, client: Client) -> None:
    await browser.reserve()
    for action in ("/reservation/confirm", "/reservation/release", "/reservation/cancel"):
        await browser.http.post(action, headers={"origin": "http://elsewhere"})
    assert (await browser.http.get("/reservation/state")).json()["state"] == "HELD"
    await browser.get("/?service=new")
    await browser.submit("/reserve", {"nik": OTHER, "slot": SLOT}, origin="http://elsewhere")
    assert await _online(client, "held") == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/reservation/nothing", 404), ("/operator/nothing", 404), ("/reserve", 405)],
)
async def test_an_unknown_address_has_a_page_in_the_readers_language(
    browser: CitizenBrowser, path: str, status: int
) -> None:
    for language in LANGUAGES:
        response = await browser.get(f"{path}?lang={language}")
        assert response.status_code == status
        assert f"<h1>{citizen_text('not_found_heading', language)}</h1>" in browser.page
        assert 'href="/"' in browser.page
        assert response.headers.get("allow") == ("POST" if status == 405 else None)


async def test_a_huge_or_malformed_form_leads_to_the_start_page(browser: CitizenBrowser) -> None:
    for content in (b"\xff=\xff", b"nik=" + b"9" * 100_000, b"&".join(b"a=%d" % one for one in range(500))):
        response = await browser.http.post("/reserve", content=content)
        assert (response.status_code, response.url.path) == (200, "/")


async def test_the_start_page_is_small_and_loads_nothing_from_elsewhere(browser: CitizenBrowser) -> None:
    """At most 40 kB with all that it loads, and strict headers."""
    response = await browser.get("/")
    loaded = re.findall(r'(?:href|src)="(/static/[^"]+)"', response.text)
    assert len(loaded) == 2
    total = len(response.content)
    for address in loaded:
        file = await browser.http.get(address)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
        total += len(file.content)
    assert total <= 40_000, total
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert (await browser.http.get("/static/x/nix.js")).status_code == 404


async def test_a_form_can_be_sent_again_after_an_outage(
    browser: CitizenBrowser, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.get("/?service=new")

    async def fail(*_: object, **__: object) -> None:
        raise BackendUnavailable("unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(client.service.engine, "reserve", fail)
        response = await browser.submit("/reserve", {"nik": NIK, "slot": SLOT})
        assert response.status_code == 503
        assert citizen_text("refusal_unavailable") in html.unescape(response.text)
    response = await browser.submit("/reserve")
    assert response.url.path == "/reservation"


async def test_a_day_that_opens_later_says_when_and_cannot_be_chosen(browser: CitizenBrowser, client: Client) -> None:
    days = {"first_day": "2026-12-14", "last_day": "2026-12-14"}
    await client.operate("POST", "/v1/publish", days)
    await client.operate("POST", f"{DAY_PATH}/close")
    page = html.unescape((await browser.get("/days?service=new&lang=en")).text)
    assert "Opens Friday, 11 December 2026 14:00 WIB" in page
    assert "2026-12-14" not in page
    assert re.search(rf'value="{DAY}\|morning" disabled', page)
    assert citizen_text("slot_closed", "en") in page


async def test_staging_marks_every_page_and_every_response() -> None:
    async with running(staging=True) as client:
        response = await client.http.get("/")
        assert citizen_text("staging_notice") in response.text
        for path in ("/", "/v1/offices", "/nix", "/health/live"):
            assert (await client.http.get(path)).headers["x-quota-engine-staging"] == "true"


async def test_a_page_before_the_opening_counts_down_and_follows_it() -> None:
    """Without script the page reloads at the opening; with it, the mark of what is possible changes."""
    async with running(before_ms=90_000) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            page = html.unescape((await browser.get("/?service=new")).text)
            assert citizen_text("days_open_in") in page
            assert '<strong role="timer" data-countdown>1:30</strong>' in page
            assert '<noscript><meta http-equiv="refresh" content="92"></noscript>' in page
            assert 'name="nik"' not in page
            before = re.findall('data-offer="([^"]*)"', (await browser.get("/days?service=new")).text)
            client.clock.advance_ms(90_000)
            page = (await browser.get("/?service=new")).text
            assert 'name="nik"' in page
            assert 'http-equiv="refresh"' not in page
            after = re.findall('data-offer="([^"]*)"', (await browser.get("/days?service=new")).text)
            assert before != after
            assert after[0].startswith("choose")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_title_and_first_sentence_fit_the_phase(language: str) -> None:
    """Before the opening, while days can be chosen, and when no day is left."""

    def check(page: str, title: str, lead: str) -> None:
        assert heading(page) == title
        assert f"<title>{title} ·" in html.unescape(page)
        assert f'<p class="lead">{citizen_text(lead, language)}</p>' in html.unescape(page)

    async with running(before_ms=60_000) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            page = (await browser.get(f"/?service=new&lang={language}")).text
            when = "Jumat, 4 Desember 2026 14.00 WIB" if language == "id" else "Friday, 4 December 2026 14:00 WIB"
            check(page, citizen_text("days_heading_opening", language, when=when), "days_lead_opening")
            client.clock.advance_ms(60_000)
            page = (await browser.get("/?service=new")).text
            check(page, citizen_text("choose_heading", language), "choose_lead")
            assert citizen_text("nik_privacy", language, days=90) in html.unescape(page)
            client.clock.advance_ms(8 * 86_400_000)
            page = (await browser.get("/?service=new")).text
            check(page, citizen_text("days_heading_none", language), "days_lead_none")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_catalog_names_owner_contact_and_priority(language: str) -> None:
    """The footer has the authority and its privacy note, the choice names the people of the priority group."""
    logo = "data:image/svg+xml;base64,PHN2Zy8+"
    site = SiteSettings(
        owner="Imigrasi <Surabaya>", owner_en="Immigration", contact="031 123", privacy="Kami & Anda", logo=logo
    )
    catalog = dataclasses.replace(load_catalog("surabaya"), site=site)
    async with running(catalog=catalog) as client:
        browser = CitizenBrowser(client)
        async with browser.http:
            for path in ("/", "/find", "/nothing"):
                await browser.get(f"{path}?lang={language}")
                page = html.unescape(browser.page)
                owner = "Immigration" if language == "en" else "Imigrasi <Surabaya>"
                assert citizen_text("site_of", language, owner=owner) in page
                assert f"{citizen_text('contact', language)}: 031 123" in page
                assert "<p>Kami & Anda</p>" in page
                assert f'<img src="{logo}" alt="" height="32">' in page
            people = "60 and older, under 5" if language == "en" else "60 tahun ke atas, di bawah 5 tahun"
            assert people in (await browser.get("/")).text


async def test_a_catalog_without_an_owner_has_no_footer(browser: CitizenBrowser) -> None:
    assert "<footer" not in (await browser.get("/")).text
