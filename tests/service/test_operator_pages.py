"""The operators' pages: who may see them, what they show, and that they change what they say."""

from __future__ import annotations

import csv
import datetime
import html
import io
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from quota_engine.faces.service.access import Role
from quota_engine.faces.service.pages.operators import _no_formula
from quota_engine.faces.service.releases import WaitingRooms
from tests.service.serving import DAY, NIK, OTHER, TOKENS, Client, connected, listening, running
from tests.service.test_pages import TEXTS

PAGES = ("/operator", "/operator/board", "/operator/queue", "/operator/opening", "/operator/audit")


class Desk:
    """An operator's browser."""

    def __init__(self, client: Client) -> None:
        transport = client.http._transport
        self.http = httpx.AsyncClient(transport=transport, base_url="http://service", follow_redirects=True)

    async def sign_in(self, role: Role) -> httpx.Response:
        self.http.cookies.clear()
        return await self.http.post("/operator/login", data={"token": TOKENS[role]})

    async def do(self, what: str, **fields: str) -> httpx.Response:
        return await self.http.post(f"/operator/do/{what}", data={"office": "surabaya", "day": str(DAY), **fields})

    async def row(self, quota: str) -> list[str]:
        """The cells of a quota on the first day of the board."""
        page = (await self.http.get("/operator/board")).text
        found = re.search(rf'<th scope="row">{quota}</th>(.*?)</tr>', page, re.DOTALL)
        assert found, page
        return re.findall(r"<td[^>]*>([0-9]+)</td>", found[1])


@pytest.fixture
async def desk(client: Client) -> AsyncIterator[Desk]:
    desk = Desk(client)
    async with desk.http:
        yield desk


async def test_the_board_shows_what_there_is_and_changes_it(desk: Desk, client: Client) -> None:
    """Counters by quota, as they are now; a capacity changed in the rush; a day closed and opened again."""
    assert (await desk.sign_in(Role.OPERATOR)).url.path == "/operator"
    assert await desk.row("online") == ["100", "0", "0", "0", "100", "0"]
    await client.reserve()
    await client.reserve(OTHER)
    client.clock.advance_ms(1_000)
    assert await desk.row("online") == ["100", "2", "0", "0", "98", "0"]
    changed = await desk.do("capacity", quota="online", capacity="1")
    assert changed.status_code == 200
    assert await desk.row("online") == ["1", "2", "0", "0", "0", "1"]
    closed = await desk.do("close")
    assert TEXTS["op_open"]["id"] in html.unescape(closed.text)
    assert (await client.reserve(f"{NIK}1")).json()["outcome"] == "CLOSED"
    assert TEXTS["op_open"]["id"] not in html.unescape((await desk.do("open")).text)


async def test_the_queue_list_with_check_in(desk: Desk, client: Client) -> None:
    """By queue number, without identities; on the day itself who has come and who has not; as a file, too."""
    for nik in (NIK, OTHER, f"{NIK}1"):
        reference = (await client.reserve(nik)).json()["reservation"]["reference"]
        await client.step(reference, "confirm")
    await client.step(reference, "cancel")
    await desk.sign_in(Role.OFFICE)
    page = (await desk.http.get(f"/operator/queue?day={DAY}")).text
    assert re.findall(r'<th scope="row">([0-9]+)</th>', page) == ["1", "2"]
    assert TEXTS["op_ended"]["id"].format(count=1) in html.unescape(page)
    assert "check-in" not in page
    client.clock.set_ms((await client.service.engine.availability("surabaya", DAY))[0].starts_at_ms)
    await desk.sign_in(Role.OFFICE)
    page = (await desk.http.get(f"/operator/queue?day={DAY}")).text
    first, second = dict.fromkeys(re.findall(r'name="reference" value="([^"]+)"', page))
    assert TEXTS["op_state_ATTENDED"]["id"] in (await desk.do("check-in", reference=first)).text
    assert TEXTS["op_state_NO_SHOW"]["id"] in (await desk.do("no-show", reference=second)).text
    again = await desk.do("check-in", reference=second)
    assert TEXTS["op_refused"]["id"].format(status="WRONG_STATE") in html.unescape(again.text)
    file = await desk.http.get(f"/operator/queue.csv?day={DAY}")
    assert file.headers["content-disposition"] == f'attachment; filename="surabaya-{DAY}.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [row["state"] for row in rows] == ["ATTENDED", "NO_SHOW", "CANCELLED"]
    assert [row["reference"] for row in rows[:2]] == [first, second]
    assert NIK not in file.text + page


