"""Book with FastAPI: one engine for each worker process, opened in the worker's event loop.

uvicorn --app-dir examples --workers 4 booking_fastapi:app
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from booking_settings import CATALOG, OFFICE, SERVICE, answer, days_to_publish, engine_options
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from quota_engine import AsyncQuotaEngine, BackendUnavailable, OutcomeUnknown


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the engine after the fork, in the loop that uses it, and close it at the end."""
    async with await AsyncQuotaEngine.open(**engine_options()) as engine:
        await engine.publish(CATALOG, *days_to_publish())
        app.state.engine = engine
        yield


app = FastAPI(lifespan=lifespan)


class Booking(BaseModel):
    """The form of a visitor. The page makes ``key`` once and sends it again with each retry."""

    identity: str
    day: date
    key: str


@app.post("/book")
async def book(request: Request, form: Booking) -> JSONResponse:
    """Take a place and keep it. The same key has one effect, however often the form is sent."""
    engine: AsyncQuotaEngine = request.app.state.engine
    held = await engine.reserve(OFFICE, form.day, form.identity, service=SERVICE, idempotency_key=form.key)
    if held.ok:
        held = await engine.confirm(held.reference, owner=form.identity)
    status, body = answer(held)
    return JSONResponse(body, status)


@app.exception_handler(BackendUnavailable)
@app.exception_handler(OutcomeUnknown)
async def unavailable(request: Request, error: Exception) -> JSONResponse:
    """Ask for a retry with the same key: nothing was done, or the next answer is certain."""
    body: dict[str, Any] = {"status": type(error).__name__}
    return JSONResponse(body, 503, {"Retry-After": "1"})
