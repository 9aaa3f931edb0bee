"""Run workflows on a store: :func:`run` synchronously, :func:`run_async` under asyncio.

A workflow is a generator that yields requests and returns a result. It performs no I/O, so it is written once for both.
"""

from __future__ import annotations

__all__ = ["Apply", "Compute", "Request", "Workflow", "run", "run_async"]

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import msgspec

from quota_engine.generators import drive, drive_async
from quota_engine.ports import AsyncStore, Store, StoreRequest

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Apply(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """Request to apply one command to the ledger at ``address``; ``T_co`` is the type of the ledger's outcome.

    The drivers turn it into :meth:`quota_engine.ports.Store.apply`.
    """

    address: str
    command: Any


class Compute(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """Request for a pure computation that takes up to seconds. The async driver runs it in a thread."""

    function: Callable[[], T_co]


Request = Apply[T] | Compute[T] | StoreRequest[T]
"""A request that a driver answers with a ``T``."""

Workflow = Generator[Request[Any], Any, T]
"""Yields requests, receives their responses, returns a ``T``.

A driver throws an error of the store into the workflow at the ``yield`` of the request that failed.
"""


def run(work: Workflow[T] | Request[T], store: Store) -> T:
    """Run a workflow, or a single request, on ``store`` and return its result. Raises as the store does."""

    def handle(request: Request[Any]) -> Any:
        if isinstance(request, Apply):
            return store.apply(request.address, request.command)
        if isinstance(request, Compute):
            return request.function()
        return store.execute(request)

    result: T = drive(work, handle) if isinstance(work, Generator) else handle(work)
    return result


async def run_async(work: Workflow[T] | Request[T], store: AsyncStore) -> T:
    """Run a workflow, or a single request, on ``store`` and return its result. Raises as the store does."""

    async def handle(request: Request[Any]) -> Any:
        if isinstance(request, Apply):
            return await store.apply(request.address, request.command)
        if isinstance(request, Compute):
            import asyncio  # the caller has imported it; a synchronous caller does not need it

            return await asyncio.to_thread(request.function)
        return await store.execute(request)

    result: T = await drive_async(work, handle) if isinstance(work, Generator) else await handle(work)
    return result
