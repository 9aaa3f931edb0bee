"""The scripts against the machine: the same commands at the same times, and every outcome, state and event compared.

Three ways in: one command after the other, batches, and concurrent calls; on a Valkey, on a Redis, and without a server
(``quota_engine.fuzz.lua_server``), where a seed takes milliseconds. A failure is cut down to as few commands as it
takes, and printed as a test that replays them without a server.

A default run takes about 4,000 commands on servers and as many without. For a long campaign say how many seeds each
test is to take, and cut Hypothesis loose::

    QUOTA_ENGINE_SEEDS=20000 HYPOTHESIS_PROFILE=long python -m pytest -n 2 tests/stores/redis/test_differential.py
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import Random
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from quota_engine.clocks import ManualClock
from quota_engine.conformance import world
from quota_engine.conformance.random_commands import random_commands
from quota_engine.domain.commands import (
    Cancel,
    Command,
    Confirm,
    Expire,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import DayTerms, IdentityLimit, QuotaTerms, Reallocation, ReRelease, ReReleaseRule, Rules
from quota_engine.domain.queries import lookup, view, wait_list_position
from quota_engine.domain.state_machine import apply_batch
from quota_engine.fuzz.keyspace import Refused
from quota_engine.fuzz.lua_server import HalfDone, LuaServer
from quota_engine.fuzz.lua_store import LuaStore
from quota_engine.ports import (
    ApplyMany,
    AsyncStore,
    Audit,
    Describe,
    Lookup,
    ReadEvents,
    ReadWaitListPosition,
    Store,
    StoreRequest,
    TrimEvents,
    View,
)
from quota_engine.stores.memory import MemoryStore
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.ledger_formats import office_script_of
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS, OFFICE_FREEING_COMMANDS, Script
from tests.support.command_source import Step, format_steps, shrink
from tests.support.effort import PROFILE, examples, seeds
from tests.support.random_walks import choice_of, walk
from tests.support.servers import Server

COMPARED_EVERY: Final = 8
"""Commands from one look at the whole state to the next; one that failed is found by cutting the steps down."""
EVENTS_MAX: Final = 1_000_000

# Leaving out commands cuts a failure down in a second; Hypothesis' own shrinking takes minutes.
_SHRUNK_BY_US = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    max_examples=examples(10, 20),
    suppress_health_check=[HealthCheck.function_scoped_fixture, *settings().suppress_health_check],
)

_offices = (f"office{number}" for number in count())
"""A new one for each walk, so that none needs an empty store."""


class SideBySide:
    """A backend and the machine, in an office that is new."""

    def __init__(self, backend: Store, clock: ManualClock) -> None:
        self.backend = backend
        self.clock = clock
        self.office = next(_offices)
        self.ledger = Ledger(self.office)
        self.steps: list[Step] = []

    def take(self, now_ms: int, *commands: Command) -> None:
        """Give the commands to both, by one call if it is one and as a batch if not, and compare the outcomes."""
        self.clock.set_ms(now_ms)
        self.steps += [(now_ms, command) for command in commands]
        expected = apply_batch(self.ledger, commands, now_ms)
        if len(commands) == 1:
            found = [self.backend.apply(self.office, commands[0])]
        else:
            found = self.backend.execute(ApplyMany(self.office, commands))
        for command, one, other in zip(commands, found, expected, strict=True):
            assert one == other, f"{command}\n is answered {one}\n  instead of {other}"

    def compare(self) -> None:
        """The whole state, and what is seen of it now or at the next moment at which time alone makes a difference."""
        found, expected = self.backend.execute(Describe(self.office)), describe(self.ledger)
        assert found == expected, differences(found, expected)
        now_ms = self.clock.now_ms()
        deadlines_ms = [one.deadline_at_ms for one in self.ledger.reservations.values() if one.deadline_at_ms > now_ms]
        moment_ms = now_ms if len(self.steps) % 2 else min(deadlines_ms, default=now_ms + 1)
        self.clock.set_ms(moment_ms)
        days = tuple(sorted(self.ledger.days))
        views = [one for day in days if (one := view(self.ledger, day, moment_ms)) is not None]
        assert self.backend.execute(View(self.office, days)) == views, f"views at {moment_ms}"
        for name in sorted(self.ledger.reservations)[-1:]:
            record = lookup(self.ledger, name, moment_ms)
            assert self.backend.execute(Lookup(self.office, name)) == record, f"lookup of {name} at {moment_ms}"
        waiting = [one.id for one in self.ledger.reservations.values() if one.state is State.WAITING][:3]
        for name in (*waiting, *sorted(self.ledger.reservations)[:1]):
            place = wait_list_position(self.ledger, name, moment_ms)
            assert self.backend.execute(ReadWaitListPosition(self.office, name)) == place, (
                f"{name} on the list at {moment_ms}"
            )
        self.clock.set_ms(now_ms)

    def finish(self) -> None:
        """The state once more, and the events: each of them, and what the audit has to say."""
        self.compare()
        recorded = self.backend.execute(ReadEvents(self.office, 0, EVENTS_MAX))
        assert [one.number for one in recorded] == list(range(1, len(self.ledger.events) + 1))
        for one, event in zip(recorded, self.ledger.events, strict=True):
            assert one.event == event, f"event {one.number} is {one.event}\n  instead of {event}"
        assert self.backend.execute(Audit(self.office)) == []


def differences(found: object, expected: object, where: str = "state") -> str:
    """Where two descriptions differ, a line each."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted({*found, *expected}, key=str)
        lines = [differences(found.get(key), expected.get(key), f"{where}[{key!r}]") for key in keys]
        return "\n".join(line for line in lines if line)
    return "" if found == expected else f"{where} is {found!r} instead of {expected!r}"


