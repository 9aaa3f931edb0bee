"""The schema of a catalog file, table by table and key by key.

Key names end in their unit (``hold_ttl_s``, ``retention_days``). Times of a day are the office's local wall times, and
dates are ISO dates. References (``plan``, ``fallback``, ``reallocation.to``) are checked by
:mod:`~quota_engine.catalog.validation` after the file has been read, so that one wrong id does not hide other issues.
"""

from __future__ import annotations

__all__ = [
    "OFFICES_MAX",
    "WEEKDAYS",
    "Allotment",
    "BookUntil",
    "CatalogFile",
    "Channel",
    "Closure",
    "DaysAhead",
    "Group",
    "Guard",
    "Holiday",
    "Hours",
    "IdentityLimitSettings",
    "IdentitySettings",
    "Monthly",
    "Named",
    "NationalSettings",
    "Office",
    "Plan",
    "ReReleaseSettings",
    "ReallocationSettings",
    "RuleSettings",
    "Schedule",
    "Service",
    "ServiceUnit",
    "Session",
    "SiteSettings",
    "WaitListOrder",
    "Weekly",
    "name_of",
]

import datetime
import enum
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from quota_engine.domain.identity_format import STRIP_LENGTH_MAX
from quota_engine.domain.identity_pattern import PATTERN_LENGTH_MAX
from quota_engine.domain.model import EXTENSIONS_MAX, UNDO_WINDOW_MS_MAX, ReReleaseRule
from quota_engine.domain.validation import APPLICANTS_MAX, CAPACITY_MAX, OPTIONS_MAX, QUOTAS_MAX

OFFICES_MAX: Final = 10_000
"""The most offices, and the most plans, of a file."""

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
"""The weekdays in the order of ``datetime.date.weekday()``."""

Id: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="an id: 1 to 64 characters of A-Z a-z 0-9 _ -")
]
Text: TypeAlias = Annotated[str, Meta(max_length=2_000)]
TextList: TypeAlias = Annotated[tuple[Text, ...], Meta(max_length=100)]
Reference: TypeAlias = Annotated[str, Meta(max_length=2_000)]
"""The id of an entry that is defined elsewhere in the file; ``""`` for none."""
ZoneName: TypeAlias = Annotated[str, Meta(max_length=200, description='an IANA time zone such as "Asia/Jakarta"')]
References: TypeAlias = Annotated[tuple[Reference, ...], Meta(max_length=QUOTAS_MAX)]
TimeOfDay: TypeAlias = Annotated[
    datetime.time, Meta(tz=False, description='a time of the day from "00:00" to "23:59", such as "09:00"')
]
Date: TypeAlias = Annotated[datetime.date, Meta(description='a date that exists, such as "2026-08-17"')]
Capacity: TypeAlias = Annotated[int, Meta(ge=0, le=CAPACITY_MAX)]
Days: TypeAlias = Annotated[int, Meta(ge=0, le=3_660)]
Minutes: TypeAlias = Annotated[int, Meta(ge=0, le=10_080)]
Seconds: TypeAlias = Annotated[int, Meta(ge=0, le=366 * 86_400)]
PositiveSeconds: TypeAlias = Annotated[int, Meta(ge=1, le=366 * 86_400)]


class _CatalogTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file. Unknown keys are rejected."""


class Named(_CatalogTable, frozen=True, kw_only=True):
    """An entry with an id and display names: ``name`` in the office's own language, ``name_en`` in English."""

    id: Id
    name: Text = ""
    name_en: Text = ""

    def display_name(self, language: str) -> str:
        """Return the name to display.

        Args:
            language: ``"en"`` for English; any other gives the name in the office's own language.

        Returns:
            The name, or the id of an entry without a name.
        """
        return (self.name_en if language == "en" else "") or self.name or self.id


def name_of(entries: Mapping[str, Named], entry_id: str, language: str) -> str:
    """Return the name of an entry, or the id itself if no entry has it.

    A reservation keeps the ids of its choice. Later catalogs may lack them.

    Args:
        entries: entries by id.
        entry_id: an id, or ``""``.
        language: as for :meth:`Named.display_name`.
    """
    entry = entries.get(entry_id)
    return entry_id if entry is None else entry.display_name(language)


