"""Stores whose calls end by a given time, or within a given time.

Engines of :meth:`quota_engine.QuotaEngine.with_timeout` use the former. Engines that are opened with another
``call_timeout_ms`` use the latter if their store has no such setting itself.
"""

from __future__ import annotations

__all__ = [
    "AsyncBoundedStore",
    "AsyncTimeoutStore",
    "BoundedStore",
    "TimeoutStore",
    "end_of",
]

from typing import Any, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.ports import AsyncStore, KnownRefusal, Store, StoreRequest
from quota_engine.workflows.jobs import check_timeout

T = TypeVar("T")


def end_of(timeout_ms: int) -> float:
    """Return the monotonic time in milliseconds at which a time-out that starts now ends.

    Raises:
        InvalidRequest: it is not an integer from 200 to 3,600,000.
    """
    check_timeout(timeout_ms, "timeout_ms")
    return monotonic_ms() + timeout_ms


def known_refusal_of(store: object) -> KnownRefusal | None:
    """Return the store's method that knows refusals, or ``None`` for a store without it."""
    return getattr(store, "known_refusal", None)


class BoundedStore:
    """A store whose calls all end by one time."""

    def __init__(self, store: Store, ends_at_ms: float) -> None:
        """Bound the calls of ``store`` by a time of :func:`quota_engine.clocks.monotonic_ms`."""
        self._store = store
        self.known_refusal = known_refusal_of(store)
        self.ends_at_ms = ends_at_ms

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`."""
        return self._store.apply(address, command, ends_at_ms=self._earliest(ends_at_ms))

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`."""
        return self._store.execute(request, ends_at_ms=self._earliest(ends_at_ms))

    def close(self) -> None:
        """Close the store itself."""
        self._store.close()

    def _earliest(self, ends_at_ms: float | None) -> float:
        return self.ends_at_ms if ends_at_ms is None else min(self.ends_at_ms, ends_at_ms)


class AsyncBoundedStore:
    """:class:`BoundedStore` for asyncio."""

    def __init__(self, store: AsyncStore, ends_at_ms: float) -> None:
        """Bound the calls of ``store`` by a time of :func:`quota_engine.clocks.monotonic_ms`."""
        self._store = store
        self.known_refusal = known_refusal_of(store)
        self.ends_at_ms = ends_at_ms

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.apply`."""
        return await self._store.apply(address, command, ends_at_ms=self._earliest(ends_at_ms))

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.AsyncStore.execute`."""
        return await self._store.execute(request, ends_at_ms=self._earliest(ends_at_ms))

    async def close(self) -> None:
        """Close the store itself."""
        await self._store.close()

    def _earliest(self, ends_at_ms: float | None) -> float:
        return self.ends_at_ms if ends_at_ms is None else min(self.ends_at_ms, ends_at_ms)


class TimeoutStore:
    """A store whose calls have a time-out. See :class:`~quota_engine.ports.TimedStore`."""

    def __init__(self, store: Store, call_timeout_ms: int) -> None:
        """Bound each call of ``store`` that has no other end by ``call_timeout_ms`` milliseconds."""
        self._store = store
        self.known_refusal = known_refusal_of(store)
        self.call_timeout_ms = call_timeout_ms

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.apply`."""
        return self._store.apply(address, command, ends_at_ms=_end(ends_at_ms, self.call_timeout_ms))

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.execute`."""
        return self._store.execute(request, ends_at_ms=_end(ends_at_ms, self.call_timeout_ms))

    def close(self) -> None:
        """Close the store itself."""
        self._store.close()


class AsyncTimeoutStore:
    """:class:`TimeoutStore` for asyncio."""

    def __init__(self, store: AsyncStore, call_timeout_ms: int) -> None:
        """Bound each call of ``store`` that has no other end by ``call_timeout_ms`` milliseconds."""
        self._store = store
        self.known_refusal = known_refusal_of(store)
        self.call_timeout_ms = call_timeout_ms

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.AsyncStore.apply`."""
        return await self._store.apply(address, command, ends_at_ms=_end(ends_at_ms, self.call_timeout_ms))

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.AsyncStore.execute`."""
        return await self._store.execute(request, ends_at_ms=_end(ends_at_ms, self.call_timeout_ms))

    async def close(self) -> None:
        """Close the store itself."""
        await self._store.close()


def _end(ends_at_ms: float | None, call_timeout_ms: int) -> float:
    return monotonic_ms() + call_timeout_ms if ends_at_ms is None else ends_at_ms
