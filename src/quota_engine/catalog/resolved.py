"""The resolved catalog: each office with its plan, class, capacities, rules and calendar merged."""

from __future__ import annotations

__all__ = [
    "Catalog",
    "NationalLimit",
    "ResolvedOffice",
    "departed_office",
    "identity_format_of",
    "merge_rules",
    "resolve",
    "retention_days",
]

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from quota_engine.catalog.calendar import WorkingCalendar
from quota_engine.catalog.schema import (
    WEEKDAYS,
    Allotment,
    CatalogFile,
    Channel,
    DaysAhead,
    Group,
    Guard,
    Hours,
    IdentitySettings,
    Office,
    Plan,
    ReReleaseSettings,
    RuleSettings,
    Schedule,
    Service,
    ServiceUnit,
    Session,
    SiteSettings,
)
from quota_engine.domain.identity_format import ANY_FORM, IdentityFormat
from quota_engine.domain.model import IdentityLimit, ReRelease, Rules

_RETENTION_DAYS_DEFAULT = 90
_SECOND_MS, _HOUR_MS, _DAY_MS = 1_000, 3_600_000, 86_400_000


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedOffice:
    """One office with everything that applies to it. Capacities, schedule and rules are final.

    Attributes:
        quotas: the guards.
        re_releases: the re-release rule by quota and allotment.
        schedule: the release schedule of its days.
        schedules: all schedules of the file, for allotments that are reallocated when another schedule opens the day.
        retention_days: a day is forgotten this many days after its end.
    """

    id: str
    name: str
    office_class: str
    province: str
    city: str
    cities_served: tuple[str, ...]
    zone: ZoneInfo
    calendar: WorkingCalendar
    hours: Hours
    services: Mapping[str, Service]
    service_units: Mapping[str, ServiceUnit]
    sessions: Mapping[str, Session]
    quotas: tuple[Guard, ...]
    allotments: tuple[Allotment, ...]
    re_releases: Mapping[str, ReRelease]
    schedule: Schedule
    schedules: Mapping[str, Schedule]
    rules: Rules
    retention_days: int
    address: str = ""
    contact: str = ""
    draw: str = ""
    draw_channel: str = "online"


_NO_SITE: Final = SiteSettings()


@dataclasses.dataclass(frozen=True, slots=True)
class NationalLimit:
    """The limit of one active reservation per applicant over all offices. ``lease_ms`` is the lease of a claim."""

    lease_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class Catalog:
    """A valid catalog. Offices, channels and applicant groups by id, in the order of the file.

    Attributes:
        identity_format: the form of the applicants' identities in all offices.
        site: the authority that the pages name.
    """

    title: str
    channels: Mapping[str, Channel]
    groups: Mapping[str, Group]
    offices: Mapping[str, ResolvedOffice]
    national: NationalLimit | None = None
    identity_format: IdentityFormat = ANY_FORM
    site: SiteSettings = _NO_SITE


def resolve(file: CatalogFile) -> Catalog:
    """Resolve a valid file."""
    plans = {plan.id: plan for plan in file.plans}
    return Catalog(
        title=file.title,
        channels={channel.id: channel for channel in file.channels},
        groups={group.id: group for group in file.groups},
        offices={
            office.id: _resolve_office(file, office, plans[office.plan or file.plans[0].id]) for office in file.offices
        },
        national=None if file.national is None else NationalLimit(file.national.lease_s * _SECOND_MS),
        identity_format=identity_format_of(file.identity),
        site=file.site,
    )


def identity_format_of(settings: IdentitySettings) -> IdentityFormat:
    """Return the form of identities.

    Raises:
        InvalidRequest: a setting is not valid; ``where`` is its key.
    """
    return IdentityFormat(
        strip=settings.strip,
        pattern=settings.pattern,
        check_digit=settings.check_digit or "",
        casefold=settings.casefold,
        expected=settings.expected,
        expected_en=settings.expected_en,
    )


def departed_office(office_id: str) -> ResolvedOffice:
    """Return a stand-in for an office that has left the catalog and still has reservations.

    Its name is its id, its times are in UTC, and it offers nothing.
    """
    schedule = DaysAhead(id="none", days=0, at=datetime.time(0))
    return ResolvedOffice(
        id=office_id,
        name=office_id,
        office_class="",
        province="",
        city="",
        cities_served=(),
        zone=ZoneInfo("UTC"),
        calendar=WorkingCalendar(frozenset()),
        hours=Hours(),
        services={},
        service_units={},
        sessions={},
        quotas=(),
        allotments=(),
        re_releases={},
        schedule=schedule,
        schedules={schedule.id: schedule},
        rules=Rules(),
        retention_days=_RETENTION_DAYS_DEFAULT,
    )


