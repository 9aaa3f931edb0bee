"""Measure the processor time of a reserve next to a plain script: ``python -m benchmarks.lone_calls``.

Processor time is a fair measure on a machine that does other work, where elapsed time is not. Many short rounds are
interleaved, and each result is the median of the ratios within the rounds.

- The client: a lone call of the engine, by the process that makes it, next to ``evalsha`` of redis-py.
- The server: a reserve alone and in batches, by its main thread, next to the plain script of ``quota-engine bench``.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.engine_workload import EngineWorkload
from quota_engine.bench.plain_redis import PlainRedisWorkload
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.bench.target_url import parse_target
from quota_engine.clocks import SystemClock
from quota_engine.domain.clock_check import LEAP_MS_DEFAULT
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.retrying_calls import Header
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS

CALLS: Final = 100
BATCHES: Final = (1, 4, 16, 128)
IN_FLIGHT: Final = 4
TIMEOUT_MS: Final = 60_000


def _median_ratio(ours: Sequence[float], plain: Sequence[float]) -> dict[str, float]:
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    return {
        "engine_us": round(statistics.median(ours), 1),
        "plain_us": round(statistics.median(plain), 1),
        "ratio": round(ratio, 2),
    }


def client(store: BenchStore, style: ApiStyle, rounds: int) -> dict[str, float]:
    """Return the client's processor time of a lone call, in microseconds, by the engine and by redis-py."""
    works = {}
    for kind, workload in ((Implementation.ENGINE, EngineWorkload), (Implementation.BY_HAND, PlainRedisWorkload)):
        works[kind] = workload(store, BenchCase("reserve", kind, style, 1)).prepare((rounds + 1) * CALLS)
    taken: dict[Implementation, list[float]] = {kind: [] for kind in works}
    for number in range(rounds + 1):
        for kind in list(works)[:: 1 if number % 2 else -1]:
            call, calls = works[kind]
            part = calls[number * CALLS : (number + 1) * CALLS]
            gc.collect()
            used_s = store.run_coroutine(_run_async(call, part)) if style is ApiStyle.TASKS else _run(call, part)
            if number:  # the first round warms up
                taken[kind].append(used_s / CALLS * 1e6)
    return _median_ratio(taken[Implementation.ENGINE], taken[Implementation.BY_HAND])


def _run(call: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Make the calls one after the other; return the processor time of this process in seconds."""
    started_s = time.process_time()
    for item in items:
        call(item)
    return time.process_time() - started_s


async def _run_async(call: Callable[[Any], Awaitable[Any]], items: Sequence[Any]) -> float:
    """Do the same for asyncio. The start of the event loop does not count."""
    started_s = time.process_time()
    for item in items:
        await call(item)
    return time.process_time() - started_s


def server(store: BenchStore, batch: int, rounds: int, *, as_function: bool) -> dict[str, float]:
    """Return the server's processor time of a reserve in batches, in microseconds, by the engine and by the script."""
    case = BenchCase("reserve", Implementation.ENGINE, ApiStyle.TASKS, IN_FLIGHT)
    workload = EngineWorkload(store, case)
    plain = PlainRedisWorkload(store, BenchCase("reserve", Implementation.BY_HAND, ApiStyle.TASKS, IN_FLIGHT, batch))
    keys = keys_of(store.target.namespace, workload.offices[0])
    store.clients.client.script_load(OFFICE_COMMANDS.text)
    head = ("FCALL", OFFICE_COMMANDS.function) if as_function else ("EVALSHA", OFFICE_COMMANDS.sha1)
    count = batch * max(20, CALLS // batch)
    ours: list[float] = []
    by_hand: list[float] = []
    for number in range(rounds + 1):
        work = workload.make_reserves(count)
        workload._count(work)  # noqa: SLF001 - these commands pass by the store
        lines = [encode(command) for _, _, command in work]
        header = _header()
        requests = [(*head, len(keys), *keys, header, *lines[at : at + batch]) for at in range(0, count, batch)]
        engine_us = _server_us(store, requests) / count
        _, calls = plain.prepare(count)
        plain_us = _server_us(store, [("EVALSHA", plain.reserve_digest, *call) for call in calls]) / count
        if number:
            ours.append(engine_us)
            by_hand.append(plain_us)
    workload.check()
    plain.check()
    workload.remove()
    plain.remove()
    return _median_ratio(ours, by_hand)


def _header() -> str:
    """Return the first argument of a call, as the store sends it: its last moment, and a check of the clock."""
    now_ms = SystemClock().now_ms()
    return Header(witness=f"={now_ms}:{LEAP_MS_DEFAULT}").text(now_ms + TIMEOUT_MS)


def _server_us(store: BenchStore, requests: Sequence[Sequence[Any]]) -> float:
    """Return the processor time of the server's main thread for these requests."""

    def used_s() -> float:
        info: Any = store.clients.client.info("cpu")
        return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])

    pipe = store.clients.client.pipeline(transaction=False)
    for request in requests:
        pipe.execute_command(*request)
    before_s = used_s()
    pipe.execute()
    return (used_s() - before_s) * 1e6


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="valkey+embedded://")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    if not options.json:
        print(f"{'processor time of a reserve':<42}{'engine':>11}{'plain':>11}{'ratio':>13}")

    def add(name: str, measure: Callable[[], dict[str, float]]) -> None:
        results[name] = measure()
        if not options.json:
            one = results[name]
            print(f"{name:<42}{one['engine_us']:>8.1f} µs{one['plain_us']:>8.1f} µs{one['ratio']:>7.2f} times")

    with BenchStore(parse_target(options.backend), None) as store:
        add("client, a lone synchronous call", lambda: client(store, ApiStyle.SINGLE, options.rounds))
        add("client, a lone call under asyncio", lambda: client(store, ApiStyle.TASKS, options.rounds))
        for batch in BATCHES:
            for as_function in (True, False):
                name = f"server, batch {batch}, {'FCALL' if as_function else 'EVALSHA'}"
                add(name, lambda batch=batch, form=as_function: server(store, batch, options.rounds, as_function=form))  # type: ignore[misc]
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
