"""The operators' pages: what they show, and that they change what they say."""

from __future__ import annotations

import csv
import datetime
import html
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.http.auth import Role
from quota_engine.service.pages.operator.csv_export import no_formula
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.service.pages.citizen.test_booking import TEXTS
from tests.support.form_browser import Desk
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, Client, connected, listening, running
from tests.support.seeded_service import DRAW, seeded


def says(name: str, language: str = "id", **gaps: object) -> str:
    return str(TEXTS[name][language]).format(**gaps)


@pytest.fixture
async def desk(client: Client) -> AsyncIterator[Desk]:
    desk = Desk(client)
    async with desk.http:
        yield desk


async def _starts(client: Client) -> None:
    """It is the morning of the day."""
    client.clock.set_ms((await client.service.engine.availability("surabaya", DAY))[0].starts_at_ms)


async def _confirmed(client: Client, *niks: str) -> list[str]:
    references = [(await client.reserve(nik)).json()["reservation"]["reference"] for nik in niks]
    for reference in references:
        await client.step(reference, "confirm")
    return references


# --- The board, and a day ---


async def test_the_board_shows_what_there_is_and_changes_it(desk: Desk, client: Client) -> None:
    """Counters by quota, as they are now; a capacity changed in the rush, after one was sure."""
    assert (await desk.sign_in(Role.OPERATOR)).url.path == "/operator"
    assert await desk.row("Online") == [100, 0, 0, 0, 100, 0]
    await client.reserve()
    await client.reserve(OTHER)
    client.clock.advance_ms(1_000)
    assert await desk.row("Online") == [100, 0, 2, 0, 98, 0]
    asked = html.unescape((await desk.do("day/capacity", quota="online", capacity="1")).text)
    assert says("op_capacity_sure_text", "en", capacity=1, taken=2, over=1) in asked
    assert await desk.row("Online") == [100, 0, 2, 0, 98, 0], "nobody was sure yet"
    changed = await desk.do("day/capacity", quota="online", capacity="1", sure="yes")
    assert says("op_done_capacity", "en") in changed.text
    assert await desk.row("Online") == [1, 0, 2, 0, 0, 1]
    assert 'class="overbooked alarm"' in await desk.get("/operator/board")
    raised = await desk.do("day/capacity", quota="online", capacity="150")
    assert says("op_done_capacity", "en") in raised.text
    assert await desk.row("Online") == [150, 0, 2, 0, 148, 0]


async def test_a_day_is_closed_after_one_has_read_what_that_means(desk: Desk, client: Client) -> None:
    """How many people have a place, hold one, or wait; only who is sure closes it; it can be opened again."""
    await _confirmed(client, NIK)
    await client.reserve(OTHER, f"{NIK}1")
    await desk.sign_in(Role.OPERATOR)
    asked = html.unescape((await desk.do("day/close")).text)
    assert says("op_close_confirmed_one") in asked
    assert says("op_close_held", count=2) in asked
    assert says("op_close_waiting", count=0) in asked
    assert (await client.reserve(f"{NIK}2")).status_code == 201
    closed = await desk.do("day/close", sure="yes")
    assert says("op_done_closed") in closed.text
    assert says("op_open") in closed.text
    assert says("op_day_CLOSED") in await desk.get("/operator")
    assert (await client.reserve(f"{NIK}3")).json()["outcome"] == "DAY_CLOSED"
    opened = await desk.do("day/open")
    assert says("op_done_opened") in opened.text
    assert (await client.reserve(f"{NIK}3")).status_code == 201


async def test_a_bad_number_is_said_beside_its_field(desk: Desk, client: Client) -> None:
    """What was typed stays, the field is named as wrong, and nothing is changed."""
    await desk.sign_in(Role.OPERATOR)
    told = says("op_capacity_wrong", most="10.000.000")
    for capacity in ("-1", "many", "", "1.5", "10000001", "99999999999999999999", "１２x"):
        response = await desk.do("day/capacity", quota="online", capacity=capacity)
        assert response.status_code == 422
        page = html.unescape(response.text)
        assert f'<p class="wrong" id="capacity-online-wrong" role="alert">{told}' in page
        (field,) = re.findall(r'<input id="capacity-online"[^>]*>', page)
        assert f'value="{capacity}"' in field
        assert 'aria-invalid="true"' in field
        assert 'aria-describedby="capacity-online-wrong capacity-hint"' in field
    assert await desk.row("Online") == [100, 0, 0, 0, 100, 0]


