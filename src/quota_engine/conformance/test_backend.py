"""The conformance suite: a store is compared with the reference, the pure state machine.

Both get the same commands at the same times. Consumer groups, guarded commands, reconciliation and wrong clocks have a
module each, whose tests this one imports.
"""

from __future__ import annotations

import threading
from random import Random

import pytest

from quota_engine.admission.token_bucket import (
    Buckets,
    Charge,
    PeekTokens,
    ResetTokens,
    TakeTokens,
    at_most,
    per_day,
    per_second,
)
from quota_engine.admission.token_bucket import apply as apply_to_buckets
from quota_engine.admission.token_bucket import describe as describe_buckets
from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance import random_draws, random_rooms
from quota_engine.conformance.clock_corrections import *  # noqa: F403
from quota_engine.conformance.consumer_groups import *  # noqa: F403
from quota_engine.conformance.guarded_commands import *  # noqa: F403
from quota_engine.conformance.penalty_scenarios import ABANDONED_HOLDS
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.random_registry import registry_questions, registry_walk
from quota_engine.conformance.reconciliation import *  # noqa: F403
from quota_engine.conformance.reference_comparison import COMPARED_EVERY, DAYS, EVENTS_MAX, start_comparison
from quota_engine.conformance.scenarios import SCENARIOS, ConformanceScenario
from quota_engine.conformance.world import DAY, HOLD_TTL_MS, OFFICE, ONLINE, OPENS_AT_MS, PRIORITY, published, reserve
from quota_engine.domain import cross_office_registry
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Confirm, Release, SetCapacity
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.ledger import describe
from quota_engine.domain.outcomes import AbandonedHolds, Outcome, Status, WaitListPosition
from quota_engine.domain.queries import abandoned_holds, lookup
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.domain.state_machine import apply
from quota_engine.draws import ledger
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CheckIdentityKey,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
    ReadAbandonedHolds,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    TrimEvents,
    View,
)
from quota_engine.waiting_room.machine import RoomState
from quota_engine.waiting_room.machine import answer_query as answer_room_query
from quota_engine.waiting_room.machine import apply as apply_to_room
from quota_engine.waiting_room.machine import describe as describe_room

pytestmark = pytest.mark.usefixtures("invariant_checks")


def test_a_recycled_hold_ends_in_a_block(quota_engine_backend: OpenStore) -> None:
    """Releasing a hold a second before its deadline and reserving again, 200 times, keeps the place six times.

    Attempts come about every 15 minutes. The third end blocks for a day, and so does the fourth, a day later. After the
    second day the first three are outside the window.
    """
    both = start_comparison(quota_engine_backend, published(**ABANDONED_HOLDS))
    now_ms, held, announced = OPENS_AT_MS, [], []
    for number in range(200):
        outcome = both.apply(now_ms, reserve(f"r{number}", ONLINE, "ani"))
        assert outcome.status in (Status.HELD, Status.BLOCKED)
        now_ms += HOLD_TTL_MS - 1000
        both.apply(now_ms, Release(f"r{number}"))
        if outcome.ok:
            held.append(number)
            announced.append(outcome.abandoned_holds_left)
    both.compare()
    assert held == [0, 1, 2, 100, 198, 199]
    assert announced == [None, 1, 0, 0, 1, 0]


