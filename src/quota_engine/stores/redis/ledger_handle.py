"""The knowledge of a process about one ledger."""

from __future__ import annotations

__all__ = ["LedgerHandle"]

import threading
from typing import Any, Final

from quota_engine.stores.redis.fencing import Seen
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.ledger_formats import LedgerFormat, format_of
from quota_engine.stores.redis.scripts import Script

_INDEX_OF_KEY: Final = {name: index for index, name in enumerate(OFFICE_KEY_NAMES)}


class LedgerHandle:
    """A ledger's address, its keys and format, and the fence that this process saw last.

    Attributes:
        address: The name of an office, or another address of :mod:`quota_engine.ledger_kinds`.
        format: How this kind of ledger is stored.
        keys: All keys, in the order of the scripts.
        decoder: Decodes the replies of the ledger's scripts.
        seen: The fence with the highest epoch that was seen.
        queue_keys: Keys of queues by the type of the command. :meth:`queue_key` adds them.
        reconciling: Held by the thread that reconciles the ledger. Callers try the lock and never wait for it.
    """

    __slots__ = ("address", "decoder", "format", "keys", "queue_keys", "reconciling", "seen")

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.format: LedgerFormat = format_of(address)
        self.keys = keys_of(namespace, address, self.format.key_names)
        self.decoder: Any = self.format.decoder(address)
        self.seen = Seen()
        self.reconciling = threading.Lock()
        self.queue_keys: dict[type, tuple[LedgerHandle, Script]] = {}

    def key(self, name: str) -> str:
        """Return one key of an office by its name."""
        return self.keys[_INDEX_OF_KEY[name]]

    def queue_key(self, command: Any) -> tuple[LedgerHandle, Script]:
        """Return the key of the queue of calls that share batches with a command."""
        kind = type(command)
        key = self.queue_keys.get(kind)
        if key is None:
            key = self.queue_keys[kind] = self, self.format.script_of(command)
        return key

    def record_seen(self, line: str) -> None:
        """Remember the fence of a reply. Replies may overtake each other, so a lower epoch is ignored.

        A ledger that ends later than the one that was seen is a new one, which begins at a low epoch.
        """
        seen = Seen.of_line(line)
        if seen.epoch >= self.seen.epoch or seen.ends_at_ms > self.seen.ends_at_ms > 0:
            self.seen = seen
