"""Tells an observer of the way to the store: written once for the sync and the async backend."""

from __future__ import annotations

__all__ = ["ObserverAdapter"]

import logging
from collections.abc import Iterable
from time import perf_counter_ns
from typing import Any

from quota_engine.ports import Batch, StoreObserver

_log = logging.getLogger("quota_engine")


class ObserverAdapter:
    """One who observes. What goes wrong with it is logged, and stops nothing."""

    __slots__ = ("_observer",)

    def __init__(self, observer: StoreObserver) -> None:
        self._observer = observer

    def on_enqueue(self) -> Any:
        """See :meth:`StoreObserver.on_enqueue`; ``None`` if it failed."""
        try:
            return self._observer.on_enqueue()
        except Exception:
            _log.exception("an observer has failed")
            return None

    def on_batch(
        self, place: str, began_ns: int, callers: Iterable[Any], error: BaseException | None, *, reads: bool
    ) -> None:
        """A batch that set out at ``began_ns`` (of ``perf_counter_ns``) is over."""
        marks = tuple(callers)
        duration_us = (perf_counter_ns() - began_ns) // 1000
        name = "" if error is None else type(error).__name__
        try:
            self._observer.on_batch(Batch(place, reads, len(marks), duration_us, name, marks))
        except Exception:
            _log.exception("an observer has failed")

    def on_sold_out(self, office: str) -> None:
        """Somebody was answered from memory."""
        try:
            self._observer.on_sold_out(office)
        except Exception:
            _log.exception("an observer has failed")
