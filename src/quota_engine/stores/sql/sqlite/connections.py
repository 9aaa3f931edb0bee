"""Connections to a SQLite file, for threads and for asyncio.

SQLite has one writer at a time. Within a process, a lock gives the turns; between processes, the file's lock does. A
process that finds the file locked tries again after a fraction of a millisecond. SQLite itself would wait longer each
time, up to 100 ms, and so lose its turn to processes that came later.
"""

from __future__ import annotations

__all__ = ["AsyncSqliteConnections", "SqliteConnections"]

import asyncio
import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.forks import call_in_child
from quota_engine.generators import drive
from quota_engine.stores.call_end import CallEnd, seconds_until
from quota_engine.stores.sql.sqlite.dialect import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, SqliteDialect
from quota_engine.stores.sql.steps import (
    TIME_IS_OVER,
    NotStarted,
    Pause,
    RolledBack,
    RoundTrip,
    Rows,
    Step,
    pause_s,
)

T = TypeVar("T")

Synchronous = Literal["FULL", "OFF"]

_IDLE_MAX: Final = 8
_THREADS_MAX: Final = 4
_BUSY_MS_MAX: Final = 5_000
"""A transaction that waits longer for the file's lock has failed."""
_WRITING: Final = "other calls of this process are writing"
_BUSY_PAUSE_S: Final = (0.0002, 0.001)
_inherited: list[sqlite3.Connection] = []
"""Connections of the parent. A forked child must neither use nor close them: both could damage the parent's file."""