def _resolve_office(file: CatalogFile, office: Office, plan: Plan) -> ResolvedOffice:
    schedules: dict[str, Schedule] = {schedule.id: schedule for schedule in file.schedules}
    capacities = {**plan.capacities_by_class.get(office.office_class, {}), **office.capacities}
    settings = merge_rules(file.rules, plan.rules, office.rules)
    weekdays = plan.working_weekdays if office.working_weekdays is None else office.working_weekdays
    return ResolvedOffice(
        id=office.id,
        name=office.name,
        office_class=office.office_class,
        province=office.province,
        city=office.city,
        cities_served=office.cities_served,
        zone=ZoneInfo(office.time_zone),
        calendar=WorkingCalendar(
            weekdays=frozenset(WEEKDAYS.index(weekday) for weekday in weekdays),
            holidays=frozenset(holiday.date for holiday in (*file.holidays, *office.holidays)),
            closures=tuple((closure.first, closure.last) for closure in office.closures),
        ),
        hours=plan.hours,
        services={service.id: service for service in file.services if not plan.services or service.id in plan.services},
        service_units={unit.id: unit for unit in office.service_units},
        sessions={session.id: session for session in plan.sessions},
        quotas=tuple(_with_capacity(quota, capacities) for quota in plan.quotas),
        allotments=tuple(_with_capacity(allotment, capacities) for allotment in plan.allotments),
        re_releases={
            **{quota.id: _re_release(quota.re_release or plan.re_release) for quota in plan.quotas},
            **{allotment.id: _re_release(allotment.re_release or plan.re_release) for allotment in plan.allotments},
        },
        schedule=schedules[office.schedule or plan.schedule or file.schedules[0].id],
        schedules=schedules,
        rules=_rules(settings),
        retention_days=retention_days(settings),
        address=office.address,
        contact=office.contact,
        draw=office.draw,
        draw_channel=office.draw_channel,
    )


_QuotaOrAllotment = TypeVar("_QuotaOrAllotment", Guard, Allotment)


def _with_capacity(quota: _QuotaOrAllotment, capacities: Mapping[str, int]) -> _QuotaOrAllotment:
    return msgspec.structs.replace(quota, capacity=capacities.get(quota.id, quota.capacity))


def _re_release(settings: ReReleaseSettings | None) -> ReRelease:
    if settings is None:
        return ReRelease()
    return ReRelease(settings.rule, settings.cooling_s * 1_000, settings.jitter_s * 1_000, settings.blocks_s * 1_000)


def merge_rules(*settings: RuleSettings) -> RuleSettings:
    """Merge rule settings key by key. A later argument overrides an earlier one."""
    merged = {
        name: setting
        for level in settings
        for name, setting in msgspec.structs.asdict(level).items()
        if setting is not None
    }
    return RuleSettings(**merged)


def retention_days(settings: RuleSettings) -> int:
    """Return the retention in days: how long a day is remembered after its end. The default is 90."""
    return _RETENTION_DAYS_DEFAULT if settings.retention_days is None else settings.retention_days


def _rules(settings: RuleSettings) -> Rules:
    """Convert settings to the domain's rules. Omitted settings keep the domain's defaults."""
    default = Rules()
    limits = settings.identity_limits
    return Rules(
        hold_ttl_ms=_scaled(settings.hold_ttl_s, _SECOND_MS, default.hold_ttl_ms),
        offer_ttl_ms=_scaled(settings.offer_ttl_s, _SECOND_MS, default.offer_ttl_ms),
        extensions_max=_scaled(settings.extensions_max, 1, default.extensions_max),
        extension_ms=_scaled(settings.extension_s, _SECOND_MS, default.extension_ms),
        party_max=_scaled(settings.party_max, 1, default.party_max),
        identity_limits=default.identity_limits
        if limits is None
        else tuple(IdentityLimit(limit.places_max, limit.span_days) for limit in limits),
        no_show_block_ms=_scaled(settings.no_show_block_days, _DAY_MS, default.no_show_block_ms),
        undo_window_ms=_scaled(settings.undo_window_s, _SECOND_MS, default.undo_window_ms),
        cancellations_max=_scaled(settings.cancellations_max, 1, default.cancellations_max),
        cancellations_window_ms=_scaled(settings.cancellations_window_days, _DAY_MS, default.cancellations_window_ms),
        cancellations_block_ms=_scaled(settings.cancellations_block_days, _DAY_MS, default.cancellations_block_ms),
        abandoned_holds_max=_scaled(settings.abandoned_holds_max, 1, default.abandoned_holds_max),
        abandoned_holds_window_ms=_scaled(
            settings.abandoned_holds_window_h, _HOUR_MS, default.abandoned_holds_window_ms
        ),
        abandoned_holds_block_ms=_scaled(settings.abandoned_holds_block_h, _HOUR_MS, default.abandoned_holds_block_ms),
        reschedules_max=_scaled(settings.reschedules_max, 1, default.reschedules_max),
        reschedule_before_ms=_scaled(settings.reschedule_before_h, _HOUR_MS, default.reschedule_before_ms),
        wait_list_max=_scaled(settings.wait_list_max, 1, default.wait_list_max),
        declines_max=_scaled(settings.declines_max, 1, default.declines_max),
        decline_pause_ms=_scaled(settings.decline_pause_s, _SECOND_MS, default.decline_pause_ms),
    )


def _scaled(setting: int | None, factor: int, default: int) -> int:
    return default if setting is None else setting * factor
