"""A synchronous facade of an async store, so that the suite tests both forms of a store with the same scenarios."""

from __future__ import annotations

__all__ = ["AsyncStoreFacade"]

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from quota_engine.ports import AsyncStore, StoreRequest

T = TypeVar("T")

CALL_S_MAX: Final = 60.0
"""A call that takes longer counts as a deadlock."""


class AsyncStoreFacade:
    """An async store in a separate event loop. Any thread may call it; calls of several threads run as tasks."""

    def __init__(self, open_async_store: Callable[[], Coroutine[Any, Any, AsyncStore]]) -> None:
        """Start the loop, and open the store in it.

        Args:
            open_async_store: opens the store. Its error is raised here.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="quota-engine-conformance")
        self._thread.start()
        try:
            self._store = self._result(open_async_store())
        except BaseException:
            self._stop_loop()
            raise

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`."""
        if ends_at_ms is None:
            return self._result(self._store.apply(address, command))
        return self._result(self._store.apply(address, command, ends_at_ms=ends_at_ms))

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`."""
        if ends_at_ms is None:
            return self._result(self._store.execute(request))
        return self._result(self._store.execute(request, ends_at_ms=ends_at_ms))

    def close(self) -> None:
        """Close the store. The loop runs on, because a second call must do nothing."""
        self._result(self._store.close())

    def stop(self) -> None:
        """Close the store, and end its loop."""
        try:
            self.close()
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S_MAX)
        self._loop.close()

    def _result(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S_MAX)
