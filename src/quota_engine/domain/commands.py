"""The commands of one office's ledger. A command validates its fields when it is created (``Reserve``: in ``check``).

Commands are idempotent: a caller that lost the answer sends the same command again. ``Reserve`` and ``MoveIn`` have an
idempotency key as ``id``. The other commands name the state they lead to, so that the second one is a replay.

Common fields: ``day`` is a date's ordinal, 1 to :data:`DAY_MAX`. ``id`` is the reservation's id, 1 to 64 characters of
``A-Z a-z 0-9 _ -``. ``deadline_at_ms`` and ``valid_until_ms`` are milliseconds since 1970 (UTC).
"""

from __future__ import annotations

__all__ = [
    "DAY_MAX",
    "EXPIRE_MAX",
    "REVISION_MAX",
    "Cancel",
    "CheckIn",
    "CloseDay",
    "Command",
    "Confirm",
    "Decline",
    "Expire",
    "Extend",
    "MarkNoShow",
    "MoveIn",
    "MoveOut",
    "OpenDay",
    "PrepareMove",
    "Publish",
    "ReallocateUnused",
    "Release",
    "ReleaseParked",
    "RemoveApplicant",
    "ReplaceApplicant",
    "Reschedule",
    "Reserve",
    "SetCapacity",
    "SetRules",
    "Stay",
    "UndoAttendance",
    "UndoMove",
]

from typing import Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import EXTENSIONS_MAX, Choice, DayTerms, Rules
from quota_engine.domain.validation import (
    APPLICANTS_MAX,
    CAPACITY_MAX,
    DURATION_MS_MAX,
    TIME_MS_MAX,
    check_integer,
    check_name,
)

DAY_MAX: Final = 3_652_059
"""The largest day: ``datetime.date.max.toordinal()``."""

REVISION_MAX: Final = 2**31
"""The largest ``expected_revision`` of an operator's command."""

EXPIRE_MAX: Final = 10_000
"""The largest ``limit`` of an ``Expire`` command."""


class Reserve(msgspec.Struct, frozen=True, gc=False):
    """Hold units for a party: for all of its applicants, in all quotas of one option, or not at all.

    Attributes:
        id: the idempotency key; it becomes the reservation's id.
        day: the day to book.
        applicants: keyed hashes, 1 to 100, each once.
        choice: what is booked, and the options that can serve it.
        join_wait_list: join the day's wait list in the same step if no option has room.
        hold_ttl_ms: length of the hold, at most 10 years; 0 means the office's rule.
        valid_until_ms: after this time a new key is refused with ``COMMAND_EXPIRED``; 0 means never. The caller holds a
            claim elsewhere until then, and a delayed copy of the command must not succeed without that claim.
    """

    id: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    join_wait_list: bool = False
    hold_ttl_ms: int = 0
    valid_until_ms: int = 0

    def __post_init__(self) -> None:
        if len(self.applicants) > 1:
            _check_distinct(self.applicants)

    def check(self) -> None:
        """Validate the fields.

        ``Reserve`` does not do so when it is created, because the check costs a tenth of a reserve; it only refuses an
        applicant who is named twice. The request builder validates its input once. Code that gets commands from
        elsewhere must call this method.

        Raises:
            InvalidRequest: a field is malformed or out of range.
        """
        check_name(self.id, "id")
        check_integer(self.day, "day", 1, DAY_MAX)
        check_integer(self.hold_ttl_ms, "hold_ttl_ms", 0, DURATION_MS_MAX)
        check_integer(self.valid_until_ms, "valid_until_ms", 0, TIME_MS_MAX)
        _check_party(self.applicants)


def _check_party(applicants: tuple[str, ...]) -> None:
    if not 1 <= len(applicants) <= APPLICANTS_MAX:
        raise InvalidRequest("applicants", f"{len(applicants)} applicants", f"1 to {APPLICANTS_MAX}")
    for applicant in applicants:
        check_name(applicant, "applicants")
    _check_distinct(applicants)


def _check_distinct(applicants: tuple[str, ...]) -> None:
    """Refuse a party with one applicant twice: the applicant would get two places, and count as one."""
    if len(set(applicants)) != len(applicants):
        raise InvalidRequest("applicants", "one applicant twice", "each applicant once")


class _OnReservation(msgspec.Struct, frozen=True, gc=False):
    """A step of one reservation.

    Attributes:
        id: the reservation's id.
        owner: an applicant's keyed hash that must be one of the party's; ``""`` skips the check.
        expected_version: the version that the caller has seen; 0 skips the check.
    """

    id: str
    owner: str = ""
    expected_version: int = 0

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        if self.owner:
            check_name(self.owner, "owner")
        check_integer(self.expected_version, "expected_version", 0, 2**31)


