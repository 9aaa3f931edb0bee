"""Endpoints for offices and their availability."""

from __future__ import annotations

__all__ = ["OFFICES"]

import datetime
from collections.abc import Iterable
from typing import Annotated, Final

from msgspec import Meta

from quota_engine.api_schema.offices import AvailabilityBody, OfficeBody, OfficesBody, day_body, office_body
from quota_engine.catalog import Catalog, ResolvedOffice, next_release
from quota_engine.catalog.availability import earliest_available_day
from quota_engine.service.api.common import OFFICE, QueryParameters, Token, get
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse, etag_response

AVAILABILITY_TTL_MS: Final = 1_000
"""Age below which callers without a token share the counters of days."""
_NO_OPENING_TTL_MS: Final = 3_600_000
"""Time after which an office without a next opening is searched again, because the search has a horizon."""


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
    """Return all offices, from the cache until the catalog changes or an opening passes."""
    catalog = context.catalog

    def make() -> tuple[ApiResponse, float]:
        bodies, until_ms = _office_bodies(catalog, catalog.offices.values(), context.now_ms())
        return etag_response(OfficesBody(title=catalog.title, offices=bodies)), until_ms

    return context.catalog_responses.get("", (catalog,), make)


async def get_office(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    catalog, office = context.catalog, context.get_office(request.path["office"])

    def make() -> tuple[ApiResponse, float]:
        (body,), until_ms = _office_bodies(catalog, (office,), context.now_ms())
        return etag_response(body), until_ms

    return context.catalog_responses.get(office.id, (catalog,), make)


def _office_bodies(catalog: Catalog, offices: Iterable[ResolvedOffice], now_ms: int) -> tuple[list[OfficeBody], float]:
    """Return the bodies of offices, and the time of their first opening, which changes them."""
    bodies: list[OfficeBody] = []
    until_ms = now_ms + _NO_OPENING_TTL_MS
    # Most offices of a catalog open by the same schedule, and finding the next opening costs most.
    releases: dict[tuple[object, ...], tuple[int, tuple[datetime.date, ...]] | None] = {}
    for office in offices:
        rule = office.schedule, office.calendar, office.zone.key
        if rule not in releases:
            releases[rule] = next_release(catalog, office.id, now_ms)
        release = releases[rule]
        if release is not None:
            until_ms = min(until_ms, release[0])
        bodies.append(office_body(catalog, office, release))
    return bodies, until_ms


async def availability(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    """Return the counters of days: for a known token as they are, for other callers as they were within a second."""
    if context.access.is_known(request.headers.get(b"authorization", b"")):
        return await _availability(context, request)
    key = request.path["office"], request.query
    _, response = await context.availability_responses.load(
        key, lambda: _availability(context, request), AVAILABILITY_TTL_MS
    )
    return response


async def _availability(context: ServiceContext, request: ApiRequest) -> ApiResponse:
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
    return etag_response(body)


OFFICES: Final = (
    get(
        OFFICE + "/availability", "availability", "Get the counters of days, and the earliest day with a place.",
        availability, AvailabilityBody, query_type=AvailabilityQuery, problems=("unknown-name",), has_etag=True,
    ),
    get(
        "/v1/offices", "offices", "List the offices, their services, and their next openings.", list_offices,
        OfficesBody, uses_store=False, has_etag=True,
    ),
    get(
        OFFICE, "office", "Get one office.", get_office, OfficeBody, uses_store=False, problems=("unknown-name",),
        has_etag=True,
    ),
)  # fmt: skip
