"""The conformance suite. The reference is the pure machine, run beside the store with the same commands at the same
times.
"""

from __future__ import annotations

import threading
from random import Random
from typing import Any

import pytest

from quota_engine.admission.guarded_reserve import AdmissionPass, GuardedLedger, GuardedOutcome, GuardedReserve
from quota_engine.admission.guarded_reserve import apply as apply_guarded
from quota_engine.admission.token_bucket import (
    Buckets,
    Charge,
    Limit,
    PeekTokens,
    ResetTokens,
    TakeTokens,
    per_day,
    per_minute,
    per_second,
)
from quota_engine.admission.token_bucket import describe as describe_buckets
from quota_engine.clocks import ManualClock
from quota_engine.conformance import random_draws, random_rooms
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.random_registry import registry_questions, registry_walk
from quota_engine.conformance.scenarios import SCENARIOS, Scenario
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    published,
    reserve,
)
from quota_engine.domain import consumer_groups, cross_office_registry
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command, Confirm, Release, Reserve, SetCapacity
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroup
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.ledger import Ledger, describe, rebuild
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome, Status, WaitListPosition
from quota_engine.domain.queries import hold_remaining_histogram, list_day, lookup, view, wait_list_position
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.domain.state_machine import apply
from quota_engine.draws import ledger
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    Store,
    TrimEvents,
    View,
)
from quota_engine.waiting_room.machine import RoomState, ViewRoom
from quota_engine.waiting_room.machine import answer_query as answer_room_query
from quota_engine.waiting_room.machine import apply as apply_to_room
from quota_engine.waiting_room.machine import describe as describe_room

DAYS = (DAY, NEXT_DAY)
EVENTS_MAX = 100_000
HISTOGRAM_BOUNDS_MS = ((), (0, 60_000, HOLD_TTL_MS))
"""Bounds for counting holds by what they have left."""


class ReferenceComparison:
    """A store and the reference, given the same commands at the same times, and compared after each."""

    def __init__(self, backend: Store, clock: ManualClock) -> None:
        self.backend = backend
        self.clock = clock
        self.reference = Ledger(OFFICE)

    def send(self, now_ms: int, command: Command) -> Outcome:
        self.clock.set_ms(now_ms)
        expected = apply(self.reference, command, now_ms)
        outcome: Outcome = self.backend.apply(OFFICE, command)
        assert outcome == expected, command
        return outcome

    def compare(self) -> None:
        now_ms = self.clock.now_ms()
        assert self.backend.execute(Describe(OFFICE)) == describe(self.reference)
        expected = [one for day in DAYS if (one := view(self.reference, day, now_ms)) is not None]
        assert self.backend.execute(View(OFFICE, DAYS)) == expected
        waiting = [one.id for one in self.reference.reservations.values() if one.state is State.WAITING]
        for name in (*waiting[:5], *sorted(self.reference.reservations)[:1]):
            place = wait_list_position(self.reference, name, now_ms)
            assert self.backend.execute(ReadWaitListPosition(OFFICE, name)) == place

    def compare_events(self) -> None:
        recorded = self.backend.execute(ReadEvents(OFFICE, 0, EVENTS_MAX))
        assert [one.number for one in recorded] == list(range(1, len(recorded) + 1))
        assert [one.event for one in recorded] == self.reference.events
        assert self.backend.execute(Audit(OFFICE)) == []
        for day in DAYS:
            assert self.backend.execute(ListDay(OFFICE, day)) == list_day(self.reference, day, self.clock.now_ms())
            for bounds_ms in HISTOGRAM_BOUNDS_MS:
                expected = hold_remaining_histogram(self.reference, day, bounds_ms, self.clock.now_ms())
                assert self.backend.execute(ReadHoldRemainingHistogram(OFFICE, day, bounds_ms)) == expected


