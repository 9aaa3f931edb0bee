"""Connections to a PostgreSQL server: they carry out the steps of the transactions.

Both kinds of connection run the same generators (:mod:`~quota_engine.stores.sql.postgresql.protocol`), and differ in
how they wait for the socket. Nothing is set for a session, so that a pooler may give each transaction another one.
"""

from __future__ import annotations

__all__ = ["AsyncConnections", "Connections"]

import asyncio
import contextlib
import math
import select
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

import psycopg
from psycopg import pq

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.forks import call_in_child
from quota_engine.generators import drive, drive_async
from quota_engine.stores.call_end import CallEnd, seconds_until
from quota_engine.stores.sql.postgresql import opening
from quota_engine.stores.sql.postgresql.dialect import PostgresqlDialect, begin_text, set_config_text, time_outs
from quota_engine.stores.sql.postgresql.errors import AnswerTimedOut, classify_connect
from quota_engine.stores.sql.postgresql.protocol import Prepared, Wait, Waits, rollback, run
from quota_engine.stores.sql.postgresql.url import CommitDurability, Settings
from quota_engine.stores.sql.steps import (
    TIME_IS_OVER,
    CommitUnknown,
    NotStarted,
    Pause,
    RolledBack,
    RoundTrip,
    Rows,
    Statement,
    Step,
    pause_s,
)

T = TypeVar("T")
ConnectionT = TypeVar("ConnectionT", psycopg.Connection[Any], psycopg.AsyncConnection[Any])

_ANSWER_MS: Final = 50
"""The time-outs of the server end earlier than the call by this time, in which the answer arrives."""
_NO_CONNECTION: Final = "no server accepted a connection in time"
_parents_links: list[Any] = []
"""Connections of a parent process. A child must not close them, because the parent still uses the sockets."""


class Link(Generic[ConnectionT]):
    """One connection, and what this process knows of its session.

    Attributes:
        connection: psycopg's connection, which is only opened and closed.
        libpq: libpq's connection, in pipeline mode.
        prepared_names: Statements that the session has prepared; ``None`` if nothing is prepared.
        in_transaction: True between a begin and its end.
        is_usable: False during an exchange and after a failure that leaves the session in doubt.
        warnings: Warnings of the server in the current transaction.
    """

    __slots__ = ("connection", "in_transaction", "is_usable", "libpq", "prepared_names", "warnings")

    def __init__(self, connection: ConnectionT, *, prepares: bool) -> None:
        self.connection: ConnectionT = connection
        self.libpq: pq.abc.PGconn = connection.pgconn
        self.prepared_names: set[bytes] | None = set() if prepares else None
        self.in_transaction = False
        self.is_usable = True
        self.warnings: list[str] = []
        connection.add_notice_handler(self._on_notice)
        self.libpq.nonblocking = 1
        self.libpq.enter_pipeline_mode()

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")

    def drop(self) -> None:
        """Close the socket. The server rolls an open transaction back."""
        self.is_usable = False
        self.libpq.finish()