class Confirm(_OnReservation, frozen=True, gc=False):
    """Confirm a hold and assign queue numbers.

    Attributes:
        reacquire: if the hold has expired, take new units for the same choice.
        valid_until_ms: reacquire nothing after this time; 0 means no limit. See :class:`Reserve`.
    """

    reacquire: bool = False
    valid_until_ms: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.reacquire, bool):
            raise InvalidRequest("reacquire", f"a {type(self.reacquire).__name__}", "True or False")
        check_integer(self.valid_until_ms, "valid_until_ms", 0, TIME_MS_MAX)


class Extend(_OnReservation, frozen=True, gc=False):
    """Move the deadline of a hold, while its party fills in a form or pays.

    Attributes:
        extension: the number of the extension: 1 for the first one of a hold, at most :data:`EXTENSIONS_MAX`. A hold
            that has had it already makes the command a replay.
    """

    extension: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self.extension, "extension", 1, EXTENSIONS_MAX)


class RemoveApplicant(_OnReservation, frozen=True, gc=False):
    """Take one applicant out of a party, and return their units. The rest keep their places and queue numbers.

    Attributes:
        applicant: the keyed hash of the applicant who leaves.
    """

    applicant: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.applicant, "applicant")


class ReplaceApplicant(msgspec.Struct, frozen=True, gc=False):
    """Put another applicant in the place of one of a party. An operator's command: it has no owner.

    Attributes:
        id: the reservation's id.
        applicant: the keyed hash of the applicant who leaves.
        replacement: the keyed hash of the applicant who takes their place.
        expected_version: as for the other steps of a reservation.
        valid_until_ms: after this time the command is refused with ``COMMAND_EXPIRED``; 0 means never. See
            :class:`Reserve`.
    """

    id: str
    applicant: str
    replacement: str
    expected_version: int = 0
    valid_until_ms: int = 0

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_name(self.applicant, "applicant")
        check_name(self.replacement, "replacement")
        if self.applicant == self.replacement:
            raise InvalidRequest("replacement", "the same applicant", "another applicant")
        check_integer(self.expected_version, "expected_version", 0, 2**31)
        check_integer(self.valid_until_ms, "valid_until_ms", 0, TIME_MS_MAX)


class Release(_OnReservation, frozen=True, gc=False):
    """Release a hold, or leave the wait list."""


class Decline(_OnReservation, frozen=True, gc=False):
    """Decline an offer of the wait list and keep the place on the list. The offer goes to the next party."""


class Cancel(_OnReservation, frozen=True, gc=False):
    """Cancel a confirmed reservation before its day has ended."""


class CheckIn(_OnReservation, frozen=True, gc=False):
    """Record that the party has come. Possible after the day has started and before it has ended."""


class MarkNoShow(_OnReservation, frozen=True, gc=False):
    """Record that the party has not come. Possible from the day's start on."""


class UndoAttendance(_OnReservation, frozen=True, gc=False):
    """Undo a check-in or no-show that was recorded in error. The party is confirmed again, and not blocked for it.

    Possible until the record's ``undo_until_ms``. Give ``expected_version``: a late copy of the command must not undo a
    check-in that followed.
    """


class Reschedule(msgspec.Struct, frozen=True):
    """Move a reservation to another day or choice of the same office, in one step.

    Attributes:
        id: the reservation's id.
        day: the day to move to; it may be the present one.
        choice: the choice to move to.
        owner, expected_version: as for the other steps of a reservation.
    """

    id: str
    day: int
    choice: Choice
    owner: str = ""
    expected_version: int = 0

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_integer(self.day, "day", 1, DAY_MAX)
        if self.owner:
            check_name(self.owner, "owner")
        check_integer(self.expected_version, "expected_version", 0, 2**31)


class Stay(_OnReservation, frozen=True, gc=False):
    """Record that a confirmed party of a closed day has no place elsewhere, and keeps its place there.

    Each command leaves an event. Give ``expected_version``, so that a repeated one is refused with ``STALE``.
    """


class PrepareMove(_OnReservation, frozen=True, gc=False):
    """Check if the reservation may be moved to another office. Changes nothing; the outcome shows the record."""


class MoveIn(msgspec.Struct, frozen=True):
    """Take units for a reservation that moves here from another office. :class:`MoveOut` ends it there afterwards.

    Attributes:
        id: the idempotency key. It is derived from source and target, so that a repeated move finds itself.
        day, applicants, choice, valid_until_ms: as for :class:`Reserve`.
        deadline_at_ms: the deadline of the hold that moves; 0 if the reservation is confirmed, which also assigns queue
            numbers.
        moves: how often the reservation has been moved, this move included; 1 or more.
        forced_moves: how many of these moves left a closed day; at most ``moves``.
        extensions: how often the hold that moves has been extended.
    """

    id: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    deadline_at_ms: int
    moves: int
    valid_until_ms: int = 0
    forced_moves: int = 0
    extensions: int = 0

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_integer(self.day, "day", 1, DAY_MAX)
        _check_party(self.applicants)
        check_integer(self.deadline_at_ms, "deadline_at_ms", 0, TIME_MS_MAX)
        check_integer(self.moves, "moves", 1, 2**31)
        check_integer(self.forced_moves, "forced_moves", 0, self.moves)
        check_integer(self.extensions, "extensions", 0, EXTENSIONS_MAX)
        check_integer(self.valid_until_ms, "valid_until_ms", 0, TIME_MS_MAX)


