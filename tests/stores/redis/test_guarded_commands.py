"""Buckets and guarded commands, in Lua against Python: the same commands at the same times, and all that is left.

On a Valkey, on a Redis, and without a server, as ``test_differential`` does it for the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import Random
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from quota_engine.admission import token_bucket
from quota_engine.admission.guarded_command import (
    AdmissionPass,
    EnteringCommand,
    GuardedCommand,
    GuardedLedger,
    apply,
    describe_admission,
)
from quota_engine.admission.token_bucket import (
    Buckets,
    Charge,
    Limit,
    PeekTokens,
    ResetTokens,
    SlidingWindow,
    TakeOutcome,
    TakeTokens,
    at_most,
    per_day,
    per_minute,
    per_second,
)
from quota_engine.clocks import ManualClock
from quota_engine.conformance import world
from quota_engine.domain.commands import Confirm, MoveIn, Release, Reschedule, Reserve
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.ledger import describe
from quota_engine.domain.outcomes import Status
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import ApplyMany, Describe, Query, Store
from quota_engine.stores.redis.codecs import buckets as bucket_codec
from quota_engine.stores.redis.codecs.buckets import buckets_of_state, text_of_guards
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import BUCKET_KEY_NAMES, keys_of
from quota_engine.stores.redis.scripts import BUCKET_COMMANDS, OFFICE_GUARDED_COMMANDS, Script
from tests.support.effort import examples, seeds
from tests.support.random_walks import walk
from tests.support.servers import Server

START_MS: Final = 1_700_000_000_000
_places = (f"place{number}" for number in count())
LIMITS: Final = (
    per_day(1),
    per_day(7, 3),
    per_minute(90, 2),
    per_second(7, 5),
    per_second(1000, 1),
    per_second(1_000_000, 3000),
    per_second(999_983, 40),
    Limit(3, 7, 4),
    Limit(999_999_937, 4_503_599, 1_000_000_000),
    at_most(3, per_second),
    at_most(100, per_minute),
)


class Opened(NamedTuple):
    backend: Store
    clock: ManualClock
    gate_of: Callable[[str], dict[str, Any]]
    """Return the stored buckets and used passes of an office."""


@pytest.fixture
def without_server() -> Opened:
    clock, store = ManualClock(0), LuaServer()

    def gate_of(office: str) -> dict[str, Any]:
        gate, ticks = keys_of("", office)[-2:]
        return token_bucket.describe(
            buckets_of_state(office, [store._do_zrange(gate, "0", "-1", "WITHSCORES"), store._hash(ticks)])
        )

    return Opened(LuaStore(clock, store), clock, gate_of)


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def on_server(server: Server) -> Iterator[Opened]:
    clock, client = ManualClock(0), server.client()

    def gate_of(office: str) -> dict[str, Any]:
        gate, ticks = keys_of("", office)[-2:]
        scored = [text for pair in client.zrange(gate, 0, -1, withscores=True) for text in pair]
        return token_bucket.describe(buckets_of_state(office, [scored, client.hgetall(ticks)]))

    backend = open_store(server.url, clock)
    yield Opened(backend, clock, gate_of)
    backend.close()
    client.close()


# --- Buckets in a separate ledger ------------------------------------------------------------------------------------


def bucket_commands(random: Random, steps: int) -> Iterator[tuple[int, TakeTokens | PeekTokens | ResetTokens]]:
    """Few buckets and many charges, at moments that matter: short of a refill, right at it, and far away."""
    now_ms, limits = START_MS, random.sample(LIMITS, 3)
    for _ in range(steps):
        now_ms += random.choice(
            (0, 0, 0, 1, 1, 7, random.randrange(2000), -random.randrange(3000), limits[0].refill_ms)
        )
        keys = random.sample(range(4), random.choice((1, 1, 2, 3)))
        # A bucket's limit sometimes changes, as an operator might change it.
        chosen = [limits[key % 3] if random.random() < 0.95 else random.choice(LIMITS) for key in keys]
        charges = tuple(
            Charge(f"k{key}", limit, random.choice((1, 1, limit.burst, random.randint(1, limit.burst))))
            for key, limit in zip(keys, chosen, strict=True)
        )
        kind = random.random()
        if kind < 0.75:
            yield now_ms, TakeTokens(charges, random.random() < 0.5)
        elif kind < 0.95:
            yield now_ms, PeekTokens(charges)
        else:
            yield now_ms, ResetTokens(tuple(charge.name for charge in charges))


def check_buckets(opened: Opened, random: Random, steps: int) -> None:
    place, buckets = f"~buckets.{next(_places)}", Buckets()
    for now_ms, command in bucket_commands(random, steps):
        opened.clock.set_ms(now_ms)
        found: Any
        expected: Any
        if isinstance(command, PeekTokens):
            found = opened.backend.execute(Query(place, command))
            expected = token_bucket.answer_query(buckets, command, now_ms)
        else:
            found = opened.backend.apply(place, command)
            expected = token_bucket.apply(buckets, command, now_ms)
        assert found == expected, (now_ms, command)
        assert opened.backend.execute(Describe(place)) == token_bucket.describe(buckets), (now_ms, command)


@pytest.mark.slow
@settings(max_examples=examples(20, 150))
@given(random=st.randoms(use_true_random=False), steps=st.integers(1, 40))
def test_buckets_without_a_server(random: Random, steps: int) -> None:
    """Rates from one a day to a million a second: Lua answers as Python does, and leaves the same."""
    clock = ManualClock(0)
    check_buckets(Opened(LuaStore(clock, LuaServer()), clock, lambda _: {}), random, steps)


def test_buckets_on_a_server(on_server: Opened) -> None:
    """The same where it counts."""
    for seed in seeds(8, 25):
        check_buckets(on_server, Random(seed), 60)


async def test_concurrent_takes_share_a_call(server: Server) -> None:
    """Concurrent takers have the same outcomes as takers one after the other. No bucket gives more than it has."""
    clock = ManualClock(START_MS)
    backend = await open_async_store(server.url, clock)
    random, buckets = Random(1), Buckets()
    try:
        for _ in range(10):
            commands = [command for _, command in bucket_commands(random, 200) if isinstance(command, TakeTokens)]
            found = await asyncio.gather(*(backend.apply("~buckets.shared", command) for command in commands))
            assert found == [token_bucket.apply(buckets, command, clock.now_ms()) for command in commands]
            clock.advance_ms(random.choice((1, 100, 86_400_000)))
        assert await backend.execute(Describe("~buckets.shared")) == token_bucket.describe(buckets)
    finally:
        await backend.close()


def test_bucket_full_exactly_at_a_millisecond(without_server: Opened) -> None:
    """It is so although it was to be full a little earlier in that millisecond before more was taken."""
    limit, place = per_second(1_000_000, burst=3000), "~buckets.x"
    without_server.clock.set_ms(START_MS)
    for cost, left in ((1, 2999), (999, 2000)):
        assert without_server.backend.apply(place, TakeTokens((Charge("k", limit, cost),))).taken
        (level,) = without_server.backend.execute(Query(place, PeekTokens((Charge("k", limit),))))
        assert (level.available, level.full_at_ms) == (left, START_MS + 1)


async def test_ten_concurrent_takes_are_ten_on_a_server(server: Server) -> None:
    """A peer's accident: 100 a second with a burst of 10, called 40 times at once, let 40 through on its store."""
    clock = ManualClock(START_MS)
    backend = await open_async_store(server.url, clock)
    try:
        take = TakeTokens((Charge("k", per_second(100, burst=10)),))
        for expected, wait_ms in ((10, 9), (0, 1), (1, 0)):
            answers = await asyncio.gather(*(backend.apply("~buckets.peer", take) for _ in range(40)))
            assert sum(answer.taken for answer in answers) == expected
            clock.advance_ms(wait_ms)
    finally:
        await backend.close()