async def test_the_figures_as_a_file(desk: Desk, client: Client) -> None:
    """A row for each day and quota, by their ids."""
    await client.reserve()
    await desk.sign_in(Role.AUDITOR)
    file = await desk.http.get("/operator/board.csv")
    assert file.headers["content-disposition"] == 'attachment; filename="surabaya-board.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    (online,) = [row for row in rows if (row["day"], row["quota"]) == (str(DAY), "online")]
    assert {name: online[name] for name in ("capacity", "held", "available", "closed")} == {
        "capacity": "100",
        "held": "1",
        "available": "99",
        "closed": "false",
    }


async def test_names_in_the_readers_language(desk: Desk, client: Client) -> None:
    """Quotas, sessions and services are called as the catalog calls them in that language."""
    await _confirmed(client, NIK)
    await desk.sign_in(Role.OPERATOR)
    for language, quota, session, service in (
        ("id", "Sesi pagi", "Pagi 08.00–12.00", "Paspor baru"),
        ("en", "Morning session", "Morning 08:00–12:00", "New passport"),
    ):
        page = await desk.get(f"/operator?lang={language}")
        assert f">{quota}</th>" in page
        assert f'href="/operator?lang={"en" if language == "id" else "id"}"' in page, "the switch stays on the page"
        page = await desk.get(f"/operator/queue?day={DAY}&lang={language}")
        assert session in page
        assert service in page


async def test_whoever_has_changed_something_sees_it_at_once(desk: Desk, client: Client) -> None:
    """Also if the page comes from another process than the one that did it: that has not looked anew yet."""
    (reference,) = await _confirmed(client, NIK)
    await _starts(client)
    await desk.sign_in(Role.OPERATOR)
    day, queue = f"/operator/day?day={DAY}", f"/operator/queue?day={DAY}"
    assert 'value="100"' in await desk.get(day)
    assert says("op_state_CONFIRMED") in await desk.get(queue)
    await client.service.engine.set_capacity("surabaya", DAY, "online", 140)
    await client.service.engine.check_in(reference)
    assert 'value="140"' not in await desk.get(day), "others are shown what was seen a moment ago"
    assert 'value="140"' in await desk.get(f"{day}&done=capacity")
    assert f">{says('op_state_ATTENDED')}<" in await desk.get(f"{queue}&done=check-in&number=1")


# --- The list of a day ---


async def test_the_queue_list_with_check_in(desk: Desk, client: Client) -> None:
    """By queue number, without identities; on the day itself who has come and who has not; as a file, too."""
    first, second, third = await _confirmed(client, NIK, OTHER, f"{NIK}1")
    await client.step(third, "cancel")
    await desk.sign_in(Role.OFFICE)
    page = await desk.get(f"/operator/queue?day={DAY}")
    assert re.findall(r'class="big">([0-9]+)</th>', page) == ["1", "2"]
    assert says("op_ended_one") in page
    assert "check-in" not in page
    await _starts(client)
    await desk.sign_in(Role.OFFICE)
    came = await desk.do("queue/check-in", number="1")
    assert says("op_done_check-in", number=1) in came.text
    asked = html.unescape((await desk.http.get(f"/operator/queue/no-show?day={DAY}&number={second}")).text)
    assert says("op_no_show_sure", number=2) in asked
    assert says("op_no_show_block", count=7) in asked
    unsure = await desk.do("queue/no-show", number=second)
    assert says("op_no_show_sure", number=2) in html.unescape(unsure.text)
    assert says("op_done_no-show", number=2) in (await desk.do("queue/no-show", number=second, sure="yes")).text
    file = await desk.http.get(f"/operator/queue.csv?day={DAY}")
    assert file.headers["content-disposition"] == f'attachment; filename="surabaya-{DAY}.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [row["state"] for row in rows] == ["ATTENDED", "NO_SHOW", "CANCELLED"]
    assert [row["reference"] for row in rows[:2]] == [first, second]
    assert NIK not in file.text + page


