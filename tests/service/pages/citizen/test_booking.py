"""The citizens' pages, as a browser without JavaScript sees them."""

from __future__ import annotations

import html
import re
import string
import tomllib
from collections.abc import AsyncIterator, Mapping
from importlib import resources

import httpx
import pytest

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.service.pages.i18n import LANGUAGES, Words, language_of
from quota_engine.service.pages.signed_cookies import Visits
from tests.support.browser_service import wait_list_catalog
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, Client, connected, listening, running

SLOT = f"{DAY}|morning"
DECLARED = {"declare": "yes"}
TEXTS = {
    name: text
    for file in ("texts.toml", "operator_texts.toml")
    for name, text in tomllib.loads((resources.files("quota_engine.service.pages") / file).read_text()).items()
}


class Browser:
    """Keeps cookies, and sends the forms that it was given."""

    def __init__(self, client: Client) -> None:
        transport = client.http._transport
        self.http = httpx.AsyncClient(transport=transport, base_url="http://service", follow_redirects=True)
        self.page = ""

    async def get(self, path: str = "/", **headers: str) -> httpx.Response:
        response = await self.http.get(path, headers=headers)
        self.page = response.text
        return response

    def fields(self, action: str) -> dict[str, str]:
        """The hidden fields of the form that goes to ``action``."""
        (form,) = re.findall(rf'<form[^>]*action="{action}".*?</form>', self.page, re.DOTALL)[:1] or [""]
        assert form, self.page
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
        return {name: html.unescape(value) for name, value in found}

    async def send(self, action: str, fields: Mapping[str, object] | None = None, **headers: str) -> httpx.Response:
        """Send the form that goes to ``action``, with what is filled in."""
        data = {**self.fields(action), **(fields or {})}
        response = await self.http.post(action, data=data, headers=headers)
        self.page = response.text
        return response

    async def take(self, *niks: str, slot: str = SLOT) -> httpx.Response:
        await self.get("/?service=new")
        return await self.send("/reserve", {"nik": list(niks or (NIK,)), "slot": slot})


@pytest.fixture
async def browser(client: Client) -> AsyncIterator[Browser]:
    browser = Browser(client)
    async with browser.http:
        yield browser


def title(page: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page)
    assert found, page
    return html.unescape(found[1])


async def test_from_the_choice_to_the_queue_number(browser: Browser, client: Client) -> None:
    """Choose, take, fill in, finish: the queue number, a code to show, and the way to give the place back."""
    await browser.get("/", **{"accept-language": "en"})
    assert title(browser.page) == "Choose a service and a day"
    assert "Monday, 7 December 2026" in browser.page
    held = await browser.take()
    assert (held.url.path, title(held.text)) == ("/place", TEXTS["held_title"]["id"])
    assert NIK not in held.text
    done = await browser.send("/place/confirm", DECLARED)
    assert title(done.text) == TEXTS["done_title"]["id"]
    assert "<strong>1</strong>" in done.text
    assert "<svg" in done.text
    ended = await browser.send("/place/cancel")
    assert TEXTS["ended_CANCELLED"]["id"] in html.unescape(ended.text)


async def test_who_comes_back_finds_the_place(browser: Browser, client: Client) -> None:
    """A closed tab, another browser with the same NIK, a lost cookie: it is the same place, and its clock runs on."""
    await browser.take()
    first = (await browser.http.get("/place/state")).json()
    client.clock.advance_ms(60_000)
    await browser.get("/place")
    assert title(browser.page) == TEXTS["held_title"]["id"]
    other = Browser(client)
    async with other.http:
        assert (await other.take()).url.path == "/place"
        again = (await other.http.get("/place/state")).json()
        assert again == {**first, "now_ms": first["now_ms"] + 60_000}
        await other.send("/place/confirm", DECLARED)
    await browser.get("/place")
    assert title(browser.page) == TEXTS["done_title"]["id"]
    assert (await browser.take()).url.path == "/place"
    view = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"][0]
    assert sum(quota["confirmed"] for quota in view["quotas"] if quota["name"] == "online") == 1


