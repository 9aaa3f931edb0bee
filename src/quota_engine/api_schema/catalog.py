"""Bodies of the catalog."""

from __future__ import annotations

__all__ = ["CatalogBody", "CatalogOfficeBody", "catalog_body"]

from typing import Any

import msgspec

from quota_engine.api_schema.base import ResponseBody
from quota_engine.catalog import Catalog, ResolvedOffice


class CatalogOfficeBody(ResponseBody, frozen=True, kw_only=True):
    """An office of the catalog with everything that applies to it. Times of day are local."""

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
    """The catalog of the service. ``national_lease_ms`` is null unless applicants are limited over all offices."""

    title: str
    channels: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    national_lease_ms: int | None
    offices: list[CatalogOfficeBody]


def catalog_body(catalog: Catalog) -> CatalogBody:
    """Return the body of the catalog, without its secrets."""
    return CatalogBody(
        title=catalog.title,
        channels=_builtins(catalog.channels),
        groups=_builtins(catalog.groups),
        national_lease_ms=None if catalog.national is None else catalog.national.lease_ms,
        offices=[_office_body(office) for office in catalog.offices.values()],
    )


def _office_body(office: ResolvedOffice) -> CatalogOfficeBody:
    rules = msgspec.to_builtins(office.rules)
    rules.pop("jitter_seed", None)
    return CatalogOfficeBody(
        id=office.id,
        name=office.name,
        office_class=office.office_class,
        province=office.province,
        city=office.city,
        time_zone=office.zone.key,
        hours=msgspec.to_builtins(office.hours),
        services=_builtins(office.services),
        service_units=_builtins(office.service_units),
        sessions=_builtins(office.sessions),
        quotas=[msgspec.to_builtins(quota) for quota in office.quotas],
        allotments=[msgspec.to_builtins(allotment) for allotment in office.allotments],
        re_releases={name: msgspec.to_builtins(rule) for name, rule in office.re_releases.items()},
        schedule=msgspec.to_builtins(office.schedule),
        rules=rules,
        retention_days=office.retention_days,
    )


def _builtins(items: Any) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(item) for item in items.values()]
