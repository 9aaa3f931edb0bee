"""Drive a generator that yields requests: :func:`drive` synchronously, :func:`drive_async` under asyncio.

Workflows, the calls of the HTTP clients and the calls of the Redis stores are such generators. Each is written once,
without I/O, and these two functions run all of them.
"""

from __future__ import annotations

__all__ = ["Request", "drive", "drive_async"]

from collections.abc import Awaitable, Callable, Generator
from typing import Generic, TypeVar

import msgspec

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Request(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """Request that a generator yields; ``T_co`` is the type of the answer."""


def drive(generator: Generator[RequestT, ResponseT, T], handle: Callable[[RequestT], ResponseT]) -> T:
    """Run ``generator`` until it returns, and return its result.

    Args:
        generator: yields requests and receives their responses.
        handle: answers one request. An exception that it raises is thrown into the generator at the ``yield``, which
            may catch it and continue. A ``BaseException`` such as an interrupt ends the generator instead.
    """
    try:
        request = next(generator)
        while True:
            try:
                response = handle(request)
            except Exception as error:
                request = generator.throw(error)
            else:
                request = generator.send(response)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        # An interrupted generator releases its locks and connections now, and not when it is collected.
        generator.close()


async def drive_async(
    generator: Generator[RequestT, ResponseT, T], handle: Callable[[RequestT], Awaitable[ResponseT]]
) -> T:
    """Run ``generator`` under asyncio until it returns, and return its result. Arguments as for :func:`drive`."""
    try:
        request = next(generator)
        while True:
            try:
                response = await handle(request)
            except Exception as error:
                request = generator.throw(error)
            else:
                request = generator.send(response)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        generator.close()
