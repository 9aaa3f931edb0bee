"""A simulated SQL database: tables in memory, transactions and row locks, and connections that fail.

It has the statements of :class:`quota_engine.stores.sql.steps.Dialect`. A transaction sees what was committed before
each of its statements, and locks the row of a ledger until its end (``READ COMMITTED`` and ``SELECT … FOR UPDATE``).
"""

from __future__ import annotations

__all__ = ["Run", "RunRecorder", "SqlDatabase", "SqlSessions"]

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, NamedTuple

from quota_engine.fuzz.faults import FaultSource, late_delay_ms, usual_delay_ms
from quota_engine.fuzz.network import Client
from quota_engine.fuzz.virtual_loop import VirtualLoop
from quota_engine.generators import drive_async
from quota_engine.stores.call_end import CallEnd
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


class _LedgerTables:
    """The rows of one ledger in all tables. A transaction changes a copy, which replaces the original at its commit."""

    __slots__ = ("entries", "groups", "kind", "parts", "row")

    def __init__(self, number: int, kind: str, version: int) -> None:
        self.kind = kind
        self.row: list[Any] = [number, version, 0, 0, 0, 0, 1, 1, b"", 0]
        """As :class:`~quota_engine.stores.sql.steps.LedgerRow`, without the time."""
        self.entries: dict[int, tuple[int, int, bytes, bytes]] = {}
        self.parts: dict[tuple[int, int], bytes] = {}
        self.groups: dict[str, bytes] = {}

    def copy(self) -> _LedgerTables:
        other = _LedgerTables.__new__(_LedgerTables)
        other.kind, other.row = self.kind, list(self.row)
        other.entries, other.parts, other.groups = dict(self.entries), dict(self.parts), dict(self.groups)
        return other


class Run(NamedTuple):
    """A command that a store has applied to its copy of a ledger, in a transaction.

    Attributes:
        address: the ledger.
        command: the command.
        now_ms: the time of the transaction.
        result: the outcome.
        changed: True if it has changed the ledger.
        call: identifies the command in a call. A client that repeats a call makes another one.
    """

    address: str
    command: Any
    now_ms: int
    result: Any
    changed: bool
    call: object


class RunRecorder:
    """The commands that one process has applied since its last step.

    No other task of the process runs between the answer that gives a lock and the step that ends the transaction.
    """

    def __init__(self, on_end: Callable[[Run], None]) -> None:
        """Call ``on_end`` with each command whose outcome is certain, in the order of the transactions."""
        self._runs: list[Run] = []
        self._on_end = on_end

    def add(self, run: Run) -> None:
        """Note a command."""
        self._runs.append(run)

    def take(self) -> list[Run]:
        """Return the commands since the last call."""
        runs, self._runs = self._runs, []
        return runs

    def end(self, runs: list[Run], written: Collection[str] = ()) -> None:
        """Report commands at the end of their transaction.

        Args:
            runs: the commands, in order.
            written: the ledgers with a committed entry. On others, the first command that changed something was undone,
                and the commands after it have seen what never was.
        """
        undone: set[str] = set()
        for run in runs:
            if run.changed and run.address not in written:
                undone.add(run.address)
            if run.address not in undone:
                self._on_end(run)


class _Failure(Exception):
    """A statement failed, such as an insert of an entry whose number exists."""


class _Transaction:
    """An open transaction.

    Attributes:
        client: the process that has begun it.
        changed: copies of the ledgers that it has locked, by address.
        is_ended: True after its commit or rollback.
        runs: the commands that its client has applied in it.
        written: the ledgers that it has given an entry.
    """

    __slots__ = ("changed", "client", "is_ended", "meta", "runs", "written")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.runs: list[Run] = []
        self.written: set[str] = set()
        self.changed: dict[str, _LedgerTables] = {}
        self.meta: dict[str, str] = {}
        self.is_ended = False


