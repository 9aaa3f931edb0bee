"""Waiting rooms in the store: the scripts say and keep what the pure machine does, and a room costs what it may."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_engine import AsyncQuotaEngine, BackendUnavailable, QuotaEngine, TicketPhase, load_catalog
from quota_engine.clocks import ManualClock
from quota_engine.conformance.random_rooms import CLOSING_SEED, OPENS_AT_MS, QUESTIONS, SEED, terms, walk
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.ports import Describe, Query
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.ledger_formats import ROOM
from quota_engine.waiting_room.commands import (
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    RoomCommand,
    RoomQuery,
    ViewRoom,
)
from quota_engine.waiting_room.machine import RoomState, answer_query, apply, describe
from quota_engine.waiting_room.results import RoomResult, RoomStatus
from tests.stores.redis.conftest import cluster_url, empty_members
from tests.support.effort import examples
from tests.support.paths import DOCS
from tests.support.server_groups import Cluster
from tests.support.servers import Server

PLACE = "~room.december"
KEYS = keys_of("", PLACE, ROOM.key_names)
CATALOG = load_catalog("surabaya")
KEY = b"sixteen bytes or more"


class Scripts:
    """A room kept by the scripts, without a server."""

    def __init__(self) -> None:
        self.store = LuaServer()
        self.answers = ROOM.decoder(PLACE)

    def send(self, commands: list[RoomCommand], now_ms: int) -> list[RoomResult]:
        lines = [ROOM.encode(command) for command in commands]
        replies = self.store.run(ROOM.script_of(commands[0]), KEYS, [str(now_ms), *lines])
        return [self.answers.outcome(command, line) for command, line in zip(commands, replies, strict=True)]

    def ask(self, questions: Sequence[RoomQuery], now_ms: int) -> list[RoomResult]:
        lines = self.store.run(ROOM.queries, KEYS, [str(now_ms), *map(ROOM.encode, questions)])
        return [self.answers.answer(question, line) for question, line in zip(questions, lines, strict=True)]

    def describe(self) -> dict[str, Any]:
        state = self.store.run(ROOM.state, KEYS, [])
        hashes = [dict(zip(answer[::2], answer[1::2], strict=True)) for answer in state]
        return describe(ROOM.decode_ledger(PLACE, hashes))


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=examples(50, 150), deadline=None)
def test_scripts_match_the_machine(seed: int) -> None:
    """Any history is the same outcome by outcome and field by field, views included (G10)."""
    scripts, state = Scripts(), RoomState()
    for command, now_ms in walk(seed):
        assert scripts.send([command], now_ms) == [apply(state, command, now_ms)], command
        assert scripts.describe() == describe(state), command
        assert scripts.ask(QUESTIONS, now_ms) == [answer_query(state, one, now_ms) for one in QUESTIONS]


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=examples(33, 100), deadline=None)
def test_batch_equals_its_commands_in_sequence(seed: int) -> None:
    """Commands of one call have the same results as the same commands one by one."""
    scripts, state, random = Scripts(), RoomState(), Random(seed)
    commands = list(walk(seed))
    while commands:
        part, commands = commands[: random.randint(1, 12)], commands[12:]
        now_ms = part[-1][1]
        expected = [apply(state, command, now_ms) for command, _ in part]
        assert scripts.send([command for command, _ in part], now_ms) == expected
        assert scripts.describe() == describe(state)


@pytest.mark.parametrize(
    "line",
    [
        "join\tno name\t",
        "join\tname",
        "join\tname\t-1",
        "join\tname\tnan",
        "call_tickets\t-5\t1\t",
        "call_tickets\t1\tinf\t",
        "call_tickets\t1\t1\t-1",
        "open\tzz\tab\t",
        "open\tab\tab",
        "close\tab",
        "create\ttoo\tfew",
        ROOM.encode(CreateRoom(terms())).replace("739000", "nan"),
        "forget",
        "",
    ],
)
def test_ill_formed_line_refuses_the_whole_call(line: str) -> None:
    """Nothing is carried out, not even what stood before it."""
    scripts = Scripts()
    scripts.send([CreateRoom(terms())], OPENS_AT_MS - 1_000)
    before = scripts.describe()
    with pytest.raises(Refused, match="ILLFORMED command 2"):
        scripts.store.run(ROOM.script_of(None), KEYS, [str(OPENS_AT_MS), ROOM.encode(JoinRoom("a")), line])
    assert scripts.describe() == before


def test_room_expires() -> None:
    """Both keys exist from the start, and expire after the room is forgotten."""
    scripts = Scripts()
    scripts.send([CreateRoom(terms())], OPENS_AT_MS - 1_000)
    assert scripts.store.keys() == set(KEYS)
    expected_ms = terms().forget_at_ms - OPENS_AT_MS + 1_000 + 86_400_000
    assert scripts.store.ttl_ms == dict.fromkeys(KEYS, expected_ms)
    scripts.send([JoinRoom("a")], terms().forget_at_ms)
    assert scripts.store.keys() == set()


def test_questions_store_nothing() -> None:
    """Looks, refused joins, and joins of those who have a ticket leave no trace (G8)."""
    scripts = Scripts()
    scripts.send([CreateRoom(terms(tickets_max=1)), JoinRoom("a")], OPENS_AT_MS - 1_000)
    before = {key: scripts.store.members(key) for key in KEYS}
    for number in range(50):
        scripts.ask(QUESTIONS, OPENS_AT_MS - 900)
        (refused,) = scripts.send([JoinRoom(f"x{number}")], OPENS_AT_MS - 900)
        assert refused.status is RoomStatus.FULL
        scripts.send([JoinRoom("a")], OPENS_AT_MS - 900)
    assert {key: scripts.store.members(key) for key in KEYS} == before


def test_join_is_one_store_command() -> None:
    """At an opening a join costs one step on the identities, and nothing on the rest."""
    scripts = Scripts()
    scripts.send([CreateRoom(terms()), JoinRoom("first")], OPENS_AT_MS - 1_000)
    scripts.store.calls.clear()
    scripts.send([JoinRoom(f"x{number}") for number in range(128)], OPENS_AT_MS - 1_000)
    assert scripts.store.calls == {"HMGET": 1, "HSETNX": 128, "HSET": 1}


# --- On servers ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_server_matches_memory(server: Server, seed: int) -> None:
    """Through the backends, as an engine asks them."""
    clock = ManualClock(0)
    store, memory = open_store(server.url, clock), MemoryStore(clock)
    try:
        for command, now_ms in walk(1_000 + seed):
            clock.set_ms(max(now_ms, 0))
            assert store.apply(PLACE, command) == memory.apply(PLACE, command), command
            assert store.execute(Query(PLACE, ViewRoom())) == memory.execute(Query(PLACE, ViewRoom()))
            assert store.execute(Describe(PLACE)) == memory.execute(Describe(PLACE)), command
    finally:
        store.close()


async def test_concurrent_joins_are_numbered_without_gaps(server: Server) -> None:
    """Two engines, 3,000 people who ask three times each: 3,000 numbers, and each person always gets the same one."""
    clock = ManualClock(OPENS_AT_MS - 1_000)
    one, other = [await open_async_store(server.url, clock) for _ in range(2)]
    try:
        assert (await one.apply(PLACE, CreateRoom(terms()))).ok
        people = [f"{number:032x}" for number in range(3_000)] * 3
        answers = await asyncio.gather(
            *((one, other)[number % 2].apply(PLACE, JoinRoom(person)) for number, person in enumerate(people))
        )
    finally:
        await one.close()
        await other.close()
    numbers: dict[str, set[int]] = {}
    for person, answer in zip(people, answers, strict=True):
        numbers.setdefault(person, set()).add(answer.index)
    assert sorted(index for found in numbers.values() for index in found) == list(range(3_000))


def test_server_clock_opens_the_room(server: Server) -> None:
    """Without an injected clock an engine uses the server's time, not the time of its machine."""
    backend = open_store(server.url, None)
    try:
        server_ms = int(server.ask("TIME")[0]) * 1_000
        far = terms(
            join_opens_at_ms=0,
            opens_at_ms=server_ms + 3_600_000,
            closes_at_ms=server_ms + 7_200_000,
            forget_at_ms=server_ms + 17_200_000,
        )
        assert backend.apply(PLACE, CreateRoom(far)).ok
        assert backend.apply(PLACE, JoinRoom("a")).index == 0
        answer = backend.apply(PLACE, OpenRoom(SEED))
        assert (answer.status, answer.retry_at_ms) == (RoomStatus.NOT_OPEN, far.opens_at_ms)
        assert backend.apply(PLACE, CallTickets(6_000)).view.called_count == 0
        view = backend.execute(Query(PLACE, ViewRoom())).view
        assert abs(view.now_ms - server_ms) < 60_000
        for key in KEYS:
            assert 0 < server.ask("PTTL", key) <= 17_200_000 + 86_400_000 + 60_000
    finally:
        backend.close()


