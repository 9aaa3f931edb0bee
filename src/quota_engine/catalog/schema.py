"""The shape of a catalog file: what an operator writes, key by key.

Names of the keys carry their unit (``hold_ttl_s``, ``retention_days``). Times of a day are local wall times of the
office, dates are ISO dates. A key that holds the id of something else (``plan``, ``fallback``, ``reallocation.to``) is
checked after the file has been read (see ``checks``), so that one wrong id does not hide the next mistake.
"""

from __future__ import annotations

__all__ = [
    "OFFICES_MAX",
    "WEEKDAYS",
    "Allotment",
    "CatalogFile",
    "Channel",
    "Closure",
    "DaysAhead",
    "Group",
    "Holiday",
    "Hours",
    "IdentityLimitSettings",
    "Monthly",
    "Named",
    "NationalSettings",
    "Office",
    "Plan",
    "Quota",
    "ReReleaseSettings",
    "ReallocationSettings",
    "RuleSettings",
    "Schedule",
    "Service",
    "ServiceUnit",
    "Session",
    "Weekly",
]

import datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from quota_engine.domain.model import ReReleaseRule
from quota_engine.domain.validation import APPLICANTS_MAX, CAPACITY_MAX, OPTIONS_MAX, QUOTAS_MAX

OFFICES_MAX: Final = 10_000

Weekday: TypeAlias = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: Final[tuple[Weekday, ...]] = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
"""In the order of ``datetime.date.weekday()``: Monday is 0."""

Id: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="an id: 1 to 64 characters of A-Z a-z 0-9 _ -")
]
Text: TypeAlias = Annotated[str, Meta(max_length=2_000)]
Reference: TypeAlias = Annotated[str, Meta(max_length=2_000)]
"""The id of something that is defined elsewhere in the file; "" where none is needed."""
ZoneName: TypeAlias = Annotated[str, Meta(max_length=200, description='an IANA time zone such as "Asia/Jakarta"')]
References: TypeAlias = Annotated[tuple[Reference, ...], Meta(max_length=QUOTAS_MAX)]
TimeOfDay: TypeAlias = Annotated[
    datetime.time, Meta(tz=False, description='a time of the day from "00:00" to "23:59", such as "09:00"')
]
Date: TypeAlias = Annotated[datetime.date, Meta(description='a date that exists, such as "2026-08-17"')]
Capacity: TypeAlias = Annotated[int, Meta(ge=0, le=CAPACITY_MAX)]
Days: TypeAlias = Annotated[int, Meta(ge=0, le=3_660)]
Seconds: TypeAlias = Annotated[int, Meta(ge=0, le=366 * 86_400)]
PositiveSeconds: TypeAlias = Annotated[int, Meta(ge=1, le=366 * 86_400)]


class _CatalogTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file: by name, nothing unknown, never changed."""


class Named(_CatalogTable, frozen=True, kw_only=True):
    """Something with an id, and a name that people are shown: in the office's own language, and in English."""

    id: Id
    name: Text = ""
    name_en: Text = ""

    def display_name(self, language: str) -> str:
        """The name in a language (``"en"``: English; any other: the office's own). What has no name goes by its id."""
        return (self.name_en if language == "en" else "") or self.name or self.id


class Service(Named, frozen=True, kw_only=True):
    """What people come for. With ``needs_session`` (and sessions in the plan) a booking names a session."""

    needs_session: bool = True


class Channel(Named, frozen=True, kw_only=True):
    """How a booking reaches the office."""


class Group(Named, frozen=True, kw_only=True):
    """People with a quota of their own. That somebody belongs to it is verified by the caller, by ``eligibility``."""

    description: Text = ""
    eligibility: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class ServiceUnit(Named, frozen=True, kw_only=True):
    """A counter, branch or mobile team of an office."""

    city: Text = ""


class Hours(_CatalogTable, frozen=True, kw_only=True):
    """Local opening hours of a service day: it starts at ``start`` and is over at ``end``."""

    start: TimeOfDay = datetime.time(8)
    end: TimeOfDay = datetime.time(16)


class Session(Named, frozen=True, kw_only=True):
    """A time window of a day, local."""

    start: TimeOfDay
    end: TimeOfDay


