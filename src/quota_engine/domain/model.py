"""The domain's records: an office's rules, the terms of its days, choices and reservations.

All records are immutable. A change of a reservation makes a new record with the next version. The ledger, the event log
and the caller's outcome can therefore share a record without a copy or a lock.

Times are integers in milliseconds since 1970 (UTC) and end in ``_at_ms``. Durations end in ``_ms``. A ``day`` is
``datetime.date.toordinal()``. A missing string is ``""``, because only integers and strings reach a store.
"""

from __future__ import annotations

__all__ = [
    "ABANDONED_HOLDS_MAX",
    "CANCELLATIONS_MAX",
    "CLAIMS_MAX",
    "EXTENSIONS_MAX",
    "FORMER_APPLICANTS_MAX",
    "Choice",
    "DayTerms",
    "GuardScope",
    "IdentityLimit",
    "QuotaTerms",
    "ReRelease",
    "ReReleaseRule",
    "Reallocation",
    "Reservation",
    "Rules",
    "SessionTerms",
    "find_session",
]

import enum
from collections.abc import Sequence
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
    """The rule for units that a reservation returns when it is released, expired, cancelled or moved."""

    AT_ONCE = "at_once"
    """They become available in the same step."""
    COOLING = "cooling"
    """They become available after a time that outsiders cannot predict to the second."""
    WAIT_LIST = "wait_list"
    """They are offered to the wait list in the same step. The rest becomes available."""
    NEXT_DRAW = "next_draw"
    """They are parked until the ``ReleaseParked`` command of the next draw."""


class ReRelease(msgspec.Struct, frozen=True, gc=False):
    """A quota's re-release rule.

    With ``COOLING``, returned units become available after ``cooling_ms`` plus a jitter of 0 to ``jitter_ms``. The
    jitter is derived from the office's seed (:func:`~quota_engine.domain.returned_units.split_returned_units`). Both
    are at most 10 years.

    With ``WAIT_LIST``, ``blocks_ms`` is the order of the list. 0 is ``first_fit``: a smaller party behind one that does
    not fit is served. Above 0, at most 10 years, it is ``strict``: for that long, the first party that does not fit
    blocks free units for which others could be served.
    """

    rule: ReReleaseRule = ReReleaseRule.AT_ONCE
    cooling_ms: int = 0
    jitter_ms: int = 0
    blocks_ms: int = 0

    def __post_init__(self) -> None:
        check_integer(self.cooling_ms, "cooling_ms", 0, DURATION_MS_MAX)
        check_integer(self.jitter_ms, "jitter_ms", 0, DURATION_MS_MAX)
        check_integer(self.blocks_ms, "blocks_ms", 0, DURATION_MS_MAX)
        if self.blocks_ms and self.rule is not ReReleaseRule.WAIT_LIST:
            raise InvalidRequest("blocks_ms", f"{self.blocks_ms} with the rule {self.rule}", "0, or the rule wait_list")


class Reallocation(msgspec.Struct, frozen=True, gc=False):
    """From ``at_ms`` on, unused units of an allotment move to the quota ``to`` of the same day."""

    to: str
    at_ms: int

    def __post_init__(self) -> None:
        check_name(self.to, "reallocation.to")
        check_integer(self.at_ms, "reallocation.at_ms", 0, TIME_MS_MAX)


class GuardScope(msgspec.Struct, frozen=True, gc=False):
    """The bookings that a guard counts: those whose choice has these ids. ``""`` stands for any id."""

    service: str = ""
    service_unit: str = ""
    session: str = ""

    def __post_init__(self) -> None:
        for field in ("service", "service_unit", "session"):
            if getattr(self, field):
                check_name(getattr(self, field), f"guard.{field}")


class QuotaTerms(msgspec.Struct, frozen=True):
    """A quota of an office-day as it is published.

    Attributes:
        name: its name.
        capacity: 0 to 10,000,000 units.
        re_release: the rule for returned units.
        reallocation: when unused units move to another quota, or ``None``.
        guard: the bookings that consume the quota in any case; ``None`` if only an option that names it does.
        renamed_from: the former name of the quota, or of one whose people join it; ``""`` for none.
    """

    name: str
    capacity: int
    re_release: ReRelease = ReRelease()
    reallocation: Reallocation | None = None
    guard: GuardScope | None = None
    renamed_from: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "quota.name")
        if self.renamed_from:
            check_name(self.renamed_from, f"quota {self.name}: renamed_from")
        check_integer(self.capacity, f"quota {self.name}: capacity", 0, CAPACITY_MAX)


