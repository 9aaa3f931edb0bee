"""The ledgers that a process keeps in memory: those that were used last, within a bound of bytes."""

from __future__ import annotations

__all__ = ["CACHE_BYTES_MAX", "SOLD_OUT_MS", "SOLD_OUT_MS_MAX", "CachedLedger", "LedgerCache"]

import math
import threading
from typing import Final

from quota_engine.clocks import monotonic_ms
from quota_engine.stores.sql.ledger_state import LedgerState
from quota_engine.stores.sql.snapshot_codec import Position
from quota_engine.stores.sql.steps import LedgerRow

SOLD_OUT_MS: Final = 250
"""Default time for which a ledger in memory refuses what was sold out, as on Redis."""
SOLD_OUT_MS_MAX: Final = 60_000
CACHE_BYTES_MAX: Final = 1_000_000_000
"""Default bound of the cache: about 1,250,000 reservations."""
_CONTENDED_MS: Final = 1_000
"""For this time after another process has used a ledger, its transactions are not shared with other ledgers."""


class CachedLedger:
    """A ledger's state as of one of its entries.

    Attributes:
        id: Number of the ledger in the database.
        state: Its state.
        number: Number of the last entry that the state contains.
        event_number: Number of the last event that it contains.
        checksum: Checksum of that entry.
        epoch: Epoch of the ledger's row. A reconciliation raises it, and may change the state without an entry.
        unsaved_bytes: Bytes of the entries after the ledger's last snapshot.
        has_other_writers: True if another process has written the ledger since this one used it last.
        contended_at_ms: Monotonic time at which another process was last seen to write or lock the ledger.
        checked_at_ms: Monotonic time at which the state was certainly the last one.
        clock_ahead_ms: The time of the calls, less this process's monotonic time, in milliseconds.
    """

    __slots__ = (
        "checked_at_ms",
        "checksum",
        "clock_ahead_ms",
        "contended_at_ms",
        "epoch",
        "event_number",
        "has_other_writers",
        "id",
        "number",
        "state",
        "unsaved_bytes",
    )

    def __init__(self, ledger_id: int, state: LedgerState, epoch: int) -> None:
        self.id = ledger_id
        self.state = state
        self.epoch = epoch
        self.number = 0
        self.event_number = 0
        self.checksum = b""
        self.unsaved_bytes = 0
        self.has_other_writers = False
        self.contended_at_ms = -math.inf
        self.checked_at_ms = 0.0
        self.clock_ahead_ms = 0.0

    @property
    def position(self) -> Position:
        """Place of the state in the chain of entries."""
        return Position(self.number, self.event_number, self.checksum)

    def is_contended(self) -> bool:
        """Return True if another process has written or locked the ledger just now."""
        return monotonic_ms() - self.contended_at_ms < _CONTENDED_MS

    def is_of(self, row: LedgerRow) -> bool:
        """Return True if the state can belong to the history of the row.

        A server that took over may have a shorter history, or another one.
        """
        if (row.id, row.epoch) != (self.id, self.epoch) or row.last_number < self.number:
            return False
        return row.last_number > self.number or row.checksum == self.checksum


class LedgerCache:
    """Ledgers by address. Threads may share it."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        """Create an empty cache.

        Args:
            bytes_max: Estimated bytes of all ledgers. One ledger is kept even if it is larger.
        """
        self._bytes_max = bytes_max
        self._ledgers: dict[str, CachedLedger] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, address: str) -> CachedLedger | None:
        """Return the ledger at an address, or ``None``."""
        return self._ledgers.get(address)

    def put(self, address: str, ledger: CachedLedger) -> None:
        """Store a ledger as the one that was used last, and drop others if the bound is exceeded."""
        size = ledger.state.size_bytes
        with self._lock:
            self._bytes += size - self._sizes.pop(address, 0)
            self._ledgers.pop(address, None)
            self._ledgers[address], self._sizes[address] = ledger, size
            while self._bytes > self._bytes_max and len(self._ledgers) > 1:
                self._remove(next(iter(self._ledgers)))

    def drop(self, address: str) -> None:
        """Forget the ledger at an address."""
        with self._lock:
            self._remove(address)

    def clear(self) -> None:
        """Forget all ledgers, with the lock: in a forked child another thread may hold it forever."""
        self._lock = threading.Lock()
        self._ledgers, self._sizes, self._bytes = {}, {}, 0

    @property
    def size_bytes(self) -> int:
        """Estimated bytes of all ledgers."""
        return self._bytes

    def _remove(self, address: str) -> None:
        self._ledgers.pop(address, None)
        self._bytes -= self._sizes.pop(address, 0)
