"""Results that many callers share: made once, bounded, and never older than stated."""

from __future__ import annotations

import asyncio
import math

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.service.shared_cache import SharedCache

START_MS = 1_000_000
SIZE = 3


class Maker:
    """Makes the values 1, 2, 3, … and so counts its calls."""

    def __init__(self, valid_ms: float = math.inf) -> None:
        self.calls = 0
        self.valid_ms = valid_ms

    def __call__(self) -> tuple[int, float]:
        self.calls += 1
        return self.calls, START_MS + self.valid_ms


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
def cache(clock: ManualClock) -> SharedCache[int]:
    return SharedCache(SIZE, clock.now_ms)


def test_result_is_made_once_for_the_same_sources(cache: SharedCache[int]) -> None:
    """Sources are compared by identity: an equal object may have been changed since."""
    make, one, other = Maker(), [1], [1]
    assert [cache.get("a", (one,), make) for _ in range(3)] == [1, 1, 1]
    assert cache.get("a", (other,), make) == 2
    assert cache.get("a", (other, None), make) == 3
    assert cache.get("a", (other, None), make) == 3
    assert cache.get("b", (other, None), make) == 4


def test_result_is_made_again_when_its_time_is_over(cache: SharedCache[int], clock: ManualClock) -> None:
    make = Maker(100)
    assert cache.get("a", (), make) == 1
    clock.advance_ms(99)
    assert cache.get("a", (), make) == 1
    clock.advance_ms(1)
    assert cache.get("a", (), make) == 2


def test_clock_that_runs_backwards_makes_a_result_again(cache: SharedCache[int], clock: ManualClock) -> None:
    make = Maker(100)
    assert cache.get("a", (), make) == 1
    clock.set_ms(START_MS - 1)
    assert cache.get("a", (), make) == 2


def test_cache_keeps_a_bounded_number_of_results(cache: SharedCache[int]) -> None:
    make = Maker()
    for key in range(100):
        cache.get(key, (), make)
    assert len(cache._entries) <= SIZE
    calls = make.calls
    assert cache.get(99, (), make) == calls


def test_error_of_a_maker_is_not_kept(cache: SharedCache[int]) -> None:
    def fail() -> tuple[int, float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.get("a", (), fail)
    assert cache.get("a", (), Maker()) == 1


async def test_concurrent_callers_of_a_key_wait_for_one_request(cache: SharedCache[int], clock: ManualClock) -> None:
    started, goes_on = asyncio.Event(), asyncio.Event()
    calls = 0

    async def load() -> int:
        nonlocal calls
        calls += 1
        started.set()
        await goes_on.wait()
        return calls

    callers = [asyncio.create_task(cache.load("a", load, 1_000)) for _ in range(50)]
    await started.wait()
    goes_on.set()
    assert await asyncio.gather(*callers) == [(START_MS, 1)] * 50
    clock.advance_ms(999)
    assert await cache.load("a", load, 1_000) == (START_MS, 1)
    clock.advance_ms(1)
    assert await cache.load("a", load, 1_000) == (START_MS + 1_000, 2)
    assert await cache.load("a", load, 1_000, not_before_ms=START_MS + 1_001) == (START_MS + 1_000, 3)


async def test_error_of_a_request_reaches_its_caller_and_the_next_one_requests_again(cache: SharedCache[int]) -> None:
    async def fail() -> int:
        raise ZeroDivisionError

    async def load() -> int:
        return 1

    with pytest.raises(ZeroDivisionError):
        await cache.load("a", fail, 1_000)
    assert (await cache.load("a", load, 1_000))[1] == 1


async def test_unknown_keys_leave_a_bounded_memory(cache: SharedCache[int]) -> None:
    async def load() -> int:
        return 1

    for key in range(100):
        await cache.load(key, load, 1_000)
    assert len(cache._entries) <= SIZE
    assert len(cache._locks) <= SIZE
