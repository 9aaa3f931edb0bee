"""Tests of ledgers that were written at a wrong time. ``test_backend`` has them for every store."""

from __future__ import annotations

__all__ = ["test_days_that_were_over_by_a_wrong_clock_open_again", "test_reconcile_brings_the_time_of_an_office_back"]

from typing import Final

from quota_engine.clocks import ManualClock
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
