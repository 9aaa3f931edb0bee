"""Reserve on one office-day from several processes at a time.

Run it with ``python -m benchmarks.sql_processes postgresql://…`` or ``sqlite:///file``. For each number of processes,
rounds alternate. Each process has the same number of callers in one event loop. The rate is the sum over the processes.
The schema of a PostgreSQL is that of the URL: use one that you can drop.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OPENS_AT_MS, choice, reserve, terms
from quota_engine.domain.commands import Publish
from quota_engine.domain.model import DayTerms, QuotaTerms
from quota_engine.domain.outcomes import Status
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import AsyncStore

_PLACES: Final = 10_000_000
_ONLINE: Final = choice(("online",))


async def _publish(url: str, office: str) -> None:
    store = await store_factory(url).open_async_store(url, ManualClock(OPENS_AT_MS))
    day = terms()
    quotas = (QuotaTerms("online", _PLACES),)
    await store.apply(
        office, Publish(DAY, DayTerms(day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms, quotas))
    )
    await store.close()


async def _reserve_for(store: AsyncStore, office: str, name: str, callers: int, seconds: float) -> int:
    ends_s = time.monotonic() + seconds
    done = 0

    async def call(caller: int) -> None:
        nonlocal done
        number = 0
        while time.monotonic() < ends_s:
            number += 1
            outcome = await store.apply(office, reserve(f"{name}c{caller}n{number}", _ONLINE))
            assert outcome.status is Status.HELD, outcome
            done += 1

    await asyncio.gather(*(call(caller) for caller in range(callers)))
    return done


async def _work(url: str, office: str, name: str, callers: int, seconds: float) -> None:
    """Be one process: connect, wait for the start, reserve, and print the number of reserves."""
    store = await store_factory(url).open_async_store(url, ManualClock(OPENS_AT_MS))
    await _reserve_for(store, office, f"{name}warm", callers, 0.2)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(await _reserve_for(store, office, name, callers, seconds), flush=True)
    await store.close()


def _round(url: str, office: str, processes: int, callers: int, seconds: float) -> float:
    """Return the rate of ``processes`` processes together, in reserves a second."""
    asyncio.run(_publish(url, office))
    command = [sys.executable, "-m", "benchmarks.sql_processes", url, "--work", office]
    options = ["--callers", str(callers), "--seconds", str(seconds)]
    workers = [
        subprocess.Popen(  # noqa: S603
            [*command, *options, "--name", f"p{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    done = sum(int(worker.communicate()[0]) for worker in workers)
    return done / seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--callers", type=int, default=50, help="callers of each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        asyncio.run(_work(options.url, options.work, options.name, options.callers, options.seconds))
        return
    rates: dict[int, list[float]] = {count: [] for count in options.processes}
    for number in range(options.rounds):
        for count in options.processes:
            office = f"processes-{time.time_ns()}-{number}-{count}"
            rates[count].append(_round(options.url, office, count, options.callers, options.seconds))
    alone = statistics.median(rates[options.processes[0]])
    for count, values in rates.items():
        rate = statistics.median(values)
        share = f"{rate / alone:.2f} of {options.processes[0]}"
        print(f"{count} processes, {options.callers} callers each: {rate:,.0f} a second, {share}")


if __name__ == "__main__":
    main()