class ReReleaseSettings(_CatalogTable, frozen=True, kw_only=True):
    """Where given-back places go; ``cooling_s`` and ``jitter_s`` (0 to ``jitter_s`` on top) are for "cooling"."""

    rule: ReReleaseRule
    cooling_s: Seconds = 0
    jitter_s: Seconds = 0


class ReallocationSettings(_CatalogTable, frozen=True, kw_only=True):
    """When unused places pass on to the allotment ``to``.

    Either at the local time ``at``, ``days_before`` days before the service day, or at the moment at which
    ``schedule`` opens that day.
    """

    to: Reference
    at: TimeOfDay | None = None
    days_before: Annotated[int, Meta(ge=0, le=366)] = 0
    schedule: Reference = ""


class Quota(Named, frozen=True, kw_only=True):
    """A guard: a capacity per office-day that every matching booking consumes, besides its allotment.

    A booking matches when it has the ``session``, the ``service`` and the ``service_unit`` that are given here;
    with none of them, every booking of the day matches.
    """

    capacity: Capacity
    session: Reference = ""
    service: Reference = ""
    service_unit: Reference = ""
    re_release: ReReleaseSettings | None = None


class Allotment(Named, frozen=True, kw_only=True):
    """Places set aside for channels, groups, services or sessions; an empty list admits all of them.

    A booking takes the first allotment of the plan that admits it and, if that is full, the ``fallback`` ones in
    their order (those among them that admit it too). ``bookable = false`` is a second tranche: nobody gets a place
    of it until it passes on.
    """

    capacity: Capacity
    channels: References = ()
    groups: References = ()
    services: References = ()
    sessions: References = ()
    fallback: Annotated[tuple[Reference, ...], Meta(max_length=OPTIONS_MAX - 1)] = ()
    bookable: bool = True
    reallocation: ReallocationSettings | None = None
    re_release: ReReleaseSettings | None = None


class _Schedule(_CatalogTable, frozen=True, kw_only=True, tag_field="kind"):
    id: Id
    at: TimeOfDay
    zone: ZoneName = ""
    """The IANA time zone of ``at``; "": the office's own."""


class Weekly(_Schedule, frozen=True, kw_only=True, tag="weekly"):
    """Opens a whole week, Monday to Sunday, at once: on ``weekday``, ``weeks_ahead`` weeks before."""

    weekday: Weekday
    weeks_ahead: Annotated[int, Meta(ge=1, le=52)] = 1


class Monthly(_Schedule, frozen=True, kw_only=True, tag="monthly"):
    """Opens a whole month at once, on the last working day of the month that is ``months_ahead`` before."""

    months_ahead: Annotated[int, Meta(ge=1, le=12)] = 1


class DaysAhead(_Schedule, frozen=True, kw_only=True, tag="days_ahead"):
    """Opens one day every day: the one that is ``days`` ahead."""

    days: Annotated[int, Meta(ge=0, le=366)]


Schedule: TypeAlias = Weekly | Monthly | DaysAhead


class Holiday(_CatalogTable, frozen=True, kw_only=True):
    """A day off."""

    date: Date
    name: Text = ""


class Closure(_CatalogTable, frozen=True, kw_only=True):
    """An office is closed from ``first`` to ``last``, both included."""

    first: Date
    last: Date
    reason: Text = ""


class IdentityLimitSettings(_CatalogTable, frozen=True, kw_only=True):
    """At most ``places_max`` active places per applicant on days less than ``span_days`` apart (0: on any day)."""

    places_max: Annotated[int, Meta(ge=1, le=1_000)]
    span_days: Days


class RuleSettings(_CatalogTable, frozen=True, kw_only=True):
    """Rules of an office. What is left out comes from the plan, then the top of the file, then the library."""

    hold_ttl_s: PositiveSeconds | None = None
    offer_ttl_s: PositiveSeconds | None = None
    party_max: Annotated[int, Meta(ge=1, le=APPLICANTS_MAX)] | None = None
    identity_limits: Annotated[tuple[IdentityLimitSettings, ...], Meta(max_length=8)] | None = None
    no_show_block_days: Days | None = None
    cancellations_max: Annotated[int, Meta(ge=0, le=100)] | None = None
    cancellations_window_days: Days | None = None
    cancellations_block_days: Days | None = None
    reschedules_max: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    reschedule_before_h: Annotated[int, Meta(ge=0, le=87_840)] | None = None
    wait_list_max: Annotated[int, Meta(ge=0, le=CAPACITY_MAX)] | None = None
    retention_days: Annotated[int, Meta(ge=1, le=3_660)] | None = None


