"""Bodies of reservations: requests of each step, outcomes, and lists."""

from __future__ import annotations

__all__ = [
    "CallerBody",
    "ConfirmBody",
    "DayListBody",
    "ExtendBody",
    "MovedToBody",
    "OutcomeBody",
    "RemoveApplicantBody",
    "ReplaceApplicantBody",
    "RescheduleBody",
    "ReservationBody",
    "ReserveBody",
    "StepBody",
    "WaitListPositionBody",
    "outcome_body",
    "reservation_body",
]

import datetime
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from quota_engine.api_schema.base import (
    Identity,
    OptionalId,
    RequestBody,
    ResponseBody,
    SelectionBody,
    Version,
    selection_fields,
)
from quota_engine.domain.model import EXTENSIONS_MAX, Reservation
from quota_engine.domain.outcomes import SUCCESSES, Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX

_NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"


class CallerBody(RequestBody, frozen=True, kw_only=True):
    """The caller as your application has verified it, for admission policies; hashed at once. Empty: unknown."""

    account: Annotated[str, Meta(max_length=256, pattern=_NO_CONTROLS)] = ""
    network: Annotated[
        str, Meta(max_length=256, pattern=_NO_CONTROLS, description="An IPv4 or IPv6 address, or a prefix.")
    ] = ""
    device: Annotated[str, Meta(max_length=256, pattern=_NO_CONTROLS)] = ""


ShownPass = Annotated[str, Meta(max_length=512, description="The pass of a waiting room.")]


class ReserveBody(SelectionBody, frozen=True, kw_only=True):
    """The applicants of a party, and the selection that they want."""

    applicants: Annotated[list[Identity], Meta(min_length=1, max_length=100)]
    join_wait_list: Annotated[bool, Meta(description="Join the wait list if there is no place.")] = False
    hold_ttl_ms: Annotated[
        int, Meta(ge=0, le=DURATION_MS_MAX, description="Duration of the hold; 0: the office's default.")
    ] = 0
    admission_pass: ShownPass = ""
    caller: CallerBody = CallerBody()


class StepBody(RequestBody, frozen=True, kw_only=True):
    """Optional checks of a step: the reservation's owner and its version."""

    owner: Annotated[
        str, Meta(max_length=256, description="Identity of one of the applicants; refuse if it is another's.")
    ] = ""
    expected_version: Annotated[
        int, Meta(ge=0, le=2**31, description="Refuse if the version is another one; 0: do not check.")
    ] = 0


class ConfirmBody(StepBody, frozen=True, kw_only=True):
    """Options of a confirmation. The pass and the caller count only if a new place is taken."""

    reacquire: Annotated[bool, Meta(description="Take a new place if the hold has expired.")] = False
    admission_pass: ShownPass = ""
    caller: CallerBody = CallerBody()


class ExtendBody(StepBody, frozen=True, kw_only=True):
    """The number of the extension: one more than the reservation's ``extensions``. A repeated number has one effect."""

    extension: Annotated[int, Meta(ge=1, le=EXTENSIONS_MAX)]


class RemoveApplicantBody(StepBody, frozen=True, kw_only=True):
    """The applicant who leaves the party. ``owner`` may be the same one."""

    applicant: Identity


class ReplaceApplicantBody(RequestBody, frozen=True, kw_only=True):
    """The applicant who leaves the party, and the one who takes their place and queue number."""

    applicant: Identity
    replacement: Identity
    expected_version: Version = 0


class RescheduleBody(SelectionBody, frozen=True, kw_only=True):
    """The new day and selection; ``office`` moves the reservation to another office.

    Another day or office needs what a reserve of it needs, such as the pass of its waiting room.
    """

    day: datetime.date
    office: OptionalId = ""
    owner: Annotated[str, Meta(max_length=256)] = ""
    expected_version: Version = 0
    admission_pass: ShownPass = ""
    caller: CallerBody = CallerBody()


class WaitListPositionBody(ResponseBody, frozen=True, kw_only=True):
    """Position on a day's wait list: ``ahead`` parties joined earlier and still wait, of ``waiting`` in all.

    At most ``ahead`` parties are served first, unless this party does not fit into a place where a smaller one does.
    """

    ahead: int
    waiting: int


