"""Who may see the operators' pages, and whose forms are believed."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from quota_engine.catalog import load_catalog
from quota_engine.service.app import create_app
from quota_engine.service.config.settings import Secret
from quota_engine.service.http.auth import Grant, Role
from tests.service.pages.citizen.test_booking import TEXTS
from tests.support.form_browser import Desk, mark_of
from tests.support.in_process_service import DAY, TOKENS, Client, configuration, grants, running

PAGES = (
    "/operator", "/operator/board", "/operator/board.csv", "/operator/day", "/operator/day/figures", "/operator/room",
    "/operator/room/figures", "/operator/queue", "/operator/queue.csv", "/operator/queue/no-show?number=1",
    "/operator/queue/rows", "/operator/opening", "/operator/opening.csv",
    "/operator/offices", "/operator/offices/rows", "/operator/audit",
)  # fmt: skip
FORMS = (
    "day/capacity", "day/close", "day/open", "room/pace", "room/open", "room/close", "queue/check-in", "queue/no-show",
    "audit",
)  # fmt: skip


@pytest.fixture
async def desk(client: Client) -> AsyncIterator[Desk]:
    desk = Desk(client)
    async with desk.http:
        yield desk


async def test_without_a_token_there_is_only_the_door(desk: Desk) -> None:
    """Every page asks for a token first, and believes no cookie that it did not give away; no form is taken."""
    for path in PAGES:
        for cookie in ("", "operator=1.operator:x.y", "operator=" + "x" * 5000):
            response = await desk.http.get(path, headers={"cookie": cookie})
            assert (response.status_code, 'name="token"' in response.text) == (401, True), path
    for form in FORMS:
        assert (await desk.do(form, sure="yes")).status_code == 401, form


async def test_wrong_tokens(desk: Desk) -> None:
    """Unknown ones, odd ones, and that of a booking service, which has nothing to do here."""
    mark = mark_of((await desk.http.get("/operator")).text)
    for token in ("wrong", "naïve", "", TOKENS[Role.SERVICE]):
        response = await desk.http.post("/operator/login", data={"mark": mark, "token": token})
        assert response.status_code == 401
        assert 'id="token-wrong" role="alert"' in response.text
    assert "operator" not in desk.http.cookies


@pytest.mark.parametrize("role", [Role.OFFICE, Role.AUDITOR, Role.OPERATOR])
async def test_roles(desk: Desk, client: Client, role: Role) -> None:
    """Each role sees and does what is its own; pages offer nothing that is refused."""
    await desk.sign_in(role)
    is_staff, is_reader = role is not Role.AUDITOR, role is not Role.OFFICE
    day = str(DAY)
    for path in PAGES:
        response = await desk.http.get(path, params={"day": day} if "?" not in path else None)
        may = is_staff if "queue" in path else is_reader or path == "/operator"
        expected = 403 if not may else 404 if "no-show" in path else 200
        assert response.status_code == expected, path
        if may:
            assert ("/operator/day/capacity" in response.text) is (role is Role.OPERATOR and path == "/operator/day")
            for word in ("day/close", "room/pace"):
                assert role is Role.OPERATOR or word not in response.text
    for form in FORMS:
        response = await desk.do(form)
        may = role is Role.OPERATOR or (is_staff and "queue" in form) or (is_reader and form == "audit")
        assert (response.status_code == 403) is not may, form


async def test_a_token_of_one_office_sees_that_one_only() -> None:
    """Other offices are not on its lists, and their pages, files and forms are refused."""
    token = TOKENS[Role.OPERATOR].upper()
    own = Grant("desk", Role.OPERATOR, hashlib.sha256(token.encode()).hexdigest(), ("surabaya",))
    catalog = load_catalog("indonesia")
    first = next(iter(catalog.offices))
    other = next(name for name in catalog.offices if name not in ("surabaya", first))
    assert first != "surabaya", "without a name it is the own office, not the first one"
    async with running(catalog=catalog, grants=(*grants(), own)) as client:
        desk = Desk(client)
        async with desk.http:
            page = (await desk.sign_in(Role.OPERATOR, token)).text
            assert client.service.catalog.offices["surabaya"].name in page
            assert "/operator/offices" not in page
            assert re.findall(r'id="office-([^"]+)"', await desk.get("/operator/offices")) == ["surabaya"]
            assert f'value="{other}"' not in page
            for path in PAGES:
                name, _, query = path.partition("?")
                refused = await desk.http.get(f"{name}?office={other}&{query}")
                assert refused.status_code == 403, path
                assert client.service.catalog.offices[other].name not in refused.text
            assert (await desk.do("day/close", office=other, sure="yes")).status_code == 403
            assert (await desk.http.get("/operator/audit?scope=all")).status_code == 200
            hall = client.service.engine.room("theirs")
            opens_at_ms = client.clock.now_ms() + 60_000
            await hall.create(other, DAY, opens_at=opens_at_ms)
            assert (await desk.http.get("/operator/room?room=theirs")).status_code == 404
            assert (await desk.do("room/close", room="theirs", sure="yes")).status_code == 404
            assert not (await hall.view()).is_closed
            await desk.sign_in(Role.OPERATOR)
            page = (await desk.http.get("/operator?office=surabaya")).text
            assert f'value="{other}"' in page
            shown = await desk.get("/operator/offices?lang=en")
            assert len(re.findall(r'id="office-([^"]+)"', shown)) == len(catalog.offices)


async def test_wrong_tokens_are_tried_so_often_only(desk: Desk, client: Client) -> None:
    """Ten at once from one address; a while later there is another try."""
    mark = mark_of((await desk.http.get("/operator")).text)
    form = {"mark": mark, "token": "wrong"}
    answers = [await desk.http.post("/operator/login", data=form) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) == 30
    assert (await desk.sign_in(Role.OPERATOR)).status_code == 429
    client.clock.advance_ms(30_000)
    assert (await desk.sign_in(Role.OPERATOR)).status_code == 200


async def test_a_form_needs_the_mark_of_its_visit(desk: Desk, client: Client) -> None:
    """None, another's, one of an earlier visit, or one from another site: refused, and nothing is changed."""
    await desk.sign_in(Role.OPERATOR)
    earlier = desk.mark
    await desk.sign_in(Role.OPERATOR)
    assert desk.mark != earlier
    fields = {"sure": "yes", "number": "1", "quota": "online", "capacity": "7"}
    for form in FORMS:
        for mark in ("", earlier, "x" * 22, "ü"):
            refused = await desk.do(form, mark=mark, **fields)
            assert (refused.status_code, TEXTS["op_form_old"]["id"] in refused.text) == (403, True), form
        data = {"office": "surabaya", "day": str(DAY), "mark": desk.mark, **fields}
        for origin in ("http://elsewhere", "null"):
            elsewhere = await desk.http.post(f"/operator/{form}", data=data, headers={"origin": origin})
            assert elsewhere.status_code == 403, form
    (day,) = await client.service.engine.availability("surabaya", DAY)
    assert not day.closed
    assert day.quotas["online"].capacity == 100


