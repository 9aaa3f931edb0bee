"""Endpoints for offices and their availability."""

from __future__ import annotations

__all__ = ["OFFICES"]

import datetime
from typing import Annotated, Final

from msgspec import Meta

from quota_engine.api_schema.offices import AvailabilityBody, OfficeBody, OfficesBody, day_body, office_body
from quota_engine.catalog import ResolvedOffice, next_release
from quota_engine.catalog.availability import earliest_available_day
from quota_engine.service.api.common import OFFICE, QueryParameters, Token, get
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse


class AvailabilityQuery(QueryParameters, frozen=True, kw_only=True):
    """A range of days, and a selection for the earliest day; ``last_day`` defaults to ``first_day``."""

    first_day: datetime.date
    last_day: datetime.date | None = None
    service: Token = ""
    service_unit: Token = ""
    session: Token = ""
    channel: Token = "online"
    group: Token = ""
    units: Annotated[int, Meta(ge=1, le=100)] = 1


async def list_offices(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    catalog = context.catalog
    offices = [_office_body(context, view) for view in catalog.offices.values()]
    return ApiResponse(200, OfficesBody(title=catalog.title, offices=offices))


async def get_office(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    return ApiResponse(200, _office_body(context, context.get_office(request.path["office"])))


def _office_body(context: ServiceContext, view: ResolvedOffice) -> OfficeBody:
    return office_body(context.catalog, view, next_release(context.catalog, view.id, context.now_ms()))


async def availability(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    query: AvailabilityQuery = request.query
    office = request.path["office"]
    days = await context.engine.availability(office, query.first_day, query.last_day)
    earliest = earliest_available_day(
        context.catalog,
        office,
        days,
        now_ms=context.now_ms(),
        units=query.units,
        service=query.service,
        service_unit=query.service_unit,
        session=query.session,
        channel=query.channel,
        group=query.group,
    )
    body = AvailabilityBody(office=office, earliest_available_day=earliest, days=[day_body(view) for view in days])
    return ApiResponse(200, body)


OFFICES: Final = (
    get(
        OFFICE + "/availability", "availability", "Get the counters of days, and the earliest day with a place.",
        availability, AvailabilityBody, query_type=AvailabilityQuery, problems=("unknown-name",),
    ),
    get(
        "/v1/offices", "offices", "List the offices, their services, and their next openings.", list_offices,
        OfficesBody, uses_store=False,
    ),
    get(
        OFFICE, "office", "Get one office.", get_office, OfficeBody, uses_store=False, problems=("unknown-name",),
    ),
)  # fmt: skip