async def test_one_press_too_many(browser: Browser, client: Client) -> None:
    """The same form sent twice is one wish, even for two presses at once."""
    await browser.get("/?service=new")
    page = browser.page
    await browser.send("/reserve", {"nik": NIK, "slot": SLOT})
    browser.page = page
    await browser.send("/reserve", {"nik": NIK, "slot": SLOT})
    view = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"][0]
    assert sum(quota["held"] for quota in view["quotas"] if quota["name"] == "online") == 1


async def test_a_party(browser: Browser, client: Client) -> None:
    """Several come together: as many numbers, all or none."""
    assert (await browser.take(NIK, OTHER, "")).url.path == "/place"
    done = await browser.send("/place/confirm", DECLARED)
    assert "<strong>1, 2</strong>" in done.text


async def test_when_it_is_over(browser: Browser, client: Client) -> None:
    """The last words: that it is over, what is free elsewhere, and when the next quota opens."""
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 0})
    sorry = await browser.take()
    text = html.unescape(sorry.text)
    assert sorry.status_code == 409
    assert TEXTS["sorry_SOLD_OUT"]["id"] in text
    assert "Masih ada tempat pada Selasa, 8 Desember 2026" in text
    assert "Kuota berikutnya dibuka Jumat, 11 Desember 2026 14.00 WIB" in text


async def test_the_wait_list() -> None:
    """Full, but one may wait: the position by reloading, the offer when a place comes back, and giving it up."""
    async with running(catalog=wait_list_catalog(capacity=1)) as client:
        taken, waits = Browser(client), Browser(client)
        async with taken.http, waits.http:
            await taken.take(OTHER)
            ahead = (await client.reserve("3578012345678909", join_wait_list=True)).json()["reservation"]["reference"]
            client.clock.advance_ms(2_000)  # pages look once a second
            sorry = await waits.take()
            assert TEXTS["wait_list_waiting_one"]["id"].format(count=1) in html.unescape(sorry.text)
            assert waits.fields("/reserve")["wait"] == "yes"
            listed = await waits.send("/reserve")
            assert (listed.url.path, title(listed.text)) == ("/place", TEXTS["waiting_title"]["id"])
            assert TEXTS["waiting_ahead_one"]["id"].format(count=1) in html.unescape(listed.text)
            assert '<noscript><meta http-equiv="refresh" content="20"></noscript>' in listed.text
            state = (await waits.http.get("/place/state?lang=en")).json()
            assert (state["state"], state["texts"]["position"], state["phase"]) == ("WAITING", "2", "waiting 1")
            assert (await waits.get("/")).url.path == "/place"
            await client.step(ahead, "release")
            assert TEXTS["room_next"]["id"] in html.unescape((await waits.get("/place")).text)
            await taken.send("/place/release")
            offered = await waits.get("/place")
            assert title(offered.text) == TEXTS["held_title"]["id"]
            assert (await waits.http.get("/place/state")).json()["phase"] == "held 2"
            assert (await waits.http.get("/place/stream")).status_code == 204
            ended = await waits.send("/place/release")
            assert TEXTS["ended_RELEASED"]["id"] in html.unescape(ended.text)
            assert "Kuota berikutnya dibuka Jumat, 11 Desember 2026 14.00 WIB" in html.unescape(ended.text)


async def test_who_looks_at_the_wait_list_is_served_when_a_hold_runs_out() -> None:
    """Nobody sends a command for the day: the page's own look hands the place on, and its stream tells so."""
    async with running(catalog=wait_list_catalog(capacity=1)) as client, listening(client.app) as port:
        browser = Browser(client)
        async with browser.http, connected(port) as raw:
            await client.reserve(OTHER)
            await browser.take()
            await browser.send("/reserve")
            assert (await browser.http.get("/place/state")).json()["phase"] == "waiting 1"
            cookie = f"place={browser.http.cookies['place']}"
            await raw.send(f"GET /place/stream HTTP/1.1\r\nhost: service\r\ncookie: {cookie}\r\n\r\n".encode())
            assert b'"phase":"waiting 1"' in await raw.until(b"}}\n\n")
            client.clock.advance_ms(900_000)
            assert b'"phase":"held 2"' in await raw.until(b"}}\n\n")