async def test_the_last_opening(desk: Desk, client: Client) -> None:
    """Places taken since the quota opened, as a plot and in words."""
    await desk.sign_in(Role.AUDITOR)
    empty = html.unescape((await desk.http.get("/operator/opening")).text)
    assert "0 dari 1000 tempat diambil sejak Jumat, 4 Desember 2026 14.00 WIB" in empty
    for number in range(3):
        client.clock.advance_ms(2_000)
        await client.reserve(f"{NIK}{number}")
    page = html.unescape((await desk.http.get("/operator/opening")).text)
    assert "3 dari 500 tempat" in page
    assert "separuhnya dalam 4.0 s" in page
    assert '<svg class="plot"' in page


async def test_the_audit(desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict in words; what does not add up is listed."""
    await desk.sign_in(Role.AUDITOR)
    page = html.unescape((await desk.http.get("/operator/audit")).text)
    assert TEXTS["op_audit_ok"]["id"].format(count=1) in page
    memory = client.service.engine._backend._memory  # type: ignore[attr-defined]
    memory._books["surabaya"].ledger.days[DAY.toordinal()].quotas["online"].free -= 1
    page = html.unescape((await desk.http.get("/operator/audit")).text)
    assert "quota online: units are missing or invented" in page


@pytest.mark.parametrize("path", PAGES)
async def test_without_a_token_there_is_only_the_door(desk: Desk, path: str) -> None:
    """Every page asks for a token first, and believes no cookie that it did not give away."""
    for cookie in ("", "operator=1.operator:x.y", "operator=" + "x" * 5000):
        response = await desk.http.get(path, headers={"cookie": cookie})
        assert response.status_code == 401
        assert 'name="token"' in response.text
    assert (await desk.http.post("/operator/login", data={"token": "wrong"})).status_code == 401
    assert (await desk.http.post("/operator/login", data={"token": "naïve"})).status_code == 401


@pytest.mark.parametrize("role", Role)
async def test_roles(desk: Desk, client: Client, role: Role) -> None:
    """Each role sees and does what is its own."""
    await desk.sign_in(role)
    seen = {path: (await desk.http.get(path)).status_code for path in PAGES}
    staff, checker, operator = (
        role in (Role.OFFICE, Role.OPERATOR),
        role in (Role.AUDITOR, Role.OPERATOR),
        role is Role.OPERATOR,
    )
    assert seen == {
        "/operator": 200 if staff or checker else 403,
        "/operator/board": 200 if checker else 403,
        "/operator/queue": 200 if staff else 403,
        "/operator/opening": 200 if checker else 403,
        "/operator/audit": 200 if checker else 403,
    }
    assert (await desk.do("close")).status_code == (200 if operator else 403)
    assert ("/operator/do/capacity" in (await desk.http.get("/operator")).text) is operator


async def test_wrong_tokens_are_tried_so_often_only(desk: Desk, client: Client) -> None:
    """Ten at once from one address; a while later there is another try."""
    tries = [(await desk.http.post("/operator/login", data={"token": "wrong"})).status_code for _ in range(11)]
    assert tries == [401] * 10 + [429]
    assert (await desk.sign_in(Role.OPERATOR)).status_code == 429
    client.clock.advance_ms(30_000)
    assert (await desk.sign_in(Role.OPERATOR)).status_code == 200


def test_no_cell_is_a_formula() -> None:
    assert [_no_formula(text) for text in ("=1+1", "-a", "@x", "12 13", "")] == ["'=1+1", "'-a", "'@x", "12 13", ""]


async def test_forms_from_elsewhere_do_nothing(desk: Desk, client: Client) -> None:
    """Another site can not use an operator's cookie."""
    await desk.sign_in(Role.OPERATOR)
    fields = {"office": "surabaya", "day": str(DAY)}
    response = await desk.http.post("/operator/do/close", data=fields, headers={"origin": "http://elsewhere"})
    assert response.status_code == 401
    (day,) = await client.service.engine.availability("surabaya", DAY)
    assert not day.closed


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("capacity", {"quota": "online", "capacity": "-1"}),
        ("capacity", {"quota": "online", "capacity": "many"}),
        ("capacity", {"quota": "a b", "capacity": "1"}),
        ("close", {"day": "2026-99-01"}),
        ("check-in", {"reference": "nix"}),
        ("check-in", {"reference": "malang~x"}),
        ("nix", {}),
    ],
)
async def test_forms_that_nobody_was_given(desk: Desk, client: Client, what: str, fields: dict[str, str]) -> None:
    """They change nothing, and the page says so."""
    await desk.sign_in(Role.OPERATOR)
    response = await desk.do(what, **fields)
    assert TEXTS["op_refused"]["id"].format(status="BAD_REQUEST") in html.unescape(response.text)


