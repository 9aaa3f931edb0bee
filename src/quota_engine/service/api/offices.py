"""Looking: offices, and what is free at them."""

from __future__ import annotations

__all__ = ["OFFICES"]

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from quota_engine.api_schema import reservations as wire
from quota_engine.catalog import Named, ResolvedOffice, next_release
from quota_engine.service.api.common import OFFICE, QuerySettings, Token, get
from quota_engine.service.http.endpoint import Call, Reply

if TYPE_CHECKING:
    from quota_engine.service.app import Service


class DaysQuery(QuerySettings, frozen=True, kw_only=True):
    """A range of days, and what is asked for on them."""

    first_day: datetime.date
    last_day: datetime.date | None = None
    service: Token = ""
    service_unit: Token = ""
    session: Token = ""
    channel: Token = "online"
    group: Token = ""
    units: Annotated[int, Meta(ge=1, le=100)] = 1


async def offices(service: Service, call: Call) -> Reply:
    catalog = service.catalog
    found = [_office(service, view) for view in catalog.offices.values()]
    return Reply(200, wire.OfficesBody(title=catalog.title, offices=found))


async def office(service: Service, call: Call) -> Reply:
    return Reply(200, _office(service, service.office(call.path["office"])))


def _office(service: Service, view: ResolvedOffice) -> wire.OfficeBody:
    release = next_release(service.catalog, view.id, service.now_ms())
    return wire.OfficeBody(
        id=view.id,
        name=view.name,
        city=view.city,
        province=view.province,
        time_zone=view.zone.key,
        services=_named(view.services.values()),
        service_units=_named(view.service_units.values()),
        sessions=[
            wire.SessionBody(
                id=one.id,
                name=one.display_name("id"),
                names=_names(one),
                start=one.start.isoformat("minutes"),
                end=one.end.isoformat("minutes"),
            )
            for one in view.sessions.values()
        ],
        groups=_named(service.catalog.groups.values()),
        channels=_named(service.catalog.channels.values()),
        party_max=view.rules.party_max,
        hold_ttl_ms=view.rules.hold_ttl_ms,
        next_opening_at_ms=release[0] if release else None,
        next_opening_days=list(release[1]) if release else [],
    )


def _named(items: Iterable[Named]) -> list[wire.NamedBody]:
    return [wire.NamedBody(id=one.id, name=one.display_name("id"), names=_names(one)) for one in items]


def _names(one: Named) -> wire.NamesBody:
    return wire.NamesBody(id=one.display_name("id"), en=one.display_name("en"))


async def availability(service: Service, call: Call) -> Reply:
    asked: DaysQuery = call.query
    name = call.path["office"]
    views = await service.engine.availability(name, asked.first_day, asked.last_day)
    earliest = service.earliest_free(name, views, asked, asked.units)
    return Reply(
        200,
        wire.AvailabilityBody(office=name, earliest_free_day=earliest, days=[wire.day_body(view) for view in views]),
    )


OFFICES: Final = (
    get(OFFICE + "/availability", "availability", "An office's days, and the first with a place.", availability,
        wire.AvailabilityBody, query=DaysQuery, problems=("unknown-name",)),
    get("/v1/offices", "offices", "The offices, what they offer, and when they open next.", offices, wire.OfficesBody,
        asks_store=False),
    get(OFFICE, "office", "One office.", office, wire.OfficeBody, asks_store=False, problems=("unknown-name",)),
)  # fmt: skip
