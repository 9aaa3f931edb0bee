"""The state of one ledger in memory, with the changes that no entry has yet."""

from __future__ import annotations

__all__ = ["CommandState", "EntryBody", "LedgerState", "OfficeState", "new_state"]

import abc
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from quota_engine.admission import guarded_command
from quota_engine.admission.token_bucket import Buckets
from quota_engine.domain.event_handlers import evolve, let_wait_lists_be_served
from quota_engine.domain.events import Event
from quota_engine.draws.ledger import DrawLedger
from quota_engine.ledger_kinds import OFFICE, kind_of
from quota_engine.stores.sql import command_codec, office_codec
from quota_engine.stores.sql.snapshot_codec import Position, SnapshotReader, snapshot_of

_RESERVATION_BYTES: Final = 800
_ITEM_BYTES: Final = 300


class EntryBody(NamedTuple):
    """An entry that is to be written.

    Attributes:
        body: Its content.
        events: Count of its events; 0 for a ledger without events.
        last_time_ms: Time of the ledger's last change, in milliseconds since 1970 (UTC).
    """

    body: bytes
    events: int
    last_time_ms: int


class LedgerState(abc.ABC):
    """A ledger's state, and its changes since the last entry.

    Attributes:
        state: The state of :mod:`quota_engine.ledger_kinds`.
    """

    __slots__ = ("_table", "address", "kind", "state")

    def __init__(self, address: str) -> None:
        self.address = address
        self.kind = kind_of(address)
        self.state: Any = self.kind.new(address)
        self._table = office_codec.ChoiceTable()

    @abc.abstractmethod
    def apply(self, command: Any, now_ms: int) -> Any:
        """Apply a command, and note what it changes. Returns its outcome."""

    @property
    @abc.abstractmethod
    def changes(self) -> int:
        """Count of the changes since the last entry."""

    @abc.abstractmethod
    def take_entry(self, base_ms: int) -> EntryBody:
        """Return the changes since the last entry, and begin the next one. ``base_ms`` is the time of the batch."""

    @abc.abstractmethod
    def replay(self, body: bytes, what: str) -> list[Event]:
        """Apply an entry of the store, and return its events.

        Args:
            body: The entry.
            what: Name of the entry in an error.
        """

    @property
    @abc.abstractmethod
    def size_bytes(self) -> int:
        """An estimate of the memory that the state takes."""

    @property
    @abc.abstractmethod
    def items(self) -> int:
        """Items that a snapshot writes, such as reservations."""

    def ask(self, question: Any, now_ms: int) -> Any:
        """Answer a question of :class:`~quota_engine.ledger_kinds.LedgerKind`."""
        return self.kind.ask(self.state, question, now_ms)

    def snapshot(self, position: Position) -> Iterator[bytes]:
        """See :func:`~quota_engine.stores.sql.snapshot_codec.snapshot_of`."""
        return snapshot_of(self.state, position)

    def reader(self) -> SnapshotReader:
        """Return the reader of a snapshot of this ledger. The state must be new."""
        return SnapshotReader(self.state, f"the snapshot of {self.address}", self._table)


class OfficeState(LedgerState):
    """The state of an office. Its entries have events, which it does not keep."""

    __slots__ = ()

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.state.admission = office_codec.JournaledBuckets()

    def apply(self, command: Any, now_ms: int) -> Any:
        """See :meth:`LedgerState.apply`."""
        return guarded_command.apply(self.state, command, now_ms)

    @property
    def changes(self) -> int:
        """See :attr:`LedgerState.changes`."""
        return len(self.state.events) + len(self.state.admission.journal)

    def take_entry(self, base_ms: int) -> EntryBody:
        """See :meth:`LedgerState.take_entry`."""
        ledger = self.state
        body = office_codec.encode_entry(base_ms, ledger.events, ledger.admission.journal)
        entry = EntryBody(body, len(ledger.events), ledger.now_ms)
        ledger.events.clear()
        ledger.admission.journal.clear()
        return entry

    def replay(self, body: bytes, what: str) -> list[Event]:
        """See :meth:`LedgerState.replay`."""
        ledger = self.state
        events, admission = office_codec.decode_entry(self.address, body, self._table, what)
        for event in events:
            evolve(ledger, event)
        let_wait_lists_be_served(ledger)
        ledger.events.clear()
        office_codec.replay_admission(ledger.admission, admission)
        return events

    @property
    def size_bytes(self) -> int:
        """See :attr:`LedgerState.size_bytes`."""
        return _RESERVATION_BYTES * len(self.state.reservations) + _ITEM_BYTES * len(self.state.penalties) + 4096

    @property
    def items(self) -> int:
        """See :attr:`LedgerState.items`."""
        return len(self.state.reservations) + len(self.state.penalties)


class CommandState(LedgerState):
    """The state of a ledger without events. Its entries have the commands that changed it."""

    __slots__ = ("_commands", "_is_marked_only")

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._commands: list[command_codec.TimedCommand] = []
        # The marker of the other kinds differs after every change.
        self._is_marked_only = not isinstance(self.state, DrawLedger | Buckets)

    def apply(self, command: Any, now_ms: int) -> Any:
        """See :meth:`LedgerState.apply`."""
        before = command_codec.change_marker(self.state)
        outcome = self.kind.apply(self.state, command, now_ms)
        if command_codec.change_marker(self.state) != before or (
            not self._is_marked_only and command_codec.is_accepted(outcome)
        ):
            self._commands.append((now_ms, command))
        return outcome

    @property
    def changes(self) -> int:
        """See :attr:`LedgerState.changes`."""
        return len(self._commands)

    def take_entry(self, base_ms: int) -> EntryBody:
        """See :meth:`LedgerState.take_entry`."""
        body = command_codec.encode_entry(base_ms, self._commands)
        self._commands = []
        return EntryBody(body, 0, self.state.now_ms)

    def replay(self, body: bytes, what: str) -> list[Event]:
        """See :meth:`LedgerState.replay`."""
        for now_ms, command in command_codec.decode_entry(body, what):
            self.kind.apply(self.state, command, now_ms)
        return []

    @property
    def size_bytes(self) -> int:
        """See :attr:`LedgerState.size_bytes`."""
        return _ITEM_BYTES * self.items + 4096

    @property
    def items(self) -> int:
        """See :attr:`LedgerState.items`."""
        state = self.state
        sizes = (getattr(state, name, ()) for name in ("identities", "assigned_numbers", "claims", "moves", "_by_name"))
        return sum(map(len, sizes))


def new_state(address: str) -> LedgerState:
    """Return the empty state of the ledger at an address.

    Raises:
        KeyError: No kind of ledger has the address's prefix.
    """
    return OfficeState(address) if kind_of(address) is OFFICE else CommandState(address)
