"""Access to the operators' pages, and the protection of their forms."""

from __future__ import annotations

import hashlib
import hmac
import re

import httpx
import msgspec
import pytest

from quota_engine.catalog import load_catalog
from quota_engine.domain.identity_key import IdentityKey
from quota_engine.service.app import create_app
from quota_engine.service.http.auth import Grant, Role
from tests.support.form_browser import OperatorBrowser, csrf_token_of
from tests.support.in_process_service import DAY, TOKENS, Client, configuration, grants, running
from tests.support.page_texts import operator_text

PAGES = (
    "/operator", "/operator/dashboard", "/operator/dashboard.csv", "/operator/day", "/operator/day/figures",
    "/operator/room", "/operator/room/figures", "/operator/queue", "/operator/queue.csv",
    "/operator/queue/no-show?number=1", "/operator/queue/rows", "/operator/opening", "/operator/opening.csv",
    "/operator/report", "/operator/report.csv", "/operator/commands", "/operator/commands.csv",
    "/operator/offices", "/operator/offices/rows", "/operator/audit", "/operator/reservation?number=1&from=queue",
    "/operator/walk-in", "/operator/catalog",
)  # fmt: skip
FORMS = (
    "day/capacity", "day/close", "day/open", "room/pace", "room/open", "room/close", "queue/check-in", "queue/no-show",
    "audit", "walk-in", "reservation/move", "reservation/extend", "reservation/remove", "catalog",
    "catalog/remove",
)  # fmt: skip


async def _login_token(browser: OperatorBrowser) -> str:
    """Return the CSRF token of the login form."""
    return csrf_token_of((await browser.http.get("/operator")).text)


async def test_every_page_and_form_needs_a_session(browser: OperatorBrowser) -> None:
    for path in PAGES:
        for cookie in ("", "operator=1.operator:x.y", "operator=" + "x" * 5000):
            response = await browser.http.get(path, headers={"cookie": cookie})
            assert (response.status_code, 'name="token"' in response.text) == (401, True), path
    for form in FORMS:
        assert (await browser.submit(form, confirm="yes")).status_code == 401, form


async def test_unknown_and_service_tokens_are_refused(browser: OperatorBrowser) -> None:
    csrf_token = await _login_token(browser)
    for token in ("wrong", "naïve", "", TOKENS[Role.SERVICE]):
        response = await browser.http.post("/operator/login", data={"csrf_token": csrf_token, "token": token})
        assert response.status_code == 401
        assert 'id="token-error" role="alert"' in response.text
    assert "operator" not in browser.http.cookies


@pytest.mark.parametrize("role", [Role.OFFICE, Role.AUDITOR, Role.OPERATOR])
async def test_pages_offer_only_what_the_role_allows(browser: OperatorBrowser, role: Role) -> None:
    await browser.sign_in(role)
    is_staff, is_reader = role is not Role.AUDITOR, role is not Role.OFFICE
    day = str(DAY)
    for path in PAGES:
        response = await browser.http.get(path, params={"day": day} if "?" not in path else None)
        is_allowed = is_staff if "queue" in path or "walk-in" in path else is_reader or path == "/operator"
        expected = 403 if not is_allowed else 404 if "number=" in path else 200
        assert response.status_code == expected, path
        if is_allowed:
            assert ("/operator/day/capacity" in response.text) is (role is Role.OPERATOR and path == "/operator/day")
            for action in ("day/close", "room/pace"):
                assert role is Role.OPERATOR or action not in response.text
    for form in FORMS:
        response = await browser.submit(form)
        is_allowed = (
            role is Role.OPERATOR
            or (is_staff and ("queue" in form or form == "walk-in"))
            or (is_reader and form == "audit")
        )
        assert (response.status_code == 403) is not is_allowed, form


