"""A store that loses the last changes of a ledger, as a failover to a replica that lags does."""

from __future__ import annotations

import copy
from typing import Any

import redis

from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.stores.memory import MemoryStore
from tests.support.servers import Server


class LostTail:
    """Keeps a copy of one ledger, and puts it back later.

    Args:
        store: the store of the engine.
        server: the server of the store; ``None`` for a memory store.
        address: the ledger.
    """

    def __init__(self, store: Any, server: Server | None, address: str) -> None:
        self._store = store
        self._server = server
        self._address = address
        self._copy: Any = None

    def save(self) -> None:
        """Keep the ledger as it is: the last state that the replica has received."""
        if self._server is None:
            assert isinstance(self._store, MemoryStore)
            self._copy = copy.deepcopy(self._store._ledgers[self._address].ledger)
        else:
            with redis.Redis(unix_socket_path=str(self._server.socket_path)) as client:
                self._copy = {key: client.dump(key) for key in client.scan_iter(f"*:{self._address}}}:*")}

    def fail_over(self, *, advances: bool = True) -> None:
        """Lose all changes since :meth:`save`. Without ``advances`` no epoch begins: no fence has noticed it."""
        if self._server is None:
            self._store._ledgers[self._address].ledger = copy.deepcopy(self._copy)
        else:
            with redis.Redis(unix_socket_path=str(self._server.socket_path)) as client:
                for key, dumped in self._copy.items():
                    client.restore(key, 0, dumped, replace=True)
        if advances:
            self._store.apply(self._address, AdvanceEpoch(0))
