"""How the service itself is."""

from __future__ import annotations

__all__ = ["HEALTH"]

from typing import TYPE_CHECKING, Final

from quota_engine.api_schema import reservations as wire
from quota_engine.service.api.common import get
from quota_engine.service.http.endpoint import Call, Reply

if TYPE_CHECKING:
    from quota_engine.service.app import Service


async def live(service: Service, call: Call) -> Reply:
    return Reply(200, wire.HealthBody(status="live"))


async def ready(service: Service, call: Call) -> Reply:
    state = await service.readiness()
    return Reply(200 if state == "ready" else 503, wire.HealthBody(status=state))


HEALTH: Final = (
    get("/health/live", "live", "Whether the process runs.", live, wire.HealthBody,
        asks_store=False),
    get("/health/ready", "ready", "Whether it serves: false while it drains, or the store is away.", ready,
        wire.HealthBody, also_http=(503,), asks_store=False),
)  # fmt: skip