@pytest.mark.slow
async def test_a_token_of_one_office_reaches_no_other_office() -> None:
    token = TOKENS[Role.OPERATOR].upper()
    own = Grant("desk", Role.OPERATOR, hashlib.sha256(token.encode()).hexdigest(), ("surabaya",))
    catalog = load_catalog("indonesia")
    first = next(iter(catalog.offices))
    other = next(name for name in catalog.offices if name not in ("surabaya", first))
    assert first != "surabaya", "the default office must not be the own one by chance"
    async with running(catalog=catalog, grants=(*grants(), own)) as client:
        browser = OperatorBrowser(client)
        async with browser.http:
            page = (await browser.sign_in(Role.OPERATOR, token)).text
            assert client.service.catalog.offices["surabaya"].name in page
            assert "/operator/offices" not in page
            assert re.findall(r'id="office-([^"]+)"', await browser.get("/operator/offices")) == ["surabaya"]
            assert f'value="{other}"' not in page
            for path in PAGES:
                name, _, query = path.partition("?")
                refused = await browser.http.get(f"{name}?office={other}&{query}")
                assert refused.status_code == 403, path
                assert client.service.catalog.offices[other].name not in refused.text
            assert (await browser.submit("day/close", office=other, confirm="yes")).status_code == 403
            assert (await browser.http.get("/operator/audit?scope=all")).status_code == 200
            await _check_room_of(browser, client, other)
            await browser.sign_in(Role.OPERATOR)
            page = (await browser.http.get("/operator?office=surabaya")).text
            assert f'value="{other}"' in page
            shown: list[str] = []
            for start in range(0, len(catalog.offices), 25):
                page = await browser.get(f"/operator/offices?from={start}&lang=en")
                assert len(page.encode()) < 40_000
                shown += re.findall(r'id="office-([^"]+)"', page)
            assert sorted(shown) == sorted(catalog.offices)
            assert operator_text("all_offices", "en", count=len(catalog.offices)) in page


async def _check_room_of(browser: OperatorBrowser, client: Client, office: str) -> None:
    """Check that the room of another office can neither be seen nor closed."""
    room = client.service.engine.room("theirs")
    await room.create(office, DAY, opens_at=client.clock.now_ms() + 60_000)
    assert (await browser.http.get("/operator/room?room=theirs")).status_code == 404
    assert (await browser.submit("room/close", room="theirs", confirm="yes")).status_code == 404
    assert not (await room.view()).is_closed


async def test_an_address_may_try_ten_unknown_tokens_at_once(browser: OperatorBrowser, client: Client) -> None:
    form = {"csrf_token": await _login_token(browser), "token": "wrong"}
    responses = [await browser.http.post("/operator/login", data=form) for _ in range(12)]
    assert [response.status_code for response in responses] == [401] * 10 + [429] * 2
    assert int(responses[-1].headers["retry-after"]) == 30
    client.clock.advance_ms(30_000)
    responses = [await browser.http.post("/operator/login", data=form) for _ in range(2)]
    assert [response.status_code for response in responses] == [401, 429]


async def test_unknown_tokens_lock_out_no_known_token(browser: OperatorBrowser, client: Client) -> None:
    """Behind a proxy that is not trusted, all operators have the address of the person who guesses."""
    form = {"csrf_token": await _login_token(browser), "token": "wrong"}
    for _ in range(20):
        await browser.http.post("/operator/login", data=form)
    for role in (Role.OPERATOR, Role.OFFICE):
        assert (await browser.sign_in(role)).status_code == 200
    other = OperatorBrowser(client)
    async with other.http:
        assert (await other.sign_in(Role.OPERATOR)).status_code == 200
    assert (await browser.http.post("/operator/login", data=form)).status_code == 403, "signing in took the form"


async def test_log_names_the_address_of_too_many_unknown_tokens_once(
    browser: OperatorBrowser, caplog: pytest.LogCaptureFixture
) -> None:
    form = {"csrf_token": await _login_token(browser), "token": "a wrong token"}
    for _ in range(30):
        await browser.http.post("/operator/login", data=form)
    lines = [record.getMessage() for record in caplog.records if "login" in record.getMessage()]
    assert 1 <= len(lines) <= 5
    assert all("too many unknown tokens from 127.0.0.1" in line for line in lines)
    assert "a wrong token" not in caplog.text


async def test_a_form_needs_the_csrf_token_of_its_session(browser: OperatorBrowser, client: Client) -> None:
    """No token, the token of an earlier session, an invented one, or the right one from another site."""
    await browser.sign_in(Role.OPERATOR)
    earlier = browser.csrf_token
    await browser.sign_in(Role.OPERATOR)
    assert browser.csrf_token != earlier
    fields = {"confirm": "yes", "number": "1", "capacity-online": "7"}
    for form in FORMS:
        for csrf_token in ("", earlier, "x" * 22, "ü"):
            refused = await browser.submit(form, csrf_token=csrf_token, **fields)
            assert (refused.status_code, operator_text("form_expired") in refused.text) == (403, True), form
        data = {"office": "surabaya", "day": str(DAY), "csrf_token": browser.csrf_token, **fields}
        for origin in ("http://elsewhere", "null"):
            elsewhere = await browser.http.post(f"/operator/{form}", data=data, headers={"origin": origin})
            assert elsewhere.status_code == 403, form
    (day,) = await client.service.engine.availability("surabaya", DAY)
    assert not day.closed
    assert day.quotas["online"].capacity == 100


