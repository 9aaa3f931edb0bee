"""Compare token buckets with ``throttled-py``: ``python -m benchmarks.token_bucket``.

Both run interleaved in this process, which is pinned to one core. The store's server is another process, on another
core if there is one. The results are medians of rounds, and the ratio is that of the medians. Every case admits and
refuses callers: it has a hundred keys, and more calls than their buckets hold.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from quota_engine import AsyncTokenBuckets, TokenBuckets
from quota_engine.admission.token_bucket import per_second
from quota_engine.stores.embedded import open_embedded

RATE, BURST, KEYS = 1000, 1000, 100
SECRET = b"sixteen or more secret bytes"


def keys_for(count: int) -> list[str]:
    """Return keys, a hundred of them different."""
    return [f"203.0.113.{number % KEYS}" for number in range(count)]


def timed(calls: Callable[[], None]) -> float:
    """Return the seconds that the calls take."""
    gc.collect()
    started_ns = time.perf_counter_ns()
    calls()
    return (time.perf_counter_ns() - started_ns) / 1e9


def ours_in_memory(count: int) -> float:
    names = keys_for(count)
    with TokenBuckets.open("memory://", per_second(RATE, BURST)) as buckets:
        take = buckets.take

        def calls() -> None:
            for name in names:
                take(name)

        return timed(calls)


def throttled_in_memory(count: int) -> float:
    from throttled import MemoryStore, Throttled, rate_limiter

    quota = rate_limiter.per_sec(RATE, burst=BURST)
    limiter = Throttled(using="token_bucket", quota=quota, store=MemoryStore())
    names = keys_for(count)

    def calls() -> None:
        for name in names:
            limiter.limit(name)

    return timed(calls)


async def _spread(call: Callable[[str], Any], names: list[str], callers: int) -> float:
    """Return the seconds of all calls by concurrent callers."""

    async def caller(mine: list[str]) -> None:
        for name in mine:
            await call(name)

    gc.collect()
    started_ns = time.perf_counter_ns()
    await asyncio.gather(*(caller(names[number::callers]) for number in range(callers)))
    return (time.perf_counter_ns() - started_ns) / 1e9


def ours_on(url: str, callers: int) -> Callable[[int], float]:
    async def run(count: int) -> float:
        async with await AsyncTokenBuckets.open(url, per_second(RATE, BURST), identity_key=SECRET) as buckets:
            await buckets.take("first")
            return await _spread(buckets.take, keys_for(count), callers)

    return lambda count: asyncio.run(run(count))


def throttled_on(url: str, callers: int) -> Callable[[int], float]:
    """Run throttled-py with a connection for each caller, up to fifty, because more make it slower."""

    async def run(count: int) -> float:
        import throttled.asyncio as throttled

        connections = min(callers, 50)
        pool = {"CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool"}
        store = throttled.RedisStore(
            server=url, options={**pool, "CONNECTION_POOL_KWARGS": {"max_connections": connections}}
        )
        quota = throttled.rate_limiter.per_sec(RATE, burst=BURST)
        limiter = throttled.Throttled(using="token_bucket", quota=quota, store=store)
        await limiter.limit("first")
        return await _spread(limiter.limit, keys_for(count), callers)

    return lambda count: asyncio.run(run(count))


@contextlib.contextmanager
def server_url(given: str) -> Iterator[str]:
    """Yield the URL of the given server, or of a Valkey that is started and stopped again."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        server = open_embedded(f"valkey+embedded://{folder}")
        try:
            yield server.url
        finally:
            server.close()


def measure(cases: dict[str, tuple[Callable[[int], float], int]], rounds: int) -> dict[str, float]:
    """Return the median of the rounds in calls a second, by case."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, (case, count) in cases.items():
            print(f"\rround {number} of {rounds}: {name:<40}", end="", file=sys.stderr, flush=True)
            taken = case(count) / count
            if number:  # the first round warms up
                seconds[name].append(taken)
    print(f"\r{'':<70}\r", end="", file=sys.stderr, flush=True)
    return {name: 1 / statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls of a case in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--callers", type=int, default=500, help="callers at once, on the store")
    parser.add_argument("--backend", default="", help="the URL of a store; without it a Valkey is started for this")
    parser.add_argument("--core", type=int, default=0, help="the core to stay on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with server_url(options.backend) as url:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {options.core})  # The server has the remaining cores.
        cases = {
            "ours, in memory": (ours_in_memory, options.calls),
            "throttled-py, in memory": (throttled_in_memory, options.calls),
            "ours, on the store": (ours_on(url, options.callers), options.calls),
            "throttled-py, on the store": (throttled_on(url, options.callers), max(1, options.calls // 5)),
        }
        per_s = measure(cases, options.rounds)
    ratios = {
        "in_memory": per_s["ours, in memory"] / per_s["throttled-py, in memory"],
        "on_the_store": per_s["ours, on the store"] / per_s["throttled-py, on the store"],
    }
    if options.json:
        figures = {"ops_per_s": {name: round(value) for name, value in per_s.items()}, "ratios": ratios}
        print(json.dumps(figures | {"callers": options.callers, "rounds": options.rounds}, indent=2))
        return
    for name, value in per_s.items():
        print(f"{name:<30}{value:>12,.0f} calls/s")
    print(f"in memory {ratios['in_memory']:.2f} times throttled-py, on the store {ratios['on_the_store']:.2f} times")


if __name__ == "__main__":
    main()