async def test_a_desk_with_a_scanner(desk: Desk, client: Client) -> None:
    """A number or the code of the QR picture checks in; a second time is told, and so is what there is not."""
    references = await _confirmed(client, NIK, OTHER)
    tomorrow = DAY_PATH.replace("-07", "-08")
    later = (await client.reserve(f"{NIK}1", path=tomorrow)).json()["reservation"]["reference"]
    await client.step(later, "confirm")
    await desk.sign_in(Role.OFFICE)
    early = await desk.do("queue/check-in", number="1")
    assert early.status_code == 409
    assert says("op_refused", why=says("op_why_TOO_EARLY")) in html.unescape(early.text)
    await _starts(client)
    await desk.sign_in(Role.OFFICE)
    assert says("op_done_check-in", number=2) in (await desk.do("queue/check-in", number=references[1])).text
    for number, status, told in (
        ("2", 409, says("op_number_is", number=2, state=says("op_state_ATTENDED"))),
        ("77", 422, says("op_number_none")),
        ("malang~x", 422, says("op_number_none")),
        ("surabaya~!", 422, says("op_number_none")),
        (later, 422, says("op_number_other_day", day="Selasa, 8 Desember 2026", state=says("op_state_CONFIRMED"))),
        ("'=1+1", 422, says("op_number_none")),
        ("", 422, says("op_number_missing")),
    ):
        response = await desk.do("queue/check-in", number=number)
        page = html.unescape(response.text)
        assert (response.status_code, f'id="number-wrong" role="alert">{told}<' in page) == (status, True), number
    gone = await desk.http.get(f"/operator/queue/no-show?day={DAY}&number=2")
    assert gone.status_code == 409


async def test_looking_for_somebody(desk: Desk, client: Client) -> None:
    """By queue number or code, or by state; the list of a full day comes in pages."""
    references = await _confirmed(client, *(f"{3578010000000000 + number}" for number in range(12)))
    await client.reserve(NIK)
    await _starts(client)
    await desk.sign_in(Role.OPERATOR)
    await desk.do("queue/check-in", number="3")

    async def numbers(query: str) -> list[str]:
        return re.findall(r'class="big">([^<]+)</th>', await desk.get(f"/operator/queue?day={DAY}&{query}"))

    assert await numbers("q=7") == ["7"]
    assert await numbers(f"q={references[4]}") == ["5"]
    assert await numbers("q=999") == []
    assert await numbers("show=came") == ["3"]
    assert len(await numbers("show=expected")) == 11
    assert len(await numbers("show=nix")) == 12
    assert await numbers("from=10") == ["11", "12"]
    assert await numbers("from=-1") == await numbers("")


# --- The last opening, and the audit ---