class _ConnectionsBase(Generic[ConnectionT]):
    """Exchanges and the pool's bookkeeping, without any waiting.

    Attributes:
        settings: The settings of the URL.
        dialect: The SQL texts and errors.
    """

    def __init__(self, settings: Settings, restart: Callable[[], None] | None = None) -> None:
        """Take the settings; ``open`` connects.

        Args:
            settings: The settings of the URL.
            restart: Called if no server is reached, before another attempt: it starts an embedded server again.
        """
        self.settings = settings
        self._restart = restart
        self.dialect = PostgresqlDialect(settings.schema)
        of_opening = opening.texts(settings.schema)
        self._never_prepared = frozenset(of_opening)  # an opening is not tried again, and asks each of them once
        texts = {**self.dialect.texts, **of_opening}
        self._statements = {name: Prepared(text) for name, text in texts.items()}
        self._array_statements = {name: Prepared(text) for name, text in self.dialect.array_texts.items()}
        self._writes = frozenset(name for name, text in texts.items() if not text.startswith("SELECT"))
        self._begin = (Prepared(begin_text()), ())
        self._set_config_first = Prepared(set_config_text(settings, reads_store_id=False))
        self._set_config = Prepared(set_config_text(settings, reads_store_id=True))
        self._end = {"commit": (Prepared("COMMIT"), ()), "rollback": (Prepared("ROLLBACK"), ())}
        self._prepares = settings.prepare
        self._store_id = ""
        self._idle: list[Link[ConnectionT]] = []
        self._closed = False

    def _exchange(self, link: Link[ConnectionT], step: RoundTrip, end: CallEnd | None = None) -> Waits[list[Rows]]:
        """Carry out one exchange; after an error the transaction is undone, or the link is not usable."""
        commands: list[tuple[Prepared, Sequence[Any]]] = []
        if step.begin:
            left_ms = math.inf if end is None else end.ends_at_ms - monotonic_ms() - _ANSWER_MS
            set_config = self._set_config if self._store_id else self._set_config_first
            commands += [self._begin, (set_config, time_outs(self.settings, left_ms))]
        groups = self._groups(step.statements)
        commands += [self._command([step.statements[index] for index in group]) for group in groups]
        if step.end:
            commands.append(self._end[step.end])
        in_transaction = link.in_transaction or step.begin
        commit_sent = step.end == "commit" or (
            not in_transaction and any(statement.name in self._writes for statement in step.statements)
        )
        if commit_sent and end is not None:
            end.record_sent()
            if step.end and not end.allows_commit():
                link.is_usable = False  # the server rolls it back
                raise RolledBack(TIME_IS_OVER)
        link.is_usable = False
        link.warnings.clear()
        names_before = len(link.prepared_names or ())
        is_opening = any(statement.name in self._never_prepared for statement in step.statements)
        prepared_names = None if is_opening else link.prepared_names
        try:
            rows = yield from run(link.libpq, prepared_names, commands, one_by_one=not in_transaction)
            link.in_transaction = in_transaction and not step.end
            if step.begin:
                self._check_server(rows[1])
                del rows[:2]
        except Exception as error:
            yield from self._recover(link, names_before)
            if isinstance(error, BackendUnavailable):
                raise
            self._learn(error)
            raise self.dialect.classify(error, commit_sent=commit_sent) from error
        link.is_usable = True
        if step.end:
            rows.pop()
            if step.end == "commit" and link.warnings and self.settings.durability is CommitDurability.REPLICATED:
                # The server warns, and reports success, if the wait for a standby was canceled.
                raise CommitUnknown(f"the commit may not have reached the standbys ({link.warnings[0]})")
        return rows if len(groups) == len(step.statements) else _rows_of_each(step.statements, groups, rows)

    def _groups(self, statements: Sequence[Statement]) -> list[list[int]]:
        """Return the indexes of the statements of each command: the same for many ledgers, or a single one."""
        groups: dict[str | int, list[int]] = {}
        for index, (name, _) in enumerate(statements):
            groups.setdefault(name if name in self._array_statements else index, []).append(index)
        return list(groups.values())

    def _command(self, group: Sequence[Statement]) -> tuple[Prepared, Sequence[Any]]:
        """Return the command of a group of :meth:`_groups`, and its parameters."""
        name, parameters = group[0]
        if len(group) == 1:
            return self._statements[name], parameters
        return self._array_statements[name], [
            list(values) for values in zip(*[one.parameters for one in group], strict=True)
        ]

    def _recover(self, link: Link[ConnectionT], names_before: int) -> Waits[None]:
        """Undo the transaction after an error, or leave the link unusable."""
        link.in_transaction = False
        if link.libpq.status != pq.ConnStatus.OK or len(link.prepared_names or ()) != names_before:
            return  # with new names, it is unknown which of them the session has prepared
        if link.libpq.transaction_status == pq.TransactionStatus.ACTIVE:
            return  # no answer arrived
        with contextlib.suppress(Exception):
            yield from rollback(link.libpq)
            link.is_usable = True

    def _learn(self, error: Exception) -> None:
        """Prepare nothing any more behind a pooler that mixes sessions; reconnect after a demotion."""
        state = getattr(error, "sqlstate", "")
        if state in ("26000", "42P05"):
            self._prepares = False
        if state in ("26000", "42P05", "25006", "0A000"):
            self._drop_idle()

    def _check_server(self, rows: Rows) -> None:
        """Check the server of a transaction before a commit is sent: its tables, and that a commit waits for standbys.

        A pooler may lead the transactions of one connection to different servers.
        """
        standbys, store_id, *_ = rows[0]
        if self._store_id:
            opening.check_store_id(store_id, self._store_id)
        if self.settings.durability is CommitDurability.REPLICATED:
            opening.check_standbys(standbys, self.settings.replicas)

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the pool if it cannot be opened. A thread may still connect."""
        try:
            yield
        except BaseException:
            self._closed = True
            self._drop_idle()
            raise

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for link in idle:
            link.drop()

    def _take_idle(self) -> Link[ConnectionT] | None:
        """Return an idle connection that the server has not closed, or ``None``."""
        while self._idle:
            link = self._idle.pop()
            # An idle connection receives nothing but the server's goodbye, or a change of its settings.
            if (link.prepared_names is None) == self._prepares or _is_readable(link.libpq.socket):
                link.drop()
            else:
                return link
        return None

    def _give_back(self, link: Link[ConnectionT]) -> None:
        if link.is_usable and not link.in_transaction and not self._closed:
            self._idle.append(link)
        else:
            link.drop()

    def _new_link(self, connection: ConnectionT) -> Link[ConnectionT]:
        return Link(connection, prepares=self._prepares)

    def _forget(self) -> None:
        """Leave the parent's connections to the parent, after a fork."""
        _parents_links.extend(self._idle)
        self._idle = []


