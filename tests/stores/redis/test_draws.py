"""Draws in the store against the pure ledger: the same commands at the same times, every answer and state compared.

Without a server (``quota_engine.fuzz.lua_server``), and on a Valkey and a Redis, one by one and by callers at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest

from quota_engine import QuotaEngine
from quota_engine.clocks import ManualClock
from quota_engine.conformance.random_draws import CLOSES_AT_MS, OPENS_AT_MS, PREFERENCES, QUESTIONS, TERMS, walk
from quota_engine.domain.validation import APPLICANTS_MAX
from quota_engine.draws.commands import (
    CloseDraw,
    CreateDraw,
    DrawCommand,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.ledger import OFFERED_DAYS_MAX, DrawLedger, address_of, answer_query, apply, describe
from quota_engine.draws.lottery import CHOICES_MAX, PREFERENCES_MAX
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import DrawQuery, ReadApplications, ReadDraw
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.ports import AsyncStore, Describe, ListOffices, Query, Store
from quota_engine.stores.redis.codecs.draws import (
    DrawDecoder,
    draw_of_state,
    encode,
    preference_of_text,
    text_of_preference,
)
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.ledger_formats import DRAW as STORED
from quota_engine.stores.redis.ledger_formats import format_of
from quota_engine.stores.redis.scripts import DRAW_COMMANDS, DRAW_QUERIES, DRAW_STATE, Script
from tests.support.draw_runs import KEY, catalog, whole_draw
from tests.support.draw_samples import DRAW, SEED
from tests.support.effort import seeds
from tests.support.servers import Server

_draws = (f"draw{number}" for number in count())


class WithoutServer:
    """The scripts, run here."""

    def __init__(self, place: str, store: LuaServer | None = None) -> None:
        self.store = store or LuaServer()
        self.keys = keys_of("", place, STORED.key_names)
        self.place = place
        self.answers = DrawDecoder(place)

    def lines(self, script: Script, now_ms: int | None, lines: Sequence[str]) -> list[str]:
        return self.store.run(script, self.keys, ["" if now_ms is None else str(now_ms), *lines])

    def take(self, now_ms: int, commands: Sequence[DrawCommand]) -> list[DrawOutcome]:
        script = STORED.script_of(commands[0]) if len(commands) == 1 else DRAW_COMMANDS
        lines = self.lines(script, now_ms, [encode(command) for command in commands])
        return [self.answers.outcome(command, line) for command, line in zip(commands, lines, strict=True)]

    def ask(self, now_ms: int, questions: Sequence[DrawQuery]) -> list[Any]:
        lines = self.lines(DRAW_QUERIES, now_ms, [encode(question) for question in questions])
        return [self.answers.answer(question, line) for question, line in zip(questions, lines, strict=True)]

    def describe(self) -> dict[str, Any]:
        state = self.store.run(DRAW_STATE, self.keys, [])
        hashes = [dict(zip(answer[::2], answer[1::2], strict=True)) for answer in state]
        return describe(draw_of_state(self.place, hashes))


# --- Without a server ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scripts_match_the_ledger() -> None:
    """Batches of up to four, the whole state and every question after each of them."""
    for seed in seeds(20, 60):
        random = Random(seed)
        ledger, store = DrawLedger(address_of(DRAW)), WithoutServer(address_of(DRAW))
        steps = list(walk(random))
        while steps:
            now_ms = steps[0][0]
            batch = [command for _, command in steps[: random.choice((1, 1, 2, 4))]]
            del steps[: len(batch)]
            expected = [apply(ledger, command, now_ms) for command in batch]
            assert store.take(now_ms, batch) == expected, f"seed {seed}: {batch}"
            assert store.describe() == describe(ledger), f"seed {seed}: {batch}"
            answers = [answer_query(ledger, question, now_ms) for question in QUESTIONS]
            assert store.ask(now_ms, QUESTIONS) == answers, f"seed {seed}: {batch}"


def test_server_time_decides_what_is_open() -> None:
    """Without an injected clock the server's time decides when a draw opens and closes."""
    store = WithoutServer(address_of(DRAW))
    store.take(0, [CreateDraw(TERMS)])
    line = encode(SubmitApplication(("ani",), PREFERENCES[:1]))
    for time_ms, status in (
        (OPENS_AT_MS - 1, "NOT_OPEN"),
        (OPENS_AT_MS, "APPLIED"),
        (CLOSES_AT_MS - 1, "APPLIED"),
        (CLOSES_AT_MS, "APPLICATIONS_CLOSED"),
    ):
        store.store.time_ms = time_ms
        (answer,) = store.lines(DRAW_COMMANDS, None, [line])
        assert answer.startswith(f"{status}\t")
    (seen,) = store.lines(DRAW_QUERIES, None, ["draw"])
    assert seen.startswith(f"{CLOSES_AT_MS}\t")


@pytest.mark.slow
def test_no_line_is_half_applied() -> None:
    """A call with an ill-formed command is refused before anything is written."""
    random, refused = Random(7), 0
    characters = ("", "-1", "nan", "9" * 15, "~", "a b", "\t", "\n", ",", ";", "/", "|", "x,x", "0" * 64)
    for seed in range(60):
        store = WithoutServer(address_of(DRAW))
        for now_ms, command in walk(Random(seed), 20):
            good = encode(command)
            at = random.randrange(len(good) + 1)
            bad = good[:at] + random.choice(characters) + good[random.randrange(at, len(good) + 1) :]
            before = store.describe()
            try:
                assert len(store.lines(DRAW_COMMANDS, now_ms, [good, bad])) == 2
            except Refused:
                refused += 1
                assert store.describe() == before
                assert len(store.lines(DRAW_COMMANDS, now_ms, [good])) == 1
    assert refused > 100