def test_a_waiting_identity_takes_at_most_120_bytes(server: Server) -> None:
    """Of the server's memory, with all that belongs to it; and one who polls takes nothing."""
    backend = open_store(server.url, ManualClock(OPENS_AT_MS - 1_000))
    people = 65_536
    try:
        assert backend.apply(PLACE, CreateRoom(terms())).ok
        lines = [ROOM.encode(JoinRoom(f"{number * 2**90:032x}")) for number in range(people)]
        before = used_memory(server)
        backend.apply(PLACE, JoinRoom("first"))
        for start in range(0, people, 1024):
            server.ask("EVALSHA", ROOM.script_of(None).sha1, 2, *KEYS, "999000", *lines[start : start + 1024])
        taken = used_memory(server) - before
        assert backend.execute(Query(PLACE, ViewRoom())).view.tickets == people + 1
        assert taken / people <= 120, taken / people
    finally:
        backend.close()


def used_memory(server: Server) -> int:
    return int(server.client().info("memory")["used_memory"])


def test_a_room_closes_for_all_engines(server: Server) -> None:
    """One engine reveals the seed, and another one reads it."""
    clock = ManualClock(OPENS_AT_MS - 1_000)
    one, other = open_store(server.url, clock), open_store(server.url, clock)
    try:
        one.apply(PLACE, CreateRoom(terms()))
        clock.set_ms(OPENS_AT_MS)
        assert other.apply(PLACE, OpenRoom(SEED)).ok
        assert one.apply(PLACE, CloseRoom(CLOSING_SEED)).ok
        view = other.execute(Query(PLACE, ViewRoom())).view
        assert (view.seed, view.closing_seed, view.closed_at_ms) == (SEED, CLOSING_SEED, OPENS_AT_MS)
    finally:
        one.close()
        other.close()