class Service(Named, frozen=True, kw_only=True):
    """A reason to visit an office. With ``needs_session``, a booking names a session if the plan has any.

    ``bring`` names what an applicant brings, in the office's own language, and ``bring_en`` in English.
    """

    needs_session: bool = True
    bring: TextList = ()
    bring_en: TextList = ()

    def bring_in(self, language: str) -> tuple[str, ...]:
        """Return what an applicant brings. ``language`` is as for :meth:`Named.display_name`."""
        return (self.bring_en if language == "en" else ()) or self.bring


class Channel(Named, frozen=True, kw_only=True):
    """The way a booking arrives, such as online or walk-in."""


class Group(Named, frozen=True, kw_only=True):
    """A category of applicants that may have its own allotment. The caller verifies the ``eligibility``.

    ``eligibility`` names its people in the office's own language, and ``eligibility_en`` in English.
    """

    description: Text = ""
    eligibility: TextList = ()
    eligibility_en: TextList = ()

    def eligibility_in(self, language: str) -> tuple[str, ...]:
        """Return who belongs to the group. ``language`` is as for :meth:`Named.display_name`."""
        return (self.eligibility_en if language == "en" else ()) or self.eligibility


class ServiceUnit(Named, frozen=True, kw_only=True):
    """A counter, branch or mobile team of an office that a service may need."""

    city: Text = ""


class Hours(_CatalogTable, frozen=True, kw_only=True):
    """The office hours of a day, in local time. The day starts at ``start`` and is over at ``end``."""

    start: TimeOfDay = datetime.time(8)
    end: TimeOfDay = datetime.time(16)


class BookUntil(_CatalogTable, frozen=True, kw_only=True):
    """The end of a session's booking: a number of minutes before the start or before the end of the session."""

    before_start_min: Minutes | None = None
    before_end_min: Minutes | None = None


class Session(Named, frozen=True, kw_only=True):
    """A time window of a day, in local time. Without ``book_until``, it can be booked until its end."""

    start: TimeOfDay
    end: TimeOfDay
    book_until: BookUntil | None = None


class WaitListOrder(enum.StrEnum):
    """The order in which the wait list is served."""

    FIRST_FIT = "first_fit"
    """A smaller party behind one that does not fit is served."""
    STRICT = "strict"
    """For a limited time, free units are kept for the first party, even if it does not fit yet."""


class ReReleaseSettings(_CatalogTable, frozen=True, kw_only=True):
    """The re-release rule of returned units.

    With the rule "cooling", units become available after ``cooling_s`` plus a jitter of 0 to ``jitter_s``. With
    "wait_list" and the order "strict", the first party that does not fit blocks free units for at most ``blocks_s``.
    """

    rule: ReReleaseRule
    cooling_s: Seconds = 0
    jitter_s: Seconds = 0
    order: WaitListOrder = WaitListOrder.FIRST_FIT
    blocks_s: Seconds = 0


class ReallocationSettings(_CatalogTable, frozen=True, kw_only=True):
    """The time at which unused units move to the allotment ``to``.

    Either the local time ``at``, ``days_before`` days before the booked day, or the time at which ``schedule`` opens
    that day.
    """

    to: Reference
    at: TimeOfDay | None = None
    days_before: Annotated[int, Meta(ge=0, le=366)] = 0
    schedule: Reference = ""


class Guard(Named, frozen=True, kw_only=True):
    """A guard: a quota of a day that every matching booking consumes in addition to its allotment.

    A booking matches if it has the ``session``, ``service`` and ``service_unit`` that are given here. A guard without
    any of them matches every booking of the day.
    """

    capacity: Capacity
    session: Reference = ""
    service: Reference = ""
    service_unit: Reference = ""
    re_release: ReReleaseSettings | None = None
    renamed_from: Reference = ""
    """The former id of this quota, or the id of a removed one whose people it takes over."""


class Allotment(Named, frozen=True, kw_only=True):
    """A quota set aside for channels, groups, services or sessions. An empty list admits all of them.

    A booking takes the first allotment of the plan that admits it. If that is full, it takes the first of the
    ``fallback`` allotments that admits it and has room. ``bookable = false`` makes a second tranche: its units cannot
    be booked until they are reallocated.
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
    renamed_from: Reference = ""
    """As for a guard."""


class _Schedule(_CatalogTable, frozen=True, kw_only=True, tag_field="kind"):
    """A release schedule: it says when days open for booking."""

    id: Id
    at: TimeOfDay
    zone: ZoneName = ""
    """The IANA time zone of ``at``; ``""`` means the office's own."""


