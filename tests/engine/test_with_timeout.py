"""Engines whose calls end by a given time."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, InvalidRequest, QuotaEngine
from quota_engine.catalog import load_catalog
from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore
from quota_engine.workflows.request_builder import RequestBuilder

KEY = b"a key for tests, and only them"
CLOCK = ManualClock.at("2026-12-01T08:00:00+07:00")


class RecordingStore(MemoryStore):
    """A memory store that records the time that each call has."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.times_left_ms: list[float | None] = []

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        self._record(ends_at_ms)
        return super().apply(address, command, ends_at_ms=ends_at_ms)

    def execute(self, request: Any, *, ends_at_ms: float | None = None) -> Any:
        self._record(ends_at_ms)
        return super().execute(request, ends_at_ms=ends_at_ms)

    def _record(self, ends_at_ms: float | None) -> None:
        self.times_left_ms.append(None if ends_at_ms is None else ends_at_ms - monotonic_ms())


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture
def engine(store: RecordingStore) -> QuotaEngine:
    return QuotaEngine(store, RequestBuilder(KEY, load_catalog("surabaya"), lambda: "an-id", None), clock=CLOCK)


def test_an_engine_without_timeout_leaves_it_to_the_store(engine: QuotaEngine, store: RecordingStore) -> None:
    engine.reserve("surabaya", "2026-12-07", "3578012345678901", service="new", session="morning")
    engine.lookup("surabaya~an-id")
    assert set(store.times_left_ms) == {None}


def test_every_call_has_the_time_that_is_left(engine: QuotaEngine, store: RecordingStore) -> None:
    """Reserves, workflows, rooms and draws; the engine itself stays as it was."""
    bounded = engine.with_timeout(60_000)
    bounded.reserve("surabaya", "2026-12-07", "3578012345678901", service="new", session="morning")
    bounded.lookup("surabaya~an-id")
    bounded.close_day("surabaya", "2026-12-07")
    bounded.draw("dec").view()
    with pytest.raises(InvalidRequest):
        bounded.room("nobodys").view()
    assert len(store.times_left_ms) >= 5
    assert all(left is not None and 30_000 < left <= 60_000 for left in store.times_left_ms)
    engine.lookup("surabaya~an-id")
    assert store.times_left_ms[-1] is None


def test_an_engine_for_one_request_takes_few_calls(engine: QuotaEngine) -> None:
    """Each request of a service makes one. Two instance checks of protocols took as many calls again."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    engine.with_timeout(5_000)
    sys.setprofile(count)
    try:
        engine.with_timeout(5_000)
    finally:
        sys.setprofile(None)
    assert 5 < calls < 20


def test_an_earlier_end_stays(engine: QuotaEngine, store: RecordingStore) -> None:
    engine.with_timeout(1_000).with_timeout(60_000).lookup("surabaya~an-id")
    (left,) = store.times_left_ms
    assert left is not None
    assert left <= 1_000


async def test_the_async_engine_passes_the_end_on(store: RecordingStore) -> None:
    requests = RequestBuilder(KEY, load_catalog("surabaya"), lambda: "an-id", None)
    engine = AsyncQuotaEngine(AsyncMemoryStore(store), requests, clock=CLOCK)
    bounded = engine.with_timeout(5_000)
    await bounded.reserve("surabaya", "2026-12-07", "3578012345678901", service="new", session="morning")
    await bounded.lookup("surabaya~an-id")
    await bounded.draw("dec").view()
    with pytest.raises(InvalidRequest):
        await bounded.room("nobodys").view()
    assert all(left is not None and left <= 5_000 for left in store.times_left_ms)


@pytest.mark.parametrize("timeout_ms", [0, 199, 3_600_001, 500.0, True])
def test_timeouts_have_bounds(engine: QuotaEngine, timeout_ms: Any) -> None:
    with pytest.raises(InvalidRequest):
        engine.with_timeout(timeout_ms)