class _File:
    """Opens connections to one file, and keeps those that are idle. Threads may share it."""

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self.dialect = SqliteDialect(path)
        self._path = Path(path)
        self._synchronous = synchronous
        self._idle: list[sqlite3.Connection] = []
        self._all: list[sqlite3.Connection] = []
        self._identity: tuple[int, int] | None = None
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        _inherited.extend(self._all)
        self._idle, self._all = [], []

    def take(self, busy_until_ms: float) -> sqlite3.Connection:
        """Return a connection, opened if none is idle. The time is that of :func:`patiently`."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._open(busy_until_ms)
        if self._identity != self._read_identity():
            self.discard(connection)
            raise BackendUnavailable(
                f"{self._path} was removed or replaced while it was open: restart every process that uses it"
            )
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Keep a connection that has no open transaction."""
        if len(self._idle) < _IDLE_MAX:
            self._idle.append(connection)
        else:
            self.discard(connection)

    def discard(self, connection: sqlite3.Connection) -> None:
        """Close a connection; an open transaction is rolled back."""
        with contextlib.suppress(ValueError):
            self._all.remove(connection)
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._all):
            self.discard(connection)
        self._idle = []

    def _read_identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open(self, busy_until_ms: float) -> sqlite3.Connection:
        if not self._path.parent.is_dir():
            raise BackendUnavailable(f"the directory of {self._path} does not exist: create it")
        try:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self.dialect.classify(error, commit_sent=False) from error
        try:
            self._prepare(connection, busy_until_ms)
        except sqlite3.Error as error:
            connection.close()
            raise self.dialect.classify(error, commit_sent=False) from error
        except BaseException:
            connection.close()
            raise
        self._all.append(connection)
        identity = self._read_identity()
        if self._identity is None:
            self._identity = identity
        return connection

    def _prepare(self, connection: sqlite3.Connection, busy_until_ms: float) -> None:
        (mode,) = patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone(), busy_until_ms)
        if mode != "wal":
            raise BackendUnavailable(
                f"{self._path}: SQLite cannot keep its write-ahead log here (mode {mode}): put the file on a local disk"
            )
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
            return
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"), busy_until_ms)
        try:
            self._create_tables(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
            return  # another process was first
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (tables or application or version):
            raise InvalidRequest(
                "url", f"{self._path} belongs to another application", "a new file, or one of this store"
            )
        if tables:
            raise BackendUnavailable(
                f"{self._path} has tables of version {version}, and this version of quota_engine reads version "
                f"{SCHEMA_VERSION}: start every process with the newer version"
            )
        for statement in SCHEMA.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def busy_until(end: CallEnd | None) -> float:
    """Return the monotonic time in milliseconds until which a statement waits for the file."""
    busy_until_ms = monotonic_ms() + _BUSY_MS_MAX
    return busy_until_ms if end is None else min(busy_until_ms, end.ends_at_ms)


def patiently(run: Callable[[], T], busy_until_ms: float) -> T:
    """Run a statement again and again while the file is locked, until a time of the monotonic clock.

    Raises:
        sqlite3.Error: The file is still locked, or there is another error.
    """
    while True:
        try:
            return run()
        except sqlite3.OperationalError as error:
            is_locked = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not is_locked or monotonic_ms() >= busy_until_ms:
                raise
            time.sleep(random.uniform(*_BUSY_PAUSE_S))


class _Lease:
    """The connection of one generator, while a transaction is open."""

    def __init__(self, file: _File, end: CallEnd | None) -> None:
        self._file = file
        self._end_of_call = end
        self._connection: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """True while a transaction is open."""
        return self._connection is not None

    def run(self, step: RoundTrip) -> list[Rows]:
        """Carry out one step. After an error, no transaction is open."""
        busy_until_ms = busy_until(self._end_of_call)
        connection = self._connection or self._file.take(busy_until_ms)
        try:
            rows = self._run(connection, step, busy_until_ms)
        except sqlite3.Error as error:
            was_begun = connection.in_transaction or self._connection is not None
            self._end(connection)
            found = self._file.dialect.classify(error, commit_sent=False)
            if isinstance(found, RolledBack) and not was_begun:
                found = NotStarted(str(found))
            raise found from error
        except BaseException:
            self._end(connection)
            raise
        if connection.in_transaction:
            self._connection = connection
        else:
            self._connection = None
            self._file.give_back(connection)
        return rows

    def _run(self, connection: sqlite3.Connection, step: RoundTrip, busy_until_ms: float) -> list[Rows]:
        texts = self._file.dialect.texts
        if step.begin:
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"), busy_until_ms)
        if connection.in_transaction:
            rows = [connection.execute(texts[name], parameters).fetchall() for name, parameters in step.statements]
        else:
            rows = [
                patiently(
                    lambda text=texts[name], values=parameters: connection.execute(text, values).fetchall(),  # type: ignore[misc]
                    busy_until_ms,
                )
                for name, parameters in step.statements
            ]
        if step.end == "rollback":
            connection.execute("ROLLBACK")
        elif step.end == "commit":
            if self._end_of_call is not None:
                self._end_of_call.record_sent()
                if not self._end_of_call.allows_commit():
                    raise RolledBack(TIME_IS_OVER)
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if not connection.in_transaction:
                    raise self._file.dialect.classify(error, commit_sent=True) from error
                raise  # it is rolled back next
        return rows

    def roll_back(self) -> None:
        """Roll an open transaction back."""
        if self._connection is not None:
            self._end(self._connection)

    def _end(self, connection: sqlite3.Connection) -> None:
        self._connection = None
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._file.discard(connection)
        else:
            self._file.give_back(connection)


class _ThreadSession:
    """A session for the steps of one generator. A context manager made of a generator takes more time for each call."""

    __slots__ = ("_end", "_has_turn", "_lease", "_writing")

    def __init__(self, file: _File, end: CallEnd | None, writing: threading.Lock) -> None:
        self._lease = _Lease(file, end)
        self._end = end
        self._writing = writing
        self._has_turn = False

    def __enter__(self) -> Callable[[Step], list[Rows]]:
        return self._handle

    def __exit__(self, *_: object) -> None:
        self._lease.roll_back()
        if self._has_turn:
            self._writing.release()

    def _handle(self, step: Step) -> list[Rows]:
        if isinstance(step, Pause):
            time.sleep(pause_s(step, self._end))
            return []
        if step.begin:
            left_s = None if self._end is None else seconds_until(self._end.ends_at_ms)
            if not self._writing.acquire(timeout=-1 if left_s is None else left_s):
                raise NotStarted(_WRITING)
            self._has_turn = True
        try:
            return self._lease.run(step)
        finally:
            if self._has_turn and not self._lease.is_open:
                self._has_turn = False
                self._writing.release()


class SqliteConnections:
    """Connections for threads."""

    def __init__(self, path: str, synchronous: Synchronous = "FULL", end: CallEnd | None = None) -> None:
        """Open the file, and create its tables if it is new.

        Args:
            path: Absolute path of the file.
            synchronous: ``FULL`` waits for the disk at each commit, ``OFF`` leaves that to the operating system.
            end: The end of the opening, if it has one.

        Raises:
            InvalidRequest: The file belongs to another application.
            BackendUnavailable: The file cannot be used.
        """
        self._file = _File(path, synchronous)
        self._writing = threading.Lock()
        call_in_child(self._after_fork)
        try:
            self._file.give_back(self._file.take(busy_until(end)))
        except (NotStarted, RolledBack) as error:
            raise BackendUnavailable(str(error)) from error

    @property
    def dialect(self) -> SqliteDialect:
        """The dialect."""
        return self._file.dialect

    def _after_fork(self) -> None:
        self._writing = threading.Lock()

    def session(
        self, end: CallEnd | None = None
    ) -> contextlib.AbstractContextManager[Callable[[Step], list[Rows]], None]:
        """Give a function that carries out the steps of one generator, before the end of its call if it has one."""
        return _ThreadSession(self._file, end, self._writing)

    def close(self) -> None:
        """Close all connections."""
        self._file.close()


class AsyncSqliteConnections:
    """Connections for asyncio. Threads run the statements, so that the loop never waits for the disk."""

    def __init__(self, path: str, synchronous: Synchronous = "FULL") -> None:
        """Prepare the connections; :meth:`open` opens the file. Arguments as for :class:`SqliteConnections`."""
        self._file = _File(path, synchronous)
        self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="quota-engine-sqlite")
        self._writing = asyncio.Lock()

    @property
    def dialect(self) -> SqliteDialect:
        """The dialect."""
        return self._file.dialect

    async def open(self, end: CallEnd | None = None) -> None:
        """Open the file, and create its tables if it is new. Argument and errors as for :class:`SqliteConnections`."""
        try:
            await self._in_thread(lambda: self._file.give_back(self._file.take(busy_until(end))))
        except (NotStarted, RolledBack) as error:
            raise BackendUnavailable(str(error)) from error

    @contextlib.asynccontextmanager
    async def session(self, end: CallEnd | None = None) -> AsyncIterator[Callable[[Step], Awaitable[list[Rows]]]]:
        """Give a function that carries out the steps of one generator, before the end of its call if it has one."""
        lease = _Lease(self._file, end)
        has_turn = False

        async def handle(step: Step) -> list[Rows]:
            nonlocal has_turn
            if isinstance(step, Pause):
                await asyncio.sleep(pause_s(step, end))
                return []
            assert isinstance(step, RoundTrip)
            if step.begin:
                await self._take_turn(end)
                has_turn = True
            try:
                return await self._in_thread(lambda: lease.run(step))
            finally:
                if has_turn and not lease.is_open:
                    has_turn = False
                    self._writing.release()

        try:
            yield handle
        finally:
            if lease.is_open:
                await self._in_thread(lease.roll_back)
            if has_turn:
                self._writing.release()

    async def run(self, steps: Generator[RoundTrip, list[Rows], T], end: CallEnd | None = None) -> T:
        """Carry out a whole transaction in one thread, and return its result: each change of threads takes time.

        Args:
            steps: Its round trips, from the begin on. The generator runs in the thread, too.
            end: The end of the call, if it has one.

        Raises:
            NotStarted: The end has come before the other transactions of the process have ended.
        """
        await self._take_turn(end)
        lease = _Lease(self._file, end)

        def carry_out() -> T:
            try:
                return drive(steps, lease.run)
            finally:
                lease.roll_back()

        try:
            return await self._in_thread(carry_out)
        finally:
            self._writing.release()

    async def _take_turn(self, end: CallEnd | None) -> None:
        try:
            async with asyncio.timeout(None if end is None else seconds_until(end.ends_at_ms)):
                await self._writing.acquire()
        except TimeoutError:
            raise NotStarted(_WRITING) from None

    async def _in_thread(self, run: Callable[[], T]) -> T:
        """Run in a thread. A cancelled caller waits for the end, because the connection is in use until then."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(self._threads, run)
        try:
            result: T = await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        return result

    async def close(self) -> None:
        """Close all connections, and end the threads."""
        self._file.close()
        self._threads.shutdown(wait=False)