def test_full_store_answers_ticket_status(valkey_server: Server) -> None:
    """Out of memory: joins are refused whole, nothing moves, and who polls is answered."""
    clock = ManualClock(OPENS_AT_MS - 1_000)
    with QuotaEngine.open(valkey_server.url, identity_key=KEY, catalog=CATALOG, clock=clock) as engine:
        room = engine.room("december")
        assert room.create("surabaya", 739_000, opens_at=OPENS_AT_MS) is RoomStatus.DONE
        ticket = room.join("3578012345678901").ticket
        valkey_server.ask("CONFIG", "SET", "maxmemory", "1mb")
        clock.advance_ms(1_000)
        assert room.status(ticket).phase is TicketPhase.SHUFFLING
        with pytest.raises(BackendUnavailable, match="memory"):
            room.join("3578012345678902")
        valkey_server.ask("CONFIG", "SET", "maxmemory", "0")
        clock.advance_ms(1_000)
        assert room.status(ticket).phase is TicketPhase.WAITING
        assert room.view().tickets == 1


def test_a_room_in_a_cluster_is_one_slot(valkey_cluster: Cluster) -> None:
    """Each room goes where its slot is; all of it is there."""
    empty_members(valkey_cluster.members)
    clock = ManualClock(OPENS_AT_MS - 1_000)
    with QuotaEngine.open(cluster_url(valkey_cluster), identity_key=KEY, catalog=CATALOG, clock=clock) as engine:
        rooms = [engine.room(f"room-{number}") for number in range(6)]
        tickets = []
        for room in rooms:
            assert room.create("surabaya", 739_000, opens_at=OPENS_AT_MS) is RoomStatus.DONE
            tickets.append(room.join("3578012345678901").ticket)
        clock.advance_ms(1_000)
        assert {room.status(ticket).phase for room, ticket in zip(rooms, tickets, strict=True)} == {TicketPhase.WAITING}