class NationalSettings(_CatalogTable, frozen=True, kw_only=True):
    """A limit over all offices: at most ``places_max`` active places per applicant, on days that are not over.

    ``lease_s`` is how long others are kept off while a reservation is being made.
    """

    places_max: Annotated[int, Meta(ge=1, le=1, description="1: one active place over all offices")]
    lease_s: Annotated[int, Meta(ge=10, le=3_600)] = 20


class Plan(_CatalogTable, frozen=True, kw_only=True):
    """What an office offers on a day. Many offices share a plan; each may set capacities of its own."""

    id: Id
    services: References = ()
    """Ids of the services on offer; none: all of the file."""
    hours: Hours = Hours()
    working_weekdays: Annotated[tuple[Weekday, ...], Meta(min_length=1, max_length=7)] = WEEKDAYS[:5]
    sessions: Annotated[tuple[Session, ...], Meta(max_length=QUOTAS_MAX)] = ()
    quotas: Annotated[tuple[Quota, ...], Meta(max_length=QUOTAS_MAX)] = ()
    allotments: Annotated[tuple[Allotment, ...], Meta(max_length=QUOTAS_MAX)] = ()
    capacities_by_class: dict[str, dict[str, Capacity]] = {}
    """Office class to (quota or allotment to capacity); what is not named keeps the capacity of the plan."""
    schedule: Reference = ""
    """Id of a schedule; "": the only one of the file."""
    re_release: ReReleaseSettings | None = None
    """For quotas and allotments without a rule of their own."""
    rules: RuleSettings = RuleSettings()


class Office(_CatalogTable, frozen=True, kw_only=True, rename={"office_class": "class"}):
    """One office. ``capacities`` (quota or allotment to capacity) go before those of its class and its plan."""

    id: Id
    name: Text
    time_zone: ZoneName
    """An IANA time zone, such as "Asia/Jakarta"."""
    office_class: Text = ""
    province: Text = ""
    city: Text = ""
    cities_served: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()
    plan: Reference = ""
    """Id of a plan; "": the only one of the file."""
    schedule: Reference = ""
    """Id of a schedule; "": that of the plan."""
    service_units: Annotated[tuple[ServiceUnit, ...], Meta(max_length=QUOTAS_MAX)] = ()
    capacities: dict[str, Capacity] = {}
    working_weekdays: Annotated[tuple[Weekday, ...], Meta(min_length=1, max_length=7)] | None = None
    holidays: Annotated[tuple[Holiday, ...], Meta(max_length=10_000)] = ()
    closures: Annotated[tuple[Closure, ...], Meta(max_length=10_000)] = ()
    rules: RuleSettings = RuleSettings()


class CatalogFile(_CatalogTable, frozen=True, kw_only=True):
    """A whole catalog file, as it is written."""

    title: Text = ""
    services: Annotated[tuple[Service, ...], Meta(min_length=1, max_length=QUOTAS_MAX)]
    channels: Annotated[tuple[Channel, ...], Meta(min_length=1, max_length=QUOTAS_MAX)] = (Channel(id="online"),)
    groups: Annotated[tuple[Group, ...], Meta(max_length=QUOTAS_MAX)] = ()
    schedules: Annotated[tuple[Schedule, ...], Meta(min_length=1, max_length=QUOTAS_MAX)]
    plans: Annotated[tuple[Plan, ...], Meta(min_length=1, max_length=OFFICES_MAX)]
    offices: Annotated[tuple[Office, ...], Meta(min_length=1, max_length=OFFICES_MAX)]
    national: NationalSettings | None = None
    rules: RuleSettings = RuleSettings()
    holidays: Annotated[tuple[Holiday, ...], Meta(max_length=10_000)] = ()
