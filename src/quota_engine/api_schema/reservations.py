"""What goes over the wire: the bodies of requests and answers. The OpenAPI document is made from these types.

Times are milliseconds since 1970 (UTC) and end in ``_at_ms``, days are ISO dates. An answer never has an identity in
it, not even a keyed hash.
"""

from __future__ import annotations

__all__ = [
    "AuditBody",
    "AvailabilityBody",
    "CallerBody",
    "CapacityBody",
    "ConfirmBody",
    "DayBody",
    "EventBody",
    "EventsBody",
    "ExpireBody",
    "FieldProblem",
    "HealthBody",
    "MoveBody",
    "NamedBody",
    "NamesBody",
    "OfficeBody",
    "OfficesBody",
    "OutcomeBody",
    "ProblemBody",
    "PublishBody",
    "PublishedBody",
    "QuotaBody",
    "ReservationBody",
    "ReserveBody",
    "SessionBody",
    "StepBody",
    "TrimBody",
    "TrimmedBody",
    "WaitListPositionBody",
    "day_body",
    "outcome_body",
    "reservation_body",
]

import datetime
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from quota_engine.api_schema.base import Id, Identity, MaybeId, Millis, RequestBody, ResponseBody
from quota_engine.api_schema.tickets import TicketStatusBody
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import SUCCESSES, DayView, Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX

_NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"

# --- Requests ------------------------------------------------------------------------------------------------------


class CallerBody(RequestBody, frozen=True, kw_only=True):
    """Who calls, as your service has checked it, for the admission policies; hashed at once. Empty: not known."""

    account: Annotated[str, Meta(max_length=256, pattern=_NO_CONTROLS)] = ""
    network: Annotated[
        str, Meta(max_length=256, pattern=_NO_CONTROLS, description="An IPv4 or IPv6 address, or a prefix.")
    ] = ""
    device: Annotated[str, Meta(max_length=256, pattern=_NO_CONTROLS)] = ""


class ReserveBody(RequestBody, frozen=True, kw_only=True):
    """Who wants a place, and which."""

    applicants: Annotated[list[Identity], Meta(min_length=1, max_length=100)]
    service: MaybeId = ""
    service_unit: MaybeId = ""
    session: MaybeId = ""
    channel: Id = "online"
    group: MaybeId = ""
    join_wait_list: Annotated[bool, Meta(description="Join the wait list if there is no place.")] = False
    hold_ttl_ms: Annotated[
        int, Meta(ge=0, le=DURATION_MS_MAX, description="How long to hold them; 0: as the office's rules say.")
    ] = 0
    admission_pass: Annotated[str, Meta(max_length=512, description="The pass of a waiting room.")] = ""
    caller: CallerBody = CallerBody()


class StepBody(RequestBody, frozen=True, kw_only=True):
    """A step of a reservation's life."""

    owner: Annotated[
        str, Meta(max_length=256, description="The identity of one of its applicants, to check that it is theirs.")
    ] = ""
    expected_version: Annotated[
        int, Meta(ge=0, le=2**31, description="Refuse if it has changed since; 0: do not check.")
    ] = 0


class ConfirmBody(StepBody, frozen=True, kw_only=True):
    """A hold is to become a place."""

    reacquire: Annotated[bool, Meta(description="Take a new place if the hold has ended.")] = False


class MoveBody(RequestBody, frozen=True, kw_only=True):
    """Where a reservation is to be moved; ``office``: to another one."""

    day: datetime.date
    office: MaybeId = ""
    service: MaybeId = ""
    service_unit: MaybeId = ""
    session: MaybeId = ""
    channel: Id = "online"
    group: MaybeId = ""
    owner: Annotated[str, Meta(max_length=256)] = ""
    expected_version: Annotated[int, Meta(ge=0, le=2**31)] = 0


class CapacityBody(RequestBody, frozen=True, kw_only=True):
    """The new capacity of a quota."""

    capacity: Annotated[int, Meta(ge=0, le=10_000_000)]


class ExpireBody(RequestBody, frozen=True, kw_only=True):
    """How many overdue holds to sweep."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class PublishBody(RequestBody, frozen=True, kw_only=True):
    """Which days to make known."""

    first_day: datetime.date
    last_day: datetime.date


class TrimBody(RequestBody, frozen=True, kw_only=True):
    """Up to which event all who need them have read."""

    through: Millis


# --- Answers -------------------------------------------------------------------------------------------------------


class WaitListPositionBody(ResponseBody, frozen=True, kw_only=True):
    """Where somebody stands on the wait list of a day: ``ahead`` joined earlier and still wait, of ``waiting`` in all.

    As many parties at most are served first, unless this one does not fit where a smaller one does.
    """

    ahead: int
    waiting: int


class ReservationBody(ResponseBody, frozen=True, kw_only=True):
    """A reservation as it stands. ``deadline_at_ms`` is the end of its hold, ``queue_numbers`` one an applicant.

    A lookup tells more: of one that is ``WAITING`` where it stands, and of one that is ``MOVED`` where it goes on.
    """

    reference: str
    office: str
    day: datetime.date
    state: str
    version: int
    units: int
    service: str
    service_unit: str
    session: str
    channel: str
    group: str
    quotas: list[str]
    created_at_ms: int
    deadline_at_ms: int
    queue_numbers: list[int]
    moves: int
    wait_list_position: WaitListPositionBody | UnsetType = UNSET
    moved_to: str | UnsetType = UNSET


class OutcomeBody(ResponseBody, frozen=True, kw_only=True):
    """What a command came to. ``reason`` is an admission policy's word for its refusal."""

    status: Status
    replayed: bool = False
    resumed: bool = False
    retry_at_ms: int = 0
    units: int = 0
    overbooked: int = 0
    reservation: ReservationBody | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the asker has what they asked for."""
        return self.status in SUCCESSES

    @property
    def reference(self) -> str:
        """The reservation's ``office~id``, or ``""`` if there is none."""
        return self.reservation.reference if self.reservation is not None else ""


