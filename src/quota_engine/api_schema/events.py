"""Bodies of events and consumer groups."""

from __future__ import annotations

__all__ = [
    "AcknowledgeBody",
    "AcknowledgedBody",
    "ConsumerGroupBody",
    "ConsumerGroupCreatedBody",
    "ConsumerGroupDeletedBody",
    "ConsumerGroupsBody",
    "CreateConsumerGroupBody",
    "EventBody",
    "EventsBody",
    "LeaseBody",
    "TrimBody",
    "TrimmedBody",
    "consumer_group_body",
    "event_body",
]

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from quota_engine.api_schema.base import NonNegativeInt, RequestBody, ResponseBody
from quota_engine.api_schema.reservations import ReservationBody, reservation_body
from quota_engine.domain.consumer_groups import ConsumerGroupView
from quota_engine.domain.events import ReservationChanged
from quota_engine.ports import RecordedEvent


class TrimBody(RequestBody, frozen=True, kw_only=True):
    """The number of the last event to delete."""

    through: NonNegativeInt


class CreateConsumerGroupBody(RequestBody, frozen=True, kw_only=True):
    """The start of a group: the events above ``after``. A number beyond the last event means the next event."""

    after: NonNegativeInt = 0


class AcknowledgeBody(RequestBody, frozen=True, kw_only=True):
    """Numbers of events that the group has processed, at most as many as one read returns."""

    numbers: Annotated[list[Annotated[int, Meta(ge=1, le=2**53 - 1)]], Meta(max_length=1_000)]


class EventBody(ResponseBody, frozen=True, kw_only=True):
    """An event: its number within the office, its kind, and its details."""

    number: int
    at_ms: int
    kind: str
    verb: str | UnsetType = UNSET
    reservation: ReservationBody | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class EventsBody(ResponseBody, frozen=True, kw_only=True):
    """Events in order. ``next_after`` is the ``after`` of the next read."""

    office: str
    next_after: int
    events: list[EventBody]


class TrimmedBody(ResponseBody, frozen=True, kw_only=True):
    """The number of remaining events."""

    events_left: int


class ConsumerGroupCreatedBody(ResponseBody, frozen=True, kw_only=True):
    """``created`` is false if the group existed, or if the office has no events yet."""

    created: bool


class ConsumerGroupDeletedBody(ResponseBody, frozen=True, kw_only=True):
    """``deleted`` is false if there was no such group."""

    deleted: bool


class AcknowledgedBody(ResponseBody, frozen=True, kw_only=True):
    """The number of events that were pending until now."""

    acknowledged: int


class LeaseBody(ResponseBody, frozen=True, kw_only=True):
    """Events from ``first`` to ``last`` that a consumer has received and not acknowledged."""

    first: int
    last: int
    consumer: str
    since_at_ms: int


class ConsumerGroupBody(ResponseBody, frozen=True, kw_only=True):
    """A consumer group. All events up to ``acknowledged`` are processed; ``lag`` events are not delivered yet."""

    name: str
    acknowledged: int
    delivered: int
    pending: int
    lag: int
    leases: list[LeaseBody]


class ConsumerGroupsBody(ResponseBody, frozen=True, kw_only=True):
    """The consumer groups of an office."""

    office: str
    consumer_groups: list[ConsumerGroupBody]


def event_body(recorded: RecordedEvent) -> EventBody:
    """Return the body of an event, without the seed of cooling times: with it they could be predicted."""
    number, event = recorded.number, recorded.event
    kind = type(event).__name__
    if isinstance(event, ReservationChanged):
        reservation = reservation_body(event.reservation)
        return EventBody(number=number, at_ms=event.at_ms, kind=kind, verb=event.verb, reservation=reservation)
    details = msgspec.to_builtins(event)
    for name in ("type", "at_ms"):
        details.pop(name, None)
    details.get("rules", {}).pop("jitter_seed", None)
    return EventBody(number=number, at_ms=event.at_ms, kind=kind, details=details)


def consumer_group_body(view: ConsumerGroupView) -> ConsumerGroupBody:
    """Return the body of a consumer group."""
    return ConsumerGroupBody(
        name=view.name,
        acknowledged=view.acknowledged,
        delivered=view.delivered,
        pending=view.pending,
        lag=view.lag,
        leases=[
            LeaseBody(first=lease.first, last=lease.last, consumer=lease.consumer, since_at_ms=lease.since_ms)
            for lease in view.leases
        ],
    )