def _rows_of_each(statements: Sequence[Statement], groups: Sequence[Sequence[int]], rows: Sequence[Rows]) -> list[Rows]:
    """Return the rows of each statement from those of each group. A ledger has at most one row of its group."""
    answer: list[Rows] = [[]] * len(statements)
    for group, rows_of_group in zip(groups, rows, strict=True):
        if len(group) == 1:
            answer[group[0]] = rows_of_group
        else:
            by_ledger = {row[0]: row[1:] for row in rows_of_group}
            for index in group:
                row = by_ledger.get(statements[index].parameters[0])
                answer[index] = [] if row is None else [row]
    return answer


class _Session(Generic[ConnectionT]):
    """The connection of one call's steps: held from the begin of a transaction until it is over.

    Attributes:
        link: The connection, or ``None``.
        end: The end of the call, if it has one.
    """

    __slots__ = ("end", "link")

    def __init__(self, end: CallEnd | None) -> None:
        self.end = end
        self.link: Link[ConnectionT] | None = None

    def wait_ms(self, settings: Settings) -> float:
        """Return the longest wait for an answer or a connection that begins now, in milliseconds."""
        if self.end is None:
            return settings.timeout_ms
        return max(0.0, min(settings.timeout_ms, self.end.ends_at_ms - monotonic_ms()))


