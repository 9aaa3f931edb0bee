"""Bring a ledger in memory up to date with the database: from its snapshot and its entries, page by page."""

from __future__ import annotations

__all__ = ["ENTRIES_PAGE", "Loader", "replay_entries"]

import gc
from collections.abc import Callable, Sequence
from typing import Final

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.events import Event
from quota_engine.stores.sql.entry_codec import FORMAT, DamagedLedger, entry_checksum
from quota_engine.stores.sql.ledger_cache import CachedLedger
from quota_engine.stores.sql.ledger_state import new_state
from quota_engine.stores.sql.steps import LedgerRow, RoundTrip, Rows, Statement, Steps

ENTRIES_PAGE: Final = 256
"""Entries of one page."""
_PARTS_PAGE: Final = 8
_YOUNG_OBJECTS_MAX: Final = 10_000
"""The garbage collector walks through this number of objects in about a millisecond."""
_LOADS_MAX: Final = 4
"""Attempts to read a ledger while other processes replace its snapshot."""

EventSink = Callable[[int, Sequence[Event]], None]
"""Receives the events of an entry, and the number of the first one."""


class _Moved(Exception):
    """The snapshot or the entries were replaced while they were read."""


def row_of(rows: Rows) -> LedgerRow | None:
    """Return the row of a ledger, or ``None`` if there is none.

    Raises:
        BackendUnavailable: A newer version of the library has written the ledger.
    """
    if not rows:
        return None
    row = LedgerRow(*rows[0])
    if row.format > FORMAT:
        raise BackendUnavailable(
            f"the ledger has format {row.format}, and this version of quota_engine reads formats up to {FORMAT}: "
            "start every process with the newer version"
        )
    return row


def replay_entries(ledger: CachedLedger, rows: Rows, sink: EventSink | None = None) -> None:
    """Apply the entries that follow a state.

    Args:
        ledger: The state. After an error it is between two entries, or damaged.
        rows: Rows of ``read_entries``.
        sink: Receives the events of each entry.

    Raises:
        DamagedLedger: An entry is missing, was altered, or does not fit the state.
    """
    state = ledger.state
    for number, body, checksum in rows:
        what = f"entry {number} of {state.address}"
        if number != ledger.number + 1:
            raise DamagedLedger(f"entry {ledger.number + 1} of {state.address} is missing: {_RESTORE}")
        try:
            events = state.replay(bytes(body), what)
        except (KeyError, IndexError, ValueError) as error:
            raise DamagedLedger(f"{what} does not fit the entries before it ({error!r}): {_RESTORE}") from None
        found = entry_checksum(ledger.checksum, number, ledger.event_number + 1, len(events), bytes(body))
        if found != bytes(checksum):
            raise DamagedLedger(f"{what} was altered, or an entry before it: {_RESTORE}")
        if sink is not None:
            sink(ledger.event_number + 1, events)
        ledger.number, ledger.checksum = number, found
        ledger.event_number += len(events)
        ledger.unsaved_bytes += len(body)


def _age_objects() -> None:
    """Move the objects of a large ledger to the garbage collector's oldest generation, which it walks through rarely.

    Otherwise it walks through all of them at once. The two calls take constant time. They would undo a ``gc.freeze`` of
    the application, and are left out then.
    """
    if gc.get_count()[0] > _YOUNG_OBJECTS_MAX and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()


_RESTORE: Final = "restore the database from a backup"


class Loader:
    """Reads ledgers without a lock. Later entries may be added meanwhile."""

    def load(
        self, address: str, *, sink: EventSink | None = None, from_snapshot: bool = True
    ) -> Steps[tuple[CachedLedger, LedgerRow] | None]:
        """Read a ledger. Returns it with its row, or ``None`` if there is no ledger.

        Args:
            address: Its address.
            sink: Receives the events that are read.
            from_snapshot: False to read all entries instead, if none was dropped.

        Raises:
            DamagedLedger: An entry or a part of the snapshot is missing or was altered.
        """
        for attempt in range(_LOADS_MAX):
            (rows,) = yield RoundTrip((Statement("read_ledger", (address,)),))
            row = row_of(rows)
            if row is None:
                return None
            was_enabled = gc.isenabled()
            gc.disable()  # it would walk through all records again and again while they are created
            try:
                return (yield from self._load(address, row, sink, from_snapshot)), row
            except (_Moved, DamagedLedger):
                if attempt == _LOADS_MAX - 1:
                    raise
            finally:
                if was_enabled:
                    _age_objects()
                    gc.enable()
        raise AssertionError

    def _load(self, address: str, row: LedgerRow, sink: EventSink | None, from_snapshot: bool) -> Steps[CachedLedger]:
        ledger = CachedLedger(row.id, new_state(address), row.epoch)
        if row.snapshot_number and (from_snapshot or row.first_number > 1):
            yield from self._read_snapshot(ledger, row.snapshot_number)
        while ledger.number < row.last_number:
            (rows,) = yield RoundTrip((Statement("read_entries", (row.id, ledger.number, ENTRIES_PAGE)),))
            if not rows:
                raise DamagedLedger(f"entry {ledger.number + 1} of {address} is missing: {_RESTORE}")
            replay_entries(ledger, rows, sink)
        if ledger.number == row.last_number and ledger.checksum != row.checksum:
            raise DamagedLedger(f"the last entry of {address} is not the one that its ledger's row names: {_RESTORE}")
        return ledger

    def _read_snapshot(self, ledger: CachedLedger, number: int) -> Steps[None]:
        reader = ledger.state.reader()
        while not reader.is_complete:
            statement = Statement("read_snapshot_parts", (ledger.id, number, reader.parts - 1, _PARTS_PAGE))
            (rows,) = yield RoundTrip((statement,))
            if not rows:
                raise DamagedLedger(f"the snapshot of {ledger.state.address} is not complete: {_RESTORE}")
            for part, body in rows:
                reader.read(part, bytes(body))
        ledger.number, ledger.event_number, ledger.checksum = reader.position

    def catch_up(self, ledger: CachedLedger) -> Steps[LedgerRow | None]:
        """Add the entries that other processes have written since. Returns the ledger's row.

        Returns ``None`` if the state is not of the ledger's history any more; the state must be thrown away then.
        """
        address = ledger.state.address
        row: LedgerRow | None = None
        while row is None or ledger.number < row.last_number:
            entries = Statement("read_entries", (ledger.id, ledger.number, ENTRIES_PAGE))
            if row is None:
                rows, entry_rows = yield RoundTrip((Statement("read_ledger", (address,)), entries))
                row = row_of(rows)
                if row is None or not ledger.is_of(row):
                    return None
            else:
                (entry_rows,) = yield RoundTrip((entries,))
                if not entry_rows:
                    return None  # dropped, after a snapshot
            if not self.add(ledger, row, entry_rows):
                return None
        return row

    def add(self, ledger: CachedLedger, row: LedgerRow, entry_rows: Rows) -> bool:
        """Apply entries to a state. Returns False if they are not of its history.

        Args:
            ledger: The state.
            row: The row of the ledger, read before the entries or with them.
            entry_rows: The entries.
        """
        try:
            replay_entries(ledger, entry_rows)
        except DamagedLedger:
            return False  # it may be the state that is wrong: reading everything again decides
        if entry_rows:
            ledger.has_other_writers = True
            ledger.contended_at_ms = monotonic_ms()
        return ledger.number != row.last_number or ledger.checksum == row.checksum