def test_a_block_is_announced_before_it_comes(quota_engine_backend: OpenStore) -> None:
    """The answer of the last hold that may be let go says until when the next one would block, resumed or repeated."""
    both = start_comparison(quota_engine_backend, published(**{**ABANDONED_HOLDS, "abandoned_holds_max": 1}))
    block_ms = ABANDONED_HOLDS["abandoned_holds_block_ms"]
    both.apply(OPENS_AT_MS, reserve("a", ONLINE, "ani"))
    released = both.apply(OPENS_AT_MS + 1, Release("a"))
    assert (released.abandoned_holds_left, released.blocked_until_ms) == (0, 0)
    for key in ("b", "c", "b"):
        held = both.apply(OPENS_AT_MS + 2, reserve(key, ONLINE, "ani"))
        assert (held.abandoned_holds_left, held.blocked_until_ms) == (0, held.deadline_at_ms + block_ms)
    for _ in range(2):
        released = both.apply(OPENS_AT_MS + 3, Release("b"))
        assert (released.abandoned_holds_left, released.blocked_until_ms) == (0, OPENS_AT_MS + 3 + block_ms)
    counts = both.store.execute(ReadAbandonedHolds(OFFICE))
    assert counts == abandoned_holds(both.reference) == AbandonedHolds(released=2, expired=0, blocks=1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_scenario(quota_engine_backend: OpenStore, scenario: ConformanceScenario) -> None:
    """Every step has its status, and the reference's outcome and state."""
    comparison = start_comparison(quota_engine_backend, scenario.setup)
    for number, step in enumerate(scenario.steps):
        outcome = comparison.apply(OPENS_AT_MS + step.at_ms, step.command)
        flags = [flag for flag in ("replayed", "resumed") if getattr(outcome, flag)]
        assert (outcome.status, flags) == (step.status, [step.flag] if step.flag else []), f"step {number}"
        comparison.compare()
    comparison.compare_events()


@pytest.mark.parametrize("seed", range(8))
def test_random_commands(quota_engine_backend: OpenStore, seed: int) -> None:
    """Outcomes of hundreds of colliding commands equal the reference's, and so does the state between them."""
    comparison = start_comparison(quota_engine_backend)
    for step, (now_ms, command) in enumerate(random_commands(seed, 400)):
        comparison.apply(now_ms, command)
        if step % COMPARED_EVERY == 0:
            comparison.compare()
    comparison.compare_events()


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_equals_its_commands_one_by_one(quota_engine_backend: OpenStore, seed: int) -> None:
    """No command in a batch depends on the outcome of another."""
    comparison = start_comparison(quota_engine_backend)
    pairs = list(random_commands(100 + seed, 300))
    for start in range(0, len(pairs), 20):
        now_ms, commands = pairs[start][0], tuple(command for _, command in pairs[start : start + 20])
        comparison.clock.set_ms(now_ms)
        expected = [apply(comparison.reference, command, now_ms) for command in commands]
        assert comparison.store.execute(ApplyMany(OFFICE, commands)) == expected
        comparison.compare()
    assert comparison.store.execute(ApplyMany(OFFICE, ())) == []


def test_a_call_after_its_end_changes_nothing(quota_engine_backend: OpenStore) -> None:
    """A call with time left has its usual outcome. One without time is certain to have had no effect."""
    comparison = start_comparison(quota_engine_backend)
    store, command = comparison.store, SetCapacity(DAY, "online", 5)
    with pytest.raises(BackendUnavailable):
        store.apply(OFFICE, command, ends_at_ms=monotonic_ms() - 1)
    with pytest.raises(BackendUnavailable):
        store.execute(ApplyMany(OFFICE, (command,)), ends_at_ms=monotonic_ms() - 1)
    comparison.compare()
    ends_at_ms = monotonic_ms() + 60_000
    expected = apply(comparison.reference, command, comparison.clock.now_ms())
    assert store.apply(OFFICE, command, ends_at_ms=ends_at_ms) == expected
    assert store.execute(Lookup(OFFICE, "nobody"), ends_at_ms=ends_at_ms) is None
    comparison.compare()


@pytest.mark.parametrize("seed", range(8))
def test_draws(quota_engine_backend: OpenStore, seed: int) -> None:
    """Results, queries and state of a draw equal the reference's, from its creation until it is forgotten."""
    clock, address = ManualClock(0), ledger.address_of(random_draws.DRAW)
    store, reference = quota_engine_backend(clock), ledger.DrawLedger(address)
    for now_ms, command in random_draws.walk(Random(seed)):
        clock.set_ms(now_ms)
        assert store.apply(address, command) == ledger.apply(reference, command, now_ms), command
        assert store.execute(Describe(address)) == ledger.describe(reference), command
    for question in random_draws.QUESTIONS:
        assert store.execute(Query(address, question)) == ledger.answer_query(reference, question, clock.now_ms())


@pytest.mark.parametrize("seed", range(4))
def test_cross_office_registry(quota_engine_backend: OpenStore, seed: int) -> None:
    """Results of claims and moves equal the reference's, and so does the state between them."""
    clock, rng = ManualClock(0), Random(seed)
    store = quota_engine_backend(clock)
    address = cross_office_registry.shards()[seed]
    reference = cross_office_registry.Registry(address)
    for step, (now_ms, command) in enumerate(registry_walk(rng, 200)):
        clock.set_ms(now_ms)
        assert store.apply(address, command) == cross_office_registry.apply(reference, command, now_ms), command
        if step % COMPARED_EVERY:
            continue
        assert store.execute(Describe(address)) == cross_office_registry.describe(reference), command
        for question in registry_questions(rng):
            assert store.execute(Query(address, question)) == cross_office_registry.ask(reference, question, now_ms), (
                question
            )
    assert store.execute(ListOffices()) == []


def test_concurrent_reserves_sell_each_place_once(quota_engine_backend: OpenStore) -> None:
    """Eight threads reserve 100 places at once, some with the same key. The audit finds nothing."""
    comparison = start_comparison(quota_engine_backend)
    comparison.apply(OPENS_AT_MS, SetCapacity(DAY, "online", 100))
    outcomes: list[list[Outcome]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def reserve_all(thread: int) -> None:
        start.wait()
        for one in range(60):
            # All threads send every fourth key, like double clicks.
            key = f"shared{one}" if one % 4 == 0 else f"t{thread}x{one}"
            outcomes[thread].append(comparison.store.apply(OFFICE, reserve(key, ONLINE)))

    threads = [threading.Thread(target=reserve_all, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = {one.reservation.id for all_ in outcomes for one in all_ if one.reservation is not None}
    assert len(held) == 100
    assert {one.status for all_ in outcomes for one in all_} == {Status.HELD, Status.SOLD_OUT}
    (today,) = comparison.store.execute(View(OFFICE, (DAY,)))
    assert (today.quotas["online"].held, today.quotas["online"].available) == (100, 0)
    assert comparison.store.execute(Audit(OFFICE)) == []


def test_concurrent_confirms_get_different_queue_numbers(quota_engine_backend: OpenStore) -> None:
    """Queue numbers are different and without gaps."""
    comparison = start_comparison(quota_engine_backend)
    comparison.apply(OPENS_AT_MS, SetCapacity(DAY, "online", 80))
    for one in range(80):
        comparison.apply(OPENS_AT_MS, reserve(f"k{one}", ONLINE))
    numbers: list[int] = []

    def confirm(thread: int) -> None:
        for one in range(thread, 80, 4):
            outcome = comparison.store.apply(OFFICE, Confirm(f"k{one}"))
            assert outcome.reservation is not None
            numbers.append(outcome.reservation.queue_number)

    threads = [threading.Thread(target=confirm, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 81))


def test_the_first_identity_key_fingerprint_wins(quota_engine_backend: OpenStore) -> None:
    """The store keeps the first of all fingerprints. The fingerprint is not an office."""
    store = quota_engine_backend(ManualClock(OPENS_AT_MS))
    assert store.execute(CheckIdentityKey("a" * 32)) == "a" * 32
    for later in ("b" * 32, "a" * 32):
        assert store.execute(CheckIdentityKey(later)) == "a" * 32
    assert store.execute(ListOffices()) == []


def test_openings_at_the_same_time_agree_on_one_fingerprint(quota_engine_backend: OpenStore) -> None:
    """Of eight threads with different keys, all learn the fingerprint of one of them."""
    store = quota_engine_backend(ManualClock(OPENS_AT_MS))
    start, answers = threading.Barrier(8), []

    def check(thread: int) -> None:
        start.wait()
        answers.append(store.execute(CheckIdentityKey(f"{thread}" * 32)))

    threads = [threading.Thread(target=check, args=(thread,)) for thread in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_token_buckets(quota_engine_backend: OpenStore) -> None:
    """Results and remaining tokens of a bucket set equal the reference's."""
    random = Random(12)
    clock = ManualClock(OPENS_AT_MS)
    store, reference, address = quota_engine_backend(clock), Buckets(), "~buckets.conformance"
    limits = (per_day(1), per_second(7, 3), per_second(999_983, 40), per_second(1_000_000), at_most(3, per_second))
    for _ in range(400):
        clock.set_ms(clock.now_ms() + random.choice((0, 0, 1, 10, 150, 86_400_000, -10)))
        keys = random.sample(range(5), random.choice((1, 1, 2)))
        charges = tuple(Charge(f"k{key}", limits[key], random.randint(1, limits[key].burst)) for key in keys)
        now_ms = clock.now_ms()
        assert store.execute(Query(address, PeekTokens(charges))) == reference.peek(charges, now_ms)
        take = TakeTokens(charges, random.random() < 0.5)
        assert store.apply(address, take) == apply_to_buckets(reference, take, now_ms)
        if random.random() < 0.05:
            names = tuple(charge.name for charge in charges)
            assert store.apply(address, ResetTokens(names)) == reference.reset(names, now_ms)
        assert store.execute(Describe(address)) == describe_buckets(reference)
    assert store.execute(ListOffices()) == []


def test_queries_change_nothing(quota_engine_backend: OpenStore) -> None:
    """Lookups and views show due changes and leave no event."""
    comparison = start_comparison(quota_engine_backend)
    comparison.apply(OPENS_AT_MS, reserve("ani", ONLINE))
    comparison.clock.set_ms(OPENS_AT_MS + 3_600_000)
    before = comparison.store.execute(Describe(OFFICE))
    assert comparison.store.execute(Lookup(OFFICE, "ani")) == lookup(
        comparison.reference, "ani", comparison.clock.now_ms()
    )
    assert comparison.store.execute(Lookup(OFFICE, "nobody")) is None
    assert comparison.store.execute(Lookup(OFFICE, "~")) is None
    comparison.compare()
    assert comparison.store.execute(Describe(OFFICE)) == before
    assert len(comparison.store.execute(ReadEvents(OFFICE, 0, EVENTS_MAX))) == len(comparison.reference.events)


def test_wait_list_positions(quota_engine_backend: OpenStore) -> None:
    """Parties that joined earlier and still wait are ahead. A day that is over has no wait list."""
    comparison = start_comparison(quota_engine_backend, published(wait_list_max=10))
    comparison.apply(OPENS_AT_MS, reserve("ani", PRIORITY))
    for name in ("budi", "citra", "dewi", "eka"):
        assert comparison.apply(OPENS_AT_MS, reserve(name, PRIORITY, wait=True)).status is Status.WAITING

    def positions() -> list[WaitListPosition | None]:
        comparison.compare()
        return [
            comparison.store.execute(ReadWaitListPosition(OFFICE, name))
            for name in ("ani", "budi", "citra", "dewi", "eka")
        ]

    assert positions() == [
        None,
        WaitListPosition(0, 4),
        WaitListPosition(1, 4),
        WaitListPosition(2, 4),
        WaitListPosition(3, 4),
    ]
    comparison.apply(OPENS_AT_MS, Release("citra"))
    assert positions() == [None, WaitListPosition(0, 3), None, WaitListPosition(1, 3), WaitListPosition(2, 3)]
    comparison.apply(OPENS_AT_MS, Release("ani"))
    assert positions() == [None, None, None, WaitListPosition(0, 2), WaitListPosition(1, 2)]
    terms = comparison.reference.days[DAY].terms
    comparison.clock.set_ms(terms.ends_at_ms - 1)
    assert positions()[3] == WaitListPosition(0, 2)
    comparison.clock.set_ms(terms.ends_at_ms)
    assert positions() == [None] * 5
    for unknown in ("nobody", "~", "no\tname"):
        assert comparison.store.execute(ReadWaitListPosition(OFFICE, unknown)) is None


def test_events_are_read_in_pages_and_trimmed(quota_engine_backend: OpenStore) -> None:
    """Event numbers do not change when older events are trimmed. The events alone rebuild the ledger."""
    comparison = start_comparison(quota_engine_backend)
    for now_ms, command in random_commands(7, 200):
        comparison.apply(now_ms, command)
    everything = comparison.store.execute(ReadEvents(OFFICE, 0, EVENTS_MAX))
    assert describe(rebuild(OFFICE, [one.event for one in everything])) == comparison.store.execute(Describe(OFFICE))
    paged: list[RecordedEvent] = []
    while page := comparison.store.execute(ReadEvents(OFFICE, paged[-1].number if paged else 0, 7)):
        paged += page
    assert paged == everything
    assert comparison.store.execute(TrimEvents(OFFICE, 10)) == len(everything) - 10
    assert comparison.store.execute(ReadEvents(OFFICE, 0, EVENTS_MAX)) == everything[10:]
    assert comparison.store.execute(ReadEvents(OFFICE, 12, 1)) == everything[12:13]
    assert comparison.store.execute(TrimEvents(OFFICE, 5)) == len(everything) - 10
    assert comparison.store.execute(TrimEvents(OFFICE, 2**40)) == 0
    assert comparison.store.execute(Audit(OFFICE)) == audit(comparison.reference) == []


def test_an_unpublished_office_stores_nothing(quota_engine_backend: OpenStore) -> None:
    """Requests for an unknown office have results and cost the store no memory."""
    store = quota_engine_backend(ManualClock(OPENS_AT_MS))
    assert store.execute(ListOffices()) == []
    assert store.apply("nowhere", reserve("ani", ONLINE)).status is Status.UNKNOWN_DAY
    assert store.apply("nowhere", Confirm("ani")).status is Status.NOT_FOUND
    assert store.execute(ApplyMany("nowhere", (Confirm("ani"),)))[0].status is Status.NOT_FOUND
    assert store.execute(Lookup("nowhere", "ani")) is None
    assert store.execute(ReadWaitListPosition("nowhere", "ani")) is None
    assert store.execute(View("nowhere", DAYS)) == []
    assert store.execute(ListDay("nowhere", DAY)) == []
    assert store.execute(ReadHoldRemainingHistogram("nowhere", DAY, (1, 2))) == [0, 0, 0]
    assert store.execute(ReadEvents("nowhere", 0, 10)) == []
    assert store.execute(TrimEvents("nowhere", 10)) == 0
    assert store.execute(ReadConsumerGroup("nowhere", "mail", "w1", 10, 0)) == []
    assert store.execute(Acknowledge("nowhere", "mail", (1,))) == 0
    assert store.execute(CreateConsumerGroup("nowhere", "mail", 0)) is False
    assert store.execute(DeleteConsumerGroup("nowhere", "mail")) is False
    assert store.execute(ListConsumerGroups("nowhere")) == []
    for address in ("nowhere", "~room.nowhere", "~draw.nowhere", "~buckets.nowhere", "~n.00"):
        assert store.execute(Reconcile(address)) == Reconciliation(address, 0)
    assert store.execute(Audit("nowhere")) == []
    assert store.execute(ListOffices()) == []


def test_offices_are_independent(quota_engine_backend: OpenStore) -> None:
    """The same key, day and applicant make two reservations at two offices."""
    store = quota_engine_backend(ManualClock(OPENS_AT_MS))
    for office in ("east", "west"):
        for command in published():
            store.apply(office, command)
    assert store.apply("east", reserve("ani", ONLINE)).status is Status.HELD
    assert store.apply("west", Confirm("ani")).status is Status.NOT_FOUND
    assert store.apply("west", reserve("ani", ONLINE)).status is Status.HELD
    assert store.execute(ListOffices()) == ["east", "west"]


def test_closing_twice_is_harmless(quota_engine_backend: OpenStore) -> None:
    store = quota_engine_backend(ManualClock(OPENS_AT_MS))
    store.close()
    store.close()


@pytest.mark.parametrize("seed", range(8))
def test_random_waiting_rooms(quota_engine_backend: OpenStore, seed: int) -> None:
    """Results and state of a waiting room equal the reference's after each command."""
    clock = ManualClock(0)
    store, reference, address = quota_engine_backend(clock), RoomState(), "~room.conformance"
    for command, now_ms in random_rooms.walk(seed):
        clock.set_ms(now_ms)
        assert store.apply(address, command) == apply_to_room(reference, command, now_ms), command
        for question in random_rooms.QUESTIONS:
            assert store.execute(Query(address, question)) == answer_room_query(reference, question, now_ms), question
        assert store.execute(Describe(address)) == describe_room(reference)
    assert store.execute(ListOffices()) == []
