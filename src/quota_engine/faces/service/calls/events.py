"""Events, for those who consume them."""

from __future__ import annotations

__all__ = ["EVENTS"]

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from quota_engine.domain.events import Event, ReservationChanged
from quota_engine.faces.service import wire
from quota_engine.faces.service.calls.common import OFFICE, OPERATORS, READERS, QuerySettings, get, post
from quota_engine.faces.service.http import Call, Reply

if TYPE_CHECKING:
    from quota_engine.faces.service.application import Service


class EventsQuery(QuerySettings, frozen=True, kw_only=True):
    """From which event on, and how many."""

    after: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


async def events(service: Service, call: Call) -> Reply:
    name, asked = call.path["office"], call.query
    found = await service.engine.events(name, asked.after, asked.limit)
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


EVENTS: Final = (
    get(OFFICE + "/events", "events", "What has happened at an office, in order.", events, wire.EventsBody,
        roles=READERS, query=EventsQuery, problems=("unknown-name",)),
    post(OFFICE + "/events/trim", "trim-events", "Drop events that all who need them have read.", trim_events,
         wire.TrimmedBody, roles=OPERATORS, body=wire.TrimBody, problems=("unknown-name",)),
)  # fmt: skip
