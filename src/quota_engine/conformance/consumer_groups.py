"""Tests of consumer groups. ``test_backend`` has them for every store."""

from __future__ import annotations

__all__ = [
    "test_groups_are_bounded",
    "test_idle_events_go_to_another_consumer",
    "test_random_consumer_groups",
    "test_trimming_keeps_events_that_a_group_needs",
]

from random import Random

import pytest

from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.reference_comparison import ReferenceComparison, start_comparison
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, reserve
from quota_engine.domain import consumer_groups
from quota_engine.domain.commands import Confirm
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroup
from quota_engine.domain.errors import InvalidRequest
from quota_engine.ports import (
    Acknowledge,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    ListConsumerGroups,
    ReadConsumerGroup,
    TrimEvents,
)


class ConsumerGroupComparison:
    """Applies the same requests to consumer groups of a store and of the reference, and compares the results."""

    def __init__(self, comparison: ReferenceComparison) -> None:
        self.comparison = comparison
        self.groups: dict[str, ConsumerGroup] = {}
        self.first = 1

    @property
    def last(self) -> int:
        return len(self.comparison.reference.events)

    def read(self, group: str, consumer: str, limit: int, min_idle_ms: int) -> list[int]:
        """Read events through a consumer, compare them, and return their numbers."""
        known = self.groups.get(group) or consumer_groups.new_group(0, self.first, self.last)
        now_ms = max(self.comparison.clock.now_ms(), self.comparison.reference.now_ms)
        self.groups[group], ranges = consumer_groups.take(known, consumer, limit, min_idle_ms, now_ms, self.last)
        expected = [number for first, last in ranges for number in range(first, last + 1)]
        found = self.comparison.store.execute(ReadConsumerGroup(OFFICE, group, consumer, limit, min_idle_ms))
        assert [one.number for one in found] == expected
        assert [one.event for one in found] == [self.comparison.reference.events[number - 1] for number in expected]
        return expected

    def acknowledge(self, group: str, numbers: list[int]) -> None:
        closed = 0
        if group in self.groups:
            ranges = consumer_groups.ranges_of(numbers)
            self.groups[group], closed = consumer_groups.acknowledge(self.groups[group], ranges)
        assert self.comparison.store.execute(Acknowledge(OFFICE, group, tuple(numbers))) == closed

    def trim(self, through: int) -> None:
        through = min([through, *(one.acknowledged for one in self.groups.values())])
        self.first = max(self.first, through + 1)
        assert self.comparison.store.execute(TrimEvents(OFFICE, through)) == self.last + 1 - self.first

    def add(self, group: str, after: int) -> None:
        assert self.comparison.store.execute(CreateConsumerGroup(OFFICE, group, after)) == (group not in self.groups)
        self.groups.setdefault(group, consumer_groups.new_group(after, self.first, self.last))

    def drop(self, group: str) -> None:
        assert self.comparison.store.execute(DeleteConsumerGroup(OFFICE, group)) == (
            self.groups.pop(group, None) is not None
        )

    def compare(self) -> None:
        expected = [consumer_groups.view_of(name, group, self.last) for name, group in sorted(self.groups.items())]
        assert self.comparison.store.execute(ListConsumerGroups(OFFICE)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_random_consumer_groups(quota_engine_backend: OpenStore, seed: int) -> None:
    """Reads, acknowledgments, trims, and created and deleted groups equal the reference's while events are written."""
    comparison = start_comparison(quota_engine_backend)
    consumers, rng = ConsumerGroupComparison(comparison), Random(seed)
    had: list[int] = []
    for now_ms, command in random_commands(200 + seed, 150):
        comparison.apply(now_ms, command)
        for _ in range(rng.randrange(3)):
            group, consumer = rng.choice(("billing", "mail")), rng.choice(("w1", "w2", "w3"))
            match rng.choice(("read", "read", "read", "acknowledge", "acknowledge", "trim", "add", "drop")):
                case "read":
                    had += consumers.read(group, consumer, rng.choice((1, 3, 10)), rng.choice((0, 60_000, 3_600_000)))
                case "acknowledge":
                    rng.shuffle(had)
                    consumers.acknowledge(group, [*had[: rng.randrange(12)], rng.randrange(1, 200)])
                case "trim":
                    consumers.trim(rng.randrange(consumers.last + 5))
                case "add":
                    consumers.add(group, rng.randrange(consumers.last + 5))
                case "drop" if rng.random() < 0.3:
                    consumers.drop(group)
        consumers.compare()


def test_trimming_keeps_events_that_a_group_needs(quota_engine_backend: OpenStore) -> None:
    """Pending and undelivered events of any group are kept."""
    comparison = start_comparison(quota_engine_backend)
    comparison.apply(OPENS_AT_MS, reserve("ani", ONLINE))
    consumers, store = ConsumerGroupComparison(comparison), comparison.store
    assert consumers.read("mail", "w1", 10, 0) == [1, 2, 3, 4]
    assert consumers.read("billing", "w1", 3, 0) == [1, 2, 3]
    consumers.acknowledge("mail", [1, 2, 3, 4])
    assert store.execute(TrimEvents(OFFICE, 4)) == 4
    consumers.acknowledge("billing", [1, 3])
    assert store.execute(TrimEvents(OFFICE, 4)) == 3
    consumers.first = 2
    assert consumers.read("billing", "w2", 10, 1) == [4]
    assert consumers.read("billing", "w1", 10, 60_000) == [2]
    consumers.acknowledge("billing", [2, 4])
    assert store.execute(TrimEvents(OFFICE, 4)) == 0
    consumers.first = 5
    comparison.apply(OPENS_AT_MS, Confirm("ani"))
    assert consumers.read("billing", "w1", 10, 60_000) == [5]
    assert consumers.read("late", "w1", 10, 60_000) == [5]
    consumers.compare()


def test_idle_events_go_to_another_consumer(quota_engine_backend: OpenStore) -> None:
    """They do so at the exact millisecond. A consumer that returns gets its remaining pending events."""
    comparison = start_comparison(quota_engine_backend)
    consumers = ConsumerGroupComparison(comparison)
    comparison.clock.set_ms(OPENS_AT_MS)
    assert consumers.read("mail", "dead", 2, 60_000) == [1, 2]
    comparison.clock.set_ms(OPENS_AT_MS + 59_999)
    assert consumers.read("mail", "alive", 9, 60_000) == [3]
    assert consumers.read("mail", "alive", 9, 60_000) == [3]
    comparison.clock.set_ms(OPENS_AT_MS + 60_000)
    assert consumers.read("mail", "alive", 2, 60_000) == [1, 3]
    assert consumers.read("mail", "dead", 9, 60_000) == [2]
    comparison.clock.set_ms(OPENS_AT_MS)  # a clock that jumps back makes no consumer idle
    assert consumers.read("mail", "third", 9, 60_000) == []
    consumers.compare()


def test_groups_are_bounded(quota_engine_backend: OpenStore) -> None:
    """A group above the limit is refused and changes nothing. Deleting a group makes room."""
    comparison = start_comparison(quota_engine_backend)
    consumers = ConsumerGroupComparison(comparison)
    for number in range(GROUPS_MAX):
        consumers.add(f"g{number}", number)
    for request in (CreateConsumerGroup(OFFICE, "more", 0), ReadConsumerGroup(OFFICE, "more", "w1", 10, 0)):
        with pytest.raises(InvalidRequest, match="the office has 64 groups"):
            comparison.store.execute(request)
    consumers.add("g0", 5)
    assert comparison.store.execute(Acknowledge(OFFICE, "more", (1,))) == 0
    consumers.compare()
    consumers.drop("g7")
    assert consumers.read("more", "w1", 10, 0) == [1, 2, 3]
    assert comparison.store.execute(ReadConsumerGroup(OFFICE, "more", "w2", 0, 0)) == []
    consumers.compare()
