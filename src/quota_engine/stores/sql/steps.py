"""The port between the transactions of a SQL store and a database: round trips, their statements, and their errors.

A transaction is a generator that yields steps. A driver of a dialect carries them out, synchronously or under asyncio,
and throws one of the errors below into the generator if a step fails.
"""

from __future__ import annotations

__all__ = [
    "TIME_IS_OVER",
    "CommitUnknown",
    "Dialect",
    "LedgerLoad",
    "LedgerRow",
    "NotShared",
    "NotStarted",
    "Pause",
    "RolledBack",
    "RoundTrip",
    "Rows",
    "SharedTransaction",
    "Statement",
    "Step",
    "Steps",
    "StoreStep",
    "ThreadWork",
    "pause_s",
]

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from quota_engine.generators import Request
from quota_engine.stores.call_end import CallEnd, seconds_until

T = TypeVar("T")

Rows = list[tuple[Any, ...]]
"""The rows of one statement; empty for a statement that returns none."""


class NotStarted(Exception):
    """Nothing was done: there was no connection, or the transaction did not begin. A later attempt may succeed."""


class NotShared(Exception):
    """Nothing was done: the ledger cannot be part of a shared transaction now. It needs a separate transaction."""


class RolledBack(Exception):
    """The transaction was undone, and certainly. A later attempt may succeed."""


class CommitUnknown(Exception):
    """A commit was sent and its answer was lost: the transaction was committed or undone.

    A write outside a transaction raises the same error.
    """


class Statement(NamedTuple):
    """One statement of a round trip.

    Attributes:
        name: A key of :attr:`Dialect.texts`.
        parameters: Its parameters, by position.
    """

    name: str
    parameters: tuple[Any, ...] = ()


class RoundTrip(Request[list[Rows]], frozen=True):
    """Statements that go to the database together. The answer has the rows of each, in order.

    A driver keeps one connection for a generator from ``begin`` to ``end``. If the round trip fails, the driver rolls
    the transaction back, or drops the connection, before it raises. A generator that ends in mid-transaction is rolled
    back as well.

    Attributes:
        statements: The statements, in order. Each sees the effects of the ones before it.
        begin: True to begin a transaction first. SQLite begins it as a writer.
        end: How the transaction ends after the statements. Without a begin or an end, the statements run in the open
            transaction, or, if there is none, each in its own.
    """

    statements: tuple[Statement, ...]
    begin: bool = False
    end: Literal["", "commit", "rollback"] = ""


class Pause(Request[list[Rows]], frozen=True):
    """A pause before another attempt, without a connection. The answer is empty.

    Attributes:
        duration_ms: Its length.
    """

    duration_ms: float


class ThreadWork(Request[list[Rows]], frozen=True):
    """Work that takes long and does not use the database. The store runs it; under asyncio in a thread.

    The answer is empty.

    Attributes:
        run: Does the work.
    """

    run: Callable[[], object]


class LedgerLoad(Request[list[Rows]], frozen=True):
    """The reading of a whole ledger into memory, which may take longer than a call has.

    A store carries out the steps without an end. A call that ends meanwhile leaves them alone, and later calls find the
    ledger in memory, or wait for the same reading. The answer is what the steps return.

    Attributes:
        address: The ledger.
        steps: Begins the steps. They change nothing in the database.
    """

    address: str
    steps: Callable[[], Generator[Any, list[Rows], list[Rows]]]


class SharedTransaction(Request[list[Rows]], frozen=True):
    """A transaction of one ledger, which the store may carry out together with those of other ledgers.

    The steps begin a transaction, make round trips in it, and commit it or roll it back. They write in the round trip
    that commits, and only there. They do not wait for a lock. The answer is what they return.

    Attributes:
        address: The ledger.
        steps: Begins the steps.
    """

    address: str
    steps: Callable[[], Generator[Any, list[Rows], list[Rows]]]


Step = RoundTrip | Pause
"""A step that a driver of a dialect carries out."""
StoreStep = ThreadWork | LedgerLoad | SharedTransaction
"""A step that the store carries out."""
Steps = Generator[Step | StoreStep, list[Rows], T]
"""A call of several steps; it returns the call's result."""


TIME_IS_OVER: Final = "the time of a call was over before the commit"


def pause_s(pause: Pause, end: CallEnd | None) -> float:
    """Return the length of a pause in seconds, which does not go beyond the end of the call."""
    left_s = None if end is None else seconds_until(end.cut_at_ms)
    return pause.duration_ms / 1000 if left_s is None else min(pause.duration_ms / 1000, left_s)


