"""Endpoints for events and consumer groups."""

from __future__ import annotations

__all__ = ["EVENTS"]

from typing import Annotated, Final

from msgspec import Meta

from quota_engine.api_schema.base import OptionalId
from quota_engine.api_schema.events import (
    AcknowledgeBody,
    AcknowledgedBody,
    ConsumerGroupCreatedBody,
    ConsumerGroupDeletedBody,
    ConsumerGroupsBody,
    CreateConsumerGroupBody,
    EventsBody,
    TrimBody,
    TrimmedBody,
    consumer_group_body,
    event_body,
)
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.service.api.common import OFFICE, OPERATORS, READERS, SERVICES, QueryParameters, delete, get, post
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse


class EventsQuery(QueryParameters, frozen=True, kw_only=True):
    """The events above ``after``, or those leased to a consumer of a consumer group."""

    after: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    consumer_group: OptionalId = ""
    consumer: OptionalId = ""
    min_idle_ms: Annotated[int, Meta(ge=0, le=DURATION_MS_MAX)] = 60_000


async def read_events(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    office, query = request.path["office"], request.query
    if (query.consumer_group or query.consumer) and request.grant is not None:
        # Reading for a group leases events to the consumer, which an auditor may not do.
        context.access.authorize(request.grant, SERVICES, office)
    events = await context.engine.events(
        office,
        query.after,
        query.limit,
        consumer_group=query.consumer_group or None,
        consumer=query.consumer or None,
        min_idle_ms=query.min_idle_ms,
    )
    body = EventsBody(
        office=office,
        next_after=events[-1].number if events else query.after,
        events=[event_body(event) for event in events],
    )
    return ApiResponse(200, body)


async def trim_events(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    events_left = await context.engine.trim_events(request.path["office"], request.body.through)
    return ApiResponse(200, TrimmedBody(events_left=events_left))


async def list_consumer_groups(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    office = request.path["office"]
    groups = await context.engine.list_consumer_groups(office)
    body = ConsumerGroupsBody(office=office, consumer_groups=[consumer_group_body(group) for group in groups])
    return ApiResponse(200, body)


async def create_consumer_group(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    path = request.path
    created = await context.engine.create_consumer_group(path["office"], path["consumer_group"], request.body.after)
    return ApiResponse(201 if created else 200, ConsumerGroupCreatedBody(created=created))


async def delete_consumer_group(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    path = request.path
    deleted = await context.engine.delete_consumer_group(path["office"], path["consumer_group"])
    return ApiResponse(200, ConsumerGroupDeletedBody(deleted=deleted))


async def acknowledge(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    path = request.path
    count = await context.engine.acknowledge(path["office"], path["consumer_group"], request.body.numbers)
    return ApiResponse(200, AcknowledgedBody(acknowledged=count))


_GROUPS: Final = OFFICE + "/consumer-groups"
_GROUP: Final = _GROUPS + "/{consumer_group}"

EVENTS: Final = (
    get(
        OFFICE + "/events", "events", "Read an office's events in order.", read_events, EventsBody,
        roles=READERS, query_type=EventsQuery, is_write=True, problems=("unknown-name",),
    ),
    post(
        OFFICE + "/events/trim", "trim-events", "Delete events that all their readers have read.", trim_events,
        TrimmedBody, roles=OPERATORS, body_type=TrimBody, problems=("unknown-name",),
    ),
    get(
        _GROUPS, "consumer-groups", "List the consumer groups of an office.", list_consumer_groups, ConsumerGroupsBody,
        roles=READERS, problems=("unknown-name",),
    ),
    post(
        _GROUP, "create-consumer-group", "Create a consumer group. Events that it still needs are not trimmed.",
        create_consumer_group, ConsumerGroupCreatedBody, status=201, other_statuses=(200,), roles=SERVICES,
        body_type=CreateConsumerGroupBody, problems=("unknown-name",),
    ),
    delete(
        _GROUP, "delete-consumer-group", "Delete a consumer group and the leases of its consumers.",
        delete_consumer_group, ConsumerGroupDeletedBody, roles=SERVICES, problems=("unknown-name",),
    ),
    post(
        _GROUP + "/acknowledge", "acknowledge", "Acknowledge events for a consumer group.", acknowledge,
        AcknowledgedBody, roles=SERVICES, body_type=AcknowledgeBody, problems=("unknown-name",),
    ),
)  # fmt: skip
