"""Tests of the decorator and the middleware of token buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from quota_engine import AsyncTokenBuckets, ManualClock, TokenBuckets
from quota_engine.admission import per_minute
from quota_engine.rate_limiting import (
    RateLimitExceeded,
    RateLimitMiddleware,
    WsgiRateLimitMiddleware,
    rate_limit_headers,
    rate_limited,
)

NOW_MS = 1_000_000


def test_decorated_function_is_called_while_there_are_tokens() -> None:
    clock = ManualClock(NOW_MS)
    with TokenBuckets.open("memory://", per_minute(2), clock=clock) as buckets:

        @rate_limited(buckets, key=lambda account: account)
        def log_in(account: str) -> str:
            return f"welcome {account}"

        assert [log_in("ani"), log_in("ani")] == ["welcome ani"] * 2
        with pytest.raises(RateLimitExceeded, match="'default'") as refused:
            log_in("ani")
        assert refused.value.result.retry_at_ms == NOW_MS + 30_000
        assert log_in("budi") == "welcome budi"
        clock.set_ms(NOW_MS + 30_000)
        assert log_in("ani") == "welcome ani"


async def test_decorated_coroutine_function_takes_the_tokens_of_each_limit() -> None:
    limits = {"account": per_minute(1), "address": per_minute(9)}
    async with await AsyncTokenBuckets.open("memory://", limits, clock=ManualClock(NOW_MS)) as buckets:

        @rate_limited(buckets, key=lambda account, address: {"account": account, "address": address})
        async def log_in(account: str, address: str) -> str:
            return account

        assert await log_in("ani", "203.0.113.7") == "ani"
        with pytest.raises(RateLimitExceeded, match="'account'"):
            await log_in("ani", "203.0.113.7")


async def test_decorator_refuses_buckets_of_the_other_form() -> None:
    with (
        TokenBuckets.open("memory://", per_minute(1)) as buckets,
        pytest.raises(TypeError, match="must be AsyncTokenBuckets"),
    ):

        @rate_limited(buckets, key=str)
        async def never() -> None: ...


def test_headers_name_each_limit_and_the_next_attempt() -> None:
    clock = ManualClock(NOW_MS)
    limits = {"account": per_minute(2), "address": per_minute(60, burst=10)}
    with TokenBuckets.open("memory://", limits, clock=clock) as buckets:
        keys = {"account": "ani", "address": "203.0.113.7"}
        taken, _, refused = [buckets.take(keys) for _ in range(3)]
    assert rate_limit_headers(taken, NOW_MS) == [
        ("ratelimit", '"account";r=1;t=30, "address";r=9;t=1'),
        ("ratelimit-policy", '"account";q=2, "address";q=10'),
    ]
    assert rate_limit_headers(refused, NOW_MS) == [
        ("ratelimit", '"account";r=0;t=60, "address";r=8;t=2'),
        ("ratelimit-policy", '"account";q=2, "address";q=10'),
        ("retry-after", "30"),
    ]


async def call_asgi(app: Callable[..., Any], scope: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Send one request to an ASGI application and return status, headers and body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_asgi_middleware_adds_headers_and_answers_429() -> None:
    clock = ManualClock(NOW_MS)
    scope = {"type": "http", "client": ("203.0.113.7", 1), "path": "/"}
    async with await AsyncTokenBuckets.open("memory://", per_minute(1), clock=clock) as buckets:
        app = RateLimitMiddleware(hello, lambda: buckets, clock=clock)
        status, headers, body = await call_asgi(app, scope)
        assert (status, body, headers["ratelimit"]) == (200, b"hello", '"default";r=0;t=60')
        status, headers, body = await call_asgi(app, scope)
        assert (status, headers["retry-after"], headers["content-type"]) == (429, "60", "application/problem+json")
        assert headers["content-length"] == str(len(body))
        assert (await call_asgi(app, {**scope, "client": ("198.51.100.1", 1)}))[0] == 200


async def test_asgi_middleware_passes_what_has_no_key() -> None:
    seen: list[str] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async with await AsyncTokenBuckets.open("memory://", per_minute(1), clock=ManualClock(NOW_MS)) as buckets:
        await RateLimitMiddleware(lifespan, buckets)({"type": "lifespan"}, None, None)
        free = RateLimitMiddleware(hello, buckets, key=lambda scope: None)
        statuses = [await call_asgi(free, {"type": "http"}) for _ in range(3)]
    assert seen == ["lifespan"]
    assert [(status, "ratelimit" in headers) for status, headers, _ in statuses] == [(200, False)] * 3


def test_wsgi_middleware_adds_headers_and_answers_429() -> None:
    clock = ManualClock(NOW_MS)
    started: list[tuple[str, dict[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *exception: Any) -> None:
        started.append((status, dict(headers)))

    def application(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("content-type", "text/plain")])
        return [b"hello"]

    with TokenBuckets.open("memory://", per_minute(1), clock=clock) as buckets:
        limited = WsgiRateLimitMiddleware(application, buckets, clock=clock)
        bodies = [b"".join(limited({"REMOTE_ADDR": "203.0.113.7"}, start_response)) for _ in range(2)]
        free = WsgiRateLimitMiddleware(application, buckets, key=lambda environment: None)
        assert list(free({}, start_response)) == [b"hello"]
    (first, first_headers), (second, second_headers), (_, free_headers) = started
    assert (first, first_headers["ratelimit"], bodies[0]) == ("200 OK", '"default";r=0;t=60', b"hello")
    assert (second, second_headers["retry-after"]) == ("429 Too Many Requests", "60")
    assert second_headers["content-length"] == str(len(bodies[1]))
    assert "ratelimit" not in free_headers


def test_unchecked_take_has_no_headers() -> None:
    async def take() -> Any:
        async with await AsyncTokenBuckets.open("memory://", per_minute(1)) as buckets:
            return await buckets.take("ani")

    result = asyncio.run(take())
    assert rate_limit_headers(type(result)(True, unchecked=True), NOW_MS) == []
