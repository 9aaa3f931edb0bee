"""Endpoints that report whether the service runs and serves."""

from __future__ import annotations

__all__ = ["HEALTH"]

from typing import Final

from quota_engine.api_schema.operators import HealthBody
from quota_engine.service.api.common import get
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse


async def live(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return ApiResponse(200, HealthBody(status="live"))


async def ready(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    readiness = await context.check_readiness()
    return ApiResponse(200 if readiness == "ready" else 503, HealthBody(status=readiness))


HEALTH: Final = (
    get("/health/live", "live", "Report that the process runs.", live, HealthBody, uses_store=False),
    get(
        "/health/ready", "ready", "Report whether the process serves; 503 while it drains or the store is unavailable.",
        ready, HealthBody, other_statuses=(503,), uses_store=False,
    ),
)  # fmt: skip
