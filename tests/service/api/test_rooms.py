"""Endpoints of waiting rooms: tickets, polls, streams and operators' controls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from quota_engine.api_schema.rooms import RoomSettingsBody
from quota_engine.domain.errors import UnknownName
from quota_engine.ports import Describe
from quota_engine.service.app import ServiceApp, create_app
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.problems import PROBLEM_TYPES, ROOM_STATUS_PROBLEMS, Problem
from quota_engine.waiting_room.commands import ACTIVE_CALLS_MAX, OpenRoom
from quota_engine.waiting_room.results import RoomStatus
from quota_engine.waiting_room.transcript import parse_transcript, verify
from quota_engine.workflows.room_config import RoomSettings
from tests.service.api.test_reservations import problem
from tests.support.identities import nik
from tests.support.in_process_service import (
    DAY,
    NIK,
    OTHER,
    TOKENS,
    Client,
    configuration,
    connected,
    grants,
    listening,
    running,
)

HOUR_MS = 3_600_000
OPENS_AT_MS = 1_796_367_600_000
ROOM = "/v1/rooms/december"
TERMS: dict[str, Any] = {
    "office": "surabaya",
    "first_day": str(DAY),
    "last_day": "2026-12-11",
    "opens_at_ms": OPENS_AT_MS,
    "settings": {"per_minute_min": 60, "per_minute_max": 60, "burst": 1, "turn_ms": 60_000},
}


@pytest.fixture
async def rooms() -> AsyncIterator[Client]:
    """Yield a service with a room that opens in an hour and calls one ticket a second."""
    async with running(before_ms=HOUR_MS) as client:
        assert (await client.operate("PUT", ROOM, TERMS)).status_code == 201
        yield client


async def join(client: Client, identity: str, path: str = ROOM, **more: Any) -> httpx.Response:
    return await client.call("POST", f"{path}/tickets", {"identity": identity, **more}, Role.SERVICE)


async def ticket(client: Client, identity: str) -> str:
    text: str = (await join(client, identity)).json()["ticket"]
    return text


async def enter(client: Client, text: str, identity: str, path: str = ROOM) -> httpx.Response:
    return await client.call("POST", f"{path}/enter", {"ticket": text, "identity": identity}, Role.SERVICE)


async def look(client: Client, path: str = ROOM, **headers: str) -> httpx.Response:
    return await client.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def pass_time(client: Client, duration_ms: int) -> None:
    """Advance the clock second by second, with a poll each second."""
    for _ in range(duration_ms // 1_000):
        client.clock.advance_ms(1_000)
        await look(client)


# --- A room's life -------------------------------------------------------------------------------------------------


async def test_join_enter_reserve_and_verify(rooms: Client) -> None:
    """A room is created, its tickets are called, its passes used, and its transcript verified."""
    made = (await look(rooms)).json()
    assert (made["phase"], made["tickets"], made["places_left"], made["per_minute_max"]) == ("JOINING", 0, -1, 60)
    tickets = {}
    for identity in (NIK, OTHER, nik(3)):
        answer = await join(rooms, identity)
        assert (answer.status_code, answer.json()["replayed"]) == (201, False)
        tickets[identity] = answer.json()["ticket"]
    again = await join(rooms, NIK)
    assert (again.status_code, again.json()["ticket"], again.json()["replayed"]) == (200, tickets[NIK], True)
    rooms.clock.advance_ms(500)  # the next read sees them
    before = (await look(rooms, f"{ROOM}/transcript")).json()
    assert (before["commitment"], before["seed"]) == (made["commitment"], "")
    early = (await look(rooms, f"{ROOM}/tickets/{tickets[NIK]}")).json()
    assert (early["phase"], early["position"], early["ahead"], early["tickets"]) == ("NOT_OPEN", -1, -1, 3)
    body = problem(await enter(rooms, tickets[NIK], NIK), 409, "room-not-called")
    assert (body["outcome"], body["ticket_status"]) == ("NOT_OPEN", early)

    rooms.clock.set_ms(OPENS_AT_MS)
    opened = (await look(rooms)).json()
    assert (opened["phase"], opened["called_count"], opened["places_left"], opened["opened_at_ms"]) == (
        "OPEN",
        1,
        500,
        OPENS_AT_MS,
    )
    standings = {identity: (await look(rooms, f"{ROOM}/tickets/{text}")).json() for identity, text in tickets.items()}
    assert sorted(one["position"] for one in standings.values()) == [1, 2, 3]
    assert sorted(one["phase"] for one in standings.values()) == ["CALLED", "WAITING", "WAITING"]
    first, second, third = sorted(standings, key=lambda identity: int(standings[identity]["position"]))
    assert standings[first]["called_until_at_ms"] == OPENS_AT_MS + 60_000
    assert (standings[third]["ahead"], standings[third]["wait_ms_min"], standings[third]["chance"]) == (
        1,
        1_000,
        "ENOUGH",
    )
    refused = await enter(rooms, tickets[third], third)
    body = problem(refused, 409, "room-not-called")
    assert (body["retry_at_ms"], refused.headers["retry-after"]) == (OPENS_AT_MS + 1_000, "1")

    entered = (await enter(rooms, tickets[first], first)).json()
    assert entered["until_at_ms"] == OPENS_AT_MS + 60_000 + 900_000
    assert entered == (await enter(rooms, tickets[first], first)).json()
    await pass_time(rooms, 2_000)
    assert (await enter(rooms, tickets[third], third)).status_code == 200

    closed = (await rooms.operate("POST", f"{ROOM}/close")).json()
    assert (closed["phase"], closed["closed_at_ms"]) == ("CLOSED", OPENS_AT_MS + 2_000)
    assert (await rooms.operate("POST", f"{ROOM}/close")).json() == closed
    problem(await join(rooms, nik(4)), 410, "room-closed")
    over = problem(await enter(rooms, tickets[second], second), 410, "room-closed")
    assert "retry_at_ms" not in over
    record = parse_transcript((await look(rooms, f"{ROOM}/transcript")).content)
    assert verify(record, [parse_transcript(json.dumps(before).encode())]).ok
    assert record.tickets == 3


async def test_create_room_is_idempotent(rooms: Client) -> None:
    """Other values conflict, and a past opening time is refused."""
    again = await rooms.operate("PUT", ROOM, TERMS)
    assert (again.status_code, again.json()["room"]) == (200, "december")
    other = {**TERMS, "opens_at_ms": OPENS_AT_MS + 1}
    assert problem(await rooms.operate("PUT", ROOM, other), 409, "room-conflict")["outcome"] == "CONFLICT"
    late = {**TERMS, "opens_at_ms": OPENS_AT_MS - 2 * HOUR_MS}
    problem(await rooms.operate("PUT", "/v1/rooms/late", late), 410, "room-closed")
    problem(await look(rooms, "/v1/rooms/late"), 404, "unknown-name")
    for changes in (
        {"office": "malang"},
        {"last_day": "2027-12-07"},
        {"closes_at_ms": OPENS_AT_MS},
        {"channel": "fax"},
        {"settings": {"turn_ms": 100, "step_ms": 1_000}},
        {"settings": {"speed": 1}},
        {"entropy_source": "a\nb"},
    ):
        answer = await rooms.operate("PUT", "/v1/rooms/new", {**TERMS, **changes})
        assert answer.status_code in (404, 422), changes
        assert answer.json()["errors"], changes
    assert (await rooms.service.engine._store.execute(Describe("~room.new"))) == {}
    full = await rooms.operate("PUT", "/v1/rooms/small", {**TERMS, "settings": {"tickets_max": 1}})
    assert full.status_code == 201
    assert (await join(rooms, NIK, "/v1/rooms/small")).status_code == 201
    assert problem(await join(rooms, OTHER, "/v1/rooms/small"), 409, "room-full")["outcome"] == "FULL"


async def test_room_settings_body_matches_room_settings() -> None:
    assert RoomSettingsBody().to_settings() == RoomSettings()
    assert RoomSettingsBody.__struct_fields__ == RoomSettings.__struct_fields__
    longest = next(field for field in msgspec.structs.fields(RoomSettingsBody) if field.name == "turn_ms")
    assert longest.type.__metadata__[0].le == 60_000 * ACTIVE_CALLS_MAX


async def test_room_with_entropy_source_opens_once(rooms: Client) -> None:
    """Not before its time, and with one text only."""
    path = "/v1/rooms/public"
    terms = {**TERMS, "entropy_source": "the index at noon", "join_opens_at_ms": OPENS_AT_MS - HOUR_MS // 2}
    assert (await rooms.operate("PUT", path, terms)).json()["phase"] == "SCHEDULED"
    refused = await join(rooms, NIK, path)
    body = problem(refused, 409, "room-not-open")
    assert (body["retry_at_ms"], refused.headers["retry-after"]) == (OPENS_AT_MS - HOUR_MS // 2, "1800")
    entropy = {"entropy": "7,123.45"}
    assert problem(await rooms.operate("POST", f"{path}/open", entropy), 409, "room-not-open")["retry_at_ms"] == (
        OPENS_AT_MS
    )
    rooms.clock.set_ms(OPENS_AT_MS)
    text = (await join(rooms, NIK, path)).json()["ticket"]
    assert (await look(rooms, path)).json()["phase"] == "OPENING"
    assert (await look(rooms, f"{path}/tickets/{text}")).json()["phase"] == "SHUFFLING"
    opened = await rooms.operate("POST", f"{path}/open", entropy)
    assert (opened.status_code, opened.json()["phase"]) == (200, "OPEN")
    assert (await rooms.operate("POST", f"{path}/open", entropy)).status_code == 200
    problem(await rooms.operate("POST", f"{path}/open", {"entropy": "6"}), 409, "room-conflict")
    problem(await rooms.operate("POST", f"{ROOM}/open", entropy), 409, "room-conflict")
    problem(await rooms.operate("POST", f"{path}/open", {"entropy": "x" * 257}), 422, "unprocessable")
    assert (await rooms.operate("PUT", "/v1/rooms/mute", {**terms, "opens_at_ms": OPENS_AT_MS + 1})).status_code == 201
    rooms.clock.advance_ms(3 * HOUR_MS)
    problem(await rooms.operate("POST", "/v1/rooms/mute/open", entropy), 410, "room-closed")


async def test_pace_bounds_change_a_running_room(rooms: Client) -> None:
    """Inverted bounds and a closed room are refused."""
    for number in range(200):
        assert (await join(rooms, nik(number))).status_code == 201
    rooms.clock.set_ms(OPENS_AT_MS)
    assert (await look(rooms)).json()["called_count"] == 1
    faster = (await rooms.operate("PUT", f"{ROOM}/pace", {"per_minute_min": 3_000, "per_minute_max": 6_000})).json()
    assert (faster["per_minute_min"], faster["per_minute_max"], faster["per_minute"]) == (3_000, 6_000, 3_000)
    await pass_time(rooms, 1_000)
    assert (await look(rooms)).json()["called_count"] == 51
    assert (await rooms.operate("PUT", ROOM, TERMS)).status_code == 200  # the pace is not part of its values
    for body in ({"per_minute_min": 2, "per_minute_max": 1}, {"per_minute_min": 0, "per_minute_max": 1}, {}):
        problem(await rooms.operate("PUT", f"{ROOM}/pace", body), 422, "unprocessable")
    slower = (await rooms.operate("PUT", f"{ROOM}/pace", {"per_minute_min": 1, "per_minute_max": 60})).json()
    assert slower["per_minute"] == 60
    await pass_time(rooms, 2_000)
    assert (await look(rooms)).json()["called_count"] == 53
    assert (await rooms.call("PUT", f"{ROOM}/pace", {}, Role.SERVICE)).status_code == 403
    await rooms.operate("POST", f"{ROOM}/close")
    problem(await rooms.operate("PUT", f"{ROOM}/pace", {"per_minute_min": 1, "per_minute_max": 2}), 410, "room-closed")


async def test_missed_turn_needs_a_new_ticket(rooms: Client) -> None:
    """The old ticket cannot be replaced twice."""
    mine = await ticket(rooms, NIK)
    early = await join(rooms, NIK, replaces_ticket=mine)
    assert "NOT_OPEN" in problem(early, 422, "unprocessable")["errors"][0]["problem"]  # type: ignore[index]
    rooms.clock.set_ms(OPENS_AT_MS)
    await pass_time(rooms, 61_000)
    body = problem(await enter(rooms, mine, NIK), 409, "room-turn-missed")
    assert body["outcome"] == "TURN_MISSED"
    again = await join(rooms, NIK, replaces_ticket=mine)
    assert (again.status_code, again.json()["replayed"]) == (201, False)
    assert again.json()["ticket"] != mine
    assert (await join(rooms, NIK, replaces_ticket=mine)).json()["ticket"] == again.json()["ticket"]


async def test_lost_ticket_is_told_to_join_again(rooms: Client) -> None:
    """After a failover another identity has its number. The status, and no pass, say that the ticket is lost."""
    tail = rooms.lost_tail(ROOM.replace("/v1/rooms/", "~room."))
    tail.save()
    mine = await ticket(rooms, NIK)
    tail.fail_over()
    theirs = await ticket(rooms, OTHER)
    rooms.clock.set_ms(OPENS_AT_MS)
    status = (await look(rooms, f"{ROOM}/tickets/{mine}")).json()
    assert (status["phase"], status["position"], status["epoch"]) == ("TICKET_LOST", -1, 2)
    body = problem(await enter(rooms, mine, NIK), 409, "room-ticket-lost")
    assert body["outcome"] == "TICKET_LOST"
    await pass_time(rooms, 1_000)
    assert (await enter(rooms, theirs, OTHER)).status_code == 200
    again = await join(rooms, NIK, replaces_ticket=mine)
    assert (again.status_code, again.json()["replayed"]) == (201, False)
    assert (await look(rooms)).json()["epoch"] == 2


async def test_lost_opening_is_not_repeated_with_another_text(rooms: Client) -> None:
    """The transcript with the first text was public. Another worker, past the service, makes one that states it."""
    path = "/v1/rooms/lottery"
    created = await rooms.operate("PUT", path, {**TERMS, "entropy_source": "the national lottery"})
    assert created.status_code == 201
    await join(rooms, NIK, path)
    rooms.clock.set_ms(OPENS_AT_MS)
    tail = rooms.lost_tail("~room.lottery")
    tail.save()
    assert (await rooms.operate("POST", f"{path}/open", {"entropy": "7 13 21"})).status_code == 200
    assert (await look(rooms, f"{path}/transcript")).json()["contradictions"] == []
    tail.fail_over()
    other = {"entropy": "7 13 22", "epoch": 2}
    problem(await rooms.operate("POST", f"{path}/open", other), 409, "room-conflict")
    store = rooms.service.engine._store
    seed = (await look(rooms, f"{path}/transcript")).json()["seed"]
    assert (await store.apply("~room.lottery", OpenRoom(seed, "7 13 22", 2))).ok
    rooms.clock.advance_ms(1_000)
    record = (await look(rooms, f"{path}/transcript")).json()
    assert record["contradictions"] == ["entropy has changed since it was revealed"]


# --- Tickets that are not good -------------------------------------------------------------------------------------


async def test_invalid_tickets_are_refused_with_a_reason(rooms: Client) -> None:
    """Altered tickets, and those of another identity, room or key."""
    await rooms.operate("PUT", "/v1/rooms/other", TERMS)
    mine, others = await ticket(rooms, NIK), (await join(rooms, NIK, "/v1/rooms/other")).json()["ticket"]
    bad = {
        mine[:20] + ("A" if mine[20] != "A" else "B") + mine[21:]: "no ticket|altered|another",
        mine[:-30] + ("A" if mine[-30] != "A" else "B") + mine[-29:]: "altered",
        others: "another room",
        mine + "A": "spelling|altered",
        mine + "=": "not a ticket",
        "x" * 600: "not a ticket",
        "é": "not a ticket",
    }
    for text, expected in bad.items():
        found = problem(await look(rooms, f"{ROOM}/tickets/{text}"), 422, "unprocessable")
        errors: Any = found["errors"]
        (error,) = errors
        assert error["where"] == "ticket"
        assert any(word in error["problem"] for word in expected.split("|")), (text, error)
        assert (await enter(rooms, text, NIK)).status_code == 422
        assert (await look(rooms, f"{ROOM}/tickets/{text}/stream")).status_code == 422
    rooms.clock.set_ms(OPENS_AT_MS)
    await look(rooms)
    replayed = problem(await enter(rooms, mine, OTHER), 422, "unprocessable")
    assert "another person" in replayed["errors"][0]["problem"]  # type: ignore[index]
    # A ticket of an earlier room with this name, whose retention has ended.
    backend: Any = rooms.service.engine._store
    backend._memory._ledgers.clear()
    rooms.service.engine._rooms.clear()
    later = {**TERMS, "opens_at_ms": OPENS_AT_MS + HOUR_MS}
    assert (await rooms.operate("PUT", ROOM, later)).status_code == 201
    earlier = problem(await look(rooms, f"{ROOM}/tickets/{mine}"), 422, "unprocessable")
    assert "release" in earlier["errors"][0]["problem"]  # type: ignore[index]


async def test_unknown_rooms_are_refused(rooms: Client) -> None:
    """No endpoint leaves state behind."""
    path = "/v1/rooms/nowhere"
    for method, rest, body in (
        ("GET", "", None),
        ("GET", "/stream", None),
        ("GET", "/transcript", None),
        ("GET", "/tickets/x", None),
        ("GET", "/tickets/x/stream", None),
        ("POST", "/tickets", {"identity": NIK}),
        ("POST", "/enter", {"ticket": "x", "identity": NIK}),
        ("POST", "/open", {"entropy": "x"}),
        ("POST", "/close", None),
    ):
        answer = problem(await rooms.operate(method, path + rest, body), 404, "unknown-name")
        assert answer["errors"][0]["where"] == "room", rest  # type: ignore[index]
        assert NIK not in json.dumps(answer)
    problem(await look(rooms, "/v1/rooms/no%20name"), 422, "unprocessable")
    assert await rooms.service.engine._store.execute(Describe("~room.nowhere")) == {}


@pytest.mark.parametrize(
    ("method", "rest", "roles"),
    [
        ("PUT", "", set()),
        ("POST", "/open", set()),
        ("POST", "/close", set()),
        ("POST", "/tickets", {Role.SERVICE}),
        ("POST", "/enter", {Role.SERVICE}),
        ("GET", "", set(Role)),
        ("GET", "/transcript", set(Role)),
    ],
)
async def test_room_roles_are_enforced(rooms: Client, method: str, rest: str, roles: set[Role]) -> None:
    for role in Role:
        answer = await rooms.call(method, ROOM + rest, None if method == "GET" else {}, role)
        assert (answer.status_code == 403) is (role not in roles | {Role.OPERATOR}), role
    anybody = await rooms.call(method, ROOM + rest)
    assert anybody.status_code == (200 if method == "GET" else 401)


async def test_token_is_limited_to_rooms_of_its_offices() -> None:
    granted = tuple(
        Grant(f"{role}-{office}", role, hashlib.sha256(f"{role}-{office}".encode()).hexdigest(), (office,))
        for role in (Role.SERVICE, Role.OPERATOR)
        for office in ("surabaya", "malang")
    )
    async with running(before_ms=HOUR_MS, grants=(*grants(), *granted)) as client:
        for office, allowed in (("malang", False), ("surabaya", True)):
            path = f"/v1/rooms/of-{office}"

            async def send(method: str, rest: str, body: Any, role: Role, url: str = path, name: str = office) -> int:
                headers = {"authorization": f"Bearer {role}-{name}"}
                return (await client.http.request(method, url + rest, json=body, headers=headers)).status_code

            joining = {"identity": NIK}
            assert await send("PUT", "", TERMS, Role.OPERATOR) == (201 if allowed else 403)
            assert await send("POST", "/tickets", joining, Role.SERVICE) == (201 if allowed else 404)
            assert (await client.operate("PUT", path, TERMS)).status_code == (200 if allowed else 201)
            assert await send("POST", "/tickets", joining, Role.SERVICE) == (200 if allowed else 403)
            entering = {"ticket": "x", **joining}
            assert await send("POST", "/enter", entering, Role.SERVICE) == (422 if allowed else 403)
            assert await send("POST", "/close", None, Role.OPERATOR) == (200 if allowed else 403)


def test_every_room_refusal_has_a_problem_type() -> None:
    """An unknown room is ``unknown-name``. A ticket that the room does not have has a phase."""
    others = {RoomStatus.JOINED, RoomStatus.DONE, RoomStatus.NOT_FOUND, RoomStatus.NOT_JOINED}
    assert {*ROOM_STATUS_PROBLEMS, *others} == set(RoomStatus)
    for status, kind in ROOM_STATUS_PROBLEMS.items():
        found = Problem.from_room_status(status, 5_000, 1_500)
        assert (found.type, found.retry_after_s) == (kind, 4)
        assert PROBLEM_TYPES[kind.name] is kind
    assert Problem.from_room_status(RoomStatus.OVERLOADED, 0, 0).retry_after_s == 1
    assert Problem.from_room_status(RoomStatus.ROOM_CLOSED, 0, 0).retry_after_s == 0


# --- Polls and streams ---------------------------------------------------------------------------------------------


async def test_polls_have_etags_and_call_no_store(rooms: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag changes with the state only; the store is read every half second."""
    mine = await ticket(rooms, NIK)
    rooms.clock.advance_ms(500)  # the next read sees the ticket
    asked: list[object] = []
    backend = rooms.service.engine._store
    perform = backend.execute

    async def counted(request: Any) -> Any:
        asked.append(request)
        return await perform(request)

    monkeypatch.setattr(backend, "execute", counted)
    for path in (ROOM, f"{ROOM}/tickets/{mine}"):
        fresh = await look(rooms, path)
        assert fresh.status_code == 200
        assert fresh.headers["cache-control"] == "private, no-cache"
        for _ in range(20):
            same = await look(rooms, path, if_none_match=fresh.headers["etag"])
            assert (same.status_code, same.content) == (304, b"")
    assert len(asked) == 1
    tag = (await look(rooms)).headers["etag"]
    rooms.clock.advance_ms(500)
    assert (await look(rooms, if_none_match=tag)).status_code == 304  # only time has passed
    await ticket(rooms, OTHER)
    rooms.clock.advance_ms(500)
    changed = await look(rooms, if_none_match=tag)
    assert (changed.status_code, changed.json()["tickets"]) == (200, 2)
    head = await rooms.call("HEAD", ROOM)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", changed.headers["etag"])


