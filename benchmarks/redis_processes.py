"""Reserve at the same offices of one Valkey from several processes: ``python -m benchmarks.redis_processes``.

The callers are divided among the processes, so that each row has as many callers in all. All processes are pinned to
one core, and the server to another. The rounds of the rows alternate, and the values are medians.

Each row has two ratios. The first compares it with one process that has all callers. The second compares it with one
process that has as many callers as each process of the row. All processes of a row share one core, as that one has it
alone. So a second ratio of 1 means that the row loses nothing.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import datetime
import itertools
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.worker_processes import run_workers
from quota_engine import AsyncQuotaEngine
from quota_engine.bench.engine_workload import benchmark_catalog, next_working_day
from quota_engine.catalog import Catalog
from tests.support.servers import Server, valkey_server_binary

_CAPACITY: Final = 10_000_000
_IDENTITY_KEY: Final = bytes(range(32))
_CLIENT_CORE: Final = 0
_SERVER_CORE: Final = 1
_PEOPLE_OF_A_PROCESS: Final = 10**8
_starts = itertools.count(1)
"""Processes started so far, so that no two of them book for the same people."""


def _catalog(offices: int) -> Catalog:
    return benchmark_catalog([f"o{number}" for number in range(offices)], _CAPACITY)


async def _publish(url: str, offices: int) -> None:
    engine = await AsyncQuotaEngine.open(url, catalog=_catalog(offices), identity_key=_IDENTITY_KEY)
    day = datetime.date.fromordinal(next_working_day())
    await engine.publish(_catalog(offices), day, day)
    await engine.close()


async def _work(url: str, offices: int, first_person: int, callers: int, seconds: float) -> None:
    """Be one process: connect, wait for the start, reserve for some seconds, and print the number of reserves."""
    os.sched_setaffinity(0, {_CLIENT_CORE})
    engine = await AsyncQuotaEngine.open(url, catalog=_catalog(offices), identity_key=_IDENTITY_KEY)
    day, done, ends_s = datetime.date.fromordinal(next_working_day()), 0, 0.0
    people = itertools.count(first_person)

    async def call(caller: int) -> None:
        nonlocal done
        for turn in itertools.count(caller):
            if time.monotonic() >= ends_s:
                return
            outcome = await engine.reserve(f"o{turn % offices}", day, str(next(people)))
            assert outcome.ok, outcome
            done += 1

    for length_s in (0.2, seconds):
        if length_s == seconds:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        done, ends_s = 0, time.monotonic() + length_s
        await asyncio.gather(*map(call, range(callers)))
    print(done, flush=True)
    await engine.close()


def _round(url: str, offices: int, processes: int, callers: int, seconds: float) -> float:
    """Return the rate of all processes together, in reserves a second."""
    command = [sys.executable, "-m", "benchmarks.redis_processes", "--work", url, "--seconds", str(seconds)]
    command += ["--offices", str(offices), "--callers", str(callers // processes)]
    firsts = (str(10**15 + next(_starts) * _PEOPLE_OF_A_PROCESS) for _ in range(processes))
    return run_workers([[*command, "--first-person", first] for first in firsts]) / seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--callers", type=int, default=500, help="callers of all processes together")
    parser.add_argument("--offices", type=int, default=125)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--first-person", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        asyncio.run(_work(options.work, options.offices, options.first_person, options.callers, options.seconds))
        return
    rates: dict[int, list[float]] = {count: [] for count in options.processes}
    shares: dict[int, list[float]] = {count: [] for count in options.processes}
    with Server(valkey_server_binary(), settings=[("appendonly", "no")]) as server:
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {_SERVER_CORE})
        asyncio.run(_publish(server.url, options.offices))
        for _ in range(options.rounds):
            for count in options.processes:
                rate = _round(server.url, options.offices, count, options.callers, options.seconds)
                rates[count].append(rate)
                callers = options.callers // count
                shares[count].append(
                    rate if count == 1 else _round(server.url, options.offices, 1, callers, options.seconds)
                )
    first = options.processes[0]
    for count, values in rates.items():
        of_first = statistics.median(one / alone for one, alone in zip(values, rates[first], strict=True))
        of_share = statistics.median(one / alone for one, alone in zip(values, shares[count], strict=True))
        print(
            f"{count} process{'es' if count > 1 else ''}, {options.callers} callers in all, {options.offices} offices: "
            f"{statistics.median(values):,.0f} a second\n"
            f"    {of_first:.2f} of {first} with {options.callers} callers, "
            f"{of_share:.2f} of 1 with {options.callers // count}"
        )


if __name__ == "__main__":
    main()