def start_comparison(open_store: OpenStore, setup: tuple[Command, ...] = published()) -> ReferenceComparison:
    clock = ManualClock(OPENS_AT_MS - 3_600_000)
    both = ReferenceComparison(open_store(clock), clock)
    for command in setup:
        both.send(clock.now_ms(), command)
    return both


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_scenario(quota_engine_backend: OpenStore, scenario: Scenario) -> None:
    """Every step of the scenario comes to its status, and leaves the same outcome and state as the reference."""
    both = start_comparison(quota_engine_backend, scenario.setup)
    for number, step in enumerate(scenario.steps):
        outcome = both.send(OPENS_AT_MS + step.at_ms, step.command)
        flags = [flag for flag in ("replayed", "resumed") if getattr(outcome, flag)]
        assert (outcome.status, flags) == (step.status, [step.flag] if step.flag else []), f"step {number}"
        both.compare()
    both.compare_events()


@pytest.mark.parametrize("seed", range(8))
def test_random_commands(quota_engine_backend: OpenStore, seed: int) -> None:
    """Hundreds of colliding commands: outcome and whole state equal the reference's after each."""
    both = start_comparison(quota_engine_backend)
    for now_ms, command in random_commands(seed, 400):
        both.send(now_ms, command)
        both.compare()
    both.compare_events()


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_is_what_one_by_one_would_be(quota_engine_backend: OpenStore, seed: int) -> None:
    """Commands sent together come to what they come to alone, whatever becomes of their neighbours."""
    both = start_comparison(quota_engine_backend)
    pairs = list(random_commands(100 + seed, 300))
    for start in range(0, len(pairs), 20):
        now_ms, commands = pairs[start][0], tuple(command for _, command in pairs[start : start + 20])
        both.clock.set_ms(now_ms)
        expected = [apply(both.reference, command, now_ms) for command in commands]
        assert both.backend.execute(ApplyMany(OFFICE, commands)) == expected
        both.compare()
    assert both.backend.execute(ApplyMany(OFFICE, ())) == []


@pytest.mark.parametrize("seed", range(8))
def test_draws(quota_engine_backend: OpenStore, seed: int) -> None:
    """A draw from its announcement until it is forgotten: answers, questions and whole state equal the reference's."""
    clock, place = ManualClock(0), ledger.address_of(random_draws.DRAW)
    backend, reference = quota_engine_backend(clock), ledger.DrawLedger(place)
    for now_ms, command in random_draws.walk(Random(seed)):
        clock.set_ms(now_ms)
        assert backend.apply(place, command) == ledger.apply(reference, command, now_ms), command
        assert backend.execute(Describe(place)) == ledger.describe(reference), command
    for question in random_draws.QUESTIONS:
        assert backend.execute(Query(place, question)) == ledger.answer_query(reference, question, clock.now_ms())


@pytest.mark.parametrize("seed", range(4))
def test_the_registry_is_kept_too(quota_engine_backend: OpenStore, seed: int) -> None:
    """Claims over all offices and moves between them: answers and whole state equal the reference's after each."""
    clock, rng = ManualClock(0), Random(seed)
    backend = quota_engine_backend(clock)
    place = cross_office_registry.shards()[seed]
    reference = cross_office_registry.Registry(place)
    for now_ms, command in registry_walk(rng, 200):
        clock.set_ms(now_ms)
        assert backend.apply(place, command) == cross_office_registry.apply(reference, command, now_ms), command
        assert backend.execute(Describe(place)) == cross_office_registry.describe(reference), command
        for question in registry_questions(rng):
            assert backend.execute(Query(place, question)) == cross_office_registry.ask(reference, question, now_ms), (
                question
            )
    assert backend.execute(ListOffices()) == []