async def test_unknown_rooms_do_not_evict_known_ones(rooms: Client) -> None:
    mine = await ticket(rooms, NIK)
    rooms.clock.advance_ms(500)
    await look(rooms, f"{ROOM}/tickets/{mine}")
    engine = rooms.service.engine
    known = engine.room("december")
    for number in range(1_500):
        with pytest.raises(UnknownName):
            await engine.room(f"made-up-{number}").view()
    assert engine.room("december") is known
    assert known._methods.cache.snapshot().view.tickets == 1
    assert len(engine._rooms) <= 1_000


async def events(raw: Any, path: str) -> Any:
    """Open a stream and yield its events."""
    await raw.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head = await raw.until(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"text/event-stream" in head

    async def following() -> AsyncIterator[tuple[str, dict[str, Any]]]:
        while True:
            block = (await raw.until(b"\n\n")).decode()
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "data" in lines:
                yield lines["event"], json.loads(lines["data"])

    return following()


@pytest.mark.slow
async def test_streams_send_each_change() -> None:
    """A change is computed once for all readers."""
    app: ServiceApp = create_app(configuration(publish_days=0), clock=None)
    async with app.lifespan(), listening(app) as port:
        engine = app.context.engine
        now_ms = app.context.now_ms()
        room = engine.room("live")
        await room.create("surabaya", DAY, "2026-12-11", opens_at=now_ms + 3_600_000)
        mine = (await room.join(NIK)).ticket
        async with connected(port) as one, connected(port) as other:
            of_room = await events(one, "/v1/rooms/live/stream")
            of_ticket = await events(other, f"/v1/rooms/live/tickets/{mine}/stream")
            kind, body = await anext(of_room)
            assert (kind, body["room"], body["phase"]) == ("room", "live", "JOINING")
            kind, standing = await anext(of_ticket)
            assert (kind, standing["phase"], standing["opens_at_ms"]) == (
                "ticket_status",
                "NOT_OPEN",
                now_ms + 3_600_000,
            )
            await room.join(OTHER)
            while (await anext(of_room))[1]["tickets"] != 2:
                pass
            while (await anext(of_ticket))[1]["tickets"] != 2:
                pass
            await room.close()
            while (await anext(of_room))[1]["phase"] != "CLOSED":
                pass
            while (await anext(of_ticket))[1]["phase"] != "ROOM_CLOSED":
                pass


async def test_log_and_metrics_have_no_identity_or_ticket(
    rooms: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither do error responses."""
    caplog.set_level("DEBUG")
    mine = await ticket(rooms, NIK)
    answers = [
        await enter(rooms, mine, NIK),
        await enter(rooms, mine, OTHER),
        await join(rooms, NIK, replaces_ticket=mine),
    ]

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(rooms.service.engine.room("december")), "enter", broken)
    answers.append(await enter(rooms, mine, NIK))
    assert answers[-1].status_code == 500
    written = caplog.text + "".join(answer.text for answer in answers) + (await rooms.http.get("/metrics")).text
    for secret in (NIK, OTHER, mine, TOKENS[Role.SERVICE]):
        assert secret not in written.replace("httpx", "")
