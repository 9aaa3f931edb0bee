"""Tests of reconciliation. ``test_backend`` has them for every store."""

from __future__ import annotations

__all__ = [
    "test_lost_events_are_restored",
    "test_reconcile_leaves_an_open_room_as_it_is",
    "test_reconciling_a_consistent_office_changes_only_the_epoch",
]


import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance import random_rooms
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.reference_comparison import start_comparison
from quota_engine.conformance.world import DAY, OFFICE
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.events import DayForgotten
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.domain.state_machine import apply
from quota_engine.ports import Describe, Reconcile, RecordedEvent, TrimEvents
from quota_engine.waiting_room.commands import CreateRoom


@pytest.mark.parametrize("trimmed", [False, True])
def test_reconciling_a_consistent_office_changes_only_the_epoch(quota_engine_backend: OpenStore, trimmed: bool) -> None:
    """The office is rebuilt from its events, or from its records if events have been trimmed."""
    comparison = start_comparison(quota_engine_backend)
    for number, (now_ms, command) in enumerate(random_commands(11, 200)):
        comparison.apply(now_ms, command)
        if trimmed and number == 50:
            comparison.store.execute(TrimEvents(OFFICE, 10))
        if number % 50 == 49:
            # A clock behind the last event would be corrected, too.
            comparison.clock.set_ms(max(now_ms, comparison.reference.now_ms))
            before = comparison.store.execute(Reconcile(OFFICE)).epoch
            found = comparison.store.execute(Reconcile(OFFICE))
            assert (found.findings, found.repaired, found.restored) == ((), 0, 0)
            assert found.epoch == before + 1
            comparison.compare()


def test_lost_events_are_restored(quota_engine_backend: OpenStore) -> None:
    """A store that lost its last events regains its state with them. Other events are refused."""
    comparison = start_comparison(quota_engine_backend)
    lost = Ledger(OFFICE)
    for number, (now_ms, command) in enumerate(random_commands(12, 160)):
        if number < 80:
            comparison.apply(now_ms, command)
        else:
            lost = lost if lost.events else rebuild(OFFICE, comparison.reference.events)
            apply(lost, command, now_ms)
    kept = len(comparison.reference.events)
    events = [RecordedEvent(number, event) for number, event in enumerate(lost.events, 1)]
    assert len(events) > kept + 10
    with pytest.raises(InvalidRequest, match="events: number"):
        comparison.store.execute(Reconcile(OFFICE, tuple(events[kept + 1 :])))
    with pytest.raises(InvalidRequest, match="events: number"):
        comparison.store.execute(Reconcile(OFFICE, (RecordedEvent(kept, events[0].event),)))
    comparison.compare()
    assert comparison.store.execute(Reconcile(OFFICE, tuple(events[kept - 3 :]))).restored == len(events) - kept
    comparison.reference = lost
    comparison.compare()
    for now_ms, command in random_commands(13, 80):
        comparison.apply(max(now_ms, lost.now_ms), command)
    comparison.compare()
    comparison.compare_events()


def test_reconcile_leaves_an_open_room_as_it_is(quota_engine_backend: OpenStore) -> None:
    """A room has no events to recompute it from. Its epoch grows only after a failover."""
    store, address = quota_engine_backend(ManualClock(random_rooms.OPENS_AT_MS - 1)), "~room.conformance"
    store.apply(address, CreateRoom(random_rooms.terms()))
    before = store.execute(Describe(address))
    assert store.execute(Reconcile(address)) == Reconciliation(address, 1)
    assert store.execute(Describe(address)) == before
    with pytest.raises(InvalidRequest, match="events"):
        store.execute(Reconcile(address, (RecordedEvent(1, DayForgotten(1, DAY)),)))