class SessionTerms(msgspec.Struct, frozen=True, gc=False):
    """A session of an office-day: a choice that names it can be booked until its own time.

    Attributes:
        name: id of the session.
        ends_at_ms: the session is over from this time on: its holds cannot be confirmed any more.
        book_until_ms: the session can be booked before this time; at most ``ends_at_ms``. 0 if it does not take place.
    """

    name: str
    ends_at_ms: int
    book_until_ms: int

    def __post_init__(self) -> None:
        check_name(self.name, "session.name")
        check_integer(self.ends_at_ms, f"session {self.name}: ends_at_ms", 0, TIME_MS_MAX)
        check_integer(self.book_until_ms, f"session {self.name}: book_until_ms", 0, self.ends_at_ms)


class DayTerms(msgspec.Struct, frozen=True):
    """An office-day as it is published.

    Attributes:
        opens_at_ms: reserving is possible from this time on, and before ``ends_at_ms``.
        starts_at_ms: check-in and no-show are possible from this time on.
        ends_at_ms: the day is over from this time on; not before the two times above.
        forget_at_ms: the day is unknown from this time on; not before ``ends_at_ms``.
        quotas: 1 to 256 quotas with different names.
        sessions: at most 256 sessions with different names; none of them ends after ``ends_at_ms``. A choice of another
            session, or of none, follows the day's own times.
    """

    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    forget_at_ms: int
    quotas: tuple[QuotaTerms, ...]
    sessions: tuple[SessionTerms, ...] = ()

    def __post_init__(self) -> None:
        for field in ("opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms"):
            check_integer(getattr(self, field), field, 0, TIME_MS_MAX)
        if not self.opens_at_ms <= self.ends_at_ms or not self.starts_at_ms <= self.ends_at_ms <= self.forget_at_ms:
            raise InvalidRequest("day", "times out of order", "opens <= ends and starts <= ends <= forget")
        if not 1 <= len(self.quotas) <= QUOTAS_MAX:
            raise InvalidRequest("day.quotas", f"{len(self.quotas)} quotas", f"1 to {QUOTAS_MAX}")
        if len(self.sessions) > QUOTAS_MAX or len({one.name for one in self.sessions}) != len(self.sessions):
            raise InvalidRequest(
                "day.sessions", f"{len(self.sessions)} sessions", f"at most {QUOTAS_MAX}, with different names"
            )
        for session in self.sessions:
            if session.ends_at_ms > self.ends_at_ms:
                raise InvalidRequest(
                    f"session {session.name}: ends_at_ms", "after the end of the day", f"at most {self.ends_at_ms}"
                )
        names = {quota.name for quota in self.quotas}
        reallocating = {quota.name for quota in self.quotas if quota.reallocation is not None}
        if len(names) != len(self.quotas):
            raise InvalidRequest("day.quotas", "two quotas with the same name", "different names")
        former = [quota.renamed_from for quota in self.quotas if quota.renamed_from]
        if not names.isdisjoint(former) or len(set(former)) != len(former):
            raise InvalidRequest(
                "day.quotas", "a renamed_from that is a quota, or is given twice", "former names, each of them once"
            )
        for quota in self.quotas:
            # One hop only, because a cycle of reallocations would never end.
            if quota.reallocation is not None and quota.reallocation.to not in names - reallocating:
                raise InvalidRequest(
                    f"quota {quota.name}: reallocation.to",
                    f"{quota.reallocation.to!r}",
                    "another quota of the same day that reallocates nothing itself",
                )


def find_session(sessions: tuple[SessionTerms, ...], name: str) -> SessionTerms | None:
    """Return the session of this name, or ``None``. ``name`` may be ``""``."""
    for session in sessions if name else ():
        if session.name == name:
            return session
    return None


CANCELLATIONS_MAX: Final = 100
"""The highest ``cancellations_max`` that an office may set."""


ABANDONED_HOLDS_MAX: Final = 100
"""The highest ``abandoned_holds_max`` that an office may set."""


FORMER_APPLICANTS_MAX: Final = 100
"""The most applicants who have left a party that its reservation remembers, the last ones."""


