"""Book with Litestar: one engine for each worker process, opened in the worker's event loop.

uvicorn --app-dir examples --workers 4 booking_litestar:app
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import msgspec
from booking_settings import CATALOG, OFFICE, SERVICE, answer, days_to_publish, engine_options
from litestar import Litestar, Request, Response, post
from litestar.datastructures import State

from quota_engine import AsyncQuotaEngine, BackendUnavailable, OutcomeUnknown


@asynccontextmanager
async def engine_of_worker(app: Litestar) -> AsyncIterator[None]:
    """Open the engine after the fork, in the loop that uses it, and close it at the end."""
    async with await AsyncQuotaEngine.open(**engine_options()) as engine:
        await engine.publish(CATALOG, *days_to_publish())
        app.state.engine = engine
        yield


class Booking(msgspec.Struct):
    """The form of a visitor. The page makes ``key`` once and sends it again with each retry."""

    identity: str
    day: date
    key: str


@post("/book")
async def book(state: State, data: Booking) -> Response[dict[str, Any]]:
    """Take a place and keep it. The same key has one effect, however often the form is sent."""
    engine: AsyncQuotaEngine = state.engine
    held = await engine.reserve(OFFICE, data.day, data.identity, service=SERVICE, idempotency_key=data.key)
    if held.ok:
        held = await engine.confirm(held.reference, owner=data.identity)
    status, body = answer(held)
    return Response(body, status_code=status)


def unavailable(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Ask for a retry with the same key: nothing was done, or the next answer is certain."""
    return Response({"status": type(error).__name__}, status_code=503, headers={"Retry-After": "1"})


app = Litestar(
    [book],
    lifespan=[engine_of_worker],
    exception_handlers={BackendUnavailable: unavailable, OutcomeUnknown: unavailable},
)