def test_threads_share_one_day(quota_engine_backend: OpenStore) -> None:
    """Eight threads press at once for 100 places, some with the same key: 100 are held, none twice, and it adds up."""
    both = start_comparison(quota_engine_backend)
    both.send(OPENS_AT_MS, SetCapacity(DAY, "online", 100))
    outcomes: list[list[Outcome]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def press(thread: int) -> None:
        start.wait()
        for one in range(60):
            # Every fourth key is pressed by all threads, as a double click would.
            key = f"shared{one}" if one % 4 == 0 else f"t{thread}x{one}"
            outcomes[thread].append(both.backend.apply(OFFICE, reserve(key, ONLINE)))

    threads = [threading.Thread(target=press, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = {one.reservation.id for all_ in outcomes for one in all_ if one.reservation is not None}
    assert len(held) == 100
    assert {one.status for all_ in outcomes for one in all_} == {Status.HELD, Status.SOLD_OUT}
    (today,) = both.backend.execute(View(OFFICE, (DAY,)))
    assert (today.quotas["online"].held, today.quotas["online"].available) == (100, 0)
    assert both.backend.execute(Audit(OFFICE)) == []


def test_threads_confirm_and_get_different_numbers(quota_engine_backend: OpenStore) -> None:
    """Queue numbers given at the same moment are all different, and none is left out."""
    both = start_comparison(quota_engine_backend)
    both.send(OPENS_AT_MS, SetCapacity(DAY, "online", 80))
    for one in range(80):
        both.send(OPENS_AT_MS, reserve(f"k{one}", ONLINE))
    numbers: list[int] = []

    def confirm(thread: int) -> None:
        for one in range(thread, 80, 4):
            outcome = both.backend.apply(OFFICE, Confirm(f"k{one}"))
            assert outcome.reservation is not None
            numbers.append(outcome.reservation.queue_number)

    threads = [threading.Thread(target=confirm, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 81))


def test_guarded_reserves(quota_engine_backend: OpenStore) -> None:
    """Passes, charges and their shadows: answers and ledger equal the reference's, alone and in batches."""
    random = Random(11)
    clock = ManualClock(OPENS_AT_MS - 3_600_000)
    backend, reference = quota_engine_backend(clock), GuardedLedger(OFFICE)
    seen = set()
    commands: list[tuple[int, Any]] = [(clock.now_ms(), command) for command in published()]
    commands += [(now_ms, guarded(random, command, now_ms)) for now_ms, command in random_commands(11, 400)]
    while commands:
        size = random.choice((1, 1, 8)) if len(commands) < 390 else 1
        together, commands = commands[:size], commands[size:]
        now_ms = together[0][0]
        clock.set_ms(now_ms)
        expected = [apply_guarded(reference, command, now_ms) for _, command in together]
        if size == 1:
            found = [backend.apply(OFFICE, together[0][1])]
        else:
            found = backend.execute(ApplyMany(OFFICE, tuple(command for _, command in together)))
        assert found == expected, together
        assert backend.execute(Describe(OFFICE)) == describe(reference)
        seen |= {one.outcome.status for one in found if isinstance(one, GuardedOutcome)}
    assert {Status.NOT_ADMITTED, Status.THROTTLED, Status.HELD, Status.SOLD_OUT, Status.IDENTITY_LIMIT} <= seen
    assert backend.execute(Audit(OFFICE)) == []


def guarded(random: Random, command: Command, now_ms: int) -> Command | GuardedReserve:
    if not isinstance(command, Reserve) or random.random() < 0.2:
        return command
    limits = (per_minute(30, 3), per_second(7, 2), Limit(999_983, 1000, 1))
    names = random.sample(("account", "network", *command.applicants), random.choice((0, 1, 2)))
    charges = tuple(Charge(name, random.choice(limits), 1, random.random() < 0.2) for name in names)
    one = AdmissionPass(
        f"p{random.randrange(40)}", now_ms + random.choice((0, 1, 60_000, 3_600_000)), random.random() < 0.2
    )
    return GuardedReserve(command, charges, one if random.random() < 0.7 else None)


def test_token_buckets(quota_engine_backend: OpenStore) -> None:
    """Buckets at a place of their own: each answer, and what is left, equal the reference's."""
    random = Random(12)
    clock = ManualClock(OPENS_AT_MS)
    backend, reference, place = quota_engine_backend(clock), Buckets(), "~buckets.conformance"
    limits = (per_day(1), per_second(7, 3), per_second(999_983, 40), per_second(1_000_000))
    for _ in range(400):
        clock.set_ms(clock.now_ms() + random.choice((0, 0, 1, 10, 150, 86_400_000, -10)))
        keys = random.sample(range(4), random.choice((1, 1, 2)))
        charges = tuple(Charge(f"k{key}", limits[key], random.randint(1, limits[key].burst)) for key in keys)
        now_ms = clock.now_ms()
        assert backend.execute(Query(place, PeekTokens(charges))) == reference.peek(charges, now_ms)
        assert backend.apply(place, TakeTokens(charges)) == reference.take(charges, now_ms)
        if random.random() < 0.05:
            names = tuple(charge.name for charge in charges)
            assert backend.apply(place, ResetTokens(names)) == reference.reset(names, now_ms)
        assert backend.execute(Describe(place)) == describe_buckets(reference)
    assert backend.execute(ListOffices()) == []


def test_reading_changes_nothing(quota_engine_backend: OpenStore) -> None:
    """Lookups and views show what time has decided, and leave no event."""
    both = start_comparison(quota_engine_backend)
    both.send(OPENS_AT_MS, reserve("ani", ONLINE))
    both.clock.set_ms(OPENS_AT_MS + 3_600_000)
    before = both.backend.execute(Describe(OFFICE))
    assert both.backend.execute(Lookup(OFFICE, "ani")) == lookup(both.reference, "ani", both.clock.now_ms())
    assert both.backend.execute(Lookup(OFFICE, "nobody")) is None
    assert both.backend.execute(Lookup(OFFICE, "~")) is None
    both.compare()
    assert both.backend.execute(Describe(OFFICE)) == before
    assert len(both.backend.execute(ReadEvents(OFFICE, 0, EVENTS_MAX))) == len(both.reference.events)


def test_where_somebody_stands_on_the_wait_list(quota_engine_backend: OpenStore) -> None:
    """Those who joined earlier and still wait are ahead; whoever gets a place, or gives up, is not; nobody waits for a
    day that is over.
    """
    both = start_comparison(quota_engine_backend, published(wait_list_max=10))
    both.send(OPENS_AT_MS, reserve("ani", PRIORITY))
    for name in ("budi", "citra", "dewi", "eka"):
        assert both.send(OPENS_AT_MS, reserve(name, PRIORITY, wait=True)).status is Status.WAITING

    def places() -> list[WaitListPosition | None]:
        both.compare()
        return [
            both.backend.execute(ReadWaitListPosition(OFFICE, name)) for name in ("ani", "budi", "citra", "dewi", "eka")
        ]

    assert places() == [
        None,
        WaitListPosition(0, 4),
        WaitListPosition(1, 4),
        WaitListPosition(2, 4),
        WaitListPosition(3, 4),
    ]
    both.send(OPENS_AT_MS, Release("citra"))
    assert places() == [None, WaitListPosition(0, 3), None, WaitListPosition(1, 3), WaitListPosition(2, 3)]
    both.send(OPENS_AT_MS, Release("ani"))
    assert places() == [None, None, None, WaitListPosition(0, 2), WaitListPosition(1, 2)]
    terms = both.reference.days[DAY].terms
    both.clock.set_ms(terms.ends_at_ms - 1)
    assert places()[3] == WaitListPosition(0, 2)
    both.clock.set_ms(terms.ends_at_ms)
    assert places() == [None] * 5
    for unknown in ("nobody", "~", "no\tname"):
        assert both.backend.execute(ReadWaitListPosition(OFFICE, unknown)) is None


def test_events_are_read_in_pages_and_trimmed(quota_engine_backend: OpenStore) -> None:
    """Numbers of events are kept when older ones are dropped; the events alone rebuild the ledger."""
    both = start_comparison(quota_engine_backend)
    for now_ms, command in random_commands(7, 200):
        both.send(now_ms, command)
    everything = both.backend.execute(ReadEvents(OFFICE, 0, EVENTS_MAX))
    assert describe(rebuild(OFFICE, [one.event for one in everything])) == both.backend.execute(Describe(OFFICE))
    paged: list[RecordedEvent] = []
    while page := both.backend.execute(ReadEvents(OFFICE, paged[-1].number if paged else 0, 7)):
        paged += page
    assert paged == everything
    assert both.backend.execute(TrimEvents(OFFICE, 10)) == len(everything) - 10
    assert both.backend.execute(ReadEvents(OFFICE, 0, EVENTS_MAX)) == everything[10:]
    assert both.backend.execute(ReadEvents(OFFICE, 12, 1)) == everything[12:13]
    assert both.backend.execute(TrimEvents(OFFICE, 5)) == len(everything) - 10
    assert both.backend.execute(TrimEvents(OFFICE, 2**40)) == 0
    assert both.backend.execute(Audit(OFFICE)) == audit(both.reference) == []


class ConsumerGroupComparison:
    """Groups of a store's office, beside groups of the model that are asked the same at the same time."""

    def __init__(self, both: ReferenceComparison) -> None:
        self.both = both
        self.groups: dict[str, ConsumerGroup] = {}
        self.first = 1

    @property
    def last(self) -> int:
        return len(self.both.reference.events)

    def read(self, group: str, consumer: str, limit: int, min_idle_ms: int) -> list[int]:
        """Read on both; the numbers that came, with the events that go with them."""
        known = self.groups.get(group) or consumer_groups.new_group(0, self.first, self.last)
        now_ms = max(self.both.clock.now_ms(), self.both.reference.now_ms)
        self.groups[group], ranges = consumer_groups.take(known, consumer, limit, min_idle_ms, now_ms, self.last)
        expected = [number for first, last in ranges for number in range(first, last + 1)]
        found = self.both.backend.execute(ReadConsumerGroup(OFFICE, group, consumer, limit, min_idle_ms))
        assert [one.number for one in found] == expected
        assert [one.event for one in found] == [self.both.reference.events[number - 1] for number in expected]
        return expected

    def acknowledge(self, group: str, numbers: list[int]) -> None:
        closed = 0
        if group in self.groups:
            ranges = consumer_groups.ranges_of(numbers)
            self.groups[group], closed = consumer_groups.acknowledge(self.groups[group], ranges)
        assert self.both.backend.execute(Acknowledge(OFFICE, group, tuple(numbers))) == closed

    def trim(self, through: int) -> None:
        through = min([through, *(one.acknowledged for one in self.groups.values())])
        self.first = max(self.first, through + 1)
        assert self.both.backend.execute(TrimEvents(OFFICE, through)) == self.last + 1 - self.first

    def add(self, group: str, after: int) -> None:
        assert self.both.backend.execute(CreateConsumerGroup(OFFICE, group, after)) == (group not in self.groups)
        self.groups.setdefault(group, consumer_groups.new_group(after, self.first, self.last))

    def drop(self, group: str) -> None:
        assert self.both.backend.execute(DeleteConsumerGroup(OFFICE, group)) == (
            self.groups.pop(group, None) is not None
        )

    def compare(self) -> None:
        expected = [consumer_groups.view_of(name, group, self.last) for name, group in sorted(self.groups.items())]
        assert self.both.backend.execute(ListConsumerGroups(OFFICE)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_consumers_are_given_what_the_model_gives_them(quota_engine_backend: OpenStore, seed: int) -> None:
    """Reading, acknowledging, trimming, groups that come and go, while the office goes on: all as the model says."""
    both = start_comparison(quota_engine_backend)
    those, rng = ConsumerGroupComparison(both), Random(seed)
    had: list[int] = []
    for now_ms, command in random_commands(200 + seed, 150):
        both.send(now_ms, command)
        for _ in range(rng.randrange(3)):
            group, consumer = rng.choice(("billing", "mail")), rng.choice(("w1", "w2", "w3"))
            match rng.choice(("read", "read", "read", "acknowledge", "acknowledge", "trim", "add", "drop")):
                case "read":
                    had += those.read(group, consumer, rng.choice((1, 3, 10)), rng.choice((0, 60_000, 3_600_000)))
                case "acknowledge":
                    rng.shuffle(had)
                    those.acknowledge(group, [*had[: rng.randrange(12)], rng.randrange(1, 200)])
                case "trim":
                    those.trim(rng.randrange(those.last + 5))
                case "add":
                    those.add(group, rng.randrange(those.last + 5))
                case "drop" if rng.random() < 0.3:
                    those.drop(group)
        those.compare()


def test_nothing_is_trimmed_that_a_group_still_needs(quota_engine_backend: OpenStore) -> None:
    """Neither what a consumer has open nor what no consumer has been given; another group's progress is no matter."""
    both = start_comparison(quota_engine_backend)
    both.send(OPENS_AT_MS, reserve("ani", ONLINE))
    those, backend = ConsumerGroupComparison(both), both.backend
    assert those.read("mail", "w1", 10, 0) == [1, 2, 3, 4]
    assert those.read("billing", "w1", 3, 0) == [1, 2, 3]
    those.acknowledge("mail", [1, 2, 3, 4])
    assert backend.execute(TrimEvents(OFFICE, 4)) == 4
    those.acknowledge("billing", [1, 3])
    assert backend.execute(TrimEvents(OFFICE, 4)) == 3
    those.first = 2
    assert those.read("billing", "w2", 10, 1) == [4]
    assert those.read("billing", "w1", 10, 60_000) == [2]
    those.acknowledge("billing", [2, 4])
    assert backend.execute(TrimEvents(OFFICE, 4)) == 0
    those.first = 5
    both.send(OPENS_AT_MS, Confirm("ani"))
    assert those.read("billing", "w1", 10, 60_000) == [5]
    assert those.read("late", "w1", 10, 60_000) == [5]
    those.compare()


def test_what_a_dead_consumer_left_is_claimed_in_time(quota_engine_backend: OpenStore) -> None:
    """To the millisecond; and whoever comes back finds what is still theirs."""
    both = start_comparison(quota_engine_backend)
    those = ConsumerGroupComparison(both)
    both.clock.set_ms(OPENS_AT_MS)
    assert those.read("mail", "dead", 2, 60_000) == [1, 2]
    both.clock.set_ms(OPENS_AT_MS + 59_999)
    assert those.read("mail", "alive", 9, 60_000) == [3]
    assert those.read("mail", "alive", 9, 60_000) == [3]
    both.clock.set_ms(OPENS_AT_MS + 60_000)
    assert those.read("mail", "alive", 2, 60_000) == [1, 3]
    assert those.read("mail", "dead", 9, 60_000) == [2]
    both.clock.set_ms(OPENS_AT_MS)  # a clock that is set back makes nobody dead
    assert those.read("mail", "third", 9, 60_000) == []
    those.compare()


def test_groups_are_bounded(quota_engine_backend: OpenStore) -> None:
    """One group too many is refused, and changes nothing; dropping one makes room."""
    both = start_comparison(quota_engine_backend)
    those = ConsumerGroupComparison(both)
    for number in range(GROUPS_MAX):
        those.add(f"g{number}", number)
    for request in (CreateConsumerGroup(OFFICE, "more", 0), ReadConsumerGroup(OFFICE, "more", "w1", 10, 0)):
        with pytest.raises(InvalidRequest, match="the office has 64 groups"):
            both.backend.execute(request)
    those.add("g0", 5)
    assert both.backend.execute(Acknowledge(OFFICE, "more", (1,))) == 0
    those.compare()
    those.drop("g7")
    assert those.read("more", "w1", 10, 0) == [1, 2, 3]
    assert both.backend.execute(ReadConsumerGroup(OFFICE, "more", "w2", 0, 0)) == []
    those.compare()


@pytest.mark.parametrize("trimmed", [False, True])
def test_reconciling_what_is_right_changes_nothing_but_the_epoch(
    quota_engine_backend: OpenStore, trimmed: bool
) -> None:
    """By the events, or by the records where events are missing; and the office goes on afterwards."""
    both = start_comparison(quota_engine_backend)
    for number, (now_ms, command) in enumerate(random_commands(11, 200)):
        both.send(now_ms, command)
        if trimmed and number == 50:
            both.backend.execute(TrimEvents(OFFICE, 10))
        if number % 50 == 49:
            before = both.backend.execute(Reconcile(OFFICE)).epoch
            found = both.backend.execute(Reconcile(OFFICE))
            assert (found.findings, found.repaired, found.restored) == ((), 0, 0)
            assert found.epoch == before + 1
            both.compare()


def test_lost_events_happen_again(quota_engine_backend: OpenStore) -> None:
    """A store that has lost the last events has the whole state back with them; others are refused."""
    both = start_comparison(quota_engine_backend)
    lost = Ledger(OFFICE)
    for number, (now_ms, command) in enumerate(random_commands(12, 160)):
        if number < 80:
            both.send(now_ms, command)
        else:
            lost = lost if lost.events else rebuild(OFFICE, both.reference.events)
            apply(lost, command, now_ms)
    kept = len(both.reference.events)
    events = [RecordedEvent(number, event) for number, event in enumerate(lost.events, 1)]
    assert len(events) > kept + 10
    with pytest.raises(InvalidRequest, match="events: number"):
        both.backend.execute(Reconcile(OFFICE, tuple(events[kept + 1 :])))
    with pytest.raises(InvalidRequest, match="events: number"):
        both.backend.execute(Reconcile(OFFICE, (RecordedEvent(kept, events[0].event),)))
    both.compare()
    assert both.backend.execute(Reconcile(OFFICE, tuple(events[kept - 3 :]))).restored == len(events) - kept
    both.reference = lost
    both.compare()
    for now_ms, command in random_commands(13, 80):
        both.send(max(now_ms, lost.now_ms), command)
    both.compare()
    both.compare_events()


def test_an_office_that_nobody_published(quota_engine_backend: OpenStore) -> None:
    """Asking for an unknown office is answered, and costs the store no memory."""
    backend = quota_engine_backend(ManualClock(OPENS_AT_MS))
    assert backend.execute(ListOffices()) == []
    assert backend.apply("nowhere", reserve("ani", ONLINE)).status is Status.UNKNOWN_DAY
    assert backend.apply("nowhere", Confirm("ani")).status is Status.NOT_FOUND
    assert backend.execute(ApplyMany("nowhere", (Confirm("ani"),)))[0].status is Status.NOT_FOUND
    assert backend.execute(Lookup("nowhere", "ani")) is None
    assert backend.execute(ReadWaitListPosition("nowhere", "ani")) is None
    assert backend.execute(View("nowhere", DAYS)) == []
    assert backend.execute(ListDay("nowhere", DAY)) == []
    assert backend.execute(ReadHoldRemainingHistogram("nowhere", DAY, (1, 2))) == [0, 0, 0]
    assert backend.execute(ReadEvents("nowhere", 0, 10)) == []
    assert backend.execute(TrimEvents("nowhere", 10)) == 0
    assert backend.execute(ReadConsumerGroup("nowhere", "mail", "w1", 10, 0)) == []
    assert backend.execute(Acknowledge("nowhere", "mail", (1,))) == 0
    assert backend.execute(CreateConsumerGroup("nowhere", "mail", 0)) is False
    assert backend.execute(DeleteConsumerGroup("nowhere", "mail")) is False
    assert backend.execute(ListConsumerGroups("nowhere")) == []
    assert backend.execute(Reconcile("nowhere")) == Reconciliation("nowhere", 0)
    assert backend.execute(Audit("nowhere")) == []
    assert backend.execute(ListOffices()) == []


def test_offices_do_not_touch_each_other(quota_engine_backend: OpenStore) -> None:
    """The same key, day and applicant at two offices are two reservations."""
    backend = quota_engine_backend(ManualClock(OPENS_AT_MS))
    for office in ("east", "west"):
        for command in published():
            backend.apply(office, command)
    assert backend.apply("east", reserve("ani", ONLINE)).status is Status.HELD
    assert backend.apply("west", Confirm("ani")).status is Status.NOT_FOUND
    assert backend.apply("west", reserve("ani", ONLINE)).status is Status.HELD
    assert backend.execute(ListOffices()) == ["east", "west"]


def test_closing_twice_is_harmless(quota_engine_backend: OpenStore) -> None:
    """Whoever closes a backend again does no harm."""
    backend = quota_engine_backend(ManualClock(OPENS_AT_MS))
    backend.close()
    backend.close()


@pytest.mark.parametrize("seed", range(8))
def test_random_waiting_rooms(quota_engine_backend: OpenStore, seed: int) -> None:
    """Any history of a waiting room is answered and remembered as by the pure machine."""
    clock = ManualClock(0)
    backend, reference, place = quota_engine_backend(clock), RoomState(), "~room.conformance"
    for command, now_ms in random_rooms.walk(seed):
        clock.set_ms(now_ms)
        assert backend.apply(place, command) == apply_to_room(reference, command, now_ms), command
        assert backend.execute(Query(place, ViewRoom())) == answer_room_query(reference, ViewRoom(), now_ms)
        assert backend.execute(Describe(place)) == describe_room(reference)
    assert backend.execute(ListOffices()) == []
