"""How a call becomes a method of a client: written once as a talk, run by the one client and awaited by the other.

``reserve = done(Calls.reserve)`` in a class is a method with the arguments of ``Calls.reserve``, which runs the talk
that it returns and gives what that comes to; ``awaited`` makes the same for asyncio. Type checkers see through both.
"""

from __future__ import annotations

__all__ = ["AsyncFace", "AsyncLine", "Face", "Line", "awaited", "done"]

import asyncio
import inspect
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import httpx

from quota_engine.client.call_protocol import Ask, Heard, Pause, Talk, Unheard

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.ProxyError,
)


class Line:
    """Runs talks over a connection."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def run(self, talk: Talk[T]) -> T:
        """What the talk comes to."""
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    time.sleep(_seconds(step))
                    step = next(talk)
                    continue
                try:
                    heard = _heard(self.http.request(**_request(step)))
                except httpx.RequestError as error:
                    step = talk.throw(_unheard(error))
                else:
                    step = talk.send(heard)
        except StopIteration as end:
            value: T = end.value
            return value


class AsyncLine:
    """The same for asyncio."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def run(self, talk: Talk[T]) -> T:
        """See :meth:`Line.run`."""
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(_seconds(step))
                    step = next(talk)
                    continue
                try:
                    heard = _heard(await self.http.request(**_request(step)))
                except httpx.RequestError as error:
                    step = talk.throw(_unheard(error))
                else:
                    step = talk.send(heard)
        except StopIteration as end:
            value: T = end.value
            return value


class Face(Generic[S_co]):
    """Something with methods that are talks of ``speaker``."""

    def __init__(self, speaker: S_co, line: Line) -> None:
        self._speaker = speaker
        self._line = line


class AsyncFace(Generic[S_co]):
    """The same for asyncio."""

    def __init__(self, speaker: S_co, line: AsyncLine) -> None:
        self._speaker = speaker
        self._line = line


def done(call: Callable[Concatenate[S, P], Talk[T]]) -> Callable[Concatenate[Face[S], P], T]:
    """The method that carries a talk out."""

    def method(self: Face[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._line.run(call(self._speaker, *args, **kwargs))

    return _like(method, call)


def awaited(
    call: Callable[Concatenate[S, P], Talk[T]],
) -> Callable[Concatenate[AsyncFace[S], P], Coroutine[Any, Any, T]]:
    """The method that carries a talk out, for asyncio."""

    async def method(self: AsyncFace[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._line.run(call(self._speaker, *args, **kwargs))

    return _like(method, call)


_M = TypeVar("_M", bound=Callable[..., Any])


def _like(method: _M, call: Callable[..., Any]) -> _M:
    """Give a method the name, the words and the arguments of its talk; it returns what that comes to."""
    signature = inspect.signature(call)
    returned = str(signature.return_annotation).removeprefix("Talk[").removesuffix("]")
    method.__name__, method.__qualname__, method.__doc__ = call.__name__, call.__qualname__, call.__doc__
    method.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
    return method


def _seconds(pause: Pause) -> float:
    # Up to a quarter more: all who were cut off at once do not come back at once.
    return pause.duration_ms / 1000 * random.uniform(1, 1.25)


def _request(step: Ask) -> dict[str, Any]:
    headers = dict(step.headers)
    if step.body is not None:
        headers["content-type"] = "application/json"
    return {"method": step.method, "url": step.path, "params": step.query, "content": step.body, "headers": headers}


def _heard(response: httpx.Response) -> Heard:
    return Heard(response.status_code, response.headers, response.content)


def _unheard(error: httpx.RequestError) -> Unheard:
    return Unheard(str(error) or type(error).__name__, sent=not isinstance(error, _NOT_SENT))
