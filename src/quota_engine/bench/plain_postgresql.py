"""Yardsticks on PostgreSQL: the transaction that an application would write by hand, and the limit.

**By hand** is one transaction for each operation. A reserve inserts a row under a unique identity, takes a unit off a
counter if one is left, and commits; it has no events, deadlines or limits. **The limit** writes entries of the engine's
size in prepared batches, in the engine's own tables and transactions, without any rule.
"""

from __future__ import annotations

__all__ = ["PlainPostgresql", "PlainPostgresqlWorkload"]

import asyncio
import contextlib
import itertools
import os
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.stores.sql.postgresql.connections import AsyncConnections
from quota_engine.stores.sql.postgresql.opening import RoundTrips
from quota_engine.stores.sql.postgresql.url import Settings, parse_url
from quota_engine.stores.sql.steps import LedgerRow, RoundTrip, Statement

_CAPACITY: Final = 10_000_000
ENTRY_BYTES: Final = 120
"""Bytes of one reserve in an entry of the engine, about."""

_numbers = itertools.count(1)
_offices = itertools.count(1)

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS {counters} (office bigint PRIMARY KEY, capacity bigint NOT NULL,"
    " free bigint NOT NULL, held bigint NOT NULL, confirmed bigint NOT NULL) WITH (fillfactor = 50)",
    "CREATE TABLE IF NOT EXISTS {records} (key text PRIMARY KEY, office bigint NOT NULL, identity text NOT NULL,"
    " state text NOT NULL, deadline_at timestamptz NOT NULL, UNIQUE (office, identity))",
)


class PlainPostgresql:
    """Connections of an application to the benchmark's schema, and the connections of the limit."""

    def __init__(self, url: str, connections_max: int, run: Callable[[Any], Any]) -> None:
        """Open all connections, because an application's pool keeps them open.

        Args:
            url: URL of the store, whose schema belongs to this run.
            connections_max: Number of connections for threads, and for tasks.
            run: Runs a coroutine in the event loop of the benchmark.
        """
        self.settings: Settings = parse_url(url)
        self.names = {name: sql.Identifier(self.settings.schema, f"plain_{name}") for name in ("counters", "records")}
        self._run = run
        self._url = url
        self._connections_max = connections_max
        self._threads: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()
        self._tasks: asyncio.LifoQueue[psycopg.AsyncConnection[Any]] = asyncio.LifoQueue()
        self._opened: list[psycopg.Connection[Any]] = []
        self._opened_async: list[psycopg.AsyncConnection[Any]] = []
        self.limit: AsyncConnections = run(self._open_limit())  # makes the schema
        self.control: psycopg.Connection[Any] = psycopg.connect(self.settings.conninfo, autocommit=True)
        for text in _TABLES:
            self.control.execute(sql.SQL(text).format(**self.names))
        self.server = f"postgresql {self.control.info.parameter_status('server_version')}"

    async def _open_limit(self) -> AsyncConnections:
        connections = AsyncConnections(self.settings)
        await connections.open()
        return connections

    def open_pool(self, case: BenchCase) -> None:
        """Open the connections of the application that a case needs, and keep them open."""
        wanted = min(case.concurrency, self._connections_max)
        if case.api_style is ApiStyle.TASKS:
            self._run(self._open_async(wanted - len(self._opened_async)))
            return
        for _ in range(wanted - len(self._opened)):
            self._opened.append(psycopg.connect(self.settings.conninfo, autocommit=True))
            self._threads.put(self._opened[-1])

    async def _open_async(self, count: int) -> None:
        for _ in range(count):
            connection = await psycopg.AsyncConnection.connect(self.settings.conninfo, autocommit=True)
            self._opened_async.append(connection)
            self._tasks.put_nowait(connection)

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Borrow a connection for a thread."""
        connection = self._threads.get()
        try:
            yield connection
        finally:
            self._threads.put(connection)

    @contextlib.asynccontextmanager
    async def async_connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Borrow a connection for a task."""
        connection = await self._tasks.get()
        try:
            yield connection
        finally:
            self._tasks.put_nowait(connection)

    def close(self) -> None:
        """Drop the schema of the run, and close all connections."""
        self._run(self._close_async())
        for connection in self._opened:
            connection.close()
        with contextlib.closing(self.control):
            self.control.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.settings.schema))
            )

    async def _close_async(self) -> None:
        await self.limit.close()
        for connection in self._opened_async:
            await connection.close()


