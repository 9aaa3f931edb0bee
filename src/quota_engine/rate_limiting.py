"""Token buckets in front of functions and web applications: a decorator, and middleware for ASGI and WSGI.

Responses carry ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10), also those that were
not limited. A limited request gets 429 with ``Retry-After``, as a problem document.
"""

from __future__ import annotations

__all__ = ["RateLimitExceeded", "RateLimitMiddleware", "WsgiRateLimitMiddleware", "rate_limit_headers", "rate_limited"]

import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeVar, cast

from quota_engine.clocks import SystemClock
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.engine.token_buckets import AsyncTokenBuckets, TokenBuckets
from quota_engine.ports import Clock
from quota_engine.workflows.bucket_requests import BucketKeys, TakeResult

P = ParamSpec("P")
T = TypeVar("T")

_DEFAULT_NAME: Final = "default"
_PROBLEM: Final = json.dumps(
    {"type": "urn:quota-engine:problem:throttled", "title": "Too many attempts; try again later", "status": 429}
).encode()
_PROBLEM_HEADERS: Final = (("content-type", "application/problem+json"), ("content-length", str(len(_PROBLEM))))


class RateLimitExceeded(QuotaEngineError):
    """A call of a decorated function had no tokens. The function was not called.

    Attributes:
        result: the refused take; its ``retry_at_ms`` is the time of the next attempt.
    """

    def __init__(self, result: TakeResult) -> None:
        super().__init__(f"the rate limit {result.refused_by or _DEFAULT_NAME!r} is exceeded; retry at retry_at_ms")
        self.result = result


def rate_limit_headers(result: TakeResult, now_ms: int) -> list[tuple[str, str]]:
    """Return the headers of a response to a call that took tokens, or was refused them.

    Args:
        result: the result of :meth:`quota_engine.TokenBuckets.take`.
        now_ms: the time of the response, milliseconds since 1970 (UTC).

    Returns:
        ``RateLimit``, ``RateLimit-Policy``, and ``Retry-After`` after a refusal, names in lower case. In ``RateLimit``,
        ``r`` is the number of tokens left, and ``t`` the seconds until all of them are there again. No header if the
        take was not checked.
    """
    limits, policies = [], []
    for name, level in result.levels.items():
        label = f'"{name or _DEFAULT_NAME}"'
        reset_s = _seconds(level.reset_at_ms - now_ms)
        limits.append(f"{label};r={level.remaining}" + (f";t={reset_s}" if reset_s else ""))
        policies.append(f"{label};q={level.limit}")
    headers = [("ratelimit", ", ".join(limits)), ("ratelimit-policy", ", ".join(policies))] if limits else []
    if not result.ok:
        headers.append(("retry-after", str(max(1, _seconds(result.retry_at_ms - now_ms)))))
    return headers


def _seconds(duration_ms: int) -> int:
    return max(0, -(-duration_ms // 1000))


def rate_limited(
    buckets: TokenBuckets | AsyncTokenBuckets, key: Callable[..., BucketKeys], cost: int = 1
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Take tokens before each call of the decorated function.

    Args:
        buckets: the limits; :class:`~quota_engine.AsyncTokenBuckets` for a coroutine function.
        key: returns the key of a call, or the key of each limit by its name, from the function's arguments.
        cost: tokens for one call, from 1.

    Returns:
        A decorator. The decorated function raises :class:`RateLimitExceeded` without tokens.

    Raises:
        TypeError: a coroutine function has synchronous buckets, or a plain function has asynchronous ones.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        is_async = inspect.iscoroutinefunction(function)
        if is_async != isinstance(buckets, AsyncTokenBuckets):
            needed = "AsyncTokenBuckets" if is_async else "TokenBuckets"
            raise TypeError(f"{function.__qualname__}: its buckets must be {needed}")

        @functools.wraps(function)
        async def limited_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            result = await cast("AsyncTokenBuckets", buckets).take(key(*args, **kwargs), cost)
            if not result.ok:
                raise RateLimitExceeded(result)
            return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            result = cast("TokenBuckets", buckets).take(key(*args, **kwargs), cost)
            if not result.ok:
                raise RateLimitExceeded(result)
            return function(*args, **kwargs)

        return cast("Callable[P, T]", limited_async) if is_async else limited

    return decorate


def _remote_address(environment: Mapping[str, Any]) -> str:
    """Return the address of the client of a WSGI request, as the server reports it."""
    return str(environment.get("REMOTE_ADDR") or "unknown")


def _scope_address(scope: Mapping[str, Any]) -> str:
    """Return the address of the client of an ASGI request, as the server reports it."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


class RateLimitMiddleware:
    """ASGI middleware that takes a token for each HTTP request. Other kinds of connections pass."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        buckets: AsyncTokenBuckets | Callable[[], AsyncTokenBuckets],
        key: Callable[[Mapping[str, Any]], BucketKeys | None] = _scope_address,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Wrap ``app``.

        Args:
            app: the application.
            buckets: the limits, or a function that returns them, for buckets that open with the event loop.
            key: returns the key of a request from its scope, or ``None`` for one without a limit. The default is the
                client's address: behind a proxy, let the server trust the proxy's headers.
            clock: the time of responses; ``None`` for the system clock.
        """
        self._app = app
        self._buckets = buckets
        self._key = key
        self._now_ms = (clock or SystemClock()).now_ms

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""
        key = self._key(scope) if scope["type"] == "http" else None
        if key is None:
            await self._app(scope, receive, send)
            return
        buckets = self._buckets if isinstance(self._buckets, AsyncTokenBuckets) else self._buckets()
        result = await buckets.take(key)
        headers = [(name.encode(), value.encode()) for name, value in rate_limit_headers(result, self._now_ms())]

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        if result.ok:
            await self._app(scope, receive, send_with_headers)
            return
        start = [(name.encode(), value.encode()) for name, value in _PROBLEM_HEADERS]
        await send_with_headers({"type": "http.response.start", "status": 429, "headers": start})
        await send({"type": "http.response.body", "body": _PROBLEM})


class WsgiRateLimitMiddleware:
    """WSGI middleware that takes a token for each request."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        buckets: TokenBuckets,
        key: Callable[[Mapping[str, Any]], BucketKeys | None] = _remote_address,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Wrap ``app``; the arguments are those of :class:`RateLimitMiddleware`, and ``key`` gets the environment."""
        self._app = app
        self._buckets = buckets
        self._key = key
        self._now_ms = (clock or SystemClock()).now_ms

    def __call__(self, environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Handle one request."""
        key = self._key(environment)
        if key is None:
            return self._app(environment, start_response)
        result = self._buckets.take(key)
        headers = rate_limit_headers(result, self._now_ms())
        if not result.ok:
            start_response("429 Too Many Requests", [*_PROBLEM_HEADERS, *headers])
            return [_PROBLEM]

        def start_with_headers(status: str, given: list[tuple[str, str]], *exception: Any) -> Any:
            return start_response(status, [*given, *headers], *exception)

        return self._app(environment, start_with_headers)
