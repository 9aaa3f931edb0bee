"""Events, for those who consume them: alone, or as a group that shares the work."""

from __future__ import annotations

__all__ = ["EVENTS"]

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from quota_engine.api_schema import reservations as wire
from quota_engine.api_schema.base import MaybeId
from quota_engine.api_schema.operators import (
    AcknowledgeBody,
    AcknowledgedBody,
    ConsumerGroupCreatedBody,
    ConsumerGroupDeletedBody,
    ConsumerGroupsBody,
    CreateConsumerGroupBody,
    group_body,
)
from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.service.api.common import OFFICE, OPERATORS, READERS, SERVICES, QuerySettings, delete, get, post
from quota_engine.service.http.endpoint import Call, Reply

if TYPE_CHECKING:
    from quota_engine.service.app import Service


class EventsQuery(QuerySettings, frozen=True, kw_only=True):
    """From which event on, and how many; or for which consumer of a group."""

    after: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    group: MaybeId = ""
    consumer: MaybeId = ""
    min_idle_ms: Annotated[int, Meta(ge=0, le=DURATION_MS_MAX)] = 60_000


async def events(service: Service, call: Call) -> Reply:
    name, asked = call.path["office"], call.query
    if (asked.group or asked.consumer) and call.grant is not None:
        # Reading for a group keeps the events for this consumer; an auditor changes nothing.
        service.access.check(call.grant, SERVICES, name)
    found = await service.engine.events(
        name,
        asked.after,
        asked.limit,
        consumer_group=asked.group or None,
        consumer=asked.consumer or None,
        min_idle_ms=asked.min_idle_ms,
    )
    return Reply(
        200,
        wire.EventsBody(
            office=name,
            next_after=found[-1].number if found else asked.after,
            events=[_event(one.number, one.event) for one in found],
        ),
    )


def _event(number: int, event: Event) -> wire.EventBody:
    kind = type(event).__name__
    if isinstance(event, ReservationChanged):
        record = wire.reservation_body(event.reservation)
        return wire.EventBody(number=number, at_ms=event.at_ms, kind=kind, verb=event.verb, reservation=record)
    details = msgspec.to_builtins(event)
    for name in ("type", "at_ms"):
        details.pop(name, None)
    details.get("rules", {}).pop("jitter_seed", None)  # a secret: with it cooling times could be foretold
    return wire.EventBody(number=number, at_ms=event.at_ms, kind=kind, details=details)


async def trim_events(service: Service, call: Call) -> Reply:
    left = await service.engine.trim_events(call.path["office"], call.body.through)
    return Reply(200, wire.TrimmedBody(events_left=left))


async def groups(service: Service, call: Call) -> Reply:
    name = call.path["office"]
    found = await service.engine.list_consumer_groups(name)
    return Reply(200, ConsumerGroupsBody(office=name, consumer_groups=[group_body(one) for one in found]))


async def create_consumer_group(service: Service, call: Call) -> Reply:
    added = await service.engine.create_consumer_group(call.path["office"], call.path["group"], call.body.after)
    return Reply(201 if added else 200, ConsumerGroupCreatedBody(created=added))


async def delete_consumer_group(service: Service, call: Call) -> Reply:
    return Reply(
        200,
        ConsumerGroupDeletedBody(
            deleted=await service.engine.delete_consumer_group(call.path["office"], call.path["group"])
        ),
    )


async def acknowledge(service: Service, call: Call) -> Reply:
    path = call.path
    acknowledged = await service.engine.acknowledge(path["office"], path["group"], call.body.numbers)
    return Reply(200, AcknowledgedBody(acknowledged=acknowledged))


_GROUP: Final = OFFICE + "/groups/{group}"

EVENTS: Final = (
    get(OFFICE + "/events", "events", "What has happened at an office, in order.", events, wire.EventsBody,
        roles=READERS, query=EventsQuery, changes=True, problems=("unknown-name",)),
    post(OFFICE + "/events/trim", "trim-events", "Drop events that all who need them have read.", trim_events,
         wire.TrimmedBody, roles=OPERATORS, body=wire.TrimBody, problems=("unknown-name",)),
    get(OFFICE + "/groups", "groups", "The groups of consumers that share an office's events.", groups, ConsumerGroupsBody,  # noqa: E501
        roles=READERS, problems=("unknown-name",)),
    post(_GROUP, "add-group", "Let a group of consumers begin; it keeps what it needs from being trimmed.", create_consumer_group,  # noqa: E501
         ConsumerGroupCreatedBody, http=201, also_http=(200,), roles=SERVICES, body=CreateConsumerGroupBody, problems=("unknown-name",)),  # noqa: E501
    delete(_GROUP, "drop-group", "Forget a group, and what its consumers have open.", delete_consumer_group, ConsumerGroupDeletedBody,  # noqa: E501
           roles=SERVICES, problems=("unknown-name",)),
    post(_GROUP + "/acknowledge", "acknowledge", "The group is done with these events.", acknowledge,
         AcknowledgedBody, roles=SERVICES, body=AcknowledgeBody, problems=("unknown-name",)),
)  # fmt: skip