class Opened(NamedTuple):
    """A store and its clock."""

    backend: Store
    clock: ManualClock


def without_server() -> Opened:
    clock = ManualClock(0)
    return Opened(LuaStore(clock, LuaServer(scan_max=1)), clock)


def check_steps(steps: Sequence[Step], opened: Opened | None = None, compared_every: int = 1) -> None:
    """Take the steps in a new office of a backend (the scripts without a server, if none is given), and compare."""
    both = SideBySide(*(opened or without_server()))
    for number, (now_ms, command) in enumerate(steps, 1):
        both.take(now_ms, command)
        if number % compared_every == 0:
            both.compare()
    both.finish()


def check_batches(steps: Sequence[Step], sizes: Sequence[int], opened: Opened) -> None:
    """The same in batches of these sizes, over and over; the first step of a batch says what time it is."""
    both = SideBySide(*opened)
    start = number = 0
    while start < len(steps):
        size = sizes[number % len(sizes)]
        both.take(steps[start][0], *(command for _, command in steps[start : start + size]))
        start, number = start + size, number + 1
        both.compare()
    both.finish()


def complaint_about(check: Callable[[list[Step]], None], steps: list[Step]) -> str:
    """Return the first difference, or ``""``. An error of a script is a difference, too."""
    try:
        check(steps)
    except (AssertionError, Refused, HalfDone) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def insist(check: Callable[[list[Step]], None], steps: list[Step]) -> None:
    """Fail with as few steps as it takes, printed as a test."""
    if complaint_about(check, steps):
        fewest = shrink(steps, lambda fewer: bool(complaint_about(check, fewer)))
        pytest.fail(f"{complaint_about(check, fewest)}\n{format_steps(fewest)}")


def steps_of(seed: int) -> list[Step]:
    """A walk of the oracle's, or, one time in eight, as many commands of the conformance suite's."""
    if seed % 8 == 7:
        opening: list[Step] = [(world.OPENS_AT_MS - 3_600_000, command) for command in world.published()]
        return opening + list(random_commands(1000 + seed, 60))
    return walk(Random(seed))


def insist_on_steps(steps: list[Step], opened: Opened) -> None:
    insist(lambda some: check_steps(some, opened, COMPARED_EVERY), steps)


def insist_on_batches(steps: list[Step], seed: int, opened: Opened) -> None:
    sizes = Random(seed).choices((1, 2, 3, 7, 20, 60), k=5)
    insist(lambda some: check_batches(some, sizes, opened), steps)


# --- On servers ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def on_server(server: Server) -> Iterator[Opened]:
    """A backend on the server, which all walks of a test share."""
    clock = ManualClock(0)
    backend = open_store(server.url, clock)
    yield Opened(backend, clock)
    backend.close()


def test_walks_on_a_server(on_server: Opened) -> None:
    """Thousands of commands, one call each: outcomes, states, views, events and audits are the machine's."""
    for seed in seeds(15, 90):
        insist_on_steps(steps_of(seed), on_server)


