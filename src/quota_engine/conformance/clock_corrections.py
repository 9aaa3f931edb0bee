"""Tests of ledgers that were written at a wrong time. ``test_backend`` has them for every store."""

from __future__ import annotations

__all__ = [
    "test_days_that_were_over_by_a_wrong_clock_open_again",
    "test_reconcile_brings_the_time_of_an_office_back",
    "test_tickets_called_by_a_wrong_clock_stay_called",
]

from typing import Final

from quota_engine.clocks import ManualClock
from quota_engine.conformance import random_rooms
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.world import (
    DAY,
    FORGET_AT_MS,
    HOLD_TTL_MS,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    published,
    reserve,
)
from quota_engine.domain.commands import CloseDay, Confirm, Release
from quota_engine.domain.events import TimeCorrected
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit, Lookup, ReadEvents, Reconcile, View
from quota_engine.waiting_room.commands import CallTickets, CreateRoom, JoinRoom, OpenRoom
from quota_engine.waiting_room.results import RoomView, TicketCall

_HOUR_MS: Final = 3_600_000


def test_reconcile_brings_the_time_of_an_office_back(quota_engine_backend: OpenStore) -> None:
    """The clock was an hour ahead. A hold of that hour lasts no longer than one that begins now."""
    clock = ManualClock(OPENS_AT_MS + _HOUR_MS)
    store = quota_engine_backend(clock)
    store.execute(ApplyMany(OFFICE, (*published(identity_limits=()), reserve("ani", ONLINE), Confirm("ani"))))
    store.apply(OFFICE, reserve("budi", ONLINE))
    clock.set_ms(OPENS_AT_MS)
    assert store.execute(Reconcile(OFFICE)).time_corrected_by_ms == _HOUR_MS
    hold, place = store.execute(Lookup(OFFICE, "budi")), store.execute(Lookup(OFFICE, "ani"))
    assert hold is not None
    assert place is not None
    assert (hold.created_at_ms, hold.deadline_at_ms) == (OPENS_AT_MS, OPENS_AT_MS + HOLD_TTL_MS)
    assert place.created_at_ms == OPENS_AT_MS
    assert store.execute(ReadEvents(OFFICE, 0, 100))[-1].event == TimeCorrected(OPENS_AT_MS, OPENS_AT_MS + _HOUR_MS)
    assert store.execute(Audit(OFFICE)) == []
    clock.advance_ms(HOLD_TTL_MS)
    assert store.apply(OFFICE, Confirm("budi")).status is Status.HOLD_EXPIRED
    assert store.execute(Reconcile(OFFICE)).time_corrected_by_ms == 0
    assert store.execute(Audit(OFFICE)) == []


def test_days_that_were_over_by_a_wrong_clock_open_again(quota_engine_backend: OpenStore) -> None:
    """The days are over by the last event, until reconcile brings its time back. They were never forgotten."""
    clock = ManualClock(OPENS_AT_MS)
    store = quota_engine_backend(clock)
    store.execute(ApplyMany(OFFICE, (*published(), reserve("ani", ONLINE))))
    clock.set_ms(FORGET_AT_MS - 1)
    store.execute(ApplyMany(OFFICE, (CloseDay(NEXT_DAY),)))
    clock.set_ms(OPENS_AT_MS)
    assert [view.day for view in store.execute(View(OFFICE, (DAY, NEXT_DAY)))] == [DAY, NEXT_DAY]
    assert store.apply(OFFICE, Release("nobody")).status is Status.NOT_FOUND
    assert store.apply(OFFICE, reserve("budi", ONLINE)).status is Status.DAY_OVER
    assert store.execute(Reconcile(OFFICE)).time_corrected_by_ms == FORGET_AT_MS - 1 - OPENS_AT_MS
    assert store.apply(OFFICE, reserve("budi", ONLINE)).status is Status.HELD
    assert store.execute(Audit(OFFICE)) == []


def test_tickets_called_by_a_wrong_clock_stay_called(quota_engine_backend: OpenStore) -> None:
    """The clock was ahead when the last window was called. After the correction, that window has not ended yet."""
    opens_at_ms, address = random_rooms.OPENS_AT_MS, "~room.conformance"
    clock = ManualClock(opens_at_ms - 1_000)
    store = quota_engine_backend(clock)

    def join(number: int) -> None:
        assert store.apply(address, JoinRoom(f"{number:032x}")).ok

    def call(after_ms: int) -> RoomView:
        clock.set_ms(opens_at_ms + after_ms)
        view: RoomView = store.apply(address, CallTickets(6_000, 100, 7)).view
        return view

    store.apply(address, CreateRoom(random_rooms.terms(window_ms=10_000, turn_ms=2_000)))
    join(1)
    join(2)
    clock.set_ms(opens_at_ms)
    assert store.apply(address, OpenRoom(random_rooms.SEED)).ok
    clock.set_ms(opens_at_ms + 5_000)
    join(3)
    early = call(1_200_000)
    assert early.called_count == 3
    clock.set_ms(opens_at_ms + 6_000)
    corrected_by_ms = store.execute(Reconcile(address)).time_corrected_by_ms
    again = call(7_000)
    assert again.called_count == 3
    if not corrected_by_ms:  # SQL stores keep a room's commands with their times
        assert again.calls == early.calls
        return
    assert corrected_by_ms == 1_194_000
    assert again.calls == (TicketCall(opens_at_ms + 7_000, 3, 7),), "its turn begins now"
    clock.set_ms(opens_at_ms + 11_000)
    join(4)
    later = call(21_000)
    assert (later.turns_ended, later.calls) == (3, (TicketCall(opens_at_ms + 21_000, 4, 7),))