class LedgerRow(NamedTuple):
    """The row that ``read_ledger``, ``lock_ledger`` and ``try_lock_ledger`` return, in this order.

    Attributes:
        id: Number of the ledger. A ledger that was removed and made again has another one.
        format: Version of the format of its entries and snapshots.
        last_number: Number of its last entry; 0 before the first.
        last_event_number: Number of its last event; 0 before the first.
        last_time_ms: Time of its last change, in milliseconds since 1970 (UTC); 0 before the first.
        trimmed_event_number: All events up to this number are trimmed.
        first_number: Number of the first entry that is kept. The snapshot has what came before.
        epoch: Times that the ledger was reconciled.
        checksum: Checksum of its last entry, which chains to all entries before it; empty before the first.
        snapshot_number: Number of the last entry that the snapshot contains; 0 without a snapshot.
        now_ms: The database's time, in milliseconds since 1970 (UTC), after the lock was granted.
    """

    id: int
    format: int
    last_number: int
    last_event_number: int
    last_time_ms: int
    trimmed_event_number: int
    first_number: int
    epoch: int
    checksum: bytes
    snapshot_number: int
    now_ms: int


class Dialect(Protocol):
    """A database's SQL, and the meaning of its errors.

    Each dialect has a text for every name below, with the placeholders of its driver. ``->`` gives the rows.

    ========================  ===========================================================================
    name                      parameters and effect
    ========================  ===========================================================================
    ``read_ledger``           address -> a :class:`LedgerRow`, or no row
    ``lock_ledger``           the same, and locks the row for this transaction
    ``try_lock_ledger``       the same, but returns no row, and at once, if another transaction has locked it
    ``create_ledger``         address, kind, format: inserts a ledger without entries unless it exists
    ``update_ledger``         last_number, last_event_number, last_time_ms, checksum, id
    ``set_snapshot``          snapshot_number, id
    ``set_first_number``      first_number, id
    ``set_trimmed``           trimmed_event_number, id
    ``raise_epoch``           id: adds one to the epoch
    ``insert_entry``          ledger, number, first_event, events, body, checksum; first_event is the number of
                              its first event, also if it has none; fails if the number exists
    ``read_entries``          ledger, after, limit -> number, body, checksum; by number
    ``read_entry_checksum``   ledger, number -> checksum
    ``read_event_entries``    ledger, after, limit -> number, first_event, events, body, checksum: the entries
                              with events above number ``after``, by number
    ``trim_entries``          ledger, through: deletes entries up to this number
    ``insert_snapshot_part``  ledger, number, part, body: inserts unless the part exists or the ledger is deleted
    ``read_snapshot_parts``   ledger, number, after, limit -> part, body; parts above ``after``, by part
    ``read_snapshot_digests`` ledger, number -> part, first 16 bytes of the body; by part
    ``delete_snapshots``      ledger, number: deletes the parts of earlier snapshots
    ``read_groups``           ledger -> name, body; by name
    ``write_group``           ledger, name, body: inserts or replaces
    ``delete_group``          ledger, name
    ``list_addresses``        kind -> address; in any order
    ``list_ledgers``          -> id, address, snapshot_number, last_number; in any order
    ``read_meta``             name -> value (text), or no row
    ``insert_meta``           name, value: inserts unless the name exists
    ``read_time``             -> the database's time, in milliseconds since 1970 (UTC)
    ``notify``                address: notifies waiting consumers at the commit; only PostgreSQL has it
    ========================  ===========================================================================

    ``ledger`` and ``id`` are :attr:`LedgerRow.id`. ``kind`` is the prefix of a
    :class:`~quota_engine.ledger_kinds.LedgerKind`, so ``""`` for offices. ``body`` and ``checksum`` are bytes. A
    statement with the id of an unknown ledger affects nothing, or returns no row; only ``insert_entry`` fails then.
    """

    @property
    def texts(self) -> Mapping[str, str]:
        """The SQL text of each statement by its name."""
        ...

    def classify(self, error: Exception, *, commit_sent: bool) -> Exception:
        """Return the error to raise for an error of the database's driver.

        Args:
            error: The error of the driver.
            commit_sent: True if a commit, or a write outside a transaction, may have reached the database.

        Returns:
            :class:`NotStarted`, :class:`RolledBack` or :class:`CommitUnknown`; or a final
            :class:`~quota_engine.BackendUnavailable` or :class:`~quota_engine.InvalidRequest` with the next step.
        """
        ...
