"""The two drivers: each runs a flow by handing its requests to a store, one synchronously and one under asyncio."""

from __future__ import annotations

__all__ = ["Workflow", "run", "run_async"]

from collections.abc import Generator
from typing import Any, TypeVar

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.ports import AsyncStore, Store, StoreRequest

T = TypeVar("T")

Workflow = Generator[StoreRequest[Any], Any, T]
"""Yields requests, is sent their answers, returns a ``T``. An error of the store is thrown in where the request was
made.
"""


def run(flow: Workflow[T], backend: Store) -> T:
    """Run ``flow`` on ``backend`` to its end, and return what it returns."""
    try:
        request = next(flow)
        while True:
            try:
                answer = backend.execute(request)
            except QuotaEngineError as error:
                request = flow.throw(error)
            else:
                request = flow.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def run_async(flow: Workflow[T], backend: AsyncStore) -> T:
    """Run ``flow`` on ``backend`` to its end, and return what it returns."""
    try:
        request = next(flow)
        while True:
            try:
                answer = await backend.execute(request)
            except QuotaEngineError as error:
                request = flow.throw(error)
            else:
                request = flow.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