async def test_cancelled_poll_does_not_block_others(server: Server) -> None:
    """A poller is cancelled in the middle of a query: the next one asks again, and no caller waits forever."""
    clock = ManualClock(OPENS_AT_MS - 1_000)
    async with await AsyncQuotaEngine.open(server.url, identity_key=KEY, catalog=CATALOG, clock=clock) as engine:
        room = engine.room("december")
        await room.create("surabaya", 739_000, opens_at=OPENS_AT_MS)
        ticket = (await room.join("3578012345678901")).ticket
        clock.advance_ms(20_000)
        looking = asyncio.create_task(room.status(ticket))
        await asyncio.sleep(0)
        looking.cancel()
        assert (await asyncio.wait_for(room.status(ticket), 20)).phase is TicketPhase.WAITING


def test_a_name_can_be_used_again_when_the_room_is_forgotten(server: Server) -> None:
    """Nothing is left of the first one: neither its tickets nor its identities."""
    clock = ManualClock(OPENS_AT_MS - 1_000)
    backend = open_store(server.url, clock)
    try:
        backend.apply(PLACE, CreateRoom(terms()))
        backend.apply(PLACE, JoinRoom("a"))
        forget_at_ms = terms().forget_at_ms
        clock.set_ms(forget_at_ms)
        again = terms(
            opens_at_ms=forget_at_ms + 1_000,
            closes_at_ms=forget_at_ms + 3_600_000,
            forget_at_ms=forget_at_ms + 9_000_000,
        )
        assert backend.apply(PLACE, CreateRoom(again)).view.tickets == 0
        assert backend.apply(PLACE, JoinRoom("b")).index == 0
        assert backend.execute(Describe(PLACE))["identities"] == {"b": 0}
        assert server.ask("HLEN", KEYS[1]) == 2
    finally:
        backend.close()


def test_documented_permissions_suffice_for_rooms(server: Server) -> None:
    """A room needs no right that an office does not need: those of docs/backends.md."""
    page = (DOCS / "backends.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"ACL SETUSER engine on >secret (.*?)```", page, re.DOTALL)
    server.ask("ACL", "SETUSER", "engine", "reset", "on", ">secret", *rights.split())
    clock = ManualClock(OPENS_AT_MS - 1_000)
    url = server.url + ("&" if "?" in server.url else "?") + "username=engine&password=secret"
    backend = open_store(url, clock)
    try:
        for command, now_ms in (
            (CreateRoom(terms()), OPENS_AT_MS - 1_000),
            (JoinRoom("a"), OPENS_AT_MS - 1_000),
            (OpenRoom(SEED), OPENS_AT_MS),
            (CallTickets(6_000), OPENS_AT_MS),
            (CloseRoom(CLOSING_SEED), OPENS_AT_MS),
        ):
            clock.set_ms(now_ms)
            assert backend.apply(PLACE, command).ok, command
        assert backend.execute(Query(PLACE, ViewRoom())).view.called_count == 1
        clock.set_ms(terms().forget_at_ms)
        assert backend.apply(PLACE, JoinRoom("a")).status is RoomStatus.NOT_FOUND
    finally:
        backend.close()
        server.ask("ACL", "DELUSER", "engine")