class Weekly(_Schedule, frozen=True, kw_only=True, tag="weekly"):
    """Opens a week, Monday to Sunday, at once: on ``weekday`` of the week ``weeks_ahead`` before."""

    weekday: Weekday
    weeks_ahead: Annotated[int, Meta(ge=1, le=52)] = 1


class Monthly(_Schedule, frozen=True, kw_only=True, tag="monthly"):
    """Opens a month at once, on the last working day of the month ``months_ahead`` before."""

    months_ahead: Annotated[int, Meta(ge=1, le=12)] = 1


class DaysAhead(_Schedule, frozen=True, kw_only=True, tag="days_ahead"):
    """Opens one day per day: the one that is ``days`` ahead."""

    days: Annotated[int, Meta(ge=0, le=366)]


Schedule: TypeAlias = Weekly | Monthly | DaysAhead


class Holiday(_CatalogTable, frozen=True, kw_only=True):
    """A day on which offices do not work."""

    date: Date
    name: Text = ""


class Closure(_CatalogTable, frozen=True, kw_only=True):
    """A range of days, ``first`` to ``last`` included, on which an office is closed."""

    first: Date
    last: Date
    reason: Text = ""


class IdentityLimitSettings(_CatalogTable, frozen=True, kw_only=True):
    """At most ``places_max`` active reservations per applicant on days less than ``span_days`` apart (0: all days)."""

    places_max: Annotated[int, Meta(ge=1, le=1_000)]
    span_days: Days