EXTENSIONS_MAX: Final = 100
"""The highest ``extensions_max`` that an office may set."""


UNDO_WINDOW_MS_MAX: Final = 86_400_000
"""The highest ``undo_window_ms`` that an office may set, a day."""


CLAIMS_MAX: Final = 100
"""The most active reservations of an applicant at an office, even if its rules set no identity limit."""


class IdentityLimit(msgspec.Struct, frozen=True, gc=False):
    """At most ``places_max`` active reservations per applicant within a span of days.

    Attributes:
        places_max: 1 to 1,000.
        span_days: 0 to 3,660. The limit counts days that are less than ``span_days`` before or after the booked day.
            1 means the day itself, 30 means any day less than 30 days away, and 0 means every day of the office.
    """

    places_max: int
    span_days: int

    def __post_init__(self) -> None:
        check_integer(self.places_max, "identity_limit.places_max", 1, 1000)
        check_integer(self.span_days, "identity_limit.span_days", 0, 3660)


class Rules(msgspec.Struct, frozen=True):
    """The rules of one office, for all its days. Durations are in milliseconds and at most 10 years.

    Attributes:
        hold_ttl_ms: length of a hold, 1 or more.
        offer_ttl_ms: length of a hold that the wait list offers, 1 or more.
        extensions_max: how often a hold may be extended, 0 to 100.
        extension_ms: how much later an extension moves the deadline of a hold, 1 or more.
        party_max: the most applicants in a party, 1 to 100.
        identity_limits: at most 8 limits.
        no_show_block_ms: how long a no-show blocks the applicant; 0 means no block.
        undo_window_ms: how long a check-in or no-show can be undone, at most :data:`UNDO_WINDOW_MS_MAX`; 0 means never.
        cancellations_max: cancellations allowed in ``cancellations_window_ms``; the next one blocks the applicant. 0 to
            100, and 0 means no limit.
        cancellations_window_ms: the window in which cancellations count.
        cancellations_block_ms: length of the block.
        abandoned_holds_max: holds that may end without a confirm in ``abandoned_holds_window_ms``; the next one blocks
            the applicant. 0 to 100, and 0 means no limit.
        abandoned_holds_window_ms: the window in which holds that ended without a confirm count.
        abandoned_holds_block_ms: length of the block.
        reschedules_max: how often a reservation may be moved, 0 to 1,000.
        reschedule_before_ms: a confirmed reservation may be moved until this long before its day's ``starts_at_ms``.
        wait_list_max: the most entries on the wait list of a day, 0 to 10,000,000.
        declines_max: how many offers a party may decline and keep its place on the wait list, 0 to 1,000.
        decline_pause_ms: how long the wait list passes over a party that has declined an offer, 1 or more.
        jitter_seed: the secret seed of the cooling times' jitter. Applicants who know it can predict cooling times.
    """

    hold_ttl_ms: int = 15 * 60_000
    offer_ttl_ms: int = 30 * 60_000
    extensions_max: int = 0
    extension_ms: int = 5 * 60_000
    party_max: int = 5
    identity_limits: tuple[IdentityLimit, ...] = (IdentityLimit(1, 1),)
    no_show_block_ms: int = 0
    undo_window_ms: int = 10 * 60_000
    cancellations_max: int = 0
    cancellations_window_ms: int = 30 * 86_400_000
    cancellations_block_ms: int = 0
    abandoned_holds_max: int = 0
    abandoned_holds_window_ms: int = 86_400_000
    abandoned_holds_block_ms: int = 86_400_000
    reschedules_max: int = 1
    reschedule_before_ms: int = 86_400_000
    wait_list_max: int = 1000
    declines_max: int = 3
    decline_pause_ms: int = 60 * 60_000
    jitter_seed: str = ""

    def __post_init__(self) -> None:
        check_integer(self.hold_ttl_ms, "hold_ttl_ms", 1, DURATION_MS_MAX)
        check_integer(self.offer_ttl_ms, "offer_ttl_ms", 1, DURATION_MS_MAX)
        check_integer(self.extensions_max, "extensions_max", 0, EXTENSIONS_MAX)
        check_integer(self.extension_ms, "extension_ms", 1, DURATION_MS_MAX)
        check_integer(self.party_max, "party_max", 1, APPLICANTS_MAX)
        check_integer(self.cancellations_max, "cancellations_max", 0, CANCELLATIONS_MAX)
        check_integer(self.abandoned_holds_max, "abandoned_holds_max", 0, ABANDONED_HOLDS_MAX)
        check_integer(self.reschedules_max, "reschedules_max", 0, 1000)
        check_integer(self.wait_list_max, "wait_list_max", 0, CAPACITY_MAX)
        check_integer(self.declines_max, "declines_max", 0, 1000)
        check_integer(self.decline_pause_ms, "decline_pause_ms", 1, DURATION_MS_MAX)
        check_integer(self.undo_window_ms, "undo_window_ms", 0, UNDO_WINDOW_MS_MAX)
        for field in (
            "no_show_block_ms",
            "cancellations_window_ms",
            "cancellations_block_ms",
            "abandoned_holds_window_ms",
            "abandoned_holds_block_ms",
            "reschedule_before_ms",
        ):
            check_integer(getattr(self, field), field, 0, DURATION_MS_MAX)
        if len(self.identity_limits) > 8:
            raise InvalidRequest("identity_limits", f"{len(self.identity_limits)} limits", "at most 8")
        if self.jitter_seed:
            check_name(self.jitter_seed, "jitter_seed")