class SqlDatabase:
    """The tables, and the locks of their rows.

    Attributes:
        epoch_ms: the time of the database's clock at the virtual time 0.
        is_down: True while it accepts no connection.
        commits: count of its commits.
    """

    def __init__(self, loop: VirtualLoop, epoch_ms: int) -> None:
        self.loop = loop
        self.epoch_ms = epoch_ms
        self.is_down = False
        self.commits = 0
        self._ledgers: dict[str, _LedgerTables] = {}
        self._addresses: dict[int, str] = {}
        self._meta: dict[str, str] = {}
        self._locks: dict[str, _Transaction] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._open: list[_Transaction] = []
        self._last_id = 0
        self._statements: dict[str, Callable[..., Rows | Awaitable[Rows]]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in _STATEMENTS
        }

    def now_ms(self) -> int:
        """Return the time of the database's clock."""
        return self.epoch_ms + int(self.loop.now_s * 1000)

    def save(self) -> Any:
        """Return a copy of what is committed, for :meth:`restore`."""
        ledgers = {address: ledger.copy() for address, ledger in self._ledgers.items()}
        return ledgers, dict(self._addresses), dict(self._meta), self._last_id

    def restore(self, saved: Any) -> None:
        """Lose everything since :meth:`save`, as a failover to a replica that lags does. Ends all transactions."""
        self.restart()
        ledgers, addresses, meta, last_id = saved
        self._ledgers = {address: ledger.copy() for address, ledger in ledgers.items()}
        self._addresses, self._meta = dict(addresses), dict(meta)
        self._last_id = max(last_id, self._last_id)

    def restart(self) -> None:
        """End all open transactions. Committed changes stay."""
        for transaction in list(self._open):
            self.end(transaction, commits=False)

    def forget(self, client: Client) -> None:
        """End the open transactions of a process that died: the database notices it now."""
        for transaction in [one for one in self._open if one.client is client]:
            self.end(transaction, commits=False)

    def begin(self, client: Client) -> _Transaction:
        """Begin a transaction."""
        transaction = _Transaction(client)
        self._open.append(transaction)
        return transaction

    def end(self, transaction: _Transaction, *, commits: bool) -> None:
        """End a transaction, and let those continue that wait for its locks."""
        if transaction.is_ended:
            return
        transaction.is_ended = True
        self._open.remove(transaction)
        if commits:
            self.commits += 1
            self._ledgers.update(transaction.changed)
            self._meta.update(transaction.meta)
        for address in transaction.changed:
            if self._locks.get(address) is transaction:
                del self._locks[address]
                waiting = self._waiting.get(address)
                while waiting:
                    future = waiting.popleft()
                    if not future.done():
                        future.set_result(None)
                        break

    async def run(self, transaction: _Transaction, statement: Statement) -> Rows:
        """Carry out one statement.

        Raises:
            RolledBack: The transaction was ended from outside while it waited.
        """
        if transaction.is_ended:
            raise RolledBack("the database has ended the transaction")
        rows = self._statements[statement.name](transaction, *statement.parameters)
        return rows if isinstance(rows, list) else await rows

    async def _lock(self, transaction: _Transaction, address: str) -> _LedgerTables | None:
        """Lock a ledger, and return the transaction's copy of it."""
        if address in transaction.changed:
            return transaction.changed[address]
        while self._locks.get(address) not in (None, transaction):
            future = self.loop.create_future()
            self._waiting.setdefault(address, deque()).append(future)
            await future
            if transaction.is_ended:
                self._pass_on(address)
                raise RolledBack("the database has ended the transaction")
        ledger = self._ledgers.get(address)
        if ledger is None:
            self._pass_on(address)
            return None
        self._locks[address] = transaction
        transaction.changed[address] = ledger.copy()
        return transaction.changed[address]

    def _pass_on(self, address: str) -> None:
        waiting = self._waiting.get(address)
        while waiting and address not in self._locks:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                break

    def _seen(self, transaction: _Transaction, address: str) -> _LedgerTables | None:
        return transaction.changed.get(address) or self._ledgers.get(address)

    def _of(self, transaction: _Transaction, number: int) -> _LedgerTables | None:
        address = self._addresses.get(number, "")
        found = self._seen(transaction, address)
        return found if found is not None and found.row[0] == number else None

    async def _own(self, transaction: _Transaction, number: int) -> _LedgerTables | None:
        found = await self._lock(transaction, self._addresses.get(number, ""))
        return found if found is not None and found.row[0] == number else None

    # ------------------------------------------------------------------ statements

    def _do_read_ledger(self, transaction: _Transaction, address: str) -> Rows:
        found = self._seen(transaction, address)
        return [(*found.row, self.now_ms())] if found is not None else []

    async def _do_lock_ledger(self, transaction: _Transaction, address: str) -> Rows:
        found = await self._lock(transaction, address)
        return [(*found.row, self.now_ms())] if found is not None else []

    async def _do_try_lock_ledger(self, transaction: _Transaction, address: str) -> Rows:
        if self._locks.get(address) not in (None, transaction):
            return []
        return await self._do_lock_ledger(transaction, address)

    async def _do_create_ledger(self, transaction: _Transaction, address: str, kind: str, version: int) -> Rows:
        if await self._lock(transaction, address) is None:
            self._last_id += 1
            self._addresses[self._last_id] = address
            self._locks[address] = transaction
            transaction.changed[address] = _LedgerTables(self._last_id, kind, version)
        return []

    async def _set(self, transaction: _Transaction, number: int, **fields: Any) -> Rows:
        found = await self._own(transaction, number)
        if found is not None:
            names = ("id", "format", "last", "event", "time", "trimmed", "first", "epoch", "checksum", "snapshot")
            for name, value in fields.items():
                found.row[names.index(name)] = value
        return []

    def _do_update_ledger(
        self, transaction: _Transaction, last: int, event: int, time: int, checksum: bytes, number: int
    ) -> Awaitable[Rows]:
        return self._set(transaction, number, last=last, event=event, time=time, checksum=checksum)

    def _do_set_snapshot(self, transaction: _Transaction, snapshot: int, number: int) -> Awaitable[Rows]:
        return self._set(transaction, number, snapshot=snapshot)

    def _do_set_first_number(self, transaction: _Transaction, first: int, number: int) -> Awaitable[Rows]:
        return self._set(transaction, number, first=first)

    def _do_set_trimmed(self, transaction: _Transaction, trimmed: int, number: int) -> Awaitable[Rows]:
        return self._set(transaction, number, trimmed=trimmed)

    async def _do_raise_epoch(self, transaction: _Transaction, number: int) -> Rows:
        found = await self._own(transaction, number)
        if found is not None:
            found.row[7] += 1
        return []

    async def _do_insert_entry(
        self,
        transaction: _Transaction,
        ledger: int,
        number: int,
        first_event: int,
        events: int,
        body: bytes,
        checksum: bytes,
    ) -> Rows:
        found = await self._own(transaction, ledger)
        if found is None or number in found.entries:
            raise _Failure(f"entry {number} of ledger {ledger} exists, or the ledger does not")
        found.entries[number] = (first_event, events, body, checksum)
        transaction.written.add(self._addresses[ledger])
        return []

    def _do_read_entries(self, transaction: _Transaction, ledger: int, after: int, limit: int) -> Rows:
        found = self._of(transaction, ledger)
        if found is None:
            return []
        numbers = range(after + 1, found.row[2] + 1)
        return [(number, entry[2], entry[3]) for number in numbers if (entry := found.entries.get(number)) is not None][
            :limit
        ]

    def _do_read_entry_checksum(self, transaction: _Transaction, ledger: int, number: int) -> Rows:
        found = self._of(transaction, ledger)
        return [(found.entries[number][3],)] if found is not None and number in found.entries else []

    def _do_read_event_entries(self, transaction: _Transaction, ledger: int, after: int, limit: int) -> Rows:
        found = self._of(transaction, ledger)
        if found is None:
            return []
        return [(number, *entry) for number, entry in sorted(found.entries.items()) if entry[0] + entry[1] - 1 > after][
            :limit
        ]

    async def _do_trim_entries(self, transaction: _Transaction, ledger: int, through: int) -> Rows:
        found = await self._own(transaction, ledger)
        if found is not None:
            found.entries = {number: entry for number, entry in found.entries.items() if number > through}
        return []

    async def _do_insert_snapshot_part(
        self, transaction: _Transaction, ledger: int, number: int, part: int, body: bytes
    ) -> Rows:
        found = await self._own(transaction, ledger)
        if found is not None:
            found.parts.setdefault((number, part), body)
        return []

    def _do_read_snapshot_parts(
        self, transaction: _Transaction, ledger: int, number: int, after: int, limit: int
    ) -> Rows:
        found = self._of(transaction, ledger)
        parts = [] if found is None else sorted(found.parts.items())
        return [(part, body) for (of, part), body in parts if of == number and part > after][:limit]

    def _do_read_snapshot_digests(self, transaction: _Transaction, ledger: int, number: int) -> Rows:
        found = self._of(transaction, ledger)
        return (
            [] if found is None else [(p, body[:16]) for (of, p), body in sorted(found.parts.items()) if of == number]
        )

    async def _do_delete_snapshots(self, transaction: _Transaction, ledger: int, number: int) -> Rows:
        found = await self._own(transaction, ledger)
        if found is not None:
            found.parts = {key: body for key, body in found.parts.items() if key[0] >= number}
        return []

    def _do_read_groups(self, transaction: _Transaction, ledger: int) -> Rows:
        found = self._of(transaction, ledger)
        return [] if found is None else sorted(found.groups.items())

    async def _do_write_group(self, transaction: _Transaction, ledger: int, name: str, body: bytes) -> Rows:
        found = await self._own(transaction, ledger)
        if found is not None:
            found.groups[name] = body
        return []

    async def _do_delete_group(self, transaction: _Transaction, ledger: int, name: str) -> Rows:
        found = await self._own(transaction, ledger)
        if found is not None:
            found.groups.pop(name, None)
        return []

    def _do_list_addresses(self, transaction: _Transaction, kind: str) -> Rows:
        return [(address,) for address, one in self._ledgers.items() if one.kind == kind]

    def _do_list_ledgers(self, transaction: _Transaction) -> Rows:
        return [(one.row[0], address, one.row[9], one.row[2]) for address, one in self._ledgers.items()]

    def _do_read_meta(self, transaction: _Transaction, name: str) -> Rows:
        value = transaction.meta.get(name) or self._meta.get(name)
        return [(value,)] if value is not None else []

    def _do_insert_meta(self, transaction: _Transaction, name: str, value: str) -> Rows:
        if name not in self._meta:
            transaction.meta.setdefault(name, value)
        return []

    def _do_read_time(self, transaction: _Transaction) -> Rows:
        return [(self.now_ms(),)]