async def test_the_last_opening(desk: Desk, client: Client) -> None:
    """Places, confirmed, given back, in figures and as a plot; all of it as a file."""
    await desk.sign_in(Role.AUDITOR)
    empty = await desk.get("/operator/opening?lang=en")
    assert says("op_opening_quiet", "en", places=600) in empty
    references = []
    for number in range(3):
        client.clock.advance_ms(2_000)
        references.append((await client.reserve(f"{NIK}{number}")).json()["reservation"]["reference"])
    client.clock.advance_ms(2_000)
    await client.step(references[0], "confirm")
    await client.step(references[1], "release")
    client.clock.advance_ms(6_000)
    page = await desk.get("/operator/opening?lang=en")
    figures = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page))
    assert figures[says("op_places", "en")] == "600"
    assert figures[says("op_plot_taken", "en")] == "2"
    assert figures[says("op_plot_confirmed", "en")] == "1"
    assert figures[says("op_plot_given_back", "en")] == "1"
    assert figures[says("op_half", "en")] == "4.0 s"
    assert figures[says("op_fill", "en")] == "6.0 s"
    assert page.count('<svg class="plot"') == 2
    assert "after the end of the plot" not in page
    rows = list(csv.DictReader(io.StringIO((await desk.http.get("/operator/opening.csv")).text)))
    assert [(row["after_ms"], row["taken"], row["confirmed"], row["given_back"]) for row in rows] == [
        ("2000", "1", "0", "0"),
        ("4000", "2", "0", "0"),
        ("6000", "3", "0", "0"),
        ("8000", "3", "1", "0"),
        ("8000", "2", "1", "1"),
    ]
    assert rows[0]["at"] == "2026-12-04T14:00:02.000+07:00"
    for number in range(20):
        await client.reserve(f"{NIK}5{number}")
    client.clock.advance_ms(600_000)
    await client.reserve(f"{NIK}7")
    client.clock.advance_ms(6_000)
    assert says("op_plot_later_one", "en") in await desk.get("/operator/opening?lang=en")


async def test_the_audit(desk: Desk, client: Client) -> None:
    """A verdict in words, with its time; kept until somebody asks for another; what does not add up is listed."""
    await desk.sign_in(Role.AUDITOR)
    assert says("op_audit_good") in await desk.get("/operator/audit")
    memory = client.service.engine._backend._memory  # type: ignore[attr-defined]
    memory._books["surabaya"].ledger.days[DAY.toordinal()].quotas["online"].free -= 1
    client.clock.advance_ms(60_000)
    page = await desk.get("/operator/audit")
    assert says("op_audit_good") in page
    assert "14.00 WIB" in page
    again = html.unescape((await desk.do("audit")).text)
    assert "quota online: free units are not capacity" in again
    assert "14.01 WIB" in again
    client.clock.advance_ms(600_000)
    assert "14.11 WIB" in await desk.get("/operator/audit")


# --- Waiting rooms and draws ---


async def test_the_waiting_room_and_its_controls() -> None:
    """How far it is and how long; its pace; an operator who is sure ends it, and nobody else does."""
    rooms = WaitingRoomSchedule(offices=("surabaya",))
    async with running(before_ms=3_600_000, waiting_rooms=rooms) as client:
        desk = Desk(client)
        async with desk.http:
            await desk.sign_in(Role.OPERATOR)
            assert says("op_room_JOINING") in await desk.get("/operator")
            room = client.service.current_room("surabaya")
            assert room is not None
            assert room in await desk.get("/operator/room")
            view = client.service.engine.room(room).view
            paced = await desk.do("room/pace", room=room, per_minute_min="30", per_minute_max="90")
            assert says("op_done_pace") in paced.text
            client.clock.advance_ms(1_000)
            assert ((await view()).per_minute_min, (await view()).per_minute_max) == (30, 90)
            for low, high, field in (
                ("0", "90", "per_minute_min"),
                ("30", "x", "per_minute_max"),
                ("9", "8", "per_minute_max"),
            ):
                wrong = await desk.do("room/pace", room=room, per_minute_min=low, per_minute_max=high)
                assert wrong.status_code == 422
                assert f'id="{field}-wrong"' in wrong.text
                assert f'value="{low}"' in wrong.text
            asked = html.unescape((await desk.do("room/close", room=room)).text)
            assert says("op_room_close_sure") in asked
            assert not (await view()).is_closed
            await desk.sign_in(Role.AUDITOR)
            assert (await desk.do("room/close", room=room, sure="yes")).status_code == 403
            await desk.sign_in(Role.OPERATOR)
            assert says("op_done_room-closed") in (await desk.do("room/close", room=room, sure="yes")).text
            client.clock.advance_ms(1_000)
            assert (await view()).is_closed
            late = await desk.do("room/pace", room=room, per_minute_min="1", per_minute_max="2")
            assert late.status_code == 409
            for name in ("nix", "a b", "../x"):
                unknown = await desk.http.get("/operator/room", params={"room": name})
                assert (unknown.status_code, 'id="room-wrong"' in unknown.text) == (404, True)
            assert (await desk.do("room/close", sure="yes")).status_code == 404