class QuotaBody(ResponseBody, frozen=True, kw_only=True):
    """The counters of one quota: capacity + overbooked = available + held + confirmed + cooling."""

    name: str
    capacity: int
    available: int
    held: int
    confirmed: int
    cooling: int
    parked: int
    overbooked: int


class DayBody(ResponseBody, frozen=True, kw_only=True):
    """One day of an office."""

    day: datetime.date
    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    closed: bool
    waiting: int
    quotas: list[QuotaBody]


class AvailabilityBody(ResponseBody, frozen=True, kw_only=True):
    """An office's days, and the first of them on which what was asked for can be had now."""

    office: str
    earliest_free_day: datetime.date | None
    days: list[DayBody]


class NamesBody(ResponseBody, frozen=True, kw_only=True):
    """A name in Indonesian (or whatever the office's own language is) and in English."""

    id: str
    en: str


class NamedBody(ResponseBody, frozen=True, kw_only=True):
    """Something of the catalog; what has no name goes by its id."""

    id: str
    name: str
    names: NamesBody


class SessionBody(ResponseBody, frozen=True, kw_only=True):
    """A time window of a day."""

    id: str
    name: str
    names: NamesBody
    start: str
    end: str


class OfficeBody(ResponseBody, frozen=True, kw_only=True):
    """An office of the catalog, whom it has places for, and its next opening: when, and which days."""

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


class EventBody(ResponseBody, frozen=True, kw_only=True):
    """Something that happened: its number within the office, its kind, and its details."""

    number: int
    at_ms: int
    kind: str
    verb: str | UnsetType = UNSET
    reservation: ReservationBody | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class EventsBody(ResponseBody, frozen=True, kw_only=True):
    """Events in order. ``next_after`` is what to ask for next."""

    office: str
    next_after: int
    events: list[EventBody]


class TrimmedBody(ResponseBody, frozen=True, kw_only=True):
    """How many events are left."""

    events_left: int


class PublishedBody(ResponseBody, frozen=True, kw_only=True):
    """What a publish came to, in office-days."""

    offices: int
    days_published: int
    days_unchanged: int
    days_over: int


class AuditBody(ResponseBody, frozen=True, kw_only=True):
    """What an audit found; nothing, if all adds up."""

    ok: bool
    offices: int
    findings: list[str]


class HealthBody(ResponseBody, frozen=True, kw_only=True):
    """How the service is."""

    status: str


class FieldProblem(ResponseBody, frozen=True, kw_only=True):
    """What is wrong with one part of a request."""

    where: str
    problem: str
    expected: str


class ProblemBody(ResponseBody, frozen=True, kw_only=True):
    """A problem, as RFC 9457 has it. ``type`` is stable; ``outcome`` is the status, when it was the engine's answer,
    and ``reason`` the word of the admission policy that refused.

    ``number`` and ``version`` are those of the application to a draw that was in the way, ``standing`` is that of a
    ticket that has not its turn.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    outcome: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    number: int | UnsetType = UNSET
    version: int | UnsetType = UNSET
    retry_at_ms: int | UnsetType = UNSET
    reservation: ReservationBody | UnsetType = UNSET
    ticket_status: TicketStatusBody | UnsetType = UNSET
    errors: list[FieldProblem] | UnsetType = UNSET


def reservation_body(record: Reservation) -> ReservationBody:
    """A record as it goes out: without its applicants."""
    choice = record.choice
    return ReservationBody(
        reference=record.reference,
        office=record.office,
        day=datetime.date.fromordinal(record.day),
        state=record.state,
        version=record.version,
        units=record.units,
        service=choice.service,
        service_unit=choice.service_unit,
        session=choice.session,
        channel=choice.channel,
        group=choice.group,
        quotas=list(record.quotas),
        created_at_ms=record.created_at_ms,
        deadline_at_ms=record.deadline_at_ms,
        queue_numbers=list(record.queue_numbers),
        moves=record.moves,
    )


def outcome_body(outcome: Outcome) -> OutcomeBody:
    """An outcome that is a success."""
    record = outcome.reservation
    return OutcomeBody(
        status=outcome.status,
        replayed=outcome.replayed,
        resumed=outcome.resumed,
        units=outcome.units,
        overbooked=outcome.overbooked,
        reservation=None if record is None else reservation_body(record),
    )


def day_body(view: DayView) -> DayBody:
    """A day's counters."""
    return DayBody(
        day=datetime.date.fromordinal(view.day),
        opens_at_ms=view.opens_at_ms,
        starts_at_ms=view.starts_at_ms,
        ends_at_ms=view.ends_at_ms,
        closed=view.closed,
        waiting=view.waiting,
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
            )
            for name, quota in view.quotas.items()
        ],
    )
