"""Bodies of offices and their availability."""

from __future__ import annotations

__all__ = [
    "AvailabilityBody",
    "DayBody",
    "DaySessionBody",
    "NamedBody",
    "NamesBody",
    "OfficeBody",
    "OfficesBody",
    "QuotaBody",
    "SessionBody",
    "day_body",
    "office_body",
]

import datetime
from collections.abc import Iterable

from quota_engine.api_schema.base import ResponseBody
from quota_engine.catalog import Catalog, Named, ResolvedOffice
from quota_engine.domain.outcomes import DayView


class QuotaBody(ResponseBody, frozen=True, kw_only=True):
    """The counters of a quota: capacity + overbooked = available + held + confirmed + cooling.

    ``withheld`` of the available units are kept for a party on the wait list.
    """

    name: str
    capacity: int
    available: int
    held: int
    confirmed: int
    cooling: int
    parked: int
    overbooked: int
    withheld: int = 0


class DaySessionBody(ResponseBody, frozen=True, kw_only=True):
    """A session of a day. It can be booked before ``book_until_ms``, and is over from ``ends_at_ms`` on."""

    id: str
    ends_at_ms: int
    book_until_ms: int


class DayBody(ResponseBody, frozen=True, kw_only=True):
    """The counters of one day of an office. ``waiting`` counts the parties on its wait list.

    ``revision`` grows with each change by an operator, who sends it back as ``expected_revision``.
    """

    day: datetime.date
    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    closed: bool
    waiting: int
    revision: int
    quotas: list[QuotaBody]
    sessions: list[DaySessionBody] = []


class AvailabilityBody(ResponseBody, frozen=True, kw_only=True):
    """The days of an office, and the earliest of them on which the selection can be booked now."""

    office: str
    earliest_available_day: datetime.date | None
    days: list[DayBody]


class NamesBody(ResponseBody, frozen=True, kw_only=True):
    """A name in Indonesian, or the office's own language, and in English."""

    id: str
    en: str


class NamedBody(ResponseBody, frozen=True, kw_only=True):
    """An item of the catalog. An item without a name has its id as name."""

    id: str
    name: str
    names: NamesBody


class SessionBody(ResponseBody, frozen=True, kw_only=True):
    """A time window of a day, with local times such as ``08:00``."""

    id: str
    name: str
    names: NamesBody
    start: str
    end: str


class OfficeBody(ResponseBody, frozen=True, kw_only=True):
    """An office of the catalog, and the time and days of its next opening."""

    id: str
    name: str
    city: str
    province: str
    time_zone: str
    services: list[NamedBody]
    service_units: list[NamedBody]
    sessions: list[SessionBody]
    groups: list[NamedBody]
    channels: list[NamedBody]
    party_max: int
    hold_ttl_ms: int
    next_opening_at_ms: int | None
    next_opening_days: list[datetime.date]


class OfficesBody(ResponseBody, frozen=True, kw_only=True):
    """All offices of the catalog."""

    title: str
    offices: list[OfficeBody]


def day_body(view: DayView) -> DayBody:
    """Return the body of a day's counters."""
    return DayBody(
        day=datetime.date.fromordinal(view.day),
        opens_at_ms=view.opens_at_ms,
        starts_at_ms=view.starts_at_ms,
        ends_at_ms=view.ends_at_ms,
        closed=view.closed,
        waiting=view.waiting,
        revision=view.revision,
        quotas=[
            QuotaBody(
                name=name,
                capacity=quota.capacity,
                available=quota.available,
                held=quota.held,
                confirmed=quota.confirmed,
                cooling=quota.cooling,
                parked=quota.parked,
                overbooked=quota.overbooked,
                withheld=quota.withheld,
            )
            for name, quota in view.quotas.items()
        ],
        sessions=[
            DaySessionBody(id=one.name, ends_at_ms=one.ends_at_ms, book_until_ms=one.book_until_ms)
            for one in view.sessions
        ],
    )


def office_body(
    catalog: Catalog, office: ResolvedOffice, next_release: tuple[int, tuple[datetime.date, ...]] | None
) -> OfficeBody:
    """Return the body of an office. ``next_release`` has the time and the days of its next opening."""
    return OfficeBody(
        id=office.id,
        name=office.name,
        city=office.city,
        province=office.province,
        time_zone=office.zone.key,
        services=_named_bodies(office.services.values()),
        service_units=_named_bodies(office.service_units.values()),
        sessions=[
            SessionBody(
                id=session.id,
                name=session.display_name("id"),
                names=_names_body(session),
                start=session.start.isoformat("minutes"),
                end=session.end.isoformat("minutes"),
            )
            for session in office.sessions.values()
        ],
        groups=_named_bodies(catalog.groups.values()),
        channels=_named_bodies(catalog.channels.values()),
        party_max=office.rules.party_max,
        hold_ttl_ms=office.rules.hold_ttl_ms,
        next_opening_at_ms=next_release[0] if next_release else None,
        next_opening_days=list(next_release[1]) if next_release else [],
    )


def _named_bodies(items: Iterable[Named]) -> list[NamedBody]:
    return [NamedBody(id=item.id, name=item.display_name("id"), names=_names_body(item)) for item in items]


def _names_body(item: Named) -> NamesBody:
    return NamesBody(id=item.display_name("id"), en=item.display_name("en"))