def test_refusal_leaves_nothing_on_a_server(on_server: Opened, server: Server) -> None:
    """A refused caller costs the store no memory. Full buckets are deleted as others come, and the keys expire."""
    place, limit = "~buckets.small", per_minute(1)
    keys = keys_of("", place, BUCKET_KEY_NAMES)
    on_server.clock.set_ms(START_MS)
    on_server.backend.apply(place, TakeTokens((Charge("busy", limit),)))
    before = [server.ask("MEMORY", "USAGE", key) for key in keys]
    for one in range(50):
        charges = (Charge("busy", limit), Charge(f"new{one}", limit))
        assert not on_server.backend.apply(place, TakeTokens(charges)).taken
    assert [server.ask("MEMORY", "USAGE", key) for key in keys] == before
    for one in range(300):
        on_server.clock.advance_ms(1000)
        on_server.backend.apply(place, TakeTokens((Charge(f"k{one}", limit),)))
    assert server.ask("ZCARD", keys[0]) == 61
    for key in keys:
        assert 0 < server.ask("PTTL", key) <= 2 * 86_400_000


@pytest.mark.slow
def test_new_bucket_over_the_limit_waits() -> None:
    """At the limit of buckets, a new one waits for the first that will be full: in Lua as in Python."""
    small = BUCKET_COMMANDS.text.replace("local BUCKETS_MAX = 1000000\n", "local BUCKETS_MAX = 5\n")
    assert small != BUCKET_COMMANDS.text
    script, keys = Script(small, "small"), ("gate", "ticks")
    for seed in range(60):
        random, store, buckets, now_ms = Random(seed), LuaServer(), Buckets(buckets_max=5), START_MS
        for _ in range(80):
            now_ms += random.choice((0, 1, 50, 400, -300))
            names = random.sample("abcdefghi", random.choice((1, 2, 3)))
            charges = tuple(
                Charge(name, random.choice((per_second(1), per_second(3, 2), Limit(5, 7, 9)))) for name in names
            )
            (line,) = store.run(script, keys, [str(now_ms), bucket_codec.encode(TakeTokens(charges))])
            taking = buckets.take(charges, now_ms)
            assert line == f"{taking.refused_by}\t{taking.retry_at_ms}", (seed, now_ms, charges)
            state = [store._do_zrange("gate", "0", "-1", "WITHSCORES"), dict(store._hash("ticks"))]
            assert token_bucket.describe(buckets_of_state("", state)) == token_bucket.describe(buckets)