class MoveOut(_OnReservation, frozen=True, gc=False):
    """End a reservation that has its units at another office now. No rule forbids it, and no penalty follows."""


class UndoMove(_OnReservation, frozen=True, gc=False):
    """Release the target of a failed move. The source keeps its units, and no penalty follows."""


class Expire(msgspec.Struct, frozen=True, gc=False):
    """Sweep one day: expire up to ``limit`` overdue holds, 1 to :data:`EXPIRE_MAX`. No outcome depends on a sweep."""

    day: int
    limit: int = 100

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)
        check_integer(self.limit, "limit", 1, EXPIRE_MAX)


class SetRules(msgspec.Struct, frozen=True):
    """Set the office's rules. Existing holds keep their deadlines."""

    rules: Rules


class Publish(msgspec.Struct, frozen=True):
    """Publish a day. A known day keeps its capacities; it takes over times, quota rules and new quotas."""

    day: int
    terms: DayTerms

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)


class SetCapacity(msgspec.Struct, frozen=True, gc=False):
    """Set a quota's capacity, 0 to 10,000,000 units.

    If more units are in use, the difference is overbooked, and the quota has none available until it is cleared. After
    a quota's reallocation time the command is refused with ``WRONG_STATE``: set the capacity of the receiving quota.

    Attributes:
        day, quota, capacity: the quota of a day, and its new capacity.
        expected_revision: as for :class:`CloseDay`.
    """

    day: int
    quota: str
    capacity: int
    expected_revision: int = 0

    def __post_init__(self) -> None:
        _check_operation(self.day, self.expected_revision)
        check_name(self.quota, "quota")
        check_integer(self.capacity, "capacity", 0, CAPACITY_MAX)


class CloseDay(msgspec.Struct, frozen=True, gc=False):
    """Close a day: no reserve, confirm, offer or no-show.

    Its people can cancel and move away at any time until the day is forgotten. Nothing that they do there counts
    against them, and their claims on the day do not count toward any limit.

    Attributes:
        day: the day.
        expected_revision: the revision that the operator has seen, 0 to :data:`REVISION_MAX`. If the day has another
            one, the command is refused with ``STALE``, unless its effect exists already. 0 skips the check.
    """

    day: int
    expected_revision: int = 0

    def __post_init__(self) -> None:
        _check_operation(self.day, self.expected_revision)


class OpenDay(msgspec.Struct, frozen=True, gc=False):
    """Open a closed day again. The reservations that are still there count again.

    The outcome's ``units`` are the confirmed units that have left the day since it was closed last.
    The attributes are those of :class:`CloseDay`.
    """

    day: int
    expected_revision: int = 0

    def __post_init__(self) -> None:
        _check_operation(self.day, self.expected_revision)


class ReallocateUnused(msgspec.Struct, frozen=True, gc=False):
    """Reallocate an allotment's available units now, before the time that its terms set.

    The attributes are those of :class:`SetCapacity`.
    """

    day: int
    quota: str
    expected_revision: int = 0

    def __post_init__(self) -> None:
        _check_operation(self.day, self.expected_revision)
        check_name(self.quota, "quota")


class ReleaseParked(msgspec.Struct, frozen=True, gc=False):
    """Make a quota's parked units available, because the next draw takes place.

    The attributes are those of :class:`SetCapacity`.
    """

    day: int
    quota: str
    expected_revision: int = 0

    def __post_init__(self) -> None:
        _check_operation(self.day, self.expected_revision)
        check_name(self.quota, "quota")


def _check_operation(day: int, expected_revision: int) -> None:
    check_integer(day, "day", 1, DAY_MAX)
    check_integer(expected_revision, "expected_revision", 0, REVISION_MAX)


Command = (
    Reserve
    | Confirm
    | Extend
    | RemoveApplicant
    | ReplaceApplicant
    | Release
    | Decline
    | Cancel
    | CheckIn
    | MarkNoShow
    | UndoAttendance
    | Reschedule
    | Stay
    | PrepareMove
    | MoveIn
    | MoveOut
    | UndoMove
    | Expire
    | SetRules
    | Publish
    | SetCapacity
    | CloseDay
    | OpenDay
    | ReallocateUnused
    | ReleaseParked
)