_STATEMENTS: Final = tuple(name for name in vars(SqlDatabase) if name.startswith("_do_"))
_READS: Final = frozenset(
    name.removeprefix("_do_")
    for name in _STATEMENTS
    if name.startswith(("_do_read_", "_do_list_", "_do_lock_", "_do_try_lock_"))
)
"""The statements that change nothing."""


class SqlSessions:
    """The connections of one client to the database: the part of a dialect that a store uses."""

    def __init__(
        self,
        database: SqlDatabase,
        faults: FaultSource,
        client: Client | None = None,
        recorder: RunRecorder | None = None,
    ) -> None:
        """
        Args:
            database: the database.
            faults: decides about faults.
            client: the process; ``None`` for one that does not die.
            recorder: receives the commands of the process; ``None`` if no reference compares them.
        """
        self._database = database
        self._faults = faults
        self._client = client or Client()
        self._recorder = recorder or RunRecorder(lambda _: None)

    def session(self, end: CallEnd | None = None) -> _Session:
        """Give a function that carries out the steps of one generator, whose pauses end with its call."""
        return _Session(self._database, self._faults, self._client, self._recorder, end)

    async def run(self, steps: Any, end: CallEnd | None = None) -> Any:
        """Run the steps of one transaction, and return its result."""
        async with self.session(end) as handle:
            return await drive_async(steps, handle)

    async def close(self) -> None:
        """Do nothing: no connection is kept."""


