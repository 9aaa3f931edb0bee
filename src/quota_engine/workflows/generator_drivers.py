"""Run workflows on a store: :func:`run` synchronously, :func:`run_async` under asyncio.

A workflow is a generator that yields requests and returns a result. It performs no I/O, so it is written once for both.
"""

from __future__ import annotations

__all__ = [
    "Apply",
    "Compute",
    "StoreHandler",
    "Workflow",
    "async_handler_of",
    "call_handlers",
    "execute",
    "handler_of",
    "run",
    "run_async",
]

from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.generators import Request, drive, drive_async
from quota_engine.ports import AsyncStore, Store, StoreRequest, TimedStore

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Apply(Request[T_co], Generic[T_co], frozen=True, gc=False):
    """Request to apply one command to the ledger at ``address``; ``T_co`` is the type of the ledger's outcome.

    The drivers turn it into :meth:`quota_engine.ports.Store.apply`.
    """

    address: str
    command: Any


class Compute(Request[T_co], Generic[T_co], frozen=True, gc=False):
    """Request for a pure computation that takes up to seconds. The async driver runs it in a thread."""

    function: Callable[[], T_co]


Workflow = Generator[Request[Any], Any, T]
"""Yields requests, receives their answers, returns a ``T``.

A driver throws an error of the store into the workflow at the ``yield`` of the request that failed.
"""


def execute(request: Request[T]) -> Workflow[T]:
    """Make a workflow of one request."""
    answer: T = yield request
    return answer


class StoreHandler(Protocol):
    """Answers the requests of workflows from a store."""

    def __call__(self, request: Request[Any], ends_at_ms: float | None = None) -> Any:
        """Answer a request.

        Args:
            request: The request.
            ends_at_ms: The end of the call that it belongs to; see :meth:`quota_engine.ports.Store.apply`.
        """
        ...


def handler_of(store: Store) -> StoreHandler:
    """Return the function that answers the requests of workflows from ``store``."""

    def handle(request: Request[Any], ends_at_ms: float | None = None) -> Any:
        if type(request) is Apply:
            if ends_at_ms is None:
                return store.apply(request.address, request.command)
            return store.apply(request.address, request.command, ends_at_ms=ends_at_ms)
        if isinstance(request, StoreRequest):
            return store.execute(request) if ends_at_ms is None else store.execute(request, ends_at_ms=ends_at_ms)
        if isinstance(request, Compute):
            return request.function()
        raise TypeError(f"no driver answers a {type(request).__name__}")

    return handle


def async_handler_of(store: AsyncStore) -> StoreHandler:
    """Return the function that answers the requests of workflows from ``store``, for asyncio."""

    async def handle(request: Request[Any], ends_at_ms: float | None = None) -> Any:
        if type(request) is Apply:
            if ends_at_ms is None:
                return await store.apply(request.address, request.command)
            return await store.apply(request.address, request.command, ends_at_ms=ends_at_ms)
        if isinstance(request, StoreRequest):
            if ends_at_ms is None:
                return await store.execute(request)
            return await store.execute(request, ends_at_ms=ends_at_ms)
        if isinstance(request, Compute):
            import asyncio  # its caller has an event loop; synchronous callers never import it

            return await asyncio.to_thread(request.function)
        raise TypeError(f"no driver answers a {type(request).__name__}")

    return handle


def call_handlers(store: object, handle: StoreHandler) -> Callable[[], Callable[[Request[Any]], Any]]:
    """Return a function that returns the handler of one call: all requests of the call share its end.

    The end counts from the call's first request. A store without :attr:`~quota_engine.ports.TimedStore.call_timeout_ms`
    gets no end.

    Args:
        store: The store.
        handle: Answers the requests from it.
    """
    if not isinstance(store, TimedStore):
        return lambda: handle
    timeout_ms = store.call_timeout_ms

    def begin() -> Callable[[Request[Any]], Any]:
        ends_at_ms: float | None = None

        def handle_until(request: Request[Any]) -> Any:
            nonlocal ends_at_ms
            if ends_at_ms is None:
                ends_at_ms = monotonic_ms() + timeout_ms
            return handle(request, ends_at_ms)

        return handle_until

    return begin


def run(work: Workflow[T] | Request[T], store: Store) -> T:
    """Run a workflow, or a single request, on ``store`` and return its result. Raises as the store does."""
    handle = handler_of(store)
    result: T = handle(work) if isinstance(work, Request) else drive(work, handle)
    return result


async def run_async(work: Workflow[T] | Request[T], store: AsyncStore) -> T:
    """Run a workflow, or a single request, on ``store`` and return its result. Raises as the store does."""
    handle = async_handler_of(store)
    result: T = await handle(work) if isinstance(work, Request) else await drive_async(work, handle)
    return result