async def test_a_room_that_waits_for_its_entropy(desk: Desk, client: Client) -> None:
    """It is named in a field, and opened with what its source has said: once, and with nothing else."""
    hall = client.service.engine.room("lottery-day")
    opens_at_ms = client.clock.now_ms() + 60_000
    await hall.create("surabaya", DAY, opens_at=opens_at_ms, entropy_source="The <index> of that day")
    await desk.sign_in(Role.OPERATOR)
    assert "room/open" not in await desk.get("/operator/room?room=lottery-day")
    early = await desk.do("room/open", room="lottery-day", entropy="7,1")
    assert early.status_code == 409
    client.clock.advance_ms(61_000)
    page = (await desk.http.get("/operator/room?room=lottery-day")).text
    assert "The &lt;index&gt; of that day" in page
    for entropy in ("", "naïve", "x" * 257):
        wrong = await desk.do("room/open", room="lottery-day", entropy=entropy)
        assert (wrong.status_code, 'id="entropy-wrong"' in wrong.text) == (422, True)
    opened = await desk.do("room/open", room="lottery-day", entropy="7,123.45")
    assert says("op_done_room-opened") in opened.text
    client.clock.advance_ms(1_000)
    assert (await hall.view()).entropy == "7,123.45"
    assert (await desk.do("room/open", room="lottery-day", entropy="8")).status_code == 409
    board = await desk.get("/operator?room=lottery-day")
    assert says("op_room_OPEN") in board


async def test_a_seeded_staging() -> None:
    """Everything at once, with figures that add up: board, draw, list, opening."""
    async with seeded() as client:
        desk = Desk(client)
        async with desk.http:
            await desk.sign_in(Role.OPERATOR)
            board = await desk.get(f"/operator?draw={DRAW}&lang=en")
            for text in ("op_room_OPEN", "op_draw_open", "op_day_CLOSED", "op_day_OPEN"):
                assert f">{says(text, 'en')}<" in board
            assert 'class="overbooked alarm"' in board
            assert says("op_draw_none", "en") in await desk.get("/operator?draw=nix")
            opening = await desk.get("/operator/opening")
            assert "<path" in opening
            queue = await desk.get("/operator/queue")
            counts = re.findall(r"<b>([0-9]+)</b>", queue)
            assert counts == ["14", "21", "2"]
            assert says("op_audit_good", "en") in await desk.get("/operator/audit")


# --- When something is amiss ---


