"""Yardsticks on SQL databases: the transaction that a developer writes by hand, and the limit.

**By hand** is one transaction for each reservation: it takes a unit from the counter if one is left, and inserts the
reservation, whose applicant is unique. **The limit** runs the same statements for prepared batches of 128 reservations
in one transaction. Both leave out holds that expire, events, sessions, parties and repeated keys.
"""

from __future__ import annotations

__all__ = ["PlainSqlWorkload", "remove_offices"]

import asyncio
import hashlib
import itertools
import secrets
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.plan import ApiStyle, BenchCase

_CAPACITY: Final = 10_000_000
_HOLD_MS: Final = 600_000
_SYNCHRONOUS: Final = {"memory": "OFF"}
_numbers = itertools.count(1)

Reservation = tuple[str, str, str]
"""Office, id and the applicant's keyed hash."""


class PlainSqlWorkload:
    """Counters and reservations of new offices in tables of a SQLite file, and the transactions on them.

    One connection writes, because SQLite has one writer at a time: connections that compete for the file are slower.
    """

    def __init__(self, url: str, case: BenchCase) -> None:
        """Create the tables of a case, and fill them with its existing reservations.

        Args:
            url: URL of the store, whose file and durability are used.
            case: The case.
        """
        self._case = case
        self._tag = f"plain_{secrets.token_hex(4)}"
        self._capacity = 0 if case.action == "refusal" else _CAPACITY
        self._offices = [f"{self._tag}_{number}" for number in range(case.offices)]
        self._at = 0
        self._done = 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1)
        self._connection = _connect(url)
        self._connection.execute(
            f"CREATE TABLE {self._tag}_quotas (office TEXT PRIMARY KEY, capacity INTEGER, free INTEGER, held INTEGER,"
            " confirmed INTEGER)"
        )
        self._connection.execute(
            f"CREATE TABLE {self._tag}_reservations (id TEXT PRIMARY KEY, office TEXT, applicant TEXT, state TEXT,"
            " deadline_at_ms INTEGER, queue_number INTEGER, UNIQUE (office, applicant))"
        )
        rows = [(office, self._capacity, self._capacity) for office in self._offices]
        self._connection.executemany(f"INSERT INTO {self._tag}_quotas VALUES (?, ?, ?, 0, 0)", rows)  # noqa: S608
        self._reserve_now(case.reservations)

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return the call to measure, and the argument of each call for ``count`` operations."""
        case = self._case
        if case.action == "availability":
            work: Callable[[Any], Any] = self._read
            reservations = self._new(count)
        elif case.action == "confirm":
            reservations, work = self._reserve_now(count), self._confirm
        else:
            reservations, work = self._new(count), self._reserve
            self._done += count if self._capacity else 0
        calls = [reservations[start : start + case.batch] for start in range(0, count, case.batch)]
        if case.api_style is not ApiStyle.TASKS:
            return work, calls
        thread = self._thread

        async def call(part: list[Reservation]) -> Any:
            return await asyncio.get_running_loop().run_in_executor(thread, work, part)

        return call, calls

    def check(self) -> None:
        """Compare counters and rows with the number of operations.

        Raises:
            WrongOutcome: They differ.
        """
        if self._case.action == "availability":
            return
        query = f"SELECT sum(capacity - free), sum(held + confirmed) FROM {self._tag}_quotas"  # noqa: S608
        (taken, counted) = self._connection.execute(query).fetchone()
        (rows,) = self._connection.execute(f"SELECT count(*) FROM {self._tag}_reservations").fetchone()  # noqa: S608
        if (taken, counted, rows) != (self._done,) * 3:
            raise WrongOutcome(f"{self._case.name}: {(taken, counted, rows)} after it; expected {self._done} of each")

    def remove(self) -> None:
        """Remove the tables."""
        self._thread.shutdown()
        for name in ("quotas", "reservations"):
            self._connection.execute(f"DROP TABLE {self._tag}_{name}")
        self._connection.close()

    def _new(self, count: int) -> list[Reservation]:
        """Return new reservations, round robin over the offices."""
        offices = itertools.islice(itertools.cycle(self._offices), self._at, self._at + count)
        self._at = (self._at + count) % len(self._offices)
        return [(office, f"k{number:021d}", _applicant(number)) for office, number in zip(offices, _numbers)]  # noqa: B905

    def _reserve_now(self, count: int) -> list[Reservation]:
        """Reserve for new applicants, unmeasured."""
        reservations = self._new(count)
        for start in range(0, count, 1000):
            self._reserve(reservations[start : start + 1000])
        self._done += count
        return reservations

    def _reserve(self, part: list[Reservation]) -> bool:
        """Reserve in one transaction. A reservation that finds no free unit leaves nothing."""
        insert = f"INSERT INTO {self._tag}_reservations VALUES (?2, ?1, ?3, 'held', {_HOLD_MS}, 0)"  # noqa: S608
        take = f"UPDATE {self._tag}_quotas SET free = free - 1, held = held + 1 WHERE office = ? AND free > 0"  # noqa: S608
        execute, held = self._connection.execute, 0
        with self._lock:
            execute("BEGIN IMMEDIATE")
            for one in part:
                if execute(take, one[:1]).rowcount:
                    execute(insert, one)
                    held += 1
            execute("COMMIT")
        return held == len(part)

    def _confirm(self, part: list[Reservation]) -> bool:
        move = (
            f"UPDATE {self._tag}_quotas SET held = held - 1, confirmed = confirmed + 1"  # noqa: S608
            " WHERE office = ? AND held > 0"
        )
        change = (
            f"UPDATE {self._tag}_reservations SET state = 'confirmed', queue_number ="  # noqa: S608
            f" (SELECT confirmed + 1 FROM {self._tag}_quotas WHERE office = ?1) WHERE id = ?2 AND state = 'held'"
            " AND ?3 <> ''"
        )
        execute = self._connection.execute
        with self._lock:
            execute("BEGIN IMMEDIATE")
            for one in part:
                execute(change, one)
                if not execute(move, one[:1]).rowcount:
                    execute("ROLLBACK")
                    return False
            execute("COMMIT")
        return True

    def _read(self, part: list[Reservation]) -> list[Any]:
        query = f"SELECT capacity, free, held, confirmed FROM {self._tag}_quotas WHERE office = ?"  # noqa: S608
        with self._lock:
            return [self._connection.execute(query, one[:1]).fetchone() for one in part]


def remove_offices(url: str, offices: Sequence[str]) -> None:
    """Remove the ledgers of offices from a SQLite file.

    Args:
        url: URL of the store.
        offices: Their ids.
    """
    connection = _connect(url)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for office in offices:
            for table in ("entries", "snapshots", "consumer_groups"):
                where = "ledger = (SELECT id FROM ledgers WHERE address = ?)"
                connection.execute(f"DELETE FROM {table} WHERE {where}", (office,))  # noqa: S608
            connection.execute("DELETE FROM ledgers WHERE address = ?", (office,))
        connection.execute("COMMIT")
    finally:
        connection.close()


def _connect(url: str) -> sqlite3.Connection:
    """Open the file of a store's URL with the durability that the URL names."""
    parts = urlsplit(url)
    connection = sqlite3.connect(unquote(parts.path), timeout=60, isolation_level=None, check_same_thread=False)
    durability: Literal["fsync", "memory"] = "memory" if "durability=memory" in parts.query else "fsync"
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS.get(durability, 'FULL')}")
    return connection


def _applicant(number: int) -> str:
    return hashlib.blake2b(b"%d" % number, key=b"by hand", digest_size=12).hexdigest()
