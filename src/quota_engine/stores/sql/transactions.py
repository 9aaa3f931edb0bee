"""Batches of calls as transactions. Generators without I/O: a driver of a dialect carries out their steps.

A batch of commands is one transaction in two round trips. The first one locks the ledger's row, and reads the entries
that other processes have added. Then the commands are applied to the ledger in memory. The second one writes the
changes as one entry, and commits. The callers get their outcomes after the commit. A batch without changes writes none.

**Doubt.** The ledger in memory is right only if the commit is known. After any failure it is thrown away. If the answer
to a commit was lost, the next attempt takes the row's lock. While the lost transaction may still commit, it holds that
lock. So the entry is there then, or it never will be. Its number and checksum decide, and the outcomes are certain.
"""

from __future__ import annotations

__all__ = ["Attempts", "BatchedWork", "Failure", "Results", "Snapshot", "Transactions", "Work"]

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.clock_check import LEAP_MS_MIN, find_leap
from quota_engine.domain.commands import Reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.sold_out import is_certainly_sold_out
from quota_engine.ports import Clock
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.clock_alarm import report_leap
from quota_engine.stores.sql.entry_codec import FORMAT, DamagedLedger, entry_checksum
from quota_engine.stores.sql.ledger_cache import CachedLedger, LedgerCache
from quota_engine.stores.sql.ledger_state import LedgerState, new_state
from quota_engine.stores.sql.loading import ENTRIES_PAGE, Loader, row_of
from quota_engine.stores.sql.snapshot_codec import Position
from quota_engine.stores.sql.steps import (
    CommitUnknown,
    LedgerLoad,
    LedgerRow,
    NotShared,
    NotStarted,
    Pause,
    RolledBack,
    RoundTrip,
    Rows,
    SharedTransaction,
    Statement,
    Steps,
)

T = TypeVar("T")

_LOST: Final = "the answer to a commit was lost: repeat the call with the same key"
_RESTARTS_MAX: Final = 20
"""Restarts of one attempt because the ledger has moved on further than one page, or was thrown away."""
_SNAPSHOT_BYTES_MIN: Final = 4_000_000
_SNAPSHOT_ITEM_BYTES: Final = 25
"""A snapshot is due after this many bytes of entries for each of its items: about a quarter of the snapshot's size."""


class Work(Protocol):
    """The request of one call of a batch.

    Attributes:
        run: Applies it to the ledger's state at a time, and returns its result.
        writes: True if it may change the ledger.
        creates: True if it may create the ledger.
    """

    run: Callable[[LedgerState, int], Any]
    writes: bool
    creates: bool


class BatchedWork(Protocol):
    """One call of a batch.

    Attributes:
        request: Its request, a :class:`Work`.
    """

    request: Any


class Failure(NamedTuple):
    """The result of a call that raised an error. Other calls of the batch are not affected."""

    error: Exception


Results = list[tuple[Any, Any]]
"""The calls of a batch, each with its result, which is a :class:`Failure` if it raised an error."""