async def test_signing_out_and_the_end_of_a_visit(desk: Desk, client: Client) -> None:
    """A browser is forgotten when its user says so, and after half a day."""
    await desk.sign_in(Role.OPERATOR)
    await desk.http.post("/operator/logout")
    assert (await desk.http.get("/operator")).status_code == 401
    await desk.sign_in(Role.OPERATOR)
    client.clock.advance_ms(round(datetime.timedelta(hours=12).total_seconds() * 1000))
    assert (await desk.http.get("/operator")).status_code == 401


async def test_the_waiting_room_on_the_board() -> None:
    """How far it is and how long; an operator who is sure ends it, and nobody else does."""
    rooms = WaitingRooms(offices=("surabaya",))
    async with running(before_ms=3_600_000, waiting_rooms=rooms) as client:
        desk = Desk(client)
        async with desk.http:
            await desk.sign_in(Role.OPERATOR)
            page = html.unescape((await desk.http.get("/operator")).text)
            assert TEXTS["op_room_JOINING"]["id"] in page
            room = client.service.room_of("surabaya")
            assert room is not None
            assert room in page
            unsure = await desk.do("room-close", room=room)
            assert TEXTS["op_refused"]["id"].format(status="BAD_REQUEST") in html.unescape(unsure.text)
            await desk.sign_in(Role.AUDITOR)
            assert (await desk.do("room-close", room=room, sure="yes")).status_code == 403
            await desk.sign_in(Role.OPERATOR)
            assert (await desk.do("room-close", room=room, sure="yes")).status_code == 200
            client.clock.advance_ms(1_000)
            assert (await client.service.engine.room(room).view()).is_over


async def test_a_board_is_told_of_what_is_new(client: Client) -> None:
    """By server-sent events, the first at once; only to who may see the board."""
    cookies = Desk(client)
    async with cookies.http, listening(client.app) as port:
        await cookies.sign_in(Role.OPERATOR)
        cookie = f"operator={cookies.http.cookies['operator']}"
        async with connected(port) as raw:
            await raw.send(f"GET /operator/live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
            assert b"text/event-stream" in await raw.until(b"\r\n\r\n")
            first = await raw.until(b"event: board\ndata: ")
            assert b"200 OK" not in first
        await cookies.sign_in(Role.OFFICE)
        assert (await cookies.http.get("/operator/live")).status_code == 403
