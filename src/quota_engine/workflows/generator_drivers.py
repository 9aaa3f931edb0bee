"""Run workflows on a store: :func:`run` synchronously, :func:`run_async` under asyncio.

A workflow is a generator that yields requests and returns a result. It performs no I/O, so it is written once for both.
"""

from __future__ import annotations

__all__ = ["Apply", "Compute", "Workflow", "async_handler_of", "execute", "handler_of", "run", "run_async"]

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from quota_engine.generators import Request, drive, drive_async
from quota_engine.ports import AsyncStore, Store, StoreRequest

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


def handler_of(store: Store) -> Callable[[Request[Any]], Any]:
    """Return the function that answers the requests of workflows from ``store``."""

    def handle(request: Request[Any]) -> Any:
        if type(request) is Apply:
            return store.apply(request.address, request.command)
        if isinstance(request, StoreRequest):
            return store.execute(request)
        if isinstance(request, Compute):
            return request.function()
        raise TypeError(f"no driver answers a {type(request).__name__}")

    return handle


def async_handler_of(store: AsyncStore) -> Callable[[Request[Any]], Awaitable[Any]]:
    """Return the function that answers the requests of workflows from ``store``, for asyncio."""

    async def handle(request: Request[Any]) -> Any:
        if type(request) is Apply:
            return await store.apply(request.address, request.command)
        if isinstance(request, StoreRequest):
            return await store.execute(request)
        if isinstance(request, Compute):
            import asyncio  # its caller has an event loop; synchronous callers never import it

            return await asyncio.to_thread(request.function)
        raise TypeError(f"no driver answers a {type(request).__name__}")

    return handle


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