class ReservationBody(ResponseBody, frozen=True, kw_only=True):
    """A reservation. ``deadline_at_ms`` is the end of its hold; ``queue_numbers`` has one number for each applicant.

    The numbers have gaps if an applicant has left the party since they were given.

    ``forced_moves`` of its ``moves`` left a day that the office had closed; they do not count toward the limit.
    ``extensions`` is how often its latest hold has been extended.

    ``wait_list_number`` is its number on the wait list, or 0. A ``HELD`` one with such a number is an offer of the list
    and can be declined. After ``declines`` declined offers, the list passes over it until ``paused_until_ms``.

    A check-in or no-show can be undone until ``undo_until_ms``, which is 0 in other states.

    A lookup adds ``wait_list_position`` to a reservation that is ``WAITING``, ``moved_to`` to one that is ``MOVED``,
    and ``extensions_left`` to one that is ``HELD``, if its office extends holds.
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
    forced_moves: int
    extensions: int
    wait_list_number: int = 0
    declines: int = 0
    paused_until_ms: int = 0
    undo_until_ms: int = 0
    extensions_left: int | UnsetType = UNSET
    wait_list_position: WaitListPositionBody | UnsetType = UNSET
    moved_to: str | UnsetType = UNSET


class OutcomeBody(ResponseBody, frozen=True, kw_only=True):
    """The outcome of a command. ``reason`` is the reason of the admission policy that refused.

    A hold or a release of a party that has let holds go without a confirm has ``abandoned_holds_left``: how many more
    it may let go before a block. ``blocked_until_ms`` of a hold is the end of the block if none is left and the hold
    expires; of a release, the end of the block. ``extensions_left`` is how often a hold may still be extended, if its
    office extends holds. ``revision`` is the day's, after an operator's command.
    """

    status: Status
    replayed: bool = False
    resumed: bool = False
    retry_at_ms: int = 0
    units: int = 0
    overbooked: int = 0
    reservation: ReservationBody | None = None
    reason: str = ""
    abandoned_holds_left: int | UnsetType = UNSET
    blocked_until_ms: int | UnsetType = UNSET
    revision: int | UnsetType = UNSET
    extensions_left: int | UnsetType = UNSET

    @property
    def ok(self) -> bool:
        """True if the command succeeded."""
        return self.status in SUCCESSES

    @property
    def reference(self) -> str:
        """The reservation's ``office~id``; ``""`` without a reservation."""
        return self.reservation.reference if self.reservation is not None else ""


class MovedToBody(ResponseBody, frozen=True, kw_only=True):
    """The new reference of a moved reservation; empty if it is unknown or no longer known."""

    reference: str


class DayListBody(ResponseBody, frozen=True, kw_only=True):
    """Reservations of a day: first by queue number, then those without one. ``total`` counts all of the day."""

    office: str
    day: datetime.date
    total: int
    reservations: list[ReservationBody]


def reservation_body(reservation: Reservation) -> ReservationBody:
    """Return the body of a reservation, without its applicants."""
    return ReservationBody(
        reference=reservation.reference,
        office=reservation.office,
        day=datetime.date.fromordinal(reservation.day),
        state=reservation.state,
        version=reservation.version,
        units=reservation.units,
        **selection_fields(reservation.choice),
        quotas=list(reservation.quotas),
        created_at_ms=reservation.created_at_ms,
        deadline_at_ms=reservation.deadline_at_ms,
        queue_numbers=list(reservation.queue_numbers),
        moves=reservation.moves,
        forced_moves=reservation.forced_moves,
        extensions=reservation.extensions,
        wait_list_number=reservation.wait_list_number,
        declines=reservation.declines,
        paused_until_ms=reservation.paused_until_ms,
        undo_until_ms=reservation.undo_until_ms,
    )


def outcome_body(outcome: Outcome) -> OutcomeBody:
    """Return the body of an outcome that is a success."""
    reservation, left = outcome.reservation, outcome.abandoned_holds_left
    return OutcomeBody(
        status=outcome.status,
        replayed=outcome.replayed,
        resumed=outcome.resumed,
        units=outcome.units,
        overbooked=outcome.overbooked,
        reservation=None if reservation is None else reservation_body(reservation),
        abandoned_holds_left=UNSET if left is None else left,
        blocked_until_ms=outcome.blocked_until_ms or UNSET,
        revision=outcome.revision or UNSET,
        extensions_left=outcome.extensions_left or UNSET,
    )