@pytest.mark.parametrize(
    "text",
    [
        "take\t",
        "take\tk:1:1:1:1",
        "take\tk:0:1:1:1:0",
        "take\tk:1:0:1:1:0",
        "take\tk:1:1:1:0:0",
        "take\tk:1:1:1:2:0",
        "take\tk:1:1:1:nan:0",
        "take\tk:-1:1:1:1:0",
        "take\tk:1:9999999999:9999999999:1:0",
        "take\tk:1:1:1:1:4",
        "take\tk:101:1:0:1:0",
        "take\tk:2:1:0:3:0",
        "take\t~:1:1:1:1:0",
        "take\t/p:1:1:1:1:0",
        "take\tk k:1:1:1:1:0",
        "reset\t~",
        "drop\tk",
        "take",
        "",
    ],
)
def test_ill_formed_lines_are_refused_whole(text: str) -> None:
    """A call with any ill-formed command is refused before the first write."""
    store, good = LuaServer(), bucket_codec.encode(TakeTokens((Charge("k", per_second(1)),)))
    with pytest.raises(Refused, match="ILLFORMED"):
        store.run(BUCKET_COMMANDS, ("gate", "ticks"), [str(START_MS), good, text, good])
    assert not store.keys()


def test_malformed_commands_are_refused(on_server: Opened) -> None:
    """They never get as far as the store, so they spoil no call that others share."""
    for command in (TakeTokens(()), TakeTokens((Charge("a b", per_second(1)),)), ResetTokens(()), ResetTokens(("~",))):
        with pytest.raises(InvalidRequest):
            on_server.backend.apply("~buckets.x", command)


def test_memory_store_keeps_buckets_by_address() -> None:
    """The memory backend keeps them as any ledger."""
    from quota_engine.stores.memory import MemoryStore

    backend = MemoryStore(ManualClock(START_MS))
    take = TakeTokens((Charge("k", per_second(1)),))
    assert backend.apply("~buckets.x", take) == TakeOutcome()
    assert backend.apply("~buckets.x", take) == TakeOutcome(0, START_MS + 1000)
    assert backend.execute(Query("~buckets.x", PeekTokens(take.charges)))[0].available == 0
    with pytest.raises(InvalidRequest):
        backend.apply("~buckets.x", TakeTokens(()))