async def test_another_site_can_sign_nobody_in_or_out(browser: OperatorBrowser) -> None:
    good = {"csrf_token": await _login_token(browser), "token": TOKENS[Role.OPERATOR]}
    for data, headers in (
        ({**good, "csrf_token": ""}, {}),
        ({**good, "csrf_token": "x" * 22}, {}),
        (good, {"origin": "http://elsewhere"}),
        (good, {"origin": "null"}),
    ):
        assert (await browser.http.post("/operator/login", data=data, headers=headers)).status_code == 403
    async with httpx.AsyncClient(transport=browser.http._transport, base_url="http://service") as other:
        assert (await other.post("/operator/login", data=good)).status_code == 403, "accepted without its cookie"
    assert (await browser.http.post("/operator/login", data=good)).status_code == 200
    assert (await browser.http.post("/operator/logout")).status_code == 403
    assert (await browser.http.get("/operator")).status_code == 200


async def test_a_session_cookie_cannot_be_made_from_the_token(browser: OperatorBrowser, client: Client) -> None:
    """It holds neither the token nor its SHA-256, and two sessions have two cookies."""
    token, digest = TOKENS[Role.OPERATOR], hashlib.sha256(TOKENS[Role.OPERATOR].encode()).hexdigest()
    cookies = []
    for _ in range(2):
        await browser.sign_in(Role.OPERATOR)
        cookies.append(browser.http.cookies["operator"])
    assert cookies[0] != cookies[1]
    assert digest not in cookies[0]
    assert token not in cookies[0]
    until = client.clock.now_ms() + 1_000_000
    for text in (f"{until}.operator:{digest}", f"{until}.x:{digest}"):
        for key in (token.encode(), digest.encode(), b""):
            made = f"{text}.{hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:22]}"
            response = await browser.http.get("/operator", headers={"cookie": f"operator={made}"})
            assert response.status_code == 401


async def test_a_session_cookie_is_strict_and_ends_after_twelve_hours(browser: OperatorBrowser) -> None:
    data = {"csrf_token": await _login_token(browser), "token": TOKENS[Role.OPERATOR]}
    response = await browser.http.post("/operator/login", data=data, follow_redirects=False)
    (header,) = [value for value in response.headers.get_list("set-cookie") if value.startswith("operator=")]
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/operator", "Max-Age=43200"):
        assert attribute in header


async def test_a_session_is_valid_in_every_worker_of_the_same_configuration(
    browser: OperatorBrowser, client: Client
) -> None:
    """A removed token or another identity key ends it."""
    await browser.sign_in(Role.OPERATOR)
    settings = configuration()
    same = create_app(settings, clock=client.clock)
    other_key = create_app(
        msgspec.structs.replace(settings, identity_key=IdentityKey(b"another key, for tests only")), clock=client.clock
    )
    fewer = tuple(grant for grant in grants() if grant.role is not Role.OPERATOR)
    without = create_app(msgspec.structs.replace(settings, grants=fewer), clock=client.clock)
    for app, read_status, logout_status in ((same, 200, 303), (other_key, 401, 403), (without, 401, 303)):
        async with app.lifespan():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://service", cookies=browser.http.cookies
            ) as http:
                assert (await http.get("/operator")).status_code == read_status
                response = await http.post("/operator/logout", data={"csrf_token": browser.csrf_token})
                assert response.status_code == logout_status


async def test_a_session_ends_by_signing_out_or_after_twelve_hours(browser: OperatorBrowser, client: Client) -> None:
    await browser.sign_in(Role.OPERATOR)
    await browser.http.post("/operator/logout", data={"csrf_token": browser.csrf_token})
    assert (await browser.http.get("/operator")).status_code == 401
    await browser.sign_in(Role.OPERATOR)
    client.clock.advance_ms(12 * 3_600_000)
    assert (await browser.http.get("/operator")).status_code == 401


@pytest.mark.parametrize(
    ("requested", "opened"),
    [
        ("/operator/queue?day=2026-12-07", "/operator/queue?day=2026-12-07"),
        ("/operator/audit", "/operator/audit"),
        ("https://elsewhere/", "/operator"),
        ("//elsewhere", "/operator"),
        ("/operator/../..//elsewhere", "/operator"),
        ("/operator\\elsewhere", "/operator"),
        ("/operatorx", "/operator"),
    ],
)
async def test_signing_in_opens_the_requested_page_of_this_site_only(
    browser: OperatorBrowser, requested: str, opened: str
) -> None:
    page = (await browser.http.get(requested if opened != "/operator" else "/operator")).text
    data = {"csrf_token": csrf_token_of(page), "token": TOKENS[Role.OPERATOR], "next": requested}
    if opened != "/operator":
        assert f'name="next" value="{requested}"' in page
    response = await browser.http.post("/operator/login", data=data, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, opened)
