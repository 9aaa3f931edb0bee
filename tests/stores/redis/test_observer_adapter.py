"""Notifications of an observer about calls to the store, and errors of the observer."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import logging
import threading
from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, BackendUnavailable, QuotaEngine, Status
from quota_engine.admission.decision_counter import DecisionCounter
from quota_engine.admission.policy import DecisionRecord
from quota_engine.catalog import load_catalog
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY as DAY_NUMBER
from quota_engine.conformance.world import HOLD_TTL_MS, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import SetCapacity
from quota_engine.ports import ApplyMany, Batch, Observable, ReadHoldRemainingHistogram, StoreObserver
from quota_engine.stores.redis.factory import open_store
from tests.support.identities import nik
from tests.support.servers import Server

KEY = b"a key for tests, and only them"
CATALOG = load_catalog("surabaya")
DAY = datetime.date(2020, 1, 6)
"""It is over: reserves are refused, which is all that is needed here."""
CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")


class Seen:
    """An observer that keeps its notifications, and raises if it is set to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.batches: list[Batch] = []
        self.sold_out: list[str] = []
        self.fails = fails

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        raise AssertionError("nobody decides here")

    def on_enqueue(self) -> Any:
        self._fail()
        return CALLER.get()

    def on_batch(self, batch: Batch) -> None:
        self._fail()
        self.batches.append(batch)

    def on_sold_out(self, office: str) -> None:
        self._fail()
        self.sold_out.append(office)

    def _fail(self) -> None:
        if self.fails:
            raise ZeroDivisionError("an observer's own fault")


async def reserve_together(engine: AsyncQuotaEngine, count: int) -> list[Status]:
    async def one(number: int) -> Status:
        CALLER.set(f"caller {number}")
        return (await engine.reserve("surabaya", DAY, nik(number), service="new", session="morning")).status

    return await asyncio.gather(*(one(number) for number in range(count)))


async def test_async_store_reports_batches(valkey_server: Server) -> None:
    """Each batch once: its place, size and time, and for each of its calls what the observer wanted to have again."""
    seen = Seen()
    assert isinstance(seen, StoreObserver)
    async with await AsyncQuotaEngine.open(
        valkey_server.url, identity_key=KEY, catalog=CATALOG, observer=seen
    ) as engine:
        assert await reserve_together(engine, 200) == [Status.UNKNOWN_DAY] * 200
        assert await engine.lookup("surabaya~x") is None
    assert sum(batch.size for batch in seen.batches) == 201
    assert len(seen.batches) <= 9
    *reserves, look = seen.batches
    assert sorted(caller for batch in reserves for caller in batch.callers) == sorted(f"caller {n}" for n in range(200))
    assert all(batch.address == "surabaya" and not batch.error and batch.duration_us > 0 for batch in seen.batches)
    assert ({batch.reads for batch in reserves}, look.reads, look.callers) == ({False}, True, ("",))


