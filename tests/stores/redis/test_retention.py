"""Nothing stays in a store forever: keys, names of offices, and choices."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from quota_engine.clocks import ManualClock
from quota_engine.domain.commands import Cancel, CloseDay, Command, Confirm, Publish, Reserve, SetRules
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.model import Choice, DayTerms, QuotaTerms, Rules
from quota_engine.domain.outcomes import Status
from quota_engine.domain.state_machine import apply
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import ApplyMany, Audit, Describe, ListOffices, ReadEvents, TrimEvents
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.keys import keys_of, offices_key
from quota_engine.stores.redis.registration import ENTRY_KEPT_MS
from tests.support.servers import Server

OFFICE = "office"
DAY_MS = 86_400_000
YEAR_MS = 366 * DAY_MS


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


def choice_on(number: int) -> Choice:
    return Choice("passport", "", f"session{number}", "", "", (("total",),))


def day_from(opens_at_ms: int, lasting_ms: int = 100) -> DayTerms:
    ends_at_ms = opens_at_ms + lasting_ms
    return DayTerms(opens_at_ms, ends_at_ms, ends_at_ms, ends_at_ms, (QuotaTerms("total", 50),))


def ttls_ms(client: Any) -> dict[str, int]:
    return {key: client.pttl(key) for key in client.scan_iter()}


def test_rules_alone_leave_no_permanent_key(server: Server) -> None:
    """An office that was given rules and nothing else is gone after its retention: 30 days and its longest block."""
    backend = open_store(server.url, None)
    client = redis.Redis.from_url(server.url, decode_responses=True)
    backend.apply(OFFICE, SetRules(Rules(no_show_block_ms=YEAR_MS)))
    ttls = ttls_ms(client)
    assert set(ttls) == {*keys_of("", OFFICE), offices_key("")}
    for key in keys_of("", OFFICE):
        assert 0 < ttls[key] <= YEAR_MS + 30 * DAY_MS
    # Rules with a longer block put it off.
    backend.apply(OFFICE, SetRules(Rules(no_show_block_ms=2 * YEAR_MS)))
    assert all(ttls_ms(client)[key] > YEAR_MS + 30 * DAY_MS for key in keys_of("", OFFICE))
    # So does the time for which the end of an abandoned hold is remembered.
    rules = Rules(abandoned_holds_max=1, abandoned_holds_window_ms=2 * YEAR_MS, abandoned_holds_block_ms=2 * YEAR_MS)
    backend.apply(OFFICE, SetRules(rules))
    assert all(ttls_ms(client)[key] > 3 * YEAR_MS for key in keys_of("", OFFICE))
    client.close()
    backend.close()


def test_every_key_expires(server: Server) -> None:
    """After the steps of a whole life every key of the store has a time to live, the list of offices too."""
    backend = open_store(server.url, None)
    client = redis.Redis.from_url(server.url, decode_responses=True)
    opens_at_ms = client.time()[0] * 1000 - 1000
    commands: list[Command] = [
        SetRules(Rules(cancellations_max=1)),
        Publish(1, day_from(opens_at_ms, DAY_MS)),
        Reserve("a", 1, ("budi",), choice_on(1)),
        Confirm("a"),
        Cancel("a"),
        Reserve("b", 1, ("sari",), choice_on(2)),
        CloseDay(1),
    ]
    backend.execute(ApplyMany(OFFICE, tuple(commands)))
    backend.execute(TrimEvents(OFFICE, 100))
    for key, ttl_ms in ttls_ms(client).items():
        assert ttl_ms > 0, key
    client.close()
    backend.close()


def test_names_of_offices_expire(server: Server) -> None:
    """An office is listed as long as it may have a ledger. Each new day extends that, from any process."""
    clock = ManualClock(0)
    backends = [open_store(server.url, clock) for _ in range(2)]
    backends[0].apply("early", Publish(1, day_from(1000)))
    backends[0].apply("late", Publish(1, day_from(1000)))
    backends[0].execute(ApplyMany("late", (Publish(2, day_from(3 * YEAR_MS)), SetRules(Rules()))))
    assert backends[1].execute(ListOffices()) == ["early", "late"]
    clock.set_ms(YEAR_MS + ENTRY_KEPT_MS)
    assert backends[1].execute(ListOffices()) == ["early", "late"]
    clock.set_ms(YEAR_MS + 1 + ENTRY_KEPT_MS)
    assert backends[1].execute(ListOffices()) == ["late"]
    # A later day that another process publishes for it; what is over goes from the store itself.
    backends[1].apply("late", Publish(3, day_from(2 * ENTRY_KEPT_MS)))
    client = redis.Redis.from_url(server.url, decode_responses=True)
    assert client.zrange(offices_key(""), 0, -1) == ["late"]
    client.close()
    for backend in backends:
        backend.close()


@pytest.mark.slow
def test_choices_are_deleted_with_their_days() -> None:
    """A store that lives through a hundred days, each with a different choice, keeps only what it needs. It keeps no
    choice of a forgotten day once the events are trimmed.
    """
    clock, store = ManualClock(0), LuaServer()
    backend, ledger = LuaStore(clock, store), Ledger(OFFICE)
    choices_key = keys_of("", OFFICE)[9]

    def take(now_ms: int, command: Command) -> None:
        clock.set_ms(now_ms)
        outcome = backend.apply(OFFICE, command)
        assert outcome == apply(ledger, command, now_ms)
        assert outcome.status in (Status.DONE, Status.HELD, Status.CONFIRMED)

    sizes = []
    for number in range(1, 101):
        start_ms = number * 1000
        take(start_ms, Publish(number, day_from(start_ms, 500)))
        take(start_ms, Reserve(f"r{number}", number, (f"a{number}",), choice_on(number)))
        take(start_ms, Reserve(f"s{number}", number, (f"b{number}",), choice_on(0)))
        take(start_ms + 1, Confirm(f"r{number}"))
        if number > 50:
            backend.execute(TrimEvents(OFFICE, len(ledger.events) - 8))
        sizes.append(len(store.members(choices_key)))
        assert backend.execute(Describe(OFFICE)) == describe(ledger)
    # Untrimmed events keep what they need: all of them can be read. Afterwards only a few days' choices are left.
    assert sizes[49] > 100
    assert max(sizes[60:]) < 20
    assert choice_on(0) in {one.choice for one in map(ledger.reservations.get, ["s99", "s100"]) if one}
    assert len(backend.execute(ReadEvents(OFFICE, 0, 1000))) == 8
    assert backend.execute(Audit(OFFICE)) == []


def test_reused_choice_stays() -> None:
    """An entry that is about to expire is extended by a new day; an expired one is written again."""
    clock, store = ManualClock(0), LuaServer()
    backend, ledger = LuaStore(clock, store), Ledger(OFFICE)
    for number in range(1, 30):
        start_ms = number * 1000
        for command in (
            Publish(number, day_from(start_ms, 500)),
            Reserve(f"r{number}", number, ("budi",), choice_on({0: 1, 1: 2}.get(number % 7, 3))),
        ):
            clock.set_ms(start_ms)
            assert backend.apply(OFFICE, command) == apply(ledger, command, start_ms)
        assert backend.execute(Describe(OFFICE)) == describe(ledger)
        events = backend.execute(ReadEvents(OFFICE, 0, 1000))
        assert [one.event for one in events] == ledger.events[len(ledger.events) - len(events) :]
        backend.execute(TrimEvents(OFFICE, len(ledger.events) - 3))
