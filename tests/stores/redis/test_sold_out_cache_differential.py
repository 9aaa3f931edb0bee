"""The memory of what is sold out against the state machine: random commands, and the same answers or older ones."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from quota_engine.clocks import ManualClock
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    PUBLIC,
    applicant,
    published,
)
from quota_engine.domain.commands import Command, Reserve
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.state_machine import apply
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import ApplyMany, ReadEvents
from quota_engine.stores.redis.codecs.office import OfficeDecoder, text_of_choice
from quota_engine.stores.redis.codecs.office_state import event_of_text, names_of_event
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support.effort import seeds
from tests.support.random_walks import walk
from tests.support.servers import Server
from tests.support.sold_out import BOUND_MS, SOLD_OUT, Scene, cache_of


class Watched:
    """A backend that notes whether an answer was its own."""

    def __init__(self, backend: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend = backend
        self.is_own = False
        answer = cache_of(backend).get

        def noted(office: str, command: Reserve) -> Outcome | None:
            outcome = answer(office, command)
            self.is_own = outcome is not None
            return outcome

        monkeypatch.setattr(cache_of(backend), "get", noted)

    def apply(self, office: str, command: Command) -> Outcome:
        self.is_own = False
        outcome: Outcome = self.backend.apply(office, command)
        return outcome


def crowd(seed: int, count: int) -> Iterator[tuple[int, Command]]:
    """A time step in milliseconds and a command: unknown applicants at an opening, mixed with everything that can
    happen to a ledger.
    """
    rng = Random(seed)
    wanted = (ONLINE, ONLINE, ONLINE, PUBLIC, PRIORITY)
    others = random_commands(seed, count)
    for number in range(count):
        passes_ms = rng.choice((0, 0, 0, 0, 1, 5, 20, 60, 100, 160, 260, HOLD_TTL_MS // 3 if number % 7 == 0 else 0))
        if rng.random() < 0.9:
            names = [f"x{seed}-{rng.randrange(number + 30)}" for _ in range(rng.choice((1, 1, 1, 2)))]
            party = tuple(applicant(name) for name in dict.fromkeys(names))
            day = rng.choice((DAY, DAY, DAY, NEXT_DAY))
            yield passes_ms, Reserve(f"k{number}", day, party, rng.choice(wanted), rng.random() < 0.2)
        else:
            yield passes_ms, next(others)[1]


@pytest.mark.parametrize("seed", seeds(3, 8))
def test_cached_refusals_match_the_machine_within_the_bound(
    valkey_server: Server, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Three processes, any command: an own answer was right at a moment less than the bound ago, all others are now."""
    scene = Scene(valkey_server)
    processes = [Watched(scene.open(), monkeypatch) for _ in range(3)]
    ledger = Ledger(OFFICE)
    for command in published():
        processes[0].apply(OFFICE, command)
        apply(ledger, command, OPENS_AT_MS)
    rng = Random(seed)
    moments: deque[tuple[int, Ledger]] = deque([(OPENS_AT_MS, copy.deepcopy(ledger))])
    own = 0
    for passes_ms, command in crowd(seed, 150):
        scene.clock.advance_ms(passes_ms)
        now_ms = scene.clock.now_ms()
        process = rng.choice(processes)
        outcome = process.apply(OFFICE, command)
        moments.append((now_ms, copy.deepcopy(ledger)))
        while len(moments) > 1 and moments[0][0] <= now_ms - BOUND_MS:
            moments.popleft()
        if process.is_own:
            own += 1
            at_that_time = [apply(copy.deepcopy(then), command, at_ms) for at_ms, then in moments]
            assert outcome in at_that_time, f"{outcome} for {command}, and {at_that_time} in the last {BOUND_MS} ms"
        else:
            assert outcome == apply(ledger, command, now_ms)
            moments.append((now_ms, copy.deepcopy(ledger)))
    assert own >= 10
    for backend in scene.opened:
        backend.close()


@pytest.mark.parametrize("seed", range(12, 16))
def test_one_process_never_refuses_a_holder(valkey_server: Server, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """One process knows what it did itself: an own answer is right, unless time alone gave something back."""
    scene = Scene(valkey_server)
    process = Watched(scene.open(), monkeypatch)
    ledger = Ledger(OFFICE)
    for command in published():
        process.apply(OFFICE, command)
        apply(ledger, command, OPENS_AT_MS)
    own = 0
    for passes_ms, command in crowd(seed, 200):
        scene.clock.advance_ms(passes_ms)
        now_ms = scene.clock.now_ms()
        outcome = process.apply(OFFICE, command)
        if not process.is_own:
            assert outcome == apply(ledger, command, now_ms)
            continue
        own += 1
        instead = apply(copy.deepcopy(ledger), command, now_ms)
        assert not instead.replayed
        assert not instead.resumed
        assert instead.status in (SOLD_OUT, Status.HELD)
    assert own >= 10
    scene.opened[0].close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_script_and_machine_agree_on_sold_out(seed: int) -> None:
    """Whenever the cache refuses, the state machine would refuse an unknown applicant, too. It hardly ever misses a
    refusal.
    """
    clock = ManualClock(0)
    backend = LuaStore(clock, LuaServer())
    ledger = Ledger("o")
    too_careful = 0
    for now_ms, command in walk(Random(seed)):
        clock.set_ms(now_ms)
        apply(ledger, command, now_ms)
        backend.apply("o", command)
        if type(command) is not Reserve:
            continue
        strangers = tuple(f"new{one}" for one in command.applicants)
        asked = replace(command, id="new", valid_until_ms=0, applicants=strangers)
        line = f"sold_out\t{asked.day}\t{len(asked.applicants)}\t{int(asked.join_wait_list)}\t{text_of_choice(asked.choice)}"  # noqa: E501
        (word,) = backend._look("o", line)
        status = apply(copy.deepcopy(ledger), asked, now_ms).status
        assert word == "0" or status is SOLD_OUT
        too_careful += word == "0" and status is SOLD_OUT
    assert too_careful <= 2


def test_names_of_events(scene: Scene) -> None:
    """The short way of reading an event finds the same people as the long one."""
    backend = scene.open()
    commands = [command for _, command in random_commands(5, 300)]
    backend.execute(ApplyMany(OFFICE, (*published(), *commands)))
    key = dict(zip(OFFICE_KEY_NAMES, keys_of("", OFFICE), strict=True))
    choices = scene.server.ask("HGETALL", key["choices"])
    entries = scene.server.ask("XRANGE", key["events"], "-", "+")
    seen = set()
    for _, fields in entries:
        text = fields["e"]
        event: Any = event_of_text(text, OfficeDecoder(OFFICE), choices)
        record = getattr(event, "reservation", None)
        assert names_of_event(text) == (() if record is None else (record.id, *record.applicants))
        seen.add(type(event))
    assert len(seen) >= 4
    assert len(backend.execute(ReadEvents(OFFICE, 0, 10_000))) == len(entries)


def test_cache_knows_all_fields_of_reserve() -> None:
    """A new field of Reserve may affect the precedence of its outcomes: then the cache and this list must know it."""
    assert Reserve.__struct_fields__ == (
        "id",
        "day",
        "applicants",
        "choice",
        "join_wait_list",
        "hold_ttl_ms",
        "valid_until_ms",
    )