class _ThreadSession(_Session["psycopg.Connection[Any]"]):
    """A session whose steps run in the caller's thread."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Connections, end: CallEnd | None) -> None:
        super().__init__(end)
        self._pool = pool

    def __enter__(self) -> Callable[[Step], list[Rows]]:
        return lambda step: self._pool._handle(self, step)  # noqa: SLF001 - a part of the pool

    def __exit__(self, *_: object) -> None:
        self._pool._release(self)  # noqa: SLF001 - a part of the pool


class _TaskSession(_Session["psycopg.AsyncConnection[Any]"]):
    """A session whose steps run in the caller's task."""

    __slots__ = ("_pool",)

    def __init__(self, pool: AsyncConnections, end: CallEnd | None) -> None:
        super().__init__(end)
        self._pool = pool

    async def __aenter__(self) -> Callable[[Step], Awaitable[list[Rows]]]:
        return lambda step: self._pool._handle(self, step)  # noqa: SLF001 - a part of the pool

    async def __aexit__(self, *_: object) -> None:
        self._pool._release(self)  # noqa: SLF001 - a part of the pool


class Connections(_ConnectionsBase["psycopg.Connection[Any]"]):
    """A pool of connections for threads."""

    def __init__(self, settings: Settings, restart: Callable[[], None] | None = None) -> None:
        super().__init__(settings, restart)
        self._slots = threading.BoundedSemaphore(settings.connections_max)
        call_in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._slots = threading.BoundedSemaphore(self.settings.connections_max)
        self._forget()

    def open(self, end: CallEnd | None = None) -> None:
        """Connect, and make the tables if they are missing.

        Args:
            end: The end of the opening, if it has one.

        Raises:
            BackendUnavailable: No server, or it does not qualify, or the tables are of a newer version.
        """
        with opening.final_errors(), self._closed_on_error():
            self._store_id = self.run(opening.open_tables(self.settings.schema), end)

    def run(self, steps: opening.RoundTrips[T], end: CallEnd | None = None) -> T:
        """Run the steps of one call, and return its result."""
        with self.session(end) as handle:
            return drive(steps, handle)

    def session(
        self, end: CallEnd | None = None
    ) -> contextlib.AbstractContextManager[Callable[[Step], list[Rows]], None]:
        """Return the function that carries out the steps of one call, before its end if it has one.

        A transaction that is open after the last step is rolled back.
        """
        return _ThreadSession(self, end)

    def close(self) -> None:
        """Close the idle connections, and each other one after its call. A second call does nothing."""
        self._closed = True
        self._drop_idle()

    def _handle(self, session: _Session[psycopg.Connection[Any]], step: Step) -> list[Rows]:
        if isinstance(step, Pause):
            time.sleep(pause_s(step, session.end))
            return []
        link = session.link or self._acquire(session)
        try:
            return self._drive(link, self._exchange(link, step, session.end), session.wait_ms(self.settings))
        finally:
            if not link.in_transaction or not link.is_usable:
                self._release(session)

    def _acquire(self, session: _Session[psycopg.Connection[Any]]) -> Link[psycopg.Connection[Any]]:
        if self._closed:
            raise BackendUnavailable("the store is closed")
        if not self._slots.acquire(timeout=session.wait_ms(self.settings) / 1000):
            raise NotStarted(f"all {self.settings.connections_max} connections are in use (connections_max)")
        link = self._take_idle()
        if link is None:
            link = self._connect_until(session.end)
        session.link = link
        return link

    def _release(self, session: _Session[psycopg.Connection[Any]]) -> None:
        link, session.link = session.link, None
        if link is not None:
            self._give_back(link)
            self._slots.release()

    def _connect_until(self, end: CallEnd | None) -> Link[psycopg.Connection[Any]]:
        """Connect in a slot of the pool. After an error the slot is free, or will be when the attempt has ended.

        libpq waits for two seconds and more for each host, and without a bound for the look-up of its name. So a thread
        connects, and a call that ends meanwhile leaves it alone: the pool gets the connection.
        """
        if end is None:
            try:
                return self._connect()
            except BaseException:
                self._slots.release()
                raise
        ended, lock, slots = threading.Event(), threading.Lock(), self._slots  # a forked child has other slots
        links: list[Link[psycopg.Connection[Any]]] = []
        errors: list[BaseException] = []
        is_awaited = True

        def leave() -> None:
            for link in links:
                self._give_back(link)
            slots.release()

        def connect() -> None:
            try:
                links.append(self._connect())
            except BaseException as error:  # raised again in the thread of the call
                errors.append(error)
            with lock:
                ended.set()
                is_left = not is_awaited
            if is_left:
                leave()

        threading.Thread(target=connect, daemon=True, name="quota-engine-connect").start()
        try:
            ended.wait(seconds_until(end.ends_at_ms))
        except BaseException:  # an interrupt
            with lock:
                is_awaited, has_ended = False, ended.is_set()
            if has_ended:
                leave()
            raise
        with lock:
            is_awaited = ended.is_set()
        if links and is_awaited:
            return links[0]
        if not is_awaited:
            raise NotStarted(_NO_CONNECTION)
        slots.release()
        raise errors[0]

    def _connect(self) -> Link[psycopg.Connection[Any]]:
        try:
            connection = psycopg.Connection.connect(self.settings.conninfo, autocommit=True)
        except psycopg.Error as error:
            unreached = classify_connect(error)
            if self._restart is None or not isinstance(unreached, NotStarted):
                raise unreached from error
            self._restart()
            raise NotStarted("the embedded server was started again") from error
        link, check = self._new_link(connection), opening.check_server_step(self._store_id)
        try:
            rows = self._drive(link, self._exchange(link, check), self.settings.timeout_ms)
            opening.check_server(rows, self.settings, self._store_id)
        except BaseException:
            link.drop()
            raise
        return link

    def _drive(self, link: Link[psycopg.Connection[Any]], waits: Waits[T], wait_ms: float) -> T:
        deadline_s = time.monotonic() + wait_ms / 1000
        socket = link.libpq.socket
        try:
            wait = next(waits)
            while True:
                if _wait(socket, wait, deadline_s - time.monotonic()):
                    wait = next(waits)
                else:
                    wait = waits.throw(_timed_out(wait_ms))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            waits.close()


