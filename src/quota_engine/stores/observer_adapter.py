"""Notifies an observer of a store's calls; shared by the sync and the async store."""

from __future__ import annotations

__all__ = ["ObserverAdapter"]

import logging
from collections.abc import Iterable
from time import perf_counter_ns
from typing import Any

from quota_engine.ports import Batch, StoreObserver

_log = logging.getLogger("quota_engine")


class ObserverAdapter:
    """Wraps an observer. An error that the observer raises is logged, and affects no call."""

    __slots__ = ("_observer",)

    def __init__(self, observer: StoreObserver) -> None:
        self._observer = observer

    def on_enqueue(self) -> Any:
        """Return the observer's correlation token for a queued call, or ``None`` if it raised."""
        try:
            return self._observer.on_enqueue()
        except Exception:
            _log.exception("an observer raised an error in on_enqueue")
            return None

    def on_batch(
        self, address: str, began_ns: int, tokens: Iterable[Any], error: BaseException | None, *, reads: bool
    ) -> None:
        """Report a finished batch.

        Args:
            address: The ledger.
            began_ns: When the batch was sent, by ``perf_counter_ns``.
            tokens: The correlation tokens of its calls.
            error: The error that the batch ended with.
            reads: True if its calls were questions.
        """
        callers = tuple(tokens)
        duration_us = (perf_counter_ns() - began_ns) // 1000
        name = "" if error is None else type(error).__name__
        try:
            self._observer.on_batch(Batch(address, reads, len(callers), duration_us, name, callers))
        except Exception:
            _log.exception("an observer raised an error in on_batch")

    def on_sold_out(self, office: str) -> None:
        """Report a reserve that the sold-out cache answered."""
        try:
            self._observer.on_sold_out(office)
        except Exception:
            _log.exception("an observer raised an error in on_sold_out")