async def test_the_wait_list_is_full_or_there_is_none(browser: Browser, client: Client) -> None:
    """Nobody is offered a list that does not take them."""
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 0})
    sorry = await browser.take()
    assert TEXTS["wait_list"]["id"] not in sorry.text
    async with running(catalog=wait_list_catalog(capacity=1, wait_list_max=1)) as full:
        last = Browser(full)
        async with last.http:
            await full.reserve(OTHER)
            await full.reserve("3578012345678909", join_wait_list=True)
            await last.take()
            refused = await last.send("/reserve")
            assert TEXTS["sorry_WAIT_LIST_FULL"]["id"] in html.unescape(refused.text)


async def test_the_hold_runs_out(browser: Browser, client: Client) -> None:
    """Whoever is too late is told so, whatever they press."""
    await browser.take()
    client.clock.advance_ms(900_000)
    ended = await browser.send("/place/confirm", DECLARED)
    assert TEXTS["ended_EXPIRED"]["id"] in html.unescape(ended.text)
    assert (await browser.http.get("/place/state")).json()["state"] == "EXPIRED"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"nik": "123", "slot": SLOT}, "nik_wrong"),
        ({"nik": "", "slot": SLOT}, "nik_wrong"),
        ({"nik": [NIK, NIK], "slot": SLOT}, "nik_twice"),
        ({"nik": NIK}, "choose_session"),
    ],
)
async def test_mistakes_are_said_and_what_was_typed_stays(
    browser: Browser, fields: dict[str, object], text: str
) -> None:
    """The page comes back with the mistake in words, linked to the field; the wish stays the same one."""
    await browser.get("/?service=new")
    wish = browser.fields("/reserve")["wish"]
    response = await browser.send("/reserve", fields)
    assert response.status_code == 422
    assert TEXTS[text]["id"] in html.unescape(response.text)
    assert browser.fields("/reserve")["wish"] == wish


@pytest.mark.parametrize(
    "fields",
    [
        {"nik": NIK, "slot": "yesterday|morning"},
        {"nik": NIK, "slot": f"{DAY}|night"},
        {"nik": NIK, "slot": SLOT, "wish": "a b"},
        {"nik": NIK, "slot": SLOT, "office": "nix", "service": "nix", "group": "nix", "wish": "~"},
    ],
)
async def test_forms_that_nobody_was_given(browser: Browser, client: Client, fields: dict[str, object]) -> None:
    """Back to the choice, and nothing was taken."""
    await browser.get("/?service=new")
    response = await browser.send("/reserve", fields)
    assert response.url.path == "/"
    view = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"][0]
    assert not any(quota["held"] for quota in view["quotas"])


async def test_forms_from_elsewhere_do_nothing(browser: Browser, client: Client) -> None:
    """Another site can not make a visitor's browser take or give up a place."""
    await browser.take()
    for action in ("/place/confirm", "/place/release", "/place/cancel"):
        await browser.http.post(action, headers={"origin": "http://elsewhere"})
    assert (await browser.http.get("/place/state")).json()["state"] == "HELD"
    await browser.get("/?service=new")
    await browser.send("/reserve", {"nik": OTHER, "slot": SLOT}, origin="http://elsewhere")
    view = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"][0]
    assert sum(quota["held"] for quota in view["quotas"] if quota["name"] == "online") == 1


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/place/nothing", 404), ("/operator/nothing", 404), ("/reserve", 405)]
)
async def test_an_address_that_there_is_not(browser: Browser, path: str, status: int) -> None:
    """A page that says so, in the language of whoever asks, and leads to the first."""
    for language in LANGUAGES:
        answer = await browser.get(f"{path}?lang={language}")
        assert answer.status_code == status
        assert f"<h1>{TEXTS['missing_title'][language]}</h1>" in browser.page
        assert 'href="/"' in browser.page
        assert answer.headers.get("allow") == ("POST" if status == 405 else None)


async def test_huge_and_broken_forms(browser: Browser, client: Client) -> None:
    """Bodies that are no form, or without end, lead back to the choice."""
    for content in (b"\xff=\xff", b"nik=" + b"9" * 100_000, b"&".join(b"a=%d" % one for one in range(500))):
        response = await browser.http.post("/reserve", content=content)
        assert (response.status_code, response.url.path) == (200, "/")


