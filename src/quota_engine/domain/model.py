"""What the ledger is made of: terms (what an office offers) and reservations (what became of it).

All of it is immutable: a reservation that changes is a new record with the next version. So a record can be
shared by the ledger, the event log and the caller's outcome, without a copy and without a lock.

Times are integers in milliseconds since 1970 (UTC) and end in ``_at_ms``; durations end in ``_ms``; a ``day`` is
``datetime.date.toordinal()``. Strings that could be missing are ``""``: only integers and strings reach a store.
"""

from __future__ import annotations

__all__ = [
    "CANCELLATIONS_MAX",
    "CLAIMS_MAX",
    "Choice",
    "DayTerms",
    "IdentityLimit",
    "QuotaTerms",
    "ReRelease",
    "ReReleaseRule",
    "Reallocation",
    "Reservation",
    "Rules",
]

import enum
from typing import Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State
from quota_engine.domain.validation import (
    APPLICANTS_MAX,
    CAPACITY_MAX,
    DURATION_MS_MAX,
    OPTIONS_MAX,
    QUOTAS_MAX,
    TIME_MS_MAX,
    check_integer,
    check_name,
)


class ReReleaseRule(enum.StrEnum):
    """Where the units of a released, expired or cancelled reservation go."""

    AT_ONCE = "at_once"
    """Available again in the same step."""
    COOLING = "cooling"
    """Available again after a time that nobody outside can foretell to the second."""
    WAIT_LIST = "wait_list"
    """Offered to the wait list in the same step; what nobody there can use is available again."""
    NEXT_DRAW = "next_draw"
    """Kept back until the ``ReleaseParked`` command, which the next draw gives."""


class ReRelease(msgspec.Struct, frozen=True, gc=False):
    """A quota's re-release rule. A unit cools for ``cooling_ms`` plus 0 to ``jitter_ms``, drawn from the seed."""

    rule: ReReleaseRule = ReReleaseRule.AT_ONCE
    cooling_ms: int = 0
    jitter_ms: int = 0

    def __post_init__(self) -> None:
        check_integer(self.cooling_ms, "cooling_ms", 0, DURATION_MS_MAX)
        check_integer(self.jitter_ms, "jitter_ms", 0, DURATION_MS_MAX)


class Reallocation(msgspec.Struct, frozen=True, gc=False):
    """From ``at_ms`` on, unused units of an allotment belong to the quota ``to``."""

    to: str
    at_ms: int

    def __post_init__(self) -> None:
        check_name(self.to, "reallocation.to")
        check_integer(self.at_ms, "reallocation.at_ms", 0, TIME_MS_MAX)


class QuotaTerms(msgspec.Struct, frozen=True):
    """One countable capacity of an office-day, in places (units)."""

    name: str
    capacity: int
    re_release: ReRelease = ReRelease()
    reallocation: Reallocation | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "quota.name")
        check_integer(self.capacity, f"quota {self.name}: capacity", 0, CAPACITY_MAX)


class DayTerms(msgspec.Struct, frozen=True):
    """One office-day as it is published.

    Reserving is possible from ``opens_at_ms`` until before ``ends_at_ms``. The service itself starts at
    ``starts_at_ms`` (check-in and no-show count from then on). From ``forget_at_ms`` the day is unknown again.
    """

    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    forget_at_ms: int
    quotas: tuple[QuotaTerms, ...]

    def __post_init__(self) -> None:
        for field in ("opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms"):
            check_integer(getattr(self, field), field, 0, TIME_MS_MAX)
        if not self.opens_at_ms <= self.ends_at_ms or not self.starts_at_ms <= self.ends_at_ms <= self.forget_at_ms:
            raise InvalidRequest("day", "its times are out of order", "opens <= ends and starts <= ends <= forget")
        if not 1 <= len(self.quotas) <= QUOTAS_MAX:
            raise InvalidRequest("day.quotas", f"{len(self.quotas)} quotas", f"1 to {QUOTAS_MAX}")
        names = {quota.name for quota in self.quotas}
        reallocating = {quota.name for quota in self.quotas if quota.reallocation is not None}
        if len(names) != len(self.quotas):
            raise InvalidRequest("day.quotas", "two quotas of one name", "names that are unique in the day")
        for quota in self.quotas:
            # One hop only: units that went round in circles would never come to rest.
            if quota.reallocation is not None and quota.reallocation.to not in names - reallocating:
                raise InvalidRequest(
                    f"quota {quota.name}: reallocation.to",
                    f"{quota.reallocation.to!r}",
                    "another quota of the same day, which passes nothing on itself",
                )


CANCELLATIONS_MAX: Final = 100
"""The highest number of cancellations that an office may let pass."""


CLAIMS_MAX: Final = 100
"""The most active places that an applicant can have at an office, if its rules set no limit at all."""


