"""Load drivers: a single caller, threads, or asyncio tasks. They take work from one list and time the calls.

All three run the same loop, so the engine and the yardsticks differ only in the call.
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
    """Seconds from the first call to the last answer, and nanoseconds of the calls that were timed."""

    took_s: float
    latencies_ns: list[int]


def run_single(call: Callable[[Item], object], items: Sequence[Item], every: int = 1) -> CallTimes:
    """Run the calls one after the other, and time one call in ``every``."""
    latencies_ns: list[int] = []
    gc.collect()
    started_ns = _clock_ns()
    _run_calls(call, iter(items), every, latencies_ns)
    return CallTimes((_clock_ns() - started_ns) / 1e9, latencies_ns)


def run_threads(call: Callable[[Item], object], items: Sequence[Item], threads: int, every: int = 1) -> CallTimes:
    """Run the calls in threads that start together, and time one call in ``every``."""
    latencies_ns: list[int] = []
    start = threading.Barrier(threads + 1)
    waiting = iter(items)  # next() on a list iterator is atomic, also between threads.

    def work() -> None:
        start.wait()
        _run_calls(call, waiting, every, latencies_ns)

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
    """Run the calls in asyncio tasks. Each task sends its next call after the answer."""
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


def _run_calls(call: Callable[[Item], object], items: Iterator[Item], every: int, latencies_ns: list[int]) -> None:
    """Run calls, and time one in ``every``: reading the clock takes a large part of a very short call."""
    for number, item in enumerate(items):
        if number % every:
            call(item)
        else:
            started_ns = _clock_ns()
            call(item)
            latencies_ns.append(_clock_ns() - started_ns)