class AsyncConnections(_ConnectionsBase["psycopg.AsyncConnection[Any]"]):
    """A pool of connections for one event loop."""

    def __init__(self, settings: Settings, restart: Callable[[], None] | None = None) -> None:
        super().__init__(settings, restart)
        self._slots = asyncio.BoundedSemaphore(settings.connections_max)
        call_in_child(self._forget)

    async def open(self, end: CallEnd | None = None) -> None:
        """See :meth:`Connections.open`."""
        with opening.final_errors(), self._closed_on_error():
            self._store_id = await self.run(opening.open_tables(self.settings.schema), end)

    async def run(self, steps: opening.RoundTrips[T], end: CallEnd | None = None) -> T:
        """See :meth:`Connections.run`."""
        async with self.session(end) as handle:
            return await drive_async(steps, handle)

    def session(
        self, end: CallEnd | None = None
    ) -> contextlib.AbstractAsyncContextManager[Callable[[Step], Awaitable[list[Rows]]], None]:
        """See :meth:`Connections.session`."""
        return _TaskSession(self, end)

    async def close(self) -> None:
        """See :meth:`Connections.close`."""
        self._closed = True
        self._drop_idle()

    async def _handle(self, session: _Session[psycopg.AsyncConnection[Any]], step: Step) -> list[Rows]:
        if isinstance(step, Pause):
            await asyncio.sleep(pause_s(step, session.end))
            return []
        link = session.link or await self._acquire(session)
        try:
            return await self._drive(link, self._exchange(link, step, session.end), session.wait_ms(self.settings))
        finally:
            if not link.in_transaction or not link.is_usable:
                self._release(session)

    async def _acquire(self, session: _Session[psycopg.AsyncConnection[Any]]) -> Link[psycopg.AsyncConnection[Any]]:
        if self._closed:
            raise BackendUnavailable("the store is closed")
        if self._slots.locked():
            try:
                async with asyncio.timeout(session.wait_ms(self.settings) / 1000):
                    await self._slots.acquire()
            except TimeoutError:
                problem = f"all {self.settings.connections_max} connections are in use (connections_max)"
                raise NotStarted(problem) from None
        else:
            await self._slots.acquire()
        link = self._take_idle()
        if link is None:
            link = await self._connect_until(session.end)
        session.link = link
        return link

    async def _connect_until(self, end: CallEnd | None) -> Link[psycopg.AsyncConnection[Any]]:
        """Connect in a slot of the pool. After an error the slot is free."""
        try:
            async with asyncio.timeout(None if end is None else seconds_until(end.ends_at_ms)):
                return await self._connect()
        except TimeoutError:
            self._slots.release()
            raise NotStarted(_NO_CONNECTION) from None
        except BaseException:
            self._slots.release()
            raise

    def _release(self, session: _Session[psycopg.AsyncConnection[Any]]) -> None:
        link, session.link = session.link, None
        if link is not None:
            self._give_back(link)
            self._slots.release()

    async def _connect(self) -> Link[psycopg.AsyncConnection[Any]]:
        try:
            connection = await psycopg.AsyncConnection.connect(self.settings.conninfo, autocommit=True)
        except psycopg.Error as error:
            unreached = classify_connect(error)
            if self._restart is None or not isinstance(unreached, NotStarted):
                raise unreached from error
            await asyncio.to_thread(self._restart)
            raise NotStarted("the embedded server was started again") from error
        link, check = self._new_link(connection), opening.check_server_step(self._store_id)
        try:
            rows = await self._drive(link, self._exchange(link, check), self.settings.timeout_ms)
            opening.check_server(rows, self.settings, self._store_id)
        except BaseException:
            link.drop()
            raise
        return link

    async def _drive(self, link: Link[psycopg.AsyncConnection[Any]], waits: Waits[T], wait_ms: float) -> T:
        deadline_s = time.monotonic() + wait_ms / 1000
        socket = link.libpq.socket
        try:
            wait = next(waits)
            while True:
                if await _wait_async(socket, wait, deadline_s - time.monotonic()):
                    wait = next(waits)
                else:
                    wait = waits.throw(_timed_out(wait_ms))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            waits.close()


