"""The two drivers: each runs a flow by handing its requests to a store, one synchronously and one under asyncio."""

from __future__ import annotations

__all__ = ["Flow", "run", "run_async"]

from collections.abc import Generator
from typing import Any, TypeVar

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.ports import AsyncBackend, Backend, Request

T = TypeVar("T")

Flow = Generator[Request[Any], Any, T]
"""Yields requests, is sent their answers, returns a ``T``. An error of the store is thrown in where the request was
made.
"""


def run(flow: Flow[T], backend: Backend) -> T:
    """Run ``flow`` on ``backend`` to its end, and return what it returns."""
    try:
        request = next(flow)
        while True:
            try:
                answer = backend.perform(request)
            except QuotaEngineError as error:
                request = flow.throw(error)
            else:
                request = flow.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def run_async(flow: Flow[T], backend: AsyncBackend) -> T:
    """Run ``flow`` on ``backend`` to its end, and return what it returns."""
    try:
        request = next(flow)
        while True:
            try:
                answer = await backend.perform(request)
            except QuotaEngineError as error:
                request = flow.throw(error)
            else:
                request = flow.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