def test_batches_on_a_server(on_server: Opened) -> None:
    """Commands of one batch have the same outcomes as the same commands sent one after the other at one time."""
    for seed in seeds(10, 60):
        insist_on_batches(steps_of(10_000_000 + seed), seed, on_server)


async def test_concurrent_calls_on_a_server(server: Server) -> None:
    """Concurrent calls share batches, and have the outcomes of some order of the two kinds of script.

    Release, cancel and expire use a separate script, which runs when memory is out. Between the two scripts the order
    is open; within each it is that of the calls.
    """
    clock = ManualClock(0)
    backend = await open_async_store(server.url, clock)
    try:
        for seed in seeds(10, 50):
            await _press(backend, clock, seed)
    finally:
        await backend.close()


async def _press(backend: AsyncStore, clock: ManualClock, seed: int) -> None:
    random, office = Random(seed), next(_offices)
    ledger, steps = Ledger(office), steps_of(20_000_000 + seed)
    size = 1  # the office's first command has to be answered before others are of use
    while steps:
        together, steps = steps[:size], steps[size:]
        now_ms, commands = together[0][0], [command for _, command in together]
        clock.set_ms(now_ms)
        found = await asyncio.gather(*(backend.apply(office, command) for command in commands))
        state = await backend.execute(Describe(office))
        # Two orders may have the same outcomes and the same state. The events show which order it was.
        news = [one.event for one in await backend.execute(ReadEvents(office, len(ledger.events), EVENTS_MAX))]
        rest = [at for at, command in enumerate(commands) if office_script_of(command) is not OFFICE_FREEING_COMMANDS]
        frees = [at for at, command in enumerate(commands) if office_script_of(command) is OFFICE_FREEING_COMMANDS]
        for order in (rest + frees, frees + rest):
            again = rebuild(office, ledger.events)
            expected = apply_batch(again, [commands[at] for at in order], now_ms)
            if again.events[len(ledger.events) :] == news and [found[at] for at in order] == expected:
                break
        else:
            pytest.fail(f"seed {seed}: no order of these comes to what was answered\n{format_steps(together)}")
        assert state == describe(again), differences(state, describe(again))
        ledger, size = again, random.choice((1, 5, 20, 60))
    assert await backend.execute(Audit(office)) == []


@_SHRUNK_BY_US
@given(random=st.randoms(use_true_random=False), steps_max=st.integers(1, 50))
def test_any_walk_on_a_server(valkey_process: Server, random: Random, steps_max: int) -> None:
    """Any walk that Hypothesis finds. It shrinks a failing one by dropping commands, and prints it as a test."""
    clock = ManualClock(0)
    backend = open_store(valkey_process.url, clock)
    try:
        insist_on_steps(walk(random, steps_max), Opened(backend, clock))
    finally:
        backend.close()


# --- Without a server ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_walks_without_a_server() -> None:
    """The same commands in milliseconds a seed: nothing undeclared is touched, and no script ends half done."""
    opened = without_server()
    for seed in seeds(25, 150):
        insist_on_steps(steps_of(30_000_000 + seed), opened)


@pytest.mark.slow
def test_batches_without_a_server() -> None:
    """Batches, too."""
    opened = without_server()
    for seed in seeds(25, 150):
        insist_on_batches(steps_of(40_000_000 + seed), seed, opened)


@pytest.mark.slow
@_SHRUNK_BY_US
@given(random=st.randoms(use_true_random=False), steps_max=st.integers(1, 50))
def test_any_walk_without_a_server(random: Random, steps_max: int) -> None:
    """Any walk that Hypothesis finds."""
    insist_on_steps(walk(random, steps_max), without_server())