def _writes(step: RoundTrip) -> bool:
    """Return True if a step may change the tables permanently."""
    if step.end == "commit" or not step.begin:
        for one in step.statements:
            if one.name not in _READS:
                return True
    return False


class _Session:
    """The connection of one generator, while a transaction is open."""

    def __init__(
        self,
        database: SqlDatabase,
        faults: FaultSource,
        client: Client,
        recorder: RunRecorder,
        end_of_call: CallEnd | None,
    ) -> None:
        self._end_of_call = end_of_call
        self._database = database
        self._faults = faults
        self._client = client
        self._recorder = recorder
        self._transaction: _Transaction | None = None

    async def __aenter__(self) -> Callable[[Step], Awaitable[list[Rows]]]:
        return self.handle

    async def __aexit__(self, *error: object) -> None:
        """Roll an open transaction back. The database notices later that a process has died."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None and not self._client.is_dead:
            self._database.end(transaction, commits=False)

    async def handle(self, step: Step) -> list[Rows]:
        if isinstance(step, Pause):
            await asyncio.sleep(pause_s(step, self._end_of_call))
            return []
        transaction = self._transaction
        is_new = transaction is None
        runs = self._recorder.take()  # before anything is awaited
        if transaction is not None:
            transaction.runs += runs
        end = self._end_of_call
        if end is not None and _writes(step):
            end.record_sent()
            if step.end and not end.allows_commit():
                self._end(commits=False)
                raise RolledBack(TIME_IS_OVER)
        await self._travel(is_new=is_new)
        if transaction is None:
            transaction = self._transaction = self._database.begin(self._client)
        faults = self._faults
        if faults.happens("lock_lost"):
            self._end(commits=False)
            raise RolledBack("deadlock detected")
        if faults.happens("request_lost"):
            self._end(commits=False)
            raise NotStarted("the connection was cut") if is_new else RolledBack("the connection was cut")
        try:
            if transaction.is_ended:
                raise RolledBack("the database has ended the transaction")
            rows = [await self._database.run(transaction, one) for one in step.statements]
        except (RolledBack, _Failure) as error:
            self._end(commits=False)
            raise RolledBack(str(error)) from error
        except BaseException:
            if not self._client.is_dead:
                self._end(commits=False)
            raise
        if step.end == "commit" or (is_new and not step.begin):
            await self._commit(step)
        elif step.end == "rollback":
            # Without a row there was no lock: another transaction may have created the ledger since.
            locked = [run for run in transaction.runs if run.address in transaction.changed]
            self._recorder.end(locked)
            self._end(commits=False)
        if faults.happens("reply_lost"):
            was_ended = self._transaction is None
            self._end(commits=False)
            if was_ended and step.end != "rollback":
                raise CommitUnknown("the answer was lost")
            raise RolledBack("the answer was lost")
        await self._database.loop.pause(usual_delay_ms(faults.random) / 1000)
        if self._client.is_dead:
            await self._database.loop.create_future()
        return rows

    async def _travel(self, *, is_new: bool) -> None:
        """Let a request travel to the database."""
        faults = self._faults
        delay_ms = late_delay_ms(faults.random) if faults.happens("request_late") else usual_delay_ms(faults.random)
        if faults.happens("server_slow"):
            delay_ms += 1000 * faults.random.random()
        await self._database.loop.pause(delay_ms / 1000)
        if self._client.is_dead:
            await self._database.loop.create_future()
        if is_new and (self._database.is_down or faults.happens("refused")):
            raise NotStarted("connection refused")
        if faults.happens("cut"):
            was_open = self._transaction is not None
            self._end(commits=False)
            raise RolledBack("the connection was cut") if was_open else NotStarted("the connection was cut")

    async def _commit(self, step: RoundTrip) -> None:
        transaction, database, faults = self._transaction, self._database, self._faults
        assert transaction is not None
        if _writes(step) and faults.happens("commit_late"):
            self._transaction = None
            commits = faults.random.random() < 0.5
            database.loop.call_later(late_delay_ms(faults.random) / 1000, self._take_effect, transaction, commits)
            raise CommitUnknown("the connection was lost during the commit")
        self._transaction = None
        if transaction.is_ended:
            raise RolledBack("the database has ended the transaction")
        self._take_effect(transaction, True)

    def _take_effect(self, transaction: _Transaction, commits: bool) -> None:
        if transaction.is_ended:
            return
        if commits:
            self._recorder.end(transaction.runs, transaction.written)
        self._database.end(transaction, commits=commits)

    def _end(self, *, commits: bool) -> None:
        if self._transaction is not None:
            self._database.end(self._transaction, commits=commits)
            self._transaction = None