async def test_the_door_takes_its_own_forms_only(desk: Desk) -> None:
    """Nobody signs a browser in from another site; nor out."""
    mark = mark_of((await desk.http.get("/operator")).text)
    good = {"mark": mark, "token": TOKENS[Role.OPERATOR]}
    for data, headers in (
        ({**good, "mark": ""}, {}),
        ({**good, "mark": "x" * 22}, {}),
        (good, {"origin": "http://elsewhere"}),
        (good, {"origin": "null"}),
    ):
        assert (await desk.http.post("/operator/login", data=data, headers=headers)).status_code == 403
    async with httpx.AsyncClient(transport=desk.http._transport, base_url="http://service") as other:
        assert (await other.post("/operator/login", data=good)).status_code == 403, "the mark without its cookie"
    assert (await desk.http.post("/operator/login", data=good)).status_code == 200
    assert (await desk.http.post("/operator/logout")).status_code == 403
    assert (await desk.http.get("/operator")).status_code == 200


async def test_the_cookie_tells_nothing_of_the_token_and_can_not_be_made_from_it(desk: Desk, client: Client) -> None:
    """Neither the token nor its SHA-256 is in it, nobody makes one from them, and two visits have two."""
    token, digest = TOKENS[Role.OPERATOR], hashlib.sha256(TOKENS[Role.OPERATOR].encode()).hexdigest()
    cookies = []
    for _ in range(2):
        await desk.sign_in(Role.OPERATOR)
        cookies.append(desk.http.cookies["operator"])
    assert cookies[0] != cookies[1]
    assert digest not in cookies[0]
    assert token not in cookies[0]
    until = client.clock.now_ms() + 1_000_000
    for text in (f"{until}.operator:{digest}", f"{until}.x:{digest}"):
        for key in (token.encode(), digest.encode(), b""):
            made = f"{text}.{hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:22]}"
            response = await desk.http.get("/operator", headers={"cookie": f"operator={made}"})
            assert response.status_code == 401
    (header,) = [
        value for value in (await _signed_in(desk)).headers.get_list("set-cookie") if value.startswith("operator=")
    ]
    for word in ("HttpOnly", "SameSite=strict", "Path=/operator", "Max-Age=43200"):
        assert word in header