def crowd(seed: int) -> list[Step]:
    """Hundreds of holds that run out together, and wait lists that are longer than one command looks at."""
    random = Random(seed)
    choices = [choice_of(("a",)), choice_of(("b",)), choice_of(("c",), ("a",)), choice_of(("a", "b"), ("b", "c"))]
    capacity = random.choice((30, 90))
    cooling = ReRelease(ReReleaseRule.COOLING, random.choice((0, 2)), random.choice((0, 9)))
    quotas = (
        QuotaTerms("a", capacity, random.choice((ReRelease(), cooling))),
        QuotaTerms("b", capacity, ReRelease(ReReleaseRule.WAIT_LIST)),
        QuotaTerms("c", capacity, random.choice((ReRelease(ReReleaseRule.WAIT_LIST), cooling))),
    )
    rules = Rules(hold_ttl_ms=20, offer_ttl_ms=5, identity_limits=(IdentityLimit(1, 0),), reschedules_max=9)
    opening: list[Command] = [SetRules(rules), *(Publish(day, DayTerms(0, 500, 600, 700, quotas)) for day in (1, 2))]
    ids = [f"r{number}" for number in range(6 * capacity)]

    def reserve(id: str) -> Command:  # noqa: A002  (the contract's own word)
        party = tuple(f"a{id}{member}" for member in range(random.choice((1, 1, 1, 2))))
        return Reserve(
            id, random.choice((1, 1, 1, 2)), party, random.choice(choices), join_wait_list=random.random() < 0.8
        )

    def later() -> Command:
        one = random.choice(ids)
        match random.randrange(10):
            case 0 | 1:
                return Confirm(one, reacquire=random.random() < 0.5)
            case 2:
                return Release(one)
            case 3:
                return Reschedule(one, random.choice((1, 2)), random.choice(choices))
            case 4:
                return SetCapacity(1, random.choice("abc"), random.choice((capacity, capacity // 2, 3)))
            case 5:
                return Expire(1, random.choice((1, 63, 64, 65, 1000)))
            case _:
                return reserve(f"s{random.randrange(999)}")

    steps = [(0, command) for command in opening]
    steps += [(number // 100, reserve(one)) for number, one in enumerate(ids)]
    steps += [(19 + number // 5, later()) for number in range(80)]
    return steps + [(700 + number, later()) for number in range(8)]  # the days are forgotten, and purged bit by bit


@pytest.mark.slow
def test_crowds_without_a_server() -> None:
    """The limits of one command (64 expiries, 64 offers) are the same on both sides, and so is the rest."""
    opened = without_server()
    for seed in seeds(2, 6):
        insist(lambda some: check_steps(some, opened, 60), crowd(seed))


def overbooked_crowd(holds: int) -> list[Step]:
    """A quota without capacity has more overdue holds than one reserve may reclaim."""
    terms = DayTerms(0, 500, 600, 700, (QuotaTerms("a", holds),))
    steps: list[Step] = [(0, SetRules(Rules(hold_ttl_ms=20))), (0, Publish(1, terms))]
    steps += [(0, Reserve(f"r{number}", 1, (f"a{number}",), choice_of(("a",)))) for number in range(holds)]
    steps += [(1, SetCapacity(1, "a", 1))]
    return steps + [(20, Reserve(f"late{number}", 1, (f"b{number}",), choice_of(("a",)))) for number in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("holds", [1064, 1065] if PROFILE == "gate" else [1063, 1064, 1065, 1066])
def test_search_for_units_has_the_same_limit(holds: int) -> None:
    """64 holds that every command expires and 1,000 more that a reserve may: both sides stop at the same one."""
    insist(lambda some: check_steps(some, without_server(), len(some)), overbooked_crowd(holds))


def test_units_returned_by_operators_go_to_the_wait_list() -> None:
    """Units returned for the draw, or reallocated on request, are offered in the same step. Random walks seldom do
    that.
    """
    quotas = (
        QuotaTerms("draw", 1, ReRelease(ReReleaseRule.NEXT_DRAW)),
        QuotaTerms("fast", 1, reallocation=Reallocation("online", 400)),
        QuotaTerms("online", 0),
        QuotaTerms("priority", 0, ReRelease(ReReleaseRule.WAIT_LIST)),
    )
    draw, online = choice_of(("draw",), ("priority",)), choice_of(("online",), ("priority",))
    commands: list[Command] = [
        Publish(1, DayTerms(0, 500, 600, 700, quotas)),
        Reserve("first", 1, ("a",), draw),
        Confirm("first"),
        Reserve("second", 1, ("b",), draw, join_wait_list=True),
        Reserve("third", 1, ("c",), online, join_wait_list=True),
        Cancel("first"),
        ReleaseParked(1, "draw"),
        ReallocateUnused(1, "fast"),
        Confirm("second"),
        Confirm("third"),
    ]
    both = SideBySide(*without_server())
    for command in commands:
        both.take(5, command)
        both.compare()
    both.finish()
    assert [both.ledger.reservations[key].state for key in ("second", "third")] == [State.CONFIRMED] * 2


def test_new_rules_apply_within_their_batch() -> None:
    """The script keeps the deadline of a hold for the next reserve of the same call, until the rules change."""
    quotas = (QuotaTerms("online", 2),)
    both = SideBySide(*without_server())
    both.take(0, SetRules(Rules(hold_ttl_ms=100)), Publish(1, DayTerms(0, 500, 600, 700, quotas)))
    both.take(
        1,
        Reserve("first", 1, ("a",), choice_of(("online",))),
        SetRules(Rules(hold_ttl_ms=7)),
        Reserve("second", 1, ("b",), choice_of(("online",))),
    )
    both.finish()
    assert [both.ledger.reservations[key].deadline_at_ms for key in ("first", "second")] == [101, 8]


def test_wait_list_is_served_at_a_later_opening() -> None:
    """A day that is published again with a later opening serves no applicant before it; the first command after it
    does.
    """
    priority = choice_of(("priority",))
    quotas = (QuotaTerms("priority", 1, ReRelease(ReReleaseRule.WAIT_LIST)),)
    steps: list[Step] = [
        (0, Publish(1, DayTerms(0, 500, 600, 700, quotas))),
        (0, Reserve("first", 1, ("a",), priority)),
        (0, Reserve("second", 1, ("b",), priority, join_wait_list=True)),
        (1, Publish(1, DayTerms(50, 500, 600, 700, quotas))),
        (2, Release("first")),
        (49, Confirm("second")),
        (50, Confirm("second")),
    ]
    both = SideBySide(*without_server())
    for now_ms, command in steps:
        both.take(now_ms, command)
        both.compare()
    both.finish()
    assert both.ledger.reservations["second"].state is State.CONFIRMED


@pytest.mark.slow
def test_cancellations_are_remembered_up_to_the_limit() -> None:
    """One more than the highest limit is remembered, and the oldest is dropped then, on both sides."""
    day = DayTerms(0, 500, 600, 700, (QuotaTerms("a", 1),))
    commands: list[Command] = [SetRules(Rules(cancellations_max=100, cancellations_block_ms=9)), Publish(1, day)]
    for one in range(104):
        commands += [Reserve(f"r{one}", 1, ("a",), choice_of(("a",))), Confirm(f"r{one}"), Cancel(f"r{one}")]
    check_steps([(10 * number, command) for number, command in enumerate(commands)][:302], compared_every=100)
    check_steps([(number // 100, command) for number, command in enumerate(commands)], compared_every=100)


@pytest.mark.slow
def test_abandoned_holds_are_remembered_up_to_the_limit() -> None:
    """The same of holds that end without a confirm."""
    day = DayTerms(0, 5000, 6000, 7000, (QuotaTerms("a", 1),))
    rules = Rules(hold_ttl_ms=3, abandoned_holds_max=100, abandoned_holds_block_ms=9)
    commands: list[Command] = [SetRules(rules), Publish(1, day)]
    for one in range(104):
        commands += [Reserve(f"r{one}", 1, ("a",), choice_of(("a",))), Release(f"r{one}")]
    check_steps([(2 * number, command) for number, command in enumerate(commands)][:206], compared_every=100)
    check_steps([(number // 100, command) for number, command in enumerate(commands)], compared_every=100)


# --- What the scripts leave, and what the store without a server is worth --------------------------------------------


def test_all_keys_exist_and_expire(valkey_server: Server) -> None:
    """From an office's first day on all of its keys exist, each with a TTL, after any command."""
    clock = ManualClock(0)
    backend = open_store(valkey_server.url, clock)
    for seed in seeds(3, 8):
        both = SideBySide(backend, clock)
        keys = keys_of("", both.office)
        published = False
        for step, (now_ms, command) in enumerate(steps_of(50_000_000 + seed)):
            both.take(now_ms, command)
            published = published or isinstance(command, Publish)
            for key in keys if published and step % 4 == 0 else ():
                assert valkey_server.ask("PTTL", key) > 0, f"{key} after {command}"
        both.finish()
    backend.close()


def spoiled(line: str, random: Random) -> str:
    """A line with an error: a field that is missing, doubled or misplaced, or a character that is not allowed."""
    fields = line.split("\t")
    # A day to publish is opaque to the check: two fields that the client makes of terms that have checked themselves.
    at = random.randrange(2 if fields[0] == "publish" else len(fields))
    match random.randrange(6):
        case 0:
            del fields[at]
        case 1:
            fields.insert(at, fields[at])
        case 2:
            fields[at] = random.choice(
                ("", "-1", "nan", "1e3", "0x1f", "9" * 15, "9" * 16, "~", "é", "a b", " 1", "1.5", "inf")
            )
        case 3:
            fields[at], fields[0] = fields[0], fields[at]
        case 4:
            fields[at] += random.choice("\t\n,|/:~{}\x01\x02\x00")
        case _:
            fields[at] = fields[at][: len(fields[at]) // 2]
    return "\t".join(fields)


@pytest.mark.slow
def test_no_line_leaves_a_command_half_applied() -> None:
    """Any call is refused before the first write, or applied completely."""
    refused = 0
    for seed in seeds(30, 60):
        random, store, keys = Random(seed), LuaServer(), keys_of("", "office")
        for now_ms, command in walk(Random(seed), 30):
            good, bad = encode(command), spoiled(encode(command), random)
            with contextlib.suppress(Refused):
                store.run(OFFICE_COMMANDS, keys, [str(now_ms), good, bad, good])
                refused -= 1
            refused += 1
            assert len(store.run(OFFICE_COMMANDS, keys, [str(now_ms), good])) == 1
    assert refused > 30


@pytest.mark.slow
def test_forgotten_days_leave_nothing() -> None:
    """When all days have been forgotten, and their records purged, no key has more than it had before them."""
    for seed in seeds(20, 40):
        clock, store = ManualClock(0), LuaServer(scan_max=1)
        both = SideBySide(LuaStore(clock, store), clock)
        for now_ms, command in walk(Random(60_000_000 + seed)):
            both.take(now_ms, command)
        for _ in range(80):
            both.take(10_000, Confirm("nobody"))
        both.finish()
        keys = dict(zip(OFFICE_KEY_NAMES, keys_of("", both.office), strict=True))
        for kind in ("days", "records", "claims", "due", "cooling", "waiting"):
            assert [one.strip("~") for one in store.members(keys[kind])] == [""], f"seed {seed}: {kind}"


@pytest.mark.parametrize(
    "request_",
    [
        ReadEvents(world.OFFICE, 0, 0),
        ReadEvents(world.OFFICE, -5, 2),
        ReadEvents(world.OFFICE, 2**70, 2),
        TrimEvents(world.OFFICE, -2),
    ],
    ids=["no-events", "from-before-the-first", "from-far-ahead", "trim-nothing"],
)
def test_odd_requests_are_answered_as_in_memory(on_server: Opened, request_: StoreRequest[object]) -> None:
    """Numbers that no event has are no error."""
    memory = MemoryStore(ManualClock(0))
    answers = []
    for backend in (on_server.backend, memory):
        backend.execute(ApplyMany(world.OFFICE, world.published()))
        answers.append(backend.execute(request_))
    assert answers[0] == answers[1]


def test_server_time_is_the_default() -> None:
    """Without a clock a command happens at the store's own time, in milliseconds."""
    store = LuaServer()
    backend = LuaStore(None, store)
    store.time_ms = world.OPENS_AT_MS
    backend.execute(ApplyMany(world.OFFICE, world.published()))
    store.time_ms += 1234
    outcome = backend.apply(world.OFFICE, world.reserve("ani", world.ONLINE))
    assert outcome.deadline_at_ms == store.time_ms + world.HOLD_TTL_MS


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return redis.call('GET', KEYS[1])", "GET is not among"),
        ("return redis.call('HGET', 'other', 'x')", "not declared"),
        ("return redis.call('HSET', KEYS[1], 'x', 'y')", "only looks"),
        ("return redis.call('HGET', KEYS[1], nil)", "NoneType"),
        ("return redis.call('HGET', KEYS[1], false)", "bool"),
        ("x = 1", "global variable"),
        ("return x", "global variable"),
        ("return os.time()", "global variable"),
        ("return redis.pcall('TIME')", "pcall"),
    ],
)
def test_lua_store_is_strict(body: str, problem: str) -> None:
    """Errors that a script must not make are reported here, even if a server ignores them."""
    with pytest.raises(Refused, match=problem):
        LuaServer().run(Script(f"#!lua flags=no-writes\n{body}", body), ("key",), ())


def test_error_after_a_write_is_reported() -> None:
    """The worst that a script can do: part of a command stays."""
    body = "redis.call('HSET', KEYS[1], 'x', 'y') redis.call('ZADD', KEYS[1], 0, 'x')"
    with pytest.raises(HalfDone, match="WRONGTYPE"):
        LuaServer().run(Script(f"#!lua flags=\n{body}", body), ("key",), ())