class IdentityLimit(msgspec.Struct, frozen=True, gc=False):
    """At most ``places_max`` active places per applicant among the days nearer than ``span_days`` to the wanted one.

    ``span_days=1`` is the day itself, ``30`` is any day less than 30 days before or after it, and ``0`` is every
    day of the office.
    """

    places_max: int
    span_days: int

    def __post_init__(self) -> None:
        check_integer(self.places_max, "identity_limit.places_max", 1, 1000)
        check_integer(self.span_days, "identity_limit.span_days", 0, 3660)


class Rules(msgspec.Struct, frozen=True):
    """The rules of one office, the same for all its days."""

    hold_ttl_ms: int = 15 * 60_000
    offer_ttl_ms: int = 30 * 60_000
    party_max: int = 5
    identity_limits: tuple[IdentityLimit, ...] = (IdentityLimit(1, 1),)
    no_show_block_ms: int = 0
    """How long an applicant who did not come is blocked; 0: not at all."""
    cancellations_max: int = 0
    """The cancellation that blocks is the one after this many in ``cancellations_window_ms``; 0: none does."""
    cancellations_window_ms: int = 30 * 86_400_000
    cancellations_block_ms: int = 0
    reschedules_max: int = 1
    reschedule_before_ms: int = 86_400_000
    """The last moment to reschedule a confirmed place, counted back from the day's ``starts_at_ms``."""
    wait_list_max: int = 1000
    """The largest number of entries on the wait list of one day."""
    jitter_seed: str = ""
    """Keyed into the jitter of cooling times; keep it to yourself, or the jitter can be foretold."""

    def __post_init__(self) -> None:
        check_integer(self.hold_ttl_ms, "hold_ttl_ms", 1, DURATION_MS_MAX)
        check_integer(self.offer_ttl_ms, "offer_ttl_ms", 1, DURATION_MS_MAX)
        check_integer(self.party_max, "party_max", 1, APPLICANTS_MAX)
        check_integer(self.cancellations_max, "cancellations_max", 0, CANCELLATIONS_MAX)
        check_integer(self.reschedules_max, "reschedules_max", 0, 1000)
        check_integer(self.wait_list_max, "wait_list_max", 0, CAPACITY_MAX)
        for field in (
            "no_show_block_ms",
            "cancellations_window_ms",
            "cancellations_block_ms",
            "reschedule_before_ms",
        ):
            check_integer(getattr(self, field), field, 0, DURATION_MS_MAX)
        if len(self.identity_limits) > 8:
            raise InvalidRequest("identity_limits", f"{len(self.identity_limits)} limits", "at most 8")
        if self.jitter_seed:
            check_name(self.jitter_seed, "jitter_seed")


class Choice(msgspec.Struct, frozen=True):
    """What was asked for, and which quotas can serve it.

    ``options`` are ordered alternatives; each is a set of quotas that are all needed, one unit an applicant:
    ``(("priority", "morning"), ("online", "morning"))`` reads "priority if it has room, else online, and in any case
    the morning". Choices are shared between reservations, so they cost a pointer each.
    """

    service: str
    service_unit: str
    session: str
    channel: str
    group: str
    options: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for field in ("service", "service_unit", "session", "channel", "group"):
            if getattr(self, field):
                check_name(getattr(self, field), f"choice.{field}")
        if not 1 <= len(self.options) <= OPTIONS_MAX:
            raise InvalidRequest("choice.options", f"{len(self.options)} alternatives", f"1 to {OPTIONS_MAX}")
        for option in self.options:
            if not 1 <= len(option) <= QUOTAS_MAX or len(set(option)) != len(option):
                raise InvalidRequest(
                    "choice.options", f"an alternative of {len(option)} quotas", "1 or more, each of them once"
                )
            for name in option:
                check_name(name, "choice.options")


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """The record of one booking, as it stood after its last change.

    ``applicants`` are keyed hashes, in the order given; each consumes one unit of every quota in ``quotas``.
    ``deadline_ms`` is the end of the (last) hold, and ``queue_number`` the first of ``units`` consecutive ones, or 0.
    """

    office: str
    id: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    quotas: tuple[str, ...]
    state: State
    version: int
    created_at_ms: int
    deadline_at_ms: int
    queue_number: int
    moves: int

    @property
    def units(self) -> int:
        """How many places it takes: one an applicant."""
        return len(self.applicants)

    @property
    def reference(self) -> str:
        """``office~id``: all that is needed to find it again; safe in a URL."""
        return f"{self.office}~{self.id}"

    @property
    def queue_numbers(self) -> range:
        """One queue number an applicant, in the order of ``applicants``; empty before it is confirmed."""
        return range(self.queue_number, self.queue_number + self.units) if self.queue_number else range(0)