class Choice(msgspec.Struct, frozen=True):
    """The selection of a booking, with the quotas that can serve it.

    ``service``, ``service_unit``, ``session``, ``channel`` and ``group`` are ids, or ``""``. ``options`` are 1 to 16
    ordered alternatives. Each alternative is a set of quotas that are all consumed, one unit per applicant.

    For example, ``(("priority", "morning"), ("online", "morning"))`` means: the priority quota if it has room,
    otherwise the online quota, and in both cases the morning quota.

    Reservations share choices, so that a choice costs a pointer per reservation.
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
    """The record of a party's booking after its last change.

    Attributes:
        office, id: the office's id, and the idempotency key of the reserve.
        day: the booked day.
        applicants: keyed hashes, in the order of the reserve. One who is replaced gives their position to the newcomer.
        choice: the selection.
        quotas: the option that the choice was served from. Each applicant consumes one unit of each. Empty on the wait
            list.
        state: the state of the life cycle.
        version: 1 for a new reservation, and one more after each change.
        created_at_ms: the time of the reserve.
        deadline_at_ms: the end of the latest hold; 0 if there was none.
        queue_number: the queue number of the first applicant; 0 before it is confirmed.
        moves: how often it has been rescheduled or moved.
        forced_moves: how many of these moves left a day that the office had closed. They do not count toward the limit.
        extensions: how often its hold has been extended.
        wait_list_number: the number under which it joined the day's wait list. The list is in the order of the numbers.
            0 if it never waited, or if it was rescheduled since.
        declines: how many offers of the wait list it has declined.
        paused_until_ms: the wait list passes over it until then, because it has declined an offer; 0 if it has not.
        undo_until_ms: when its check-in or no-show can no longer be undone; 0 in other states.
        former_applicants: keyed hashes of those who have left the party, in the order in which they left, the last
            :data:`FORMER_APPLICANTS_MAX`.
        queue_offsets: what to add to ``queue_number`` for each applicant; empty if the numbers are consecutive.
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
    forced_moves: int = 0
    extensions: int = 0
    wait_list_number: int = 0
    declines: int = 0
    paused_until_ms: int = 0
    undo_until_ms: int = 0
    former_applicants: tuple[str, ...] = ()
    queue_offsets: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """The number of units it consumes of each quota: one per applicant."""
        return len(self.applicants)

    @property
    def reference(self) -> str:
        """``office~id``, which identifies the reservation over all offices. Safe in a URL."""
        return f"{self.office}~{self.id}"

    @property
    def is_offer(self) -> bool:
        """True if it is a hold that the wait list gave, so that it can be declined."""
        return self.state is State.HELD and self.wait_list_number > 0

    @property
    def queue_numbers(self) -> Sequence[int]:
        """One queue number per applicant, in the order of ``applicants``. Empty before it is confirmed.

        They have gaps if an applicant has left the party since: all others keep their own number.
        """
        if self.queue_offsets and self.queue_number:
            return tuple(self.queue_number + offset for offset in self.queue_offsets)
        return range(self.queue_number, self.queue_number + self.units) if self.queue_number else range(0)
