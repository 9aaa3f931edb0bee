"""Write a method once, and bind it to a synchronous and an asynchronous class.

A class of methods, such as ``DrawMethods``, has the arguments and the docstrings. Its methods perform no I/O: each
returns a request, or a generator that yields requests. The public classes bind them::

    class Draw(SyncBound[DrawMethods]):
        close = sync_method(DrawMethods.close)

    class AsyncDraw(AsyncBound[DrawMethods]):
        close = async_method(DrawMethods.close)

Type checkers and ``help()`` see the arguments, the result and the docstring of the original method.
"""

from __future__ import annotations

__all__ = ["AsyncBound", "AsyncResource", "SyncBound", "SyncResource", "async_method", "sync_method"]

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import GeneratorType, TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from quota_engine.generators import Request, drive, drive_async

P = ParamSpec("P")
T = TypeVar("T")
MethodsT = TypeVar("MethodsT")
MethodsT_co = TypeVar("MethodsT_co", covariant=True)


class SyncBound(Generic[MethodsT_co]):
    """Base of a synchronous class that binds the methods of ``MethodsT_co``."""

    def __init__(
        self,
        methods: MethodsT_co,
        handle: Callable[[Any], Any],
        begin: Callable[[], Callable[[Any], Any]] | None = None,
    ) -> None:
        """Bind ``methods``.

        Args:
            methods: the methods.
            handle: answers one request.
            begin: returns the function that answers the requests of one call of several steps; ``None`` for ``handle``.
        """
        self._methods = methods
        self._handle = handle
        self._begin = begin or (lambda: handle)


class AsyncBound(Generic[MethodsT_co]):
    """Base of an asynchronous class that binds the methods of ``MethodsT_co``."""

    def __init__(
        self,
        methods: MethodsT_co,
        handle: Callable[[Any], Awaitable[Any]],
        begin: Callable[[], Callable[[Any], Awaitable[Any]]] | None = None,
    ) -> None:
        """Bind ``methods``; arguments as for :class:`SyncBound`."""
        self._methods = methods
        self._handle = handle
        self._begin = begin or (lambda: handle)


class SyncResource(ABC):
    """Context manager that closes itself at the end."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncResource(ABC):
    """Asynchronous context manager that closes itself at the end."""

    @abstractmethod
    async def close(self) -> None:
        """Release all resources. A second call does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


_F = TypeVar("_F", bound=Callable[..., Any])


def sync_method(
    method: Callable[Concatenate[MethodsT, P], Request[T] | Generator[Any, Any, T]],
) -> Callable[Concatenate[SyncBound[MethodsT], P], T]:
    """Bind ``method`` to a class: call it, and drive the work that it returns."""

    def bound(self: SyncBound[MethodsT], /, *args: P.args, **kwargs: P.kwargs) -> T:
        work = method(self._methods, *args, **kwargs)
        result: T = drive(work, self._begin()) if isinstance(work, GeneratorType) else self._handle(work)
        return result

    return _described_as(bound, method)


def async_method(
    method: Callable[Concatenate[MethodsT, P], Request[T] | Generator[Any, Any, T]],
) -> Callable[Concatenate[AsyncBound[MethodsT], P], Coroutine[Any, Any, T]]:
    """Bind ``method`` to an asyncio class: call it, and drive the work that it returns."""

    async def bound(self: AsyncBound[MethodsT], /, *args: P.args, **kwargs: P.kwargs) -> T:
        work = method(self._methods, *args, **kwargs)
        result: T = await (drive_async(work, self._begin()) if isinstance(work, GeneratorType) else self._handle(work))
        return result

    return _described_as(bound, method)


def _described_as(bound: _F, method: Callable[..., Any]) -> _F:
    """Give ``bound`` the name, the docstring and the arguments of ``method``, and the type of its result."""
    signature = inspect.signature(method)
    result = _result_of(str(signature.return_annotation))
    bound.__name__, bound.__qualname__, bound.__doc__ = method.__name__, method.__qualname__, method.__doc__
    bound.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
    return bound


def _result_of(annotation: str) -> str:
    """Return the type in the first brackets of an annotation such as ``Workflow[list[str]] | Apply[list[str]]``."""
    start = annotation.index("[") + 1
    depth, end = 1, start
    while depth:
        depth += {"[": 1, "]": -1}.get(annotation[end], 0)
        end += 1
    return annotation[start : end - 1]