async def test_call_that_was_cancelled_before_it_was_sent_is_not_reported(valkey_server: Server) -> None:
    """The store has not failed: the batch has no call left."""
    seen = Seen()
    async with await AsyncQuotaEngine.open(
        valkey_server.url, identity_key=KEY, catalog=CATALOG, observer=seen
    ) as engine:
        call = asyncio.ensure_future(reserve_together(engine, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await engine.lookup("surabaya~x") is None
    assert [(batch.reads, batch.error) for batch in seen.batches] == [(True, "")]


def test_sync_store_reports_batches(valkey_server: Server) -> None:
    """The same from threads; a call that fails is one with an error."""
    seen = Seen()
    with QuotaEngine.open(
        f"{valkey_server.url}?attempts_max=1", identity_key=KEY, catalog=CATALOG, observer=seen
    ) as engine:

        def press(number: int) -> None:
            CALLER.set(str(number))
            engine.reserve("surabaya", DAY, nik(number), service="new", session="morning")

        threads = [threading.Thread(target=press, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(caller for batch in seen.batches for caller in batch.callers) == sorted(map(str, range(20)))
        seen.batches.clear()
        valkey_server.kill()
        with pytest.raises(BackendUnavailable):
            engine.lookup("surabaya~x")
    assert [(batch.size, batch.error, batch.reads) for batch in seen.batches] == [(1, "BackendUnavailable", True)]


async def test_cached_refusals_are_reported(valkey_server: Server) -> None:
    """Refusals from the cache are not a batch; the observer is notified of each."""
    seen = Seen()
    clock = ManualClock(0)
    url = f"{valkey_server.url}?sold_out_ms=250"
    async with await AsyncQuotaEngine.open(
        url, identity_key=KEY, catalog=CATALOG, observer=seen, clock=clock
    ) as engine:
        day = datetime.date(2026, 12, 7)
        await engine.publish(CATALOG, day)
        (view,) = await engine.availability("surabaya", day)
        clock.set_ms(view.opens_at_ms)
        assert (await engine.set_capacity("surabaya", day, "online", 0)).ok
        statuses = []
        for number in range(50):
            outcome = await engine.reserve("surabaya", day, nik(number), service="new", session="morning")
            statuses.append(outcome.status)
            await asyncio.sleep(0)
        assert set(statuses) == {Status.SOLD_OUT}
    assert seen.sold_out == ["surabaya"] * len(seen.sold_out)
    assert 0 < len(seen.sold_out) < 50
    reserves = sum(batch.size for batch in seen.batches if not batch.reads) - 1  # the capacity
    assert reserves + len(seen.sold_out) == 50


async def test_failing_observer_is_logged(valkey_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Errors of an observer affect no call."""
    opened = AsyncQuotaEngine.open(valkey_server.url, identity_key=KEY, catalog=CATALOG, observer=Seen(fails=True))
    async with await opened as engine:
        with caplog.at_level(logging.ERROR):
            assert await reserve_together(engine, 2) == [Status.UNKNOWN_DAY] * 2
    assert {record.message for record in caplog.records} == {
        f"an observer raised an error in {method}" for method in ("on_enqueue", "on_batch")
    }


async def test_decision_observer_gets_no_store_notifications(valkey_server: Server) -> None:
    """An observer with the methods of an earlier version keeps working."""
    opened = AsyncQuotaEngine.open(valkey_server.url, identity_key=KEY, catalog=CATALOG, observer=DecisionCounter())
    async with await opened as engine:
        assert await reserve_together(engine, 2) == [Status.UNKNOWN_DAY] * 2
        assert isinstance(engine._store, Observable)
        assert engine._store._observer is None  # type: ignore[attr-defined]
    with QuotaEngine.open(observer=Seen()) as in_memory:  # which has no way to go
        assert not isinstance(in_memory._store, Observable)


def test_histogram_counts_more_holds_than_one_page(valkey_server: Server) -> None:
    """A thousand a script call, and all of them in the end, each once."""
    clock = ManualClock(OPENS_AT_MS)
    backend = open_store(valkey_server.url, clock)
    try:
        backend.execute(ApplyMany(OFFICE, (*published(), SetCapacity(DAY_NUMBER, "online", 5000))))
        for number in range(2400):
            clock.set_ms(OPENS_AT_MS + number)
            assert backend.apply(OFFICE, reserve(f"p{number}", ONLINE)).ok
        clock.set_ms(OPENS_AT_MS + 2400)
        counts = backend.execute(
            ReadHoldRemainingHistogram(OFFICE, DAY_NUMBER, (HOLD_TTL_MS - 2400, HOLD_TTL_MS - 1200, HOLD_TTL_MS))
        )
        assert counts == [1, 1200, 1199, 0]
        clock.set_ms(OPENS_AT_MS + HOLD_TTL_MS + 9)
        assert backend.execute(ReadHoldRemainingHistogram(OFFICE, DAY_NUMBER, ())) == [2390]
    finally:
        backend.close()