class PlainPostgresqlWorkload:
    """Counters of new offices, and the operations on them by hand or at the limit."""

    def __init__(self, database: PlainPostgresql, run: Callable[[Any], Any], case: BenchCase) -> None:
        """Create the counters of a case, and fill them with its existing reservations."""
        if case.implementation is Implementation.BY_HAND:
            database.open_pool(case)
        self._database = database
        self._run = run
        self._case = case
        self._capacity = 0 if case.action == "refusal" else _CAPACITY
        self._done = 0
        self._entries = 0
        self._offices = [next(_offices) for _ in range(case.offices)]
        self._addresses = [f"limit-{number}" for number in self._offices]
        control, names = database.control, database.names
        self._is_limit = case.implementation is Implementation.LIMIT
        if self._is_limit:
            for address in self._addresses:
                self._run(database.limit.run(_create_ledger(address)))
        else:
            with control.cursor() as cursor:
                insert = sql.SQL("INSERT INTO {counters} VALUES (%s, %s, %s, 0, 0)").format(**names)
                cursor.executemany(insert, [(office, self._capacity, self._capacity) for office in self._offices])
        self._reserve_now(case.reservations)

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return the call to measure, and the argument of each call for ``count`` operations."""
        if self._is_limit:
            return self._prepare_limit(count)
        if self._case.action == "availability":
            read = sql.SQL("SELECT capacity, free, held, confirmed FROM {counters} WHERE office = %s")
            return self._call([read], [(office,) for office in itertools.islice(itertools.cycle(self._offices), count)])
        if self._case.action == "confirm":
            change = sql.SQL("UPDATE {records} SET state = 'confirmed' WHERE key = %(key)s AND state = 'held'")
            counter = sql.SQL(
                "UPDATE {counters} SET held = held - 1, confirmed = confirmed + 1 WHERE office = %(office)s"
            )
            return self._call([change, counter], self._reserve_now(count))
        self._done += count if self._capacity else 0
        return self._call(_RESERVE, self._new_records(count))

    def check(self) -> None:
        """Compare counters and rows with the number of operations.

        Raises:
            WrongOutcome: They differ.
        """
        control, names = self._database.control, self._database.names
        if self._is_limit:
            entries = sql.SQL("SELECT coalesce(sum(last_number), 0)::bigint FROM {} WHERE address = ANY(%s)").format(
                sql.Identifier(self._database.settings.schema, "ledgers")
            )
            found: Any = control.execute(entries, (self._addresses,)).fetchone()
            wanted: tuple[int, ...] = (self._entries,)
        else:
            counters = sql.SQL(
                "SELECT sum(capacity - free)::bigint, (SELECT count(*) FROM {records} WHERE office = ANY(%s))"
                " FROM {counters} WHERE office = ANY(%s)"
            ).format(**names)
            found = control.execute(counters, (self._offices, self._offices)).fetchone()
            wanted = (self._done, self._done)
        if found != wanted:
            raise WrongOutcome(f"{self._case.name}: {found} after it; expected {wanted}")

    def remove(self) -> None:
        """Keep the rows: the schema is dropped at the end, and new offices have other numbers."""

    def _call(self, texts: list[sql.SQL], calls: list[Any]) -> tuple[Callable[[Any], Any], list[Any]]:
        """Return a function that runs the statements in one transaction, for threads or for tasks.

        The transaction ends early, and is undone, if a statement changes no row.
        """
        statements = [text.format(**self._database.names) for text in texts]
        database = self._database

        def work(arguments: Any) -> None:
            with database.connection() as connection, connection.transaction() as transaction:
                for statement in statements:
                    if not connection.execute(statement, arguments).rowcount:
                        raise psycopg.Rollback(transaction)

        async def work_async(arguments: Any) -> None:
            async with database.async_connection() as connection, connection.transaction() as transaction:
                for statement in statements:
                    if not (await connection.execute(statement, arguments)).rowcount:
                        raise psycopg.Rollback(transaction)

        return (work_async if self._case.api_style is ApiStyle.TASKS else work), calls

    def _new_records(self, count: int) -> list[dict[str, Any]]:
        offices = itertools.islice(itertools.cycle(self._offices), count)
        return [
            {"key": f"k{number:021d}", "office": office, "identity": f"identity-{number:016d}"}
            for office, number in zip(offices, _numbers, strict=False)
        ]

    def _reserve_now(self, count: int) -> list[dict[str, Any]]:
        """Reserve for new applicants, unmeasured."""
        records = self._new_records(count)
        if self._is_limit or not records:
            return records
        with self._database.control.cursor() as cursor, self._database.control.transaction():
            for text in _RESERVE:
                cursor.executemany(text.format(**self._database.names), records)
        self._done += count
        return records

    def _prepare_limit(self, count: int) -> tuple[Callable[[Any], Any], list[Any]]:
        """Return transactions that write one entry for each batch."""
        size = self._case.batch
        batches = [min(size, count - start) for start in range(0, count, size)]
        self._entries += len(batches)
        run = self._database.limit.run
        return (
            lambda call: run(_append_entry(*call)),
            [
                (address, os.urandom(ENTRY_BYTES * events), events)
                for address, events in zip(itertools.cycle(self._addresses), batches, strict=False)
            ],
        )


_RESERVE: Final = [
    sql.SQL(
        "INSERT INTO {records} VALUES (%(key)s, %(office)s, %(identity)s, 'held', now() + interval '10 minutes')"
        " ON CONFLICT DO NOTHING"
    ),
    sql.SQL("UPDATE {counters} SET free = free - 1, held = held + 1 WHERE office = %(office)s AND free > 0"),
]


def _create_ledger(address: str) -> RoundTrips[None]:
    yield RoundTrip((Statement("create_ledger", (address, "", 1)),))


def _append_entry(address: str, body: bytes, events: int) -> RoundTrips[None]:
    (rows,) = yield RoundTrip((Statement("lock_ledger", (address,)),), begin=True)
    row = LedgerRow(*rows[0])
    number, checksum = row.last_number + 1, b"0123456789abcdef"
    first, last = row.last_event_number + 1, row.last_event_number + events
    yield RoundTrip(
        (
            Statement("insert_entry", (row.id, number, first, events, body, checksum)),
            Statement("update_ledger", (number, last, row.now_ms, checksum, row.id)),
        ),
        end="commit",
    )