async def _signed_in(desk: Desk) -> httpx.Response:
    """The answer that gives the cookie."""
    desk.http.cookies.clear()
    mark = mark_of((await desk.http.get("/operator")).text)
    data = {"mark": mark, "token": TOKENS[Role.OPERATOR]}
    return await desk.http.post("/operator/login", data=data, follow_redirects=False)


async def test_other_workers_believe_it_and_other_keys_do_not(desk: Desk, client: Client) -> None:
    """Nothing is kept in a process: one of the same configuration believes cookie and mark; a token taken out of it,
    or another identity key, ends the visit.
    """
    await desk.sign_in(Role.OPERATOR)
    settings = configuration()
    same = create_app(settings, clock=client.clock)
    other_key = create_app(
        msgspec.structs.replace(settings, identity_key=Secret(b"another key, for tests only")), clock=client.clock
    )
    fewer = tuple(grant for grant in grants() if grant.role is not Role.OPERATOR)
    without = create_app(msgspec.structs.replace(settings, grants=fewer), clock=client.clock)
    for app, shown, signed_out in ((same, 200, 303), (other_key, 401, 403), (without, 401, 303)):
        async with app.lifespan():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://service", cookies=desk.http.cookies
            ) as http:
                assert (await http.get("/operator")).status_code == shown
                response = await http.post("/operator/logout", data={"mark": desk.mark})
                assert response.status_code == signed_out


async def test_signing_out_and_the_end_of_a_visit(desk: Desk, client: Client) -> None:
    """A browser is forgotten when its user says so, and after half a day."""
    await desk.sign_in(Role.OPERATOR)
    await desk.http.post("/operator/logout", data={"mark": desk.mark})
    assert (await desk.http.get("/operator")).status_code == 401
    await desk.sign_in(Role.OPERATOR)
    client.clock.advance_ms(12 * 3_600_000)
    assert (await desk.http.get("/operator")).status_code == 401


@pytest.mark.parametrize(
    ("asked", "led"),
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
async def test_signing_in_leads_to_what_was_asked_for(desk: Desk, asked: str, led: str) -> None:
    """And to nothing that is not one of these pages."""
    page = (await desk.http.get(asked if led != "/operator" else "/operator")).text
    data = {"mark": mark_of(page), "token": TOKENS[Role.OPERATOR], "to": asked}
    if led != "/operator":
        assert f'name="to" value="{asked}"' in page
    response = await desk.http.post("/operator/login", data=data, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, led)