# --- Guarded commands -----------------------------------------------------------------------------------------------

GUARD_LIMITS: Final = (Limit(1, 20, 2), Limit(7, 10, 3), Limit(3, 50, 1), Limit(1, 1, 4), SlidingWindow(2, 30, 2))


def guard(random: Random, command: EnteringCommand, now_ms: int) -> GuardedCommand:
    """Charges on few buckets, some in shadow, and sometimes one of few passes."""
    if isinstance(command, Reserve | Confirm) and random.random() < 0.1:
        command = replace(command, valid_until_ms=max(1, now_ms + random.choice((-20, -1, 0, 1))))
    applicants = command.applicants if isinstance(command, Reserve | MoveIn) else ()
    names = random.sample(("account", "network", "device", *applicants), random.choice((0, 1, 1, 2)))
    charges = tuple(
        Charge(name, limit, random.randint(1, limit.burst), random.random() < 0.25, random.random() < 0.25)
        for name in names
        for limit in (random.choice(GUARD_LIMITS),)
    )
    pass_id = random.choice(("", "", f"p{random.randrange(6)}"))
    until_ms = max(0, now_ms + random.choice((-1, 0, 1, 20, 60)))
    return GuardedCommand(
        command, charges, AdmissionPass(pass_id, until_ms, random.random() < 0.25) if pass_id else None
    )


def guarded_steps(seed: int) -> list[tuple[int, Any]]:
    random = Random(seed)
    return [
        (
            now_ms,
            guard(random, command, now_ms)
            if isinstance(command, EnteringCommand) and random.random() < 0.8
            else command,
        )
        for now_ms, command in walk(Random(seed))
    ]


def check_guarded(opened: Opened, steps: Sequence[tuple[int, Any]], batch: Random | None = None) -> list[Any]:
    office = next(_places)
    ledger, found_all = GuardedLedger(office), []
    start = 0
    while start < len(steps):
        size = batch.choice((1, 2, 5, 20)) if batch else 1
        now_ms, commands = steps[start][0], [command for _, command in steps[start : start + size]]
        start += size
        opened.clock.set_ms(now_ms)
        if len(commands) == 1:
            found = [opened.backend.apply(office, commands[0])]
        else:
            found = opened.backend.execute(ApplyMany(office, tuple(commands)))
        for command, one in zip(commands, found, strict=True):
            expected = apply(ledger, command, now_ms)
            assert one == expected, f"{now_ms} {command}\n is answered {one}\n  instead of {expected}"
        assert opened.backend.execute(Describe(office)) == describe(ledger)
        if ledger.days:
            assert opened.gate_of(office) == describe_admission(ledger), (now_ms, commands)
        found_all += found
    return found_all


@pytest.mark.slow
def test_guarded_commands_without_a_server(without_server: Opened) -> None:
    """Outcome, ledger and buckets are the same in Lua as in Python, for any passes and charges."""
    statuses, refused = set(), set()
    # Seed 57 enters by a room again.
    shadows, chosen = 0, sorted({*seeds(30, 250), 57})
    for seed in chosen:
        steps = guarded_steps(seed)
        for (_, command), answer in zip(steps, check_guarded(without_server, steps), strict=True):
            if isinstance(command, GuardedCommand) and answer.outcome.status is Status.NOT_ADMITTED:
                refused.add(type(command.command))
            outcome = getattr(answer, "outcome", answer)
            statuses.add((outcome.status, outcome.replayed, outcome.resumed))
            shadows += bool(getattr(answer, "shadow_refusals", ()))
    for wanted in (
        Status.NOT_ADMITTED,
        Status.THROTTLED,
        Status.COMMAND_EXPIRED,
        Status.HELD,
        Status.WAITING,
        Status.SOLD_OUT,
    ):
        assert (wanted, False, False) in statuses, wanted
    assert (Status.HELD, True, False) in statuses
    assert (Status.HELD, False, True) in statuses
    assert refused == {Reserve, Reschedule, Confirm, MoveIn}
    assert shadows > 2 * len(chosen) // 5


