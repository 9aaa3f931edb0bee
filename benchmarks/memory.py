"""Measure time and memory of the engine in memory, on one core: ``python -m benchmarks.memory``.

Cases run interleaved in this process, which is pinned to one core. The results are medians of rounds. Two yardsticks
run in the same rounds, because machines differ and are noisy. One is a dict behind a lock, which does nearly nothing.
The other is the rate limiter ``limits``, which counts a hit for an identity in memory.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from quota_engine import QuotaEngine
from quota_engine.bench.engine_workload import benchmark_catalog
from quota_engine.catalog import Selection

DAY = "2026-12-07"
OFFICE = "bench"
CAPACITY_MAX = 10_000_000


def open_engine(capacity: int) -> QuotaEngine:
    """Open an engine with one open office-day: one quota, identity limit, idempotency and events."""
    catalog = benchmark_catalog([OFFICE], capacity)
    engine = QuotaEngine.open(catalog=catalog)
    engine.publish(catalog, DAY)
    return engine


def identities(count: int, first: int = 0) -> list[str]:
    """Sixteen digits, as national numbers have."""
    return [f"{3578_0000_0000_0000 + number}" for number in range(first, first + count)]


def keys(count: int, first: int = 0) -> list[str]:
    """Twenty-two characters, as 128 random bits have."""
    return [f"k{number:021d}" for number in range(first, first + count)]


Case = Callable[[int], float]
"""Does ``count`` calls and returns the seconds they took."""


def timed(calls: Callable[[], None]) -> float:
    gc.collect()
    started_ns = time.perf_counter_ns()
    calls()
    return (time.perf_counter_ns() - started_ns) / 1e9


def dict_and_lock(count: int) -> float:
    places: dict[str, int] = {}
    lock = threading.Lock()
    names = keys(count)

    def calls() -> None:
        for name in names:
            with lock:
                if name not in places:
                    places[name] = 1

    return timed(calls)


def limits_hits(count: int) -> float:
    from limits import RateLimitItemPerDay
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter

    limiter = FixedWindowRateLimiter(MemoryStorage())
    item = RateLimitItemPerDay(1)
    names = identities(count)

    def calls() -> None:
        for name in names:
            limiter.hit(item, name)

    return timed(calls)


def reserve(count: int, capacity: int = CAPACITY_MAX) -> float:
    engine = open_engine(capacity)
    pairs = list(zip(identities(count), keys(count), strict=True))

    def calls() -> None:
        for identity, key in pairs:
            engine.reserve(OFFICE, DAY, identity, idempotency_key=key)

    seconds = timed(calls)
    view = engine.availability(OFFICE, DAY)[0].quotas["online"]
    assert view.held == min(count, capacity)
    return seconds


def refusal(count: int) -> float:
    return reserve(count, capacity=0)


def requests_alone(count: int) -> float:
    """Do what reserve and refusal share: names, keyed hash and the check of the key."""
    builder = open_engine(0)._methods.requests  # noqa: SLF001 - a part of a call is measured alone
    pairs = list(zip(identities(count), keys(count), strict=True))

    def calls() -> None:
        for identity, key in pairs:
            names = (OFFICE, DAY, "", "", "", "online", "")
            builder.reserve_or_refuse(names, identity, key, False, 0, None)

    return timed(calls)


def store_alone(count: int, capacity: int = CAPACITY_MAX) -> float:
    """Apply prepared commands to the store."""
    engine = open_engine(capacity)
    builder, store = engine._methods.requests, engine._store  # noqa: SLF001
    selection = Selection()
    commands = [
        builder.reserve(OFFICE, DAY, identity, selection, key, False, 0)
        for identity, key in zip(identities(count), keys(count), strict=True)
    ]

    def calls() -> None:
        for command in commands:
            store.apply(OFFICE, command)

    return timed(calls)


def confirm(count: int) -> float:
    engine = open_engine(CAPACITY_MAX)
    references = [
        engine.reserve(OFFICE, DAY, identity, idempotency_key=key).reference
        for identity, key in zip(identities(count), keys(count), strict=True)
    ]

    def calls() -> None:
        for reference in references:
            engine.confirm(reference)

    return timed(calls)


CASES: dict[str, Case] = {
    "a dict behind a lock": dict_and_lock,
    "limits: a hit in memory": limits_hits,
    "reserve": reserve,
    "refusal when sold out": refusal,
    "both: the request alone": requests_alone,
    "reserve: the store alone": store_alone,
    "refusal: the store alone": lambda count: store_alone(count, capacity=0),
    "confirm": confirm,
}


def growth(sizes: tuple[int, ...], count: int, rounds: int) -> dict[int, list[float]]:
    """Return the seconds of a reserve by the number of existing reservations."""
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        engine = open_engine(CAPACITY_MAX)
        done = 0
        for size in sizes:
            for identity, key in zip(identities(size - done, done), keys(size - done, done), strict=True):
                engine.reserve(OFFICE, DAY, identity, idempotency_key=key)
            pairs = list(zip(identities(count, size), keys(count, size), strict=True))

            def calls(pairs: list[tuple[str, str]] = pairs, engine: QuotaEngine = engine) -> None:
                for identity, key in pairs:
                    engine.reserve(OFFICE, DAY, identity, idempotency_key=key)

            seconds[size].append(timed(calls) / count)
            done = size + count
    return seconds


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes (Linux)."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_child(count: int, confirmed: bool) -> None:
    """Print the bytes a reservation takes, in a fresh process: nothing but the reservations may count."""
    engine = open_engine(CAPACITY_MAX)
    engine.reserve(OFFICE, DAY, "first", idempotency_key="first")
    gc.collect()
    before = resident_bytes()
    for number in range(count):
        outcome = engine.reserve(OFFICE, DAY, f"{3578_0000_0000_0000 + number}", idempotency_key=f"k{number:021d}")
        if confirmed:
            engine.confirm(outcome.reference)
    gc.collect()
    print((resident_bytes() - before) / count)


def bytes_a_reservation(count: int, *, confirmed: bool) -> float:
    argument = f"--memory-child={count}" + (",confirmed" if confirmed else "")
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.memory", argument], capture_output=True, text=True, check=True
    )
    return float(ran.stdout)


def measure(count: int, rounds: int, live: int) -> dict[str, Any]:
    """Return all results as a dict for JSON."""
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, case in CASES.items():
            print(f"\rround {number} of {rounds}: {name:<28}", end="", file=sys.stderr, flush=True)
            taken = case(count) / count
            if number:  # the first round warms up
                seconds[name].append(taken)
    sizes = tuple(10**power for power in range(3, 7) if 10**power <= live)
    print(f"\rcost by size, {len(sizes)} sizes{'':<30}", end="", file=sys.stderr, flush=True)
    by_size = growth(sizes, 20_000, max(3, rounds // 2))
    print(f"\rmemory{'':<50}", end="", file=sys.stderr, flush=True)
    held = bytes_a_reservation(live, confirmed=False)
    both = bytes_a_reservation(live, confirmed=True)
    print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(terse=True),
            "processor": processor(),
        },
        "rounds": rounds,
        "calls_a_round": count,
        "cases": [
            {
                "name": name,
                "ops_per_s": round(1 / median[name]),
                "us": round(median[name] * 1e6, 3),
                "us_min": round(min(seconds[name]) * 1e6, 3),
                "us_max": round(max(seconds[name]) * 1e6, 3),
                "times_the_dict": round(median[name] / median["a dict behind a lock"], 2),
            }
            for name in CASES
        ],
        "refusal_to_reserve": round(median["reserve"] / median["refusal when sold out"], 2),
        "us_by_reservations": {size: round(statistics.median(values) * 1e6, 3) for size, values in by_size.items()},
        "live_reservations": live,
        "bytes_held": round(held),
        "bytes_confirmed": round(both),
    }


def processor() -> str:
    """Return the name of the processor (Linux)."""
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def show(figures: dict[str, Any]) -> None:
    """Print the figures as tables."""
    print(" ".join(figures["machine"].values()))
    print(f"medians of {figures['rounds']} rounds of {figures['calls_a_round']:,} calls, one core\n")
    print(f"{'case':<26}{'calls/s':>12}{'µs':>8}{'µs min–max':>16}{'× dict':>8}")
    for case in figures["cases"]:
        spread = f"{case['us_min']:.2f}–{case['us_max']:.2f}"
        print(f"{case['name']:<26}{case['ops_per_s']:>12,}{case['us']:>8.2f}{spread:>16}{case['times_the_dict']:>8.1f}")
    print(f"\na refusal is {figures['refusal_to_reserve']} times as fast as a reserve")
    sizes = ", ".join(f"{size:,}: {us:.2f}" for size, us in figures["us_by_reservations"].items())
    print(f"µs of a reserve by reservations on the day:\n{'':<10}{sizes}")
    live = figures["live_reservations"]
    print(f"memory at {live:,}: {figures['bytes_held']} bytes a held one, with its event;")
    print(f"{'':<10}{figures['bytes_confirmed']} bytes a confirmed one, with both events")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls of a case in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--live", type=int, default=1_000_000, help="reservations for the memory and growth figures")
    parser.add_argument("--core", type=int, default=0, help="the core to stay on")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    if options.memory_child:
        count, _, confirmed = options.memory_child.partition(",")
        memory_child(int(count), bool(confirmed))
        return
    figures = measure(options.calls, options.rounds, options.live)
    print(json.dumps(figures, indent=2)) if options.json else show(figures)


if __name__ == "__main__":
    main()
