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

import math
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.generators import Request, drive, drive_async
from quota_engine.ports import AsyncStore, Store, StoreRequest
from quota_engine.workflows.jobs import JOB_TIMEOUT_MS, JobRequest, JobTimer, StartJob

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
        if isinstance(request, JobRequest):
            return None
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
        if isinstance(request, JobRequest):
            return None
        raise TypeError(f"no driver answers a {type(request).__name__}")

    return handle


class _CallHandler:
    """Answers the requests of one call, which share its end."""

    def __init__(
        self,
        handle: StoreHandler,
        call_timeout_ms: int | None,
        job_timeout_ms: int,
        ends_at_ms_max: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._handle = handle
        self._call_timeout_ms = call_timeout_ms
        self._job_timeout_ms = job_timeout_ms
        self._ends_at_ms_max = ends_at_ms_max
        self._monotonic = monotonic
        self._ends_at_ms: float | None = None
        self._timer: JobTimer | None = None

    def __call__(self, request: Request[Any]) -> Any:
        if isinstance(request, JobRequest):
            if isinstance(request, StartJob):
                self._timer = JobTimer(
                    request, self._job_timeout_ms, self._ends_at_ms_max, self._call_timeout_ms, self._monotonic
                )
            elif self._timer is not None:
                self._timer.check(request)
            return self._handle(request)
        if self._timer is not None:
            return self._handle(request, self._timer.end_of(request))
        if self._ends_at_ms is None and self._call_timeout_ms is not None:
            self._ends_at_ms = self._monotonic() + self._call_timeout_ms
        return self._handle(request, self._ends_at_ms)


def call_handlers(
    store: object,
    handle: StoreHandler,
    job_timeout_ms: int = JOB_TIMEOUT_MS,
    monotonic: Callable[[], float] = monotonic_ms,
) -> Callable[[], Callable[[Request[Any]], Any]]:
    """Return a function that returns the handler of one call: all requests of the call share its end.

    The end counts from the call's first request. A store without :attr:`~quota_engine.ports.TimedStore.call_timeout_ms`
    gets no end, except for a job (:mod:`quota_engine.workflows.jobs`). A store with ``ends_at_ms`` ends all calls by
    that time of :func:`quota_engine.clocks.monotonic_ms`.

    Args:
        store: The store.
        handle: Answers the requests from it.
        job_timeout_ms: Time of a job that names no other, in milliseconds.
        monotonic: Returns milliseconds of a clock that never goes back, the same as the store's.
    """
    # Each engine with an end makes one. An instance check of a protocol would take 8 µs.
    call_timeout_ms: int | None = getattr(store, "call_timeout_ms", None)
    ends_at_ms_max: float = getattr(store, "ends_at_ms", math.inf)
    return lambda: _CallHandler(handle, call_timeout_ms, job_timeout_ms, ends_at_ms_max, monotonic)


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
