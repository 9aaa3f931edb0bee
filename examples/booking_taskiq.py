"""Confirm and notify in a taskiq worker, with an asynchronous engine for each worker process.

    cd examples && taskiq worker booking_taskiq:broker --workers 2

Take a broker for several machines, such as that of taskiq-redis; this one queues in the process, for tests.
"""

from __future__ import annotations

from booking_settings import CATALOG, OFFICE, SERVICE, days_to_publish, engine_options
from taskiq import Context, InMemoryBroker, SimpleRetryMiddleware, TaskiqDepends, TaskiqEvents, TaskiqState

from quota_engine import AsyncQuotaEngine

broker = InMemoryBroker().with_middlewares(SimpleRetryMiddleware(default_retry_count=10))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_engine(state: TaskiqState) -> None:
    """Open the engine in the loop of the worker that uses it."""
    state.engine = await AsyncQuotaEngine.open(**engine_options())
    await state.engine.publish(CATALOG, *days_to_publish())


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_engine(state: TaskiqState) -> None:
    """Close the engine of the worker."""
    await state.engine.close()


@broker.task(retry_on_error=True)
async def book(identity: str, day: str, key: str, context: Context = TaskiqDepends()) -> str:  # noqa: B008
    """Take a place, keep it, and notify the visitor. A repeated task has one effect, because of its ``key``."""
    engine: AsyncQuotaEngine = context.state.engine
    held = await engine.reserve(OFFICE, day, identity, service=SERVICE, idempotency_key=key)
    if not held.ok:
        return str(held.status)
    confirmed = await engine.confirm(held.reference, owner=identity)
    return str(confirmed.status)