def _timed_out(wait_ms: float) -> AnswerTimedOut:
    return AnswerTimedOut(f"no answer within {wait_ms:.0f} ms (timeout_ms, or the end of the call)")


_HAS_POLL: Final = hasattr(select, "poll")


def _wait(socket: int, wait: Wait, timeout_s: float) -> bool:
    """Wait for the socket; return False if the time is over."""
    if timeout_s <= 0:
        return False
    writes = wait is Wait.READ_OR_WRITE
    if not _HAS_POLL:
        readable, writable, _ = select.select([socket], [socket] if writes else [], [], timeout_s)
        return bool(readable or writable)
    poll = select.poll()
    poll.register(socket, select.POLLIN | (select.POLLOUT if writes else 0))
    return bool(poll.poll(timeout_s * 1000))


def _is_readable(socket: int) -> bool:
    if not _HAS_POLL:
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


async def _wait_async(socket: int, wait: Wait, timeout_s: float) -> bool:
    """Wait for the socket; return False if the time is over."""
    if timeout_s <= 0:
        return False
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def set_ready(*, is_ready: bool) -> None:
        if not ready.done():
            ready.set_result(is_ready)

    timer = loop.call_later(timeout_s, lambda: set_ready(is_ready=False))
    loop.add_reader(socket, lambda: set_ready(is_ready=True))
    if wait is Wait.READ_OR_WRITE:
        loop.add_writer(socket, lambda: set_ready(is_ready=True))
    try:
        return await ready
    finally:
        timer.cancel()
        loop.remove_reader(socket)
        loop.remove_writer(socket)
