"""Reserve at the same offices of one Valkey from several processes: ``python -m benchmarks.redis_processes``.

The callers are divided among the processes, so that each row has as many callers in all. All processes are pinned to
one core, and the server to another. The rounds of the rows alternate, and the values are medians.

Each row has two ratios. The first compares it with one process that has all callers. The second compares it with one
process that has as many callers as each process of the row. The processes of a row share one core, and that one has it
alone. A second ratio of 1 means that dividing the callers costs nothing.

The same rounds measure processes that reserve by hand: one ``EVALSHA`` of a plain script for each reservation, on up to
50 connections of redis-py for each process.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import datetime
import importlib.resources
import itertools
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import redis.asyncio

from benchmarks.worker_processes import run_workers
from quota_engine import AsyncQuotaEngine
from quota_engine.bench.engine_workload import benchmark_catalog, next_working_day
from quota_engine.bench.plain_clients import CONNECTIONS, open_clients
from quota_engine.catalog import Catalog
from tests.support.servers import Server, valkey_server_binary

_CAPACITY: Final = 10_000_000
_HOLD_MS: Final = 600_000
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
    async with redis.asyncio.Redis.from_url(url) as client:
        for number in range(offices):
            await client.hset(_plain_keys(number)[0], mapping={"free": _CAPACITY})


def _plain_keys(office: int) -> list[str]:
    """Return the keys of an office by hand."""
    return [f"{{plain{office}}}:{name}" for name in ("counters", "records", "identities", "deadlines", "events")]


async def _work(url: str, offices: int, first_person: int, callers: int, seconds: float) -> None:
    """Be one process: connect, wait for the start, reserve for some seconds, and print the number of reserves."""
    engine = await AsyncQuotaEngine.open(url, catalog=_catalog(offices), identity_key=_IDENTITY_KEY)
    day = datetime.date.fromordinal(next_working_day())

    async def reserve(office: int, person: int) -> None:
        outcome = await engine.reserve(f"o{office}", day, str(person))
        assert outcome.ok, outcome

    await _measure(reserve, offices, first_person, callers, seconds)
    await engine.close()


async def _work_by_hand(url: str, offices: int, first_person: int, callers: int, seconds: float) -> None:
    """Be one process that reserves with the plain script."""
    clients = await open_clients(url)
    text = (importlib.resources.files("quota_engine.bench") / "plain_reserve.lua").read_text("utf-8")
    digest = await clients.async_client.script_load(text)
    turn = asyncio.Semaphore(CONNECTIONS)
    keys = [_plain_keys(number) for number in range(offices)]

    async def reserve(office: int, person: int) -> None:
        async with turn:
            answer = await clients.async_client.evalsha(digest, 5, *keys[office], _HOLD_MS, f"k{person}", person)
        assert answer == ["HELD"], answer

    await _measure(reserve, offices, first_person, callers, seconds)
    await clients.aclose()
    clients.close()


async def _measure(
    reserve: Callable[[int, int], Awaitable[None]], offices: int, first_person: int, callers: int, seconds: float
) -> None:
    """Reserve for a moment, wait for the start, reserve for some seconds, and print the number of reserves."""
    os.sched_setaffinity(0, {_CLIENT_CORE})
    done, ends_s = 0, 0.0
    people = itertools.count(first_person)

    async def call(caller: int) -> None:
        nonlocal done
        for turn in itertools.count(caller):
            if time.monotonic() >= ends_s:
                return
            await reserve(turn % offices, next(people))
            done += 1

    for length_s in (0.2, seconds):
        if length_s == seconds:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        done, ends_s = 0, time.monotonic() + length_s
        await asyncio.gather(*map(call, range(callers)))
    print(done, flush=True)


def _round(url: str, offices: int, processes: int, callers: int, seconds: float, *, by_hand: bool = False) -> float:
    """Return the rate of all processes together, in reserves a second."""
    command = [sys.executable, "-m", "benchmarks.redis_processes", "--work", url, "--seconds", str(seconds)]
    command += ["--offices", str(offices), "--callers", str(callers // processes), *["--by-hand"] * by_hand]
    firsts = (str(10**15 + next(_starts) * _PEOPLE_OF_A_PROCESS) for _ in range(processes))
    return run_workers([[*command, "--first-person", first] for first in firsts]) / seconds


class _Row:
    """The rates of a number of processes, round by round: theirs, and those of one process with their share."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.shares: list[float] = []

    def add(self, url: str, processes: int, options: argparse.Namespace, *, by_hand: bool) -> None:
        """Measure a round."""
        rate = _round(url, options.offices, processes, options.callers, options.seconds, by_hand=by_hand)
        self.rates.append(rate)
        callers = options.callers // processes
        if processes > 1:
            rate = _round(url, options.offices, 1, callers, options.seconds, by_hand=by_hand)
        self.shares.append(rate)


def _median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(values, others, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--callers", type=int, default=500, help="callers of all processes together")
    parser.add_argument("--offices", type=int, default=125)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--by-hand", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first-person", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work = _work_by_hand if options.by_hand else _work
        asyncio.run(work(options.work, options.offices, options.first_person, options.callers, options.seconds))
        return
    ours, by_hand = ({count: _Row() for count in options.processes} for _ in range(2))
    with Server(valkey_server_binary(), settings=[("appendonly", "no")]) as server:
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {_SERVER_CORE})
        asyncio.run(_publish(server.url, options.offices))
        for _ in range(options.rounds):
            for count in options.processes:
                ours[count].add(server.url, count, options, by_hand=False)
                by_hand[count].add(server.url, count, options, by_hand=True)
    first = options.processes[0]
    for count in options.processes:
        print(
            f"{count} process{'es' if count > 1 else ''}, {options.callers} callers in all, {options.offices} offices: "
            f"{_median_ratio(ours[count].rates, by_hand[count].rates):.1f} times by hand"
        )
        for name, rows in (("engine", ours), ("by hand", by_hand)):
            row = rows[count]
            print(
                f"    {name}: {statistics.median(row.rates):,.0f} a second, "
                f"{_median_ratio(row.rates, rows[first].rates):.2f} of {first} with {options.callers} callers, "
                f"{_median_ratio(row.rates, row.shares):.2f} of 1 with {options.callers // count}"
            )


if __name__ == "__main__":
    main()