class Attempts(msgspec.Struct, frozen=True):
    """Bounds of the attempts of a call.

    Attributes:
        budget_ms: No attempt starts later than this after the first one.
        pause_ms: Pause after the first attempt; each further one is twice as long.
        pause_ms_max: Length of the longest pause.
    """

    budget_ms: int = 10_000
    pause_ms: float = 10
    pause_ms_max: float = 500

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between attempts, in milliseconds."""
        ends_at_ms = monotonic_ms() + self.budget_ms
        pause_ms = self.pause_ms
        while monotonic_ms() + pause_ms < ends_at_ms:
            yield pause_ms
            pause_ms = min(2 * pause_ms, self.pause_ms_max)


class _Pending(NamedTuple):
    """An entry whose commit was sent."""

    number: int
    checksum: bytes
    results: Results


class _Restart(Exception):
    """The transaction was undone because the state in memory is behind, or of another history."""


class _ClockLeapt(RolledBack):
    """The transaction was undone because the time may be wrong. It will be so for a while."""


class _Poisoned(Exception):
    """A call has failed after it had begun to change the state."""


class _Batch:
    """The attempts of one batch.

    Attributes:
        pending: Entries whose commits are in doubt.
        poisoned: Errors of calls that have changed the state and failed, by the id of the call.
        is_first: True in the first attempt, which may share a transaction with other ledgers.
    """

    __slots__ = ("is_first", "pending", "poisoned")

    def __init__(self) -> None:
        self.pending: list[_Pending] = []
        self.poisoned: dict[int, Exception] = {}
        self.is_first = True


class Snapshot(NamedTuple):
    """A snapshot to be written.

    Attributes:
        address: The ledger.
        id: Its number.
        position: The place of the snapshot in the chain of entries.
        parts: The parts, encoded when they are taken.
    """

    address: str
    id: int
    position: Position
    parts: Iterator[bytes]


class Transactions:
    """Runs batches on the ledgers of one database.

    Attributes:
        cache: The ledgers in memory.
        loader: Reads ledgers.
        attempts: Bounds of the attempts of a call.
        snapshots: Snapshots that are due. The store takes them from here and writes them beside its calls.
        snapshot_bytes_min: The fewest bytes of entries between two snapshots; simulations set it lower.
    """

    def __init__(
        self,
        cache: LedgerCache,
        clock: Clock | None,
        attempts: Attempts,
        second_clock: Clock | None = None,
        *,
        notifies: bool = False,
    ) -> None:
        """Create the transactions of a store.

        Args:
            cache: The ledgers in memory.
            clock: Source of the time; ``None`` for the database's time.
            attempts: Bounds of the attempts of a call.
            second_clock: A clock against which the time is checked; ``None`` checks nothing.
            notifies: True to notify waiting consumers of new events.
        """
        self.cache = cache
        self.loader = Loader()
        self.attempts = attempts
        self.snapshots: list[Snapshot] = []
        self.snapshot_bytes_min = _SNAPSHOT_BYTES_MIN
        self._clock = clock
        self._second_clock = second_clock
        self._notifies = notifies

    def read_time(self, row: LedgerRow | None) -> Steps[int]:
        """Return the time of a transaction or read. ``row`` was read in it."""
        if self._clock is not None:
            return self._clock.now_ms()
        if row is not None:
            return row.now_ms
        (((now_ms,),),) = yield RoundTrip((Statement("read_time"),))
        return int(now_ms)

    def _find_leap(self, state: LedgerState, now_ms: int) -> str:
        """Return why the time may not be used for a ledger, or ``""``."""
        if self._second_clock is None or -LEAP_MS_MIN < now_ms - state.state.now_ms < LEAP_MS_MIN:
            return ""
        leap = find_leap(state.state, now_ms, self._second_clock.now_ms())
        if leap:
            report_leap(leap)
        return leap

    def retry(self, attempt: Callable[[], Steps[T]], end: CallEnd | None = None, *, repeats: bool = True) -> Steps[T]:
        """Run attempts until one succeeds.

        Args:
            attempt: Begins an attempt.
            end: End of the call, if it has one.
            repeats: True if an attempt is harmless to repeat after a lost answer.

        Raises:
            BackendUnavailable: No attempt succeeded, and nothing was done.
            OutcomeUnknown: The answer to a commit was lost, and no later attempt found its outcome.
        """
        is_unknown = False
        pauses = self.attempts.pauses()
        while True:
            if end is not None:
                end.begin_attempt(monotonic_ms())
            try:
                return (yield from attempt())
            except (NotStarted, RolledBack) as error:
                last: Exception = error
                if end is not None:
                    end.record_refused()
            except CommitUnknown as error:
                is_unknown, last = True, error
                if end is not None:
                    end.record_unknown()
            if end is not None:
                end.reason = str(last)
            is_final = isinstance(last, _ClockLeapt) or (is_unknown and not repeats)
            pause_ms = None if is_final else next(pauses, None)
            if pause_ms is None:
                if is_unknown:
                    raise OutcomeUnknown(f"{_LOST} ({last})") from last
                raise BackendUnavailable(f"nothing was done: {last}") from last
            yield Pause(pause_ms)

    def read(
        self, address: str, work: Callable[[], Sequence[BatchedWork]], end: CallEnd | None = None
    ) -> Steps[Results]:
        """Answer questions, and return their results in order. Nothing is locked. Arguments as for :meth:`write`."""
        return self.retry(lambda: self._read(address, work()), end)

    def _read(self, address: str, work: Sequence[BatchedWork]) -> Steps[Results]:
        ledger, row = yield from self._current(address)
        state = new_state(address) if ledger is None else ledger.state
        now_ms = yield from self.read_time(row)
        leap = self._find_leap(state, now_ms)
        if leap:
            raise _ClockLeapt(leap)
        if ledger is not None:
            ledger.clock_ahead_ms = now_ms - monotonic_ms()
        return [(one, _run(one.request, state, now_ms)) for one in work]

    def _current(self, address: str) -> Steps[tuple[CachedLedger | None, LedgerRow | None]]:
        """Return the ledger in memory, up to date, and its row; ``None`` for both if there is no ledger."""
        for _ in range(_RESTARTS_MAX):
            ledger = self.cache.get(address)
            if ledger is None:
                (found,) = yield LedgerLoad(address, lambda: self._load(address))
                if not found:
                    return None, None
                continue  # reading it may have taken long
            asked_at_ms = monotonic_ms()
            try:
                row = yield from self.loader.catch_up(ledger)
            except BaseException:
                self.cache.drop(address)
                raise
            if row is not None:
                ledger.checked_at_ms = asked_at_ms
                self.cache.put(address, ledger)
                return ledger, row
            self.cache.drop(address)
        raise RolledBack("the ledger is replaced faster than this process can follow")

    def _load(self, address: str) -> Steps[list[Rows]]:
        """Read a whole ledger into the cache. Returns one row, or none if there is no ledger."""
        loaded = yield from self.loader.load(address)
        if loaded is None:
            return [[]]
        ledger, row = loaded
        self.cache.put(address, ledger)
        return [[row]]

    def write(
        self, address: str, work: Callable[[], Sequence[BatchedWork]], end: CallEnd | None = None
    ) -> Steps[Results]:
        """Apply commands, and answer questions between them. Returns the results in order.

        Args:
            address: The ledger.
            work: Called just before an attempt is sent; returns its calls.
            end: End of the calls, if they have one.
        """
        batch = _Batch()
        return self.retry(lambda: self._write(address, work, batch, end), end)

    def _write(
        self, address: str, work: Callable[[], Sequence[BatchedWork]], batch: _Batch, end: CallEnd | None
    ) -> Steps[Results]:
        for _ in range(_RESTARTS_MAX):
            ledger = self.cache.get(address)
            if ledger is None or ledger.has_other_writers:
                # The entries of others are replayed before the lock is taken, so that little is left to do under it.
                ledger, _ = yield from self._current(address)
            shares, batch.is_first = batch.is_first and ledger is not None and not ledger.is_contended(), False
            if end is not None and not shares:
                end.begin_sending(monotonic_ms())
            try:
                if shares and ledger is not None:
                    (results,) = yield SharedTransaction(address, partial(self._share, address, ledger, work, batch))
                    return results
                return (yield from self._transaction(address, ledger, work(), batch))
            except NotShared:
                pass
            except (_Restart, _Poisoned):
                self.cache.drop(address)
            except BaseException:
                self.cache.drop(address)
                raise
        raise RolledBack("the ledger changes faster than this process can follow")

    def _share(
        self, address: str, ledger: CachedLedger, work: Callable[[], Sequence[BatchedWork]], batch: _Batch
    ) -> Steps[list[Rows]]:
        """Do the same as :meth:`_transaction` as a part of a shared transaction. Returns the results in a list."""
        calls = work()  # calls have joined the batch while it waited
        row = yield from self._try_lock(address, ledger)
        return [(yield from self._apply(address, ledger, row, calls, batch))]

    def _transaction(
        self, address: str, ledger: CachedLedger | None, work: Sequence[BatchedWork], batch: _Batch
    ) -> Steps[Results]:
        ledger, row = yield from self._lock(address, ledger, creates=any(one.request.creates for one in work))
        return (yield from self._apply(address, ledger, row, work, batch))

    def _apply(
        self,
        address: str,
        ledger: CachedLedger | None,
        row: LedgerRow | None,
        work: Sequence[BatchedWork],
        batch: _Batch,
    ) -> Steps[Results]:
        """Apply the calls of a batch to a locked ledger, and commit."""
        if batch.pending:
            results = yield from self._settle(row, batch.pending)
            if results is not None:
                return results
        state = new_state(address) if ledger is None else ledger.state
        now_ms = yield from self.read_time(row)
        leap = self._find_leap(state, now_ms)
        if leap:
            yield RoundTrip((), end="rollback")
            raise _ClockLeapt(leap)
        results = []
        for one in work:
            changes = state.changes
            error = batch.poisoned.get(id(one))
            result = _run(one.request, state, now_ms) if error is None else Failure(error)
            if type(result) is Failure and state.changes != changes:
                batch.poisoned[id(one)] = result.error
                yield RoundTrip((), end="rollback")
                raise _Poisoned
            results.append((one, result))
        if ledger is not None:
            ledger.clock_ahead_ms = now_ms - monotonic_ms()
        if not state.changes or ledger is None:
            if ledger is not None:
                self._touch(address, ledger)  # before another process can get the lock
            yield RoundTrip((), end="rollback")
            return results
        yield from self._commit(address, ledger, now_ms, results, batch.pending)
        return results

    def _lock(
        self, address: str, ledger: CachedLedger | None, *, creates: bool
    ) -> Steps[tuple[CachedLedger | None, LedgerRow | None]]:
        """Begin a transaction, lock the ledger's row, and bring the state up to date.

        Returns the state and the row. Both are ``None`` if there is no ledger, and no call may create it.
        """
        known = (0, 0) if ledger is None else (ledger.id, ledger.number)
        lock = Statement("lock_ledger", (address,))
        rows, entry_rows = yield RoundTrip((lock, Statement("read_entries", (*known, ENTRIES_PAGE))), begin=True)
        row = row_of(rows)
        if row is None and ledger is None:
            if not creates:
                return None, None
            create = Statement("create_ledger", (address, new_state(address).kind.prefix, FORMAT))
            _, rows = yield RoundTrip((create, lock))
            row = row_of(rows)
            if row is not None and not row.last_number:
                return CachedLedger(row.id, new_state(address), row.epoch), row
        elif row is not None and ledger is not None and self._is_current(ledger, row, entry_rows):
            return ledger, row
        yield RoundTrip((), end="rollback")
        raise _Restart

    def _try_lock(self, address: str, ledger: CachedLedger) -> Steps[LedgerRow]:
        """Begin a transaction, lock the ledger's row without waiting, and bring the state up to date.

        Raises:
            NotShared: Another transaction has locked the row.
        """
        (rows,) = yield RoundTrip((Statement("try_lock_ledger", (address,)),), begin=True)
        row = row_of(rows)
        if row is not None:
            entry_rows: Rows = []
            if row.last_number > ledger.number:  # rarely: such a ledger is not shared for a while from then on
                (entry_rows,) = yield RoundTrip((Statement("read_entries", (ledger.id, ledger.number, ENTRIES_PAGE)),))
            if self._is_current(ledger, row, entry_rows):
                return row
        yield RoundTrip((), end="rollback")
        if row is None:
            ledger.contended_at_ms = monotonic_ms()
            raise NotShared
        raise _Restart

    def _is_current(self, ledger: CachedLedger, row: LedgerRow, entry_rows: Rows) -> bool:
        """Add the entries that were read with the row's lock, and return True if the state is the row's then."""
        ledger.has_other_writers = False
        return ledger.is_of(row) and self.loader.add(ledger, row, entry_rows) and ledger.number == row.last_number

    def _settle(self, row: LedgerRow | None, pending: list[_Pending]) -> Steps[Results | None]:
        """Return the results of the transaction whose commit was in doubt, or ``None`` if it was undone.

        The row is locked, so the transaction has ended.
        """
        number, checksum, results = pending[-1]
        if row is not None and row.last_number >= number:
            (rows,) = yield RoundTrip((Statement("read_entry_checksum", (row.id, number)),))
            if not rows or bytes(rows[0][0]) == checksum:
                # A missing entry was dropped after a snapshot, which many other entries precede.
                yield RoundTrip((), end="rollback")
                if not rows:
                    raise OutcomeUnknown(_LOST)
                return results
        pending.clear()
        return None

    def _commit(
        self,
        address: str,
        ledger: CachedLedger,
        now_ms: int,
        results: Results,
        pending: list[_Pending],
    ) -> Steps[None]:
        entry = ledger.state.take_entry(now_ms)
        number, first_event = ledger.number + 1, ledger.event_number + 1
        checksum = entry_checksum(ledger.checksum, number, first_event, entry.events, entry.body)
        event_number = ledger.event_number + entry.events
        pending.append(_Pending(number, checksum, results))
        statements: tuple[Statement, ...] = (
            Statement("insert_entry", (ledger.id, number, first_event, entry.events, entry.body, checksum)),
            Statement("update_ledger", (number, event_number, entry.last_time_ms, checksum, ledger.id)),
        )
        if self._notifies and entry.events:
            statements += (Statement("notify", (address,)),)
        yield RoundTrip(statements, end="commit")
        before = ledger.unsaved_bytes
        ledger.number, ledger.event_number, ledger.checksum = number, event_number, checksum
        ledger.unsaved_bytes += len(entry.body)
        self._touch(address, ledger)
        period = max(self.snapshot_bytes_min, _SNAPSHOT_ITEM_BYTES * ledger.state.items)
        # Only the process whose own entry passes a multiple of the period writes the snapshot.
        if ledger.unsaved_bytes // period > before // period:
            self.request_snapshot(address, ledger)

    def is_sold_out(self, address: str, command: Reserve, bound_ms: float) -> bool:
        """Return True if a reserve was certainly sold out at a moment within the last ``bound_ms``.

        No batch of the ledger may be in flight: the state is then as of the last commit.
        """
        ledger = self.cache.get(address)
        if ledger is None:
            return False
        now_ms = monotonic_ms()
        if now_ms - ledger.checked_at_ms >= bound_ms:
            return False
        return is_certainly_sold_out(ledger.state.state, command, int(now_ms + ledger.clock_ahead_ms))

    def request_snapshot(self, address: str, ledger: CachedLedger) -> None:
        """Note that a snapshot of a state is due. The state must be committed."""
        if not any(one.address == address for one in self.snapshots):
            parts = ledger.state.snapshot(ledger.position)
            self.snapshots.append(Snapshot(address, ledger.id, ledger.position, parts))

    def _touch(self, address: str, ledger: CachedLedger) -> None:
        ledger.checked_at_ms = monotonic_ms()
        self.cache.put(address, ledger)


def _run(work: Work, state: LedgerState, now_ms: int) -> Any:
    try:
        return work.run(state, now_ms)
    except (InvalidRequest, DamagedLedger, KeyError, TypeError, ValueError, ArithmeticError, AssertionError) as error:
        return Failure(error)