async def test_the_store_is_away(desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says so, tries again by itself, and comes back; its part and its stream say 503."""
    await desk.sign_in(Role.OPERATOR)
    real = client.service.engine._backend.execute

    async def away(*_: object) -> Any:
        raise BackendUnavailable("no route")

    monkeypatch.setattr(client.service.engine._backend, "execute", away)
    client.clock.advance_ms(2_000)
    for path in ("/operator", "/operator/board", "/operator/queue", "/operator/opening", "/operator/board.csv"):
        response = await desk.http.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5"), path
        page = html.unescape(response.text)
        assert says("op_away") in page
        assert f'data-again="{path}"' in page
        assert '<noscript><meta http-equiv="refresh"' in page
        assert "no route" not in page
    assert (await desk.http.get("/operator/live")).status_code == 503
    monkeypatch.setattr(client.service.engine._backend, "execute", real)
    assert (await desk.http.get("/operator")).status_code == 200


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (BackendUnavailable("x"), 503, "op_away"),
        (OutcomeUnknown("x"), 503, "op_unknown"),
        (Outcome(Status.OVERLOADED), 409, "op_why_OVERLOADED"),
    ],
)
async def test_a_command_that_fails(
    desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch, answer: Any, status: int, text: str
) -> None:
    """It is not said to be done; and a lost answer is said to be lost."""
    await desk.sign_in(Role.OPERATOR)

    async def fails(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(client.service.engine, "set_capacity", fails)
    monkeypatch.setattr(client.service.engine, "close_day", fails)
    for what, fields in (("day/capacity", {"quota": "online", "capacity": "200"}), ("day/close", {"sure": "yes"})):
        response = await desk.do(what, **fields)
        assert response.status_code == status
        assert says(text) in html.unescape(response.text)


Sent = Callable[[Desk], Awaitable[Any]]


@pytest.mark.parametrize(
    ("status", "send"),
    [
        (404, lambda desk: desk.http.get("/operator?office=nix")),
        (404, lambda desk: desk.http.get("/operator/queue?office=nix")),
        (404, lambda desk: desk.http.get("/operator/day?day=2031-01-01")),
        (404, lambda desk: desk.http.get("/operator/day?day=2026-99-01")),
        (404, lambda desk: desk.http.get("/operator/queue?day=tomorrow")),
        (404, lambda desk: desk.do("day/close", day="2026-99-01", sure="yes")),
        (404, lambda desk: desk.do("day/close", day="2031-01-01", sure="yes")),
        (404, lambda desk: desk.do("day/capacity", quota="a b", capacity="1")),
        (404, lambda desk: desk.do("day/capacity", capacity="1")),
        (404, lambda desk: desk.do("queue/no-show", number="nix", sure="yes")),
        (404, lambda desk: desk.do("room/pace", room="nix", per_minute_min="1", per_minute_max="2")),
        (404, lambda desk: desk.do("nix")),
        (405, lambda desk: desk.http.get("/operator/day/close")),
        (403, lambda desk: desk.do("day/close", sure="yes", pad="x" * 20_000)),
    ],
)
async def test_what_there_is_not(desk: Desk, client: Client, status: int, send: Sent) -> None:
    """Unknown offices, days, quotas and forms: the right status, and nothing is changed."""
    await desk.sign_in(Role.OPERATOR)
    before = await client.service.engine.availability("surabaya", DAY)
    assert (await send(desk)).status_code == status
    assert await client.service.engine.availability("surabaya", DAY) == before


def test_no_cell_is_a_formula() -> None:
    texts = ("=1+1", "-a", "@x", "+1", "\tx", "-12", "12 13", "")
    assert [no_formula(text) for text in texts] == ["'=1+1", "'-a", "'@x", "'+1", "'\tx", "-12", "12 13", ""]


async def test_a_board_is_told_of_what_is_new(client: Client) -> None:
    """By server-sent events, the first at once; only to who may see the board."""
    desk = Desk(client)
    async with desk.http, listening(client.app) as port:
        await desk.sign_in(Role.OPERATOR)
        cookie = f"operator={desk.http.cookies['operator']}"
        async with connected(port) as raw:
            await raw.send(f"GET /operator/live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
            assert b"text/event-stream" in await raw.until(b"\r\n\r\n")
            first = await raw.until(b"event: board\ndata: ")
            assert b"200 OK" not in first
            told = await raw.until(b"\n\n")
            await client.reserve()
            client.clock.advance_ms(2_000)
            await raw.until(b"event: board\ndata: ")
            assert await raw.until(b"\n\n") != told
        await desk.sign_in(Role.OFFICE)
        assert (await desk.http.get("/operator/live")).status_code == 403


async def test_pages_of_a_day_that_is_over(desk: Desk, client: Client) -> None:
    """Its figures are still there, and nothing to change; who has not come can be marked, and nobody checks in."""
    await _confirmed(client, NIK)
    client.clock.advance_ms(round(datetime.timedelta(days=4).total_seconds() * 1000))
    await desk.sign_in(Role.OPERATOR)
    page = await desk.get(f"/operator/day?day={DAY}")
    assert says("op_day_OVER") in page
    assert "day/capacity" not in page
    page = await desk.get(f"/operator/queue?day={DAY}")
    assert "queue/no-show" in page
    assert "queue/check-in" not in page
