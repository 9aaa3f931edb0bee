"""Those who call: alone, in threads, or as asyncio tasks. They take work from one list, and note how long calls take.

All three have the same loop, so that the engine and what is done by hand differ in nothing but the call.
"""

from __future__ import annotations

__all__ = ["CallTimes", "run_single", "run_tasks", "run_threads"]

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

_clock_ns = time.perf_counter_ns


class CallTimes(NamedTuple):
    """Seconds from the first call to the last answer, and nanoseconds of the calls that were looked at."""

    took_s: float
    latencies_ns: list[int]


def run_single(call: Callable[[Item], object], items: Sequence[Item], every: int = 1) -> CallTimes:
    """One caller, one call after the other; the time of one call in ``every`` is noted."""
    latencies_ns: list[int] = []
    gc.collect()
    started_ns = _clock_ns()
    _work_off(call, iter(items), every, latencies_ns)
    return CallTimes((_clock_ns() - started_ns) / 1e9, latencies_ns)


def run_threads(call: Callable[[Item], object], items: Sequence[Item], threads: int, every: int = 1) -> CallTimes:
    """As many threads, which start together."""
    latencies_ns: list[int] = []
    start = threading.Barrier(threads + 1)
    waiting = iter(items)  # of a list: taking the next one is a single step, also among threads

    def work() -> None:
        start.wait()
        _work_off(call, waiting, every, latencies_ns)

    gc.collect()
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work) for _ in range(threads)]
        start.wait()
        started_ns = _clock_ns()
        for future in futures:
            future.result()
        took_ns = _clock_ns() - started_ns
    return CallTimes(took_ns / 1e9, latencies_ns)


async def run_tasks(call: Callable[[Item], Awaitable[object]], items: Sequence[Item], tasks: int) -> CallTimes:
    """As many asyncio tasks; each sends its next call when it has its answer."""
    latencies_ns: list[int] = []
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            started_ns = _clock_ns()
            await call(item)
            latencies_ns.append(_clock_ns() - started_ns)

    gc.collect()
    started_ns = _clock_ns()
    working = [asyncio.ensure_future(work()) for _ in range(tasks)]
    try:
        await asyncio.gather(*working)
    finally:
        for one in working:
            one.cancel()
    return CallTimes((_clock_ns() - started_ns) / 1e9, latencies_ns)


def _work_off(call: Callable[[Item], object], items: Iterator[Item], every: int, latencies_ns: list[int]) -> None:
    """``every`` is above 1 where a call takes so little time that looking at the clock would be much of it."""
    for number, item in enumerate(items):
        if number % every:
            call(item)
        else:
            started_ns = _clock_ns()
            call(item)
            latencies_ns.append(_clock_ns() - started_ns)
