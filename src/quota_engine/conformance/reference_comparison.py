"""Compares a store with the reference, the pure state machine: both get the same commands at the same times."""

from __future__ import annotations

__all__ = ["COMPARED_EVERY", "DAYS", "EVENTS_MAX", "ReferenceComparison", "start_comparison"]


from quota_engine.clocks import ManualClock
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.world import DAY, HOLD_TTL_MS, NEXT_DAY, OFFICE, OPENS_AT_MS, published
from quota_engine.domain.commands import Command
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome
from quota_engine.domain.queries import hold_remaining_histogram, list_day, view, wait_list_position
from quota_engine.domain.state_machine import apply
from quota_engine.ports import (
    Audit,
    Describe,
    ListDay,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Store,
    View,
)

DAYS = (DAY, NEXT_DAY)
EVENTS_MAX = 100_000
COMPARED_EVERY = 8
"""Commands of a random walk from one comparison of the whole state to the next; each outcome is compared."""
HISTOGRAM_BOUNDS_MS = ((), (0, 60_000, HOLD_TTL_MS))
"""Bounds of histograms of the remaining time of holds."""


class ReferenceComparison:
    """Applies commands to a store and to the reference at the same times, and compares outcomes and state."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.reference = Ledger(OFFICE)

    def apply(self, now_ms: int, command: Command) -> Outcome:
        self.clock.set_ms(now_ms)
        expected = apply(self.reference, command, now_ms)
        outcome: Outcome = self.store.apply(OFFICE, command)
        assert outcome == expected, command
        return outcome

    def compare(self) -> None:
        now_ms = self.clock.now_ms()
        assert self.store.execute(Describe(OFFICE)) == describe(self.reference)
        expected = [one for day in DAYS if (one := view(self.reference, day, now_ms)) is not None]
        assert self.store.execute(View(OFFICE, DAYS)) == expected
        waiting = [one.id for one in self.reference.reservations.values() if one.state is State.WAITING]
        for name in (*waiting[:5], *sorted(self.reference.reservations)[:1]):
            position = wait_list_position(self.reference, name, now_ms)
            assert self.store.execute(ReadWaitListPosition(OFFICE, name)) == position

    def compare_events(self) -> None:
        recorded = self.store.execute(ReadEvents(OFFICE, 0, EVENTS_MAX))
        assert [one.number for one in recorded] == list(range(1, len(recorded) + 1))
        assert [one.event for one in recorded] == self.reference.events
        assert self.store.execute(Audit(OFFICE)) == []
        for day in DAYS:
            assert self.store.execute(ListDay(OFFICE, day)) == list_day(self.reference, day, self.clock.now_ms())
            for bounds_ms in HISTOGRAM_BOUNDS_MS:
                expected = hold_remaining_histogram(self.reference, day, bounds_ms, self.clock.now_ms())
                assert self.store.execute(ReadHoldRemainingHistogram(OFFICE, day, bounds_ms)) == expected


def start_comparison(open_store: OpenStore, setup: tuple[Command, ...] = published()) -> ReferenceComparison:
    clock = ManualClock(OPENS_AT_MS - 3_600_000)
    comparison = ReferenceComparison(open_store(clock), clock)
    for command in setup:
        comparison.apply(clock.now_ms(), command)
    return comparison
