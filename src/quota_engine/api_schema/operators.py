"""What operators, offices and consumers of events talk about: groups, moves, the day's list, the catalog."""

from __future__ import annotations

__all__ = [
    "AcknowledgeBody",
    "AcknowledgedBody",
    "CatalogBody",
    "CatalogOfficeBody",
    "ConsumerGroupBody",
    "ConsumerGroupCreatedBody",
    "ConsumerGroupDeletedBody",
    "ConsumerGroupsBody",
    "CreateConsumerGroupBody",
    "DayListBody",
    "HoldRemainingBody",
    "LeaseBody",
    "LedgersBody",
    "MovedToBody",
    "MovesBody",
    "ReconciledBody",
    "RecoverMovesBody",
    "catalog_body",
    "group_body",
]

import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from quota_engine.api_schema.base import Millis, RequestBody, ResponseBody
from quota_engine.api_schema.reservations import ReservationBody
from quota_engine.catalog import Catalog, ResolvedOffice
from quota_engine.domain.consumer_groups import ConsumerGroupView
from quota_engine.domain.validation import DURATION_MS_MAX


class CreateConsumerGroupBody(RequestBody, frozen=True, kw_only=True):
    """Where the group begins: with the events above ``after``; too high a number means with the next that happens."""

    after: Millis = 0


class AcknowledgeBody(RequestBody, frozen=True, kw_only=True):
    """Numbers of events that the group is done with: as many as can be read at a time."""

    numbers: Annotated[list[Annotated[int, Meta(ge=1, le=2**53 - 1)]], Meta(max_length=1_000)]


class RecoverMovesBody(RequestBody, frozen=True, kw_only=True):
    """Which moves: those that nobody has been at work on for so long, and how many at most."""

    older_than_ms: Annotated[int, Meta(ge=0, le=DURATION_MS_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class ConsumerGroupCreatedBody(ResponseBody, frozen=True, kw_only=True):
    """Whether the group is new. One that is there stays as it is, and an office without any events has none."""

    created: bool


class ConsumerGroupDeletedBody(ResponseBody, frozen=True, kw_only=True):
    """Whether there was such a group."""

    deleted: bool


class AcknowledgedBody(ResponseBody, frozen=True, kw_only=True):
    """How many of the events were open until now."""

    acknowledged: int


class LeaseBody(ResponseBody, frozen=True, kw_only=True):
    """The events from ``first`` to ``last`` that a consumer has been given, and has not acknowledged."""

    first: int
    last: int
    consumer: str
    since_at_ms: int


class ConsumerGroupBody(ResponseBody, frozen=True, kw_only=True):
    """A group of consumers: all up to ``acknowledged`` is done with; ``lag`` events nobody has been given yet."""

    name: str
    acknowledged: int
    delivered: int
    pending: int
    lag: int
    leases: list[LeaseBody]


class ConsumerGroupsBody(ResponseBody, frozen=True, kw_only=True):
    """The groups of an office."""

    office: str
    consumer_groups: list[ConsumerGroupBody]


class MovedToBody(ResponseBody, frozen=True, kw_only=True):
    """The reference under which a reservation goes on; empty, if it is not known (any more)."""

    reference: str


class MovesBody(ResponseBody, frozen=True, kw_only=True):
    """How many moves were brought to their end, and how many came to nothing."""

    finished: int
    undone: int


class ReconciledBody(ResponseBody, frozen=True, kw_only=True):
    """What a reconciliation came to; see :class:`quota_engine.Reconciliation`."""

    office: str
    epoch: int
    findings: list[str]
    repaired: int


class DayListBody(ResponseBody, frozen=True, kw_only=True):
    """The reservations of a day, by queue number, and behind them those without one. ``total`` counts all of them."""

    office: str
    day: datetime.date
    total: int
    reservations: list[ReservationBody]


class HoldRemainingBody(ResponseBody, frozen=True, kw_only=True):
    """How many holds of a day have at most the first of ``bounds_ms`` left, at most the second …, and more than
    the last:
    one number more than there are bounds.
    """

    office: str
    day: datetime.date
    bounds_ms: list[int]
    holds: list[int]


class LedgersBody(ResponseBody, frozen=True, kw_only=True):
    """The offices that the store has a ledger of, sorted: also such as are in the catalog no more."""

    offices: list[str]


class CatalogOfficeBody(ResponseBody, frozen=True, kw_only=True):
    """An office of the catalog, with all that applies to it; times of day are its own."""

    id: str
    name: str
    office_class: str
    province: str
    city: str
    time_zone: str
    hours: dict[str, Any]
    services: list[dict[str, Any]]
    service_units: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    quotas: list[dict[str, Any]]
    allotments: list[dict[str, Any]]
    re_releases: dict[str, dict[str, Any]]
    schedule: dict[str, Any]
    rules: dict[str, Any]
    retention_days: int


class CatalogBody(ResponseBody, frozen=True, kw_only=True):
    """The catalog that the service works with. ``national_lease_ms`` is there if one place over all is the limit."""

    title: str
    channels: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    national_lease_ms: int | None
    offices: list[CatalogOfficeBody]


def group_body(view: ConsumerGroupView) -> ConsumerGroupBody:
    """A group of consumers."""
    return ConsumerGroupBody(
        name=view.name,
        acknowledged=view.acknowledged,
        delivered=view.delivered,
        pending=view.pending,
        lag=view.lag,
        leases=[
            LeaseBody(first=one.first, last=one.last, consumer=one.consumer, since_at_ms=one.since_ms)
            for one in view.leases
        ],
    )


def catalog_body(catalog: Catalog) -> CatalogBody:
    """The catalog, without what is secret."""
    return CatalogBody(
        title=catalog.title,
        channels=[msgspec.to_builtins(one) for one in catalog.channels.values()],
        groups=[msgspec.to_builtins(one) for one in catalog.groups.values()],
        national_lease_ms=None if catalog.national is None else catalog.national.lease_ms,
        offices=[_office(view) for view in catalog.offices.values()],
    )


def _office(view: ResolvedOffice) -> CatalogOfficeBody:
    rules = msgspec.to_builtins(view.rules)
    rules.pop("jitter_seed", None)
    return CatalogOfficeBody(
        id=view.id,
        name=view.name,
        office_class=view.office_class,
        province=view.province,
        city=view.city,
        time_zone=view.zone.key,
        hours=msgspec.to_builtins(view.hours),
        services=[msgspec.to_builtins(one) for one in view.services.values()],
        service_units=[msgspec.to_builtins(one) for one in view.service_units.values()],
        sessions=[msgspec.to_builtins(one) for one in view.sessions.values()],
        quotas=[msgspec.to_builtins(one) for one in view.quotas],
        allotments=[msgspec.to_builtins(one) for one in view.allotments],
        re_releases={name: msgspec.to_builtins(one) for name, one in view.re_releases.items()},
        schedule=msgspec.to_builtins(view.schedule),
        rules=rules,
        retention_days=view.retention_days,
    )