class RuleSettings(_CatalogTable, frozen=True, kw_only=True):
    """Rules of an office. Omitted keys come from the plan, then from the top of the file, then from the library."""

    hold_ttl_s: PositiveSeconds | None = None
    offer_ttl_s: PositiveSeconds | None = None
    extensions_max: Annotated[int, Meta(ge=0, le=EXTENSIONS_MAX)] | None = None
    extension_s: PositiveSeconds | None = None
    party_max: Annotated[int, Meta(ge=1, le=APPLICANTS_MAX)] | None = None
    identity_limits: Annotated[tuple[IdentityLimitSettings, ...], Meta(max_length=8)] | None = None
    no_show_block_days: Days | None = None
    undo_window_s: Annotated[int, Meta(ge=0, le=UNDO_WINDOW_MS_MAX // 1000)] | None = None
    cancellations_max: Annotated[int, Meta(ge=0, le=100)] | None = None
    cancellations_window_days: Days | None = None
    cancellations_block_days: Days | None = None
    abandoned_holds_max: Annotated[int, Meta(ge=0, le=100)] | None = None
    abandoned_holds_window_h: Annotated[int, Meta(ge=0, le=87_840)] | None = None
    abandoned_holds_block_h: Annotated[int, Meta(ge=0, le=87_840)] | None = None
    reschedules_max: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    reschedule_before_h: Annotated[int, Meta(ge=0, le=87_840)] | None = None
    wait_list_max: Annotated[int, Meta(ge=0, le=CAPACITY_MAX)] | None = None
    declines_max: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    decline_pause_s: PositiveSeconds | None = None
    retention_days: Annotated[int, Meta(ge=1, le=3_660)] | None = None


class NationalSettings(_CatalogTable, frozen=True, kw_only=True):
    """The limit over all offices: one active reservation per applicant, on days that are not over.

    ``lease_s`` is how long a claim excludes other offices while a reservation is being made.
    """

    places_max: Annotated[int, Meta(ge=1, le=1, description="1: one active reservation over all offices")]
    lease_s: Annotated[int, Meta(ge=10, le=3_600)] = 20


class IdentitySettings(_CatalogTable, frozen=True, kw_only=True):
    """The form of identities: :class:`~quota_engine.domain.identity_format.IdentityFormat` describes the keys."""

    strip: Annotated[str, Meta(max_length=STRIP_LENGTH_MAX)] = ""
    pattern: Annotated[str, Meta(max_length=PATTERN_LENGTH_MAX)] = ""
    check_digit: Literal["luhn", "verhoeff", "mod11_10"] | None = None
    casefold: bool = False
    expected: Text = ""
    expected_en: Text = ""


class Plan(_CatalogTable, frozen=True, kw_only=True):
    """The offer of an office on a day. Offices may share a plan and override its capacities."""

    id: Id
    services: References = ()
    """Ids of the offered services; empty means all services of the file."""
    hours: Hours = Hours()
    working_weekdays: Annotated[tuple[Weekday, ...], Meta(min_length=1, max_length=7)] = WEEKDAYS[:5]
    sessions: Annotated[tuple[Session, ...], Meta(max_length=QUOTAS_MAX)] = ()
    quotas: Annotated[tuple[Guard, ...], Meta(max_length=QUOTAS_MAX)] = ()
    allotments: Annotated[tuple[Allotment, ...], Meta(max_length=QUOTAS_MAX)] = ()
    capacities_by_class: dict[str, dict[str, Capacity]] = {}
    """Capacities by office class and by quota or allotment. Others keep the capacity of the plan."""
    schedule: Reference = ""
    """Id of a schedule; ``""`` means the only one of the file."""
    re_release: ReReleaseSettings | None = None
    """The rule of quotas and allotments that set none."""
    rules: RuleSettings = RuleSettings()


class Office(_CatalogTable, frozen=True, kw_only=True, rename={"office_class": "class"}):
    """One office. ``capacities``, by quota or allotment, override those of its class and its plan."""

    id: Id
    name: Text
    time_zone: ZoneName
    """An IANA time zone such as "Asia/Jakarta"."""
    office_class: Text = ""
    province: Text = ""
    city: Text = ""
    address: Text = ""
    """Where applicants come, as the pages show it."""
    contact: Text = ""
    """How applicants reach the office: a telephone number, an address of mail."""
    draw: Text = ""
    """Id of the draw that the office's pages show; ``""`` for none."""
    draw_channel: Id = "online"
    """Channel of the choices that applicants rank in the draw."""
    cities_served: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()
    plan: Reference = ""
    """Id of a plan; ``""`` means the only one of the file."""
    schedule: Reference = ""
    """Id of a schedule; ``""`` means that of the plan."""
    service_units: Annotated[tuple[ServiceUnit, ...], Meta(max_length=QUOTAS_MAX)] = ()
    capacities: dict[str, Capacity] = {}
    working_weekdays: Annotated[tuple[Weekday, ...], Meta(min_length=1, max_length=7)] | None = None
    holidays: Annotated[tuple[Holiday, ...], Meta(max_length=10_000)] = ()
    closures: Annotated[tuple[Closure, ...], Meta(max_length=10_000)] = ()
    rules: RuleSettings = RuleSettings()


class SiteSettings(_CatalogTable, frozen=True, kw_only=True):
    """The public authority behind the pages, as their footer names it.

    Attributes:
        owner: the authority, in its own language; ``owner_en`` in English.
        contact: how people reach it: a telephone number, an address of mail.
        privacy: what the authority stores and why, in its own language; ``privacy_en`` in English.
        logo: a crest or a logo as a ``data:`` URI, so that pages load nothing from other sites.
    """

    owner: Text = ""
    owner_en: Text = ""
    contact: Text = ""
    privacy: Text = ""
    privacy_en: Text = ""
    logo: Annotated[
        str, Meta(max_length=16_384, pattern=r"^(data:image/(svg\+xml|png|webp);base64,[A-Za-z0-9+/]+=*)?$")
    ] = ""

    def owner_in(self, language: str) -> str:
        """Return the authority's name. ``language`` is as for :meth:`Named.display_name`."""
        return (self.owner_en if language == "en" else "") or self.owner

    def privacy_in(self, language: str) -> str:
        """Return the privacy note. ``language`` is as for :meth:`Named.display_name`."""
        return (self.privacy_en if language == "en" else "") or self.privacy


class CatalogFile(_CatalogTable, frozen=True, kw_only=True):
    """A catalog file."""

    title: Text = ""
    site: SiteSettings = SiteSettings()
    services: Annotated[tuple[Service, ...], Meta(min_length=1, max_length=QUOTAS_MAX)]
    channels: Annotated[tuple[Channel, ...], Meta(min_length=1, max_length=QUOTAS_MAX)] = (Channel(id="online"),)
    groups: Annotated[tuple[Group, ...], Meta(max_length=QUOTAS_MAX)] = ()
    schedules: Annotated[tuple[Schedule, ...], Meta(min_length=1, max_length=QUOTAS_MAX)]
    plans: Annotated[tuple[Plan, ...], Meta(min_length=1, max_length=OFFICES_MAX)]
    offices: Annotated[tuple[Office, ...], Meta(min_length=1, max_length=OFFICES_MAX)]
    national: NationalSettings | None = None
    identity: IdentitySettings = IdentitySettings()
    rules: RuleSettings = RuleSettings()
    holidays: Annotated[tuple[Holiday, ...], Meta(max_length=10_000)] = ()