@pytest.mark.slow
def test_batches_of_guarded_commands_without_a_server(without_server: Opened) -> None:
    """Together with other commands in one call they have the same outcomes as one after the other."""
    for seed in seeds(15, 150):
        check_guarded(without_server, guarded_steps(1000 + seed), Random(seed))


def test_guarded_commands_on_a_server(on_server: Opened) -> None:
    """The same on a server, one by one and in batches."""
    for seed in seeds(6, 30):
        check_guarded(on_server, guarded_steps(2000 + seed), Random(seed) if seed % 2 else None)


@pytest.mark.parametrize("together", [False, True])
def test_sold_out_cache_learns_from_guarded_commands(server: Server, together: bool) -> None:
    """A client that refuses from its cache never refuses an applicant with a hold."""
    clock = ManualClock(world.OPENS_AT_MS)
    backend = open_store(f"{server.url}?sold_out_ms=60000", clock)
    try:
        backend.execute(ApplyMany("office", world.published()))
        assert backend.apply("office", world.reserve("stranger", world.choice(("draw",)))).ok
        assert backend.apply("office", world.reserve("loser", world.choice(("draw",)))).status is Status.SOLD_OUT
        first: Any = GuardedCommand(world.reserve("ani", world.ONLINE), (Charge("k", per_minute(7)),))
        answer: Any = backend.execute(ApplyMany("office", (first,)))[0] if together else backend.apply("office", first)
        assert answer.outcome.status is Status.HELD
        assert backend.apply("office", world.reserve("budi", world.ONLINE)).status is Status.HELD
        assert backend.apply("office", world.reserve("citra", world.ONLINE)).status is Status.SOLD_OUT
        for _ in range(3):
            again = backend.apply("office", world.reserve("another-key", world.ONLINE, "ani"))
            assert (again.status, again.resumed) == (Status.HELD, True)
            assert backend.apply("office", world.reserve("dewi", world.ONLINE)).status is Status.SOLD_OUT
            late = GuardedCommand(world.reserve("eka", world.ONLINE), (Charge("k", per_minute(7)),))
            assert backend.apply("office", late).outcome.status is Status.SOLD_OUT
    finally:
        backend.close()


def test_unpublished_office_stores_nothing(without_server: Opened) -> None:
    """A guarded command for an office that was never published is answered, and writes nothing."""
    command = GuardedCommand(
        world.reserve("ani", world.ONLINE), (Charge("k", per_second(1)),), AdmissionPass("p", START_MS + 1000)
    )
    without_server.clock.set_ms(START_MS)
    for _ in range(3):
        answer = without_server.backend.apply("nowhere", command)
        assert answer.outcome.status is Status.UNKNOWN_DAY
    assert isinstance(without_server.backend, LuaStore)
    assert without_server.backend.store.keys() == frozenset()


@pytest.mark.parametrize(
    "guards",
    [
        "guarded\t\t0\t0\t\tguarded\t\t0\t0\t\t",
        "guarded\t\t0\t0\tk\t",
        "guarded\tp\t1e3\t0\t\t",
        "guarded\tp p\t1\t0\t\t",
        "guarded\tp\t1\t2\t\t",
    ],
)
def test_ill_formed_guards_are_refused_whole(guards: str) -> None:
    """A line with an error in its guards is refused before the first write."""
    store, line = LuaServer(), encode(world.reserve("ani", world.ONLINE))
    with pytest.raises(Refused, match="ILLFORMED"):
        store.run(OFFICE_GUARDED_COMMANDS, keys_of("", "office"), ["0", guards + line])
    assert not store.keys()
    unguarded = "guarded\t\t0\t0\t\t" + encode(Release("ani"))
    with pytest.raises(Refused, match="ILLFORMED"):
        store.run(OFFICE_GUARDED_COMMANDS, keys_of("", "office"), ["0", unguarded])
    good = text_of_guards(GuardedCommand(world.reserve("ani", world.ONLINE))) + line
    assert store.run(OFFICE_GUARDED_COMMANDS, keys_of("", "office"), ["0", good])[0].startswith("G\t-1\t\tUNKNOWN_DAY")