async def test_a_cookie_that_was_altered_is_none(browser: Browser, client: Client) -> None:
    """Nobody gets to another's place by writing a cookie."""
    await browser.take()
    value = browser.http.cookies["place"]
    until, reference, mac = value.split(".")
    for forged in (f"{until}.surabaya~other.{mac}", f"{int(until) + 1}.{reference}.{mac}", value[:-1], "", "x" * 1000):
        response = await client.http.get("/place/state", headers={"cookie": f"place={forged}"})
        assert response.json()["state"] == ""


def test_visits_end() -> None:
    """A signed text is good until its time, under its key only."""
    visits = Visits(b"a key for tests, and only them")
    value = visits.seal("surabaya~x", 1_000)
    assert visits.read(value, 999) == "surabaya~x"
    assert visits.read(value, 1_000) == ""
    assert Visits(b"another key, as good as the first").read(value, 0) == ""


async def test_the_first_page_is_small_and_needs_nothing_from_elsewhere(browser: Browser) -> None:
    """At most 60 kB with all that it loads, no address outside, and strict headers."""
    response = await browser.get("/")
    loaded = re.findall(r'(?:href|src)="(/static/[^"]+)"', response.text)
    assert len(loaded) == 2
    total = len(response.content)
    for address in loaded:
        file = await browser.http.get(address)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
        total += len(file.content)
    assert total <= 60_000
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert (await browser.http.get("/static/x/nix.js")).status_code == 404


async def test_the_store_is_away(browser: Browser, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest page, with the same wish to send again."""
    await browser.get("/?service=new")

    async def fail(*_: object, **__: object) -> None:
        raise BackendUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(client.service.engine, "reserve", fail)
        response = await browser.send("/reserve", {"nik": NIK, "slot": SLOT})
        assert response.status_code == 503
        assert TEXTS["sorry_store"]["id"] in html.unescape(response.text)
    response = await browser.send("/reserve")
    assert response.url.path == "/place"


async def test_days_that_are_not_open_yet(browser: Browser, client: Client) -> None:
    """They say when they open, and can not be chosen; a day that is closed says that."""
    days = {"first_day": "2026-12-14", "last_day": "2026-12-14"}
    await client.operate("POST", "/v1/publish", days)
    await client.operate("POST", f"{DAY_PATH}/close")
    page = html.unescape((await browser.get("/days?service=new&lang=en")).text)
    assert "Opens Friday, 11 December 2026 14:00 WIB" in page
    assert "2026-12-14" not in page
    assert re.search(rf'value="{DAY}\|morning" disabled', page)
    assert "closed" in page


async def test_every_page_says_that_it_is_a_test_site() -> None:
    """On staging, in the page and in the header of every answer."""
    async with running(staging=True) as client:
        response = await client.http.get("/")
        assert TEXTS["staging"]["id"] in response.text
        for path in ("/", "/v1/offices", "/nix", "/health/live"):
            assert (await client.http.get(path)).headers["x-quota-engine-staging"] == "true"


@pytest.mark.parametrize(
    ("chosen", "accept", "language"),
    [("", "", "id"), ("", "en-GB,en;q=0.9", "en"), ("", "fr, en;q=0.5", "en"), ("", "nl", "id"), ("id", "en", "id"),
     ("xx", "en", "en")],
)  # fmt: skip
def test_the_language(chosen: str, accept: str, language: str) -> None:
    """What was chosen, else what the browser asks for, else Indonesian."""
    assert language_of(chosen, accept) == language


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_in_both_languages_with_the_same_gaps(name: str) -> None:
    """A text that is missing, or has another gap, would be a page that fails."""
    assert set(TEXTS[name]) == set(LANGUAGES)
    gaps = [sorted(gap for _, gap, *_ in string.Formatter().parse(TEXTS[name][one]) if gap) for one in LANGUAGES]
    assert gaps[0] == gaps[1]
    for one in LANGUAGES:
        assert Words(one)(name, **dict.fromkeys(gaps[0], "x"))
