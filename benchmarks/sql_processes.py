"""Reserve on one office-day from several processes at a time.

Run it with ``python -m benchmarks.sql_processes postgresql://…`` or ``sqlite:///file``. For each number of processes,
rounds alternate. Each process has the same number of callers in one event loop. The rate is the sum over the processes.
The schema of a PostgreSQL is that of the URL: use one that you can drop.

With ``--by-hand`` and a PostgreSQL, each round also has the transaction that an application writes by hand: an insert
under a unique identity, and a conditional update of the counter. It has one connection for each caller, at most 100
together.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import sql

from benchmarks.worker_processes import run_workers
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OPENS_AT_MS, choice, reserve, terms
from quota_engine.domain.commands import Publish
from quota_engine.domain.model import DayTerms, QuotaTerms
from quota_engine.domain.outcomes import Status
from quota_engine.engine.store_discovery import store_factory
from quota_engine.ports import AsyncStore
from quota_engine.stores.sql.postgresql.url import parse_url

_PLACES: Final = 10_000_000
_ONLINE: Final = choice(("online",))
_CONNECTIONS_MAX: Final = 100
_PLAIN_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS {counters} (office text PRIMARY KEY, free bigint NOT NULL, held bigint NOT NULL)"
    " WITH (fillfactor = 50)",
    "CREATE TABLE IF NOT EXISTS {records} (key text PRIMARY KEY, office text NOT NULL, identity text NOT NULL,"
    " state text NOT NULL, deadline_at timestamptz NOT NULL, UNIQUE (office, identity))",
)
_PLAIN_RESERVE: Final = (
    sql.SQL("INSERT INTO {records} VALUES (%(key)s, %(office)s, %(identity)s, 'held', now() + interval '10 minutes')"),
    sql.SQL("UPDATE {counters} SET free = free - 1, held = held + 1 WHERE office = %(office)s AND free > 0"),
)


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
    await _wait_for_start()
    print(await _reserve_for(store, office, name, callers, seconds), flush=True)
    await store.close()


async def _wait_for_start() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def _plain_names(url: str) -> tuple[str, dict[str, sql.Identifier]]:
    """Return libpq's form of a URL, and the names of the tables of the transaction by hand."""
    settings = parse_url(url)
    return settings.conninfo, {
        name: sql.Identifier(settings.schema, f"plain_{name}") for name in ("counters", "records")
    }


def _publish_by_hand(url: str, office: str) -> None:
    conninfo, names = _plain_names(url)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for table in _PLAIN_TABLES:
            connection.execute(sql.SQL(table).format(**names))
        connection.execute(sql.SQL("INSERT INTO {counters} VALUES (%s, %s, 0)").format(**names), (office, _PLACES))


async def _work_by_hand(url: str, office: str, callers: int, seconds: float) -> None:
    """Be one process of the transaction by hand, with a connection for each caller."""
    conninfo, names = _plain_names(url)
    statements = [statement.format(**names) for statement in _PLAIN_RESERVE]
    connections = [await psycopg.AsyncConnection.connect(conninfo, autocommit=True) for _ in range(callers)]
    await _wait_for_start()
    ends_s = time.monotonic() + seconds
    done = 0

    async def call(connection: psycopg.AsyncConnection[object]) -> None:
        nonlocal done
        while time.monotonic() < ends_s:
            key = secrets.token_hex(11)
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement, {"key": key, "office": office, "identity": key})
            done += 1

    await asyncio.gather(*map(call, connections))
    print(done, flush=True)
    for connection in connections:
        await connection.close()


def _round(url: str, processes: int, callers: int, seconds: float, *, by_hand: bool = False) -> float:
    """Return the rate of ``processes`` processes together, in reserves a second."""
    office = f"processes-{time.time_ns()}"
    if by_hand:
        _publish_by_hand(url, office)
    else:
        asyncio.run(_publish(url, office))
    command = [sys.executable, "-m", "benchmarks.sql_processes", url, "--work", office]
    command += ["--by-hand"] * by_hand
    options = ["--callers", str(callers), "--seconds", str(seconds)]
    return run_workers([[*command, *options, "--name", f"p{number}"] for number in range(processes)]) / seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--callers", type=int, default=50, help="callers of each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--by-hand", action="store_true", help="compare with a transaction by hand")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    url, callers, seconds = options.url, options.callers, options.seconds
    if options.work:
        if options.by_hand:
            asyncio.run(_work_by_hand(url, options.work, callers, seconds))
        else:
            asyncio.run(_work(url, options.work, options.name, callers, seconds))
        return
    rates: dict[int, list[float]] = {count: [] for count in options.processes}
    by_hand_rates: dict[int, list[float]] = {count: [] for count in options.processes}
    for _ in range(options.rounds):
        for count in options.processes:
            rates[count].append(_round(url, count, callers, seconds))
            if options.by_hand:
                connections = min(callers, _CONNECTIONS_MAX // count)
                by_hand_rates[count].append(_round(url, count, connections, seconds, by_hand=True))
    alone = statistics.median(rates[options.processes[0]])
    for count, values in rates.items():
        rate = statistics.median(values)
        text = f"{count} processes, {callers} callers each: {rate:,.0f} a second, {rate / alone:.2f} of "
        text += str(options.processes[0])
        if options.by_hand:
            plain = statistics.median(by_hand_rates[count])
            text += f"; {rate / plain:.1f} times by hand ({plain:,.0f})"
        print(text)


if __name__ == "__main__":
    main()