def test_refusal_leaves_nothing_in_the_store() -> None:
    """Nor does asking for a draw that is not there."""
    store = WithoutServer(address_of(DRAW))
    for command in (
        SubmitApplication(("ani",), PREFERENCES[:1]),
        WithdrawApplication("ani", 1),
        CloseDraw(),
        RevealSeed(DRAW, SEED),
    ):
        store.take(OPENS_AT_MS, [command])
    assert store.store.keys() == frozenset()
    store.take(0, [CreateDraw(TERMS)])
    before = store.describe()
    store.take(0, [SubmitApplication(("ani",), PREFERENCES[:1])])
    assert store.describe() == before


@pytest.mark.slow
def test_all_keys_of_a_draw_exist_and_expire() -> None:
    """All keys exist from the creation on, after any withdrawal."""
    for seed in range(30):
        store = WithoutServer(address_of(DRAW))
        for now_ms, command in walk(Random(seed)):
            store.take(now_ms, [command])
            assert store.store.keys() == frozenset(store.keys)
            assert all(store.store.ttl_ms[key] > 0 for key in store.keys)


def test_replay_can_leave_a_write() -> None:
    """A caller that waits for replicas needs a write: after a call without one, WAIT returns at once."""
    store = WithoutServer(address_of(DRAW))
    line = encode(CreateDraw(TERMS))
    for now, writes in (("0", True), ("0", False), ("0+", True)):
        before = store.store.calls.get("HSET", 0)
        store.store.run(DRAW_COMMANDS, store.keys, [now, line])
        assert (store.store.calls["HSET"] > before) is writes


def test_lua_has_the_limits_of_python() -> None:
    """They are numbers in the Lua too, and too high to be reached here."""
    limits = {
        "PREFERENCES_MAX": PREFERENCES_MAX,
        "OFFERED_DAYS_MAX": OFFERED_DAYS_MAX,
        "APPLICANTS_MAX": APPLICANTS_MAX,
        "CHOICES_MAX": CHOICES_MAX,
    }
    for name, value in limits.items():
        assert DRAW_COMMANDS.text.count(f"local {name} = {value}\n") == 1


def test_preferences_survive_encoding() -> None:
    for wish in PREFERENCES:
        assert preference_of_text(text_of_preference(wish)) == wish


# --- On servers ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0)


@pytest.fixture
def backend(server: Server, clock: ManualClock) -> Iterator[Store]:
    opened = open_store(server.url, clock)
    yield opened
    opened.close()


def test_server_matches_the_ledger(backend: Store, clock: ManualClock) -> None:
    for seed in seeds(8, 20):
        place = address_of(next(_draws))
        ledger = DrawLedger(place)
        for now_ms, command in walk(Random(seed)):
            clock.set_ms(now_ms)
            assert backend.apply(place, command) == apply(ledger, command, now_ms), f"seed {seed}: {command}"
        assert backend.execute(Describe(place)) == describe(ledger)
        for question in QUESTIONS:
            assert backend.execute(Query(place, question)) == answer_query(ledger, question, clock.now_ms())


async def test_concurrent_callers_get_distinct_numbers(server: Server, clock: ManualClock) -> None:
    """1,000 people who apply at the same moment, some in one party twice: every identity in one application."""
    backend: AsyncStore = await open_async_store(server.url, clock)
    place = address_of(next(_draws))
    await backend.apply(place, CreateDraw(msgspec.structs.replace(TERMS, applications_max=1_000)))
    clock.set_ms(OPENS_AT_MS)
    parties = [(f"p{index}", f"p{index + 500}") for index in range(500)]
    parties += [(f"p{index + 500}", f"p{index}") for index in range(500)]
    calls = [backend.apply(place, SubmitApplication(party, PREFERENCES[:2])) for party in parties]
    outcomes = await asyncio.gather(*calls)
    won = [outcome.number for outcome in outcomes if outcome.status is DrawStatus.APPLIED]
    assert sorted(won) == list(range(1, 501))
    assert sum(outcome.status is DrawStatus.ALREADY_APPLIED for outcome in outcomes) == 500
    applied = await backend.execute(Query(place, ReadApplications(0)))
    people = [person for one in applied for person in one.applicants]
    assert len(people) == len(set(people)) == 1_000
    seen = await backend.execute(Query(place, ReadDraw()))
    assert (seen.applications, seen.applicants, seen.last_number) == (500, 1_000, 500)
    await backend.close()


def test_draw_from_creation_to_places(server: Server, clock: ManualClock) -> None:
    """The whole way on a real server: what is drawn is held, once, and what is published passes the check."""
    with QuotaEngine.open(server.url, identity_key=KEY, catalog=catalog(), clock=clock) as engine:
        whole_draw(engine, clock)


def test_draws_are_not_listed_as_offices(backend: Store, clock: ManualClock) -> None:
    """They are not listed among them, and their keys are elsewhere."""
    place = address_of(next(_draws))
    assert backend.apply(place, CreateDraw(TERMS)).ok
    assert backend.execute(ListOffices()) == []
    assert format_of(place) is STORED
    clock.set_ms(CLOSES_AT_MS)
    for command in (CloseDraw(), OfferDay("sby", TERMS.first_day, ()), FreezeDraw(0, "0" * 64, "0" * 64)):
        assert backend.apply(place, command).ok
