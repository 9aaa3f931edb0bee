"""What can be asked of one office's ledger. Commands check themselves when they are made (``Reserve``: when asked to).

Whoever sends a command again because the answer was lost gets the same answer. For ``Reserve`` the ``id`` is the
idempotency key; the other commands name the state they lead to, so that a second one finds it reached.
"""

from __future__ import annotations

__all__ = [
    "DAY_MAX",
    "Cancel",
    "CheckIn",
    "CloseDay",
    "Command",
    "Confirm",
    "Expire",
    "MarkNoShow",
    "MoveIn",
    "MoveOut",
    "OpenDay",
    "PrepareMove",
    "Publish",
    "ReallocateUnused",
    "Release",
    "ReleaseParked",
    "Reschedule",
    "Reserve",
    "SetCapacity",
    "SetRules",
    "UndoMove",
]

from typing import Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice, DayTerms, Rules
from quota_engine.domain.validation import (
    APPLICANTS_MAX,
    CAPACITY_MAX,
    DURATION_MS_MAX,
    TIME_MS_MAX,
    check_integer,
    check_name,
)

DAY_MAX: Final = 3_652_059
"""``datetime.date.max.toordinal()``"""

EXPIRE_MAX: Final = 10_000


class Reserve(msgspec.Struct, frozen=True, gc=False):
    """Hold places for a party: all of its applicants, in all quotas of one option, or nothing.

    With ``wait`` a party that finds no place joins the wait list in the same step. ``hold_ttl_ms`` 0 is the office's.
    After ``valid_until_ms`` (0: never) it is refused as ``LAPSED``: whoever sends it holds something elsewhere until
    then, and a call that was long on its way must not succeed without it. A known id is answered all the same.
    """

    id: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    join_wait_list: bool = False
    hold_ttl_ms: int = 0
    valid_until_ms: int = 0

    def check(self) -> None:
        """Raise :class:`InvalidRequest` unless the command is well formed.

        The one command that does not do this when it is made: it would cost a tenth of a reserve. The desk makes no
        other, and
        who takes commands from elsewhere calls this.
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
    if len(set(applicants)) != len(applicants):
        raise InvalidRequest("applicants", "one applicant twice", "each applicant once")


class _OnReservation(msgspec.Struct, frozen=True, gc=False):
    """A step of one reservation's life. ``owner`` and ``version`` are checked unless they are ``""`` and 0."""

    id: str
    owner: str = ""
    expected_version: int = 0

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        if self.owner:
            check_name(self.owner, "owner")
        check_integer(self.expected_version, "version", 0, 2**31)


class Confirm(_OnReservation, frozen=True, gc=False):
    """Make a hold a place, and give it a queue number. With ``reacquire`` a late one takes new units, if any, but not
    after ``valid_until_ms`` (0: whenever), for the same reason as with :class:`Reserve`.
    """

    reacquire: bool = False
    valid_until_ms: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.reacquire, bool):
            raise InvalidRequest("reacquire", f"a {type(self.reacquire).__name__}", "True or False")
        check_integer(self.valid_until_ms, "valid_until_ms", 0, TIME_MS_MAX)


class Release(_OnReservation, frozen=True, gc=False):
    """Give up a hold, or leave the wait list."""


class Cancel(_OnReservation, frozen=True, gc=False):
    """Give up a confirmed place, before its day has ended."""


class CheckIn(_OnReservation, frozen=True, gc=False):
    """The party has come: from the day's start to its end."""


class MarkNoShow(_OnReservation, frozen=True, gc=False):
    """The party has not come: from the day's start on."""


class Reschedule(msgspec.Struct, frozen=True):
    """Move to another day or choice of the same office: take the new place and give the old one back, in one step."""

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
        check_integer(self.expected_version, "version", 0, 2**31)


class PrepareMove(_OnReservation, frozen=True, gc=False):
    """May it be moved to another office? Changes nothing; the answer shows it as it stands."""


class MoveIn(msgspec.Struct, frozen=True):
    """Take a place for a reservation of another office, which is given up there by :class:`MoveOut` once this is done.

    It becomes held until ``deadline_ms``, as it was there; with ``deadline_ms`` 0 it has its place for good, as it had
    there, and a queue number. ``moves`` is how often it will have been moved with this. ``id`` is made of the source
    and the target, so that the same move finds itself. ``valid_until_ms`` is as in :class:`Reserve`.
    """

    id: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    deadline_at_ms: int
    moves: int
    valid_until_ms: int = 0

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_integer(self.day, "day", 1, DAY_MAX)
        _check_party(self.applicants)
        check_integer(self.deadline_at_ms, "deadline_ms", 0, TIME_MS_MAX)
        check_integer(self.moves, "moves", 1, 2**31)
        check_integer(self.valid_until_ms, "valid_until_ms", 0, TIME_MS_MAX)


class MoveOut(_OnReservation, frozen=True, gc=False):
    """Give up what has its place at another office now. It is no cancellation, and no rule stands in its way."""


class UndoMove(_OnReservation, frozen=True, gc=False):
    """Give up what was moved in: the move came to nothing, and its source keeps its place. No cancellation, either."""


class Expire(msgspec.Struct, frozen=True, gc=False):
    """Sweep one day: expire up to ``limit`` overdue holds. Pure hygiene: nothing depends on it."""

    day: int
    limit: int = 100

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)
        check_integer(self.limit, "limit", 1, EXPIRE_MAX)


class SetRules(msgspec.Struct, frozen=True):
    """Set the office's rules. Holds that exist keep their deadlines."""

    rules: Rules


class Publish(msgspec.Struct, frozen=True):
    """Make a day known. A known one keeps its capacities; times, rules of quotas and new quotas are taken over."""

    day: int
    terms: DayTerms

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)


class SetCapacity(msgspec.Struct, frozen=True, gc=False):
    """Set a quota's capacity. Below what is taken, the difference is overbooked, and sells nothing until worked off.

    Not for a quota that passes its units on already (``WRONG_STATE``): set the one that gets them.
    """

    day: int
    quota: str
    capacity: int

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)
        check_name(self.quota, "quota")
        check_integer(self.capacity, "capacity", 0, CAPACITY_MAX)


class CloseDay(msgspec.Struct, frozen=True, gc=False):
    """Stop a day: no reserve, no confirm, no offer. What is held or confirmed can be released, cancelled or moved."""

    day: int

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)


class OpenDay(msgspec.Struct, frozen=True, gc=False):
    """Take a ``CloseDay`` back."""

    day: int

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)


class ReallocateUnused(msgspec.Struct, frozen=True, gc=False):
    """Pass an allotment's available units on to the quota its terms name, now, whatever time the terms say."""

    day: int
    quota: str

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)
        check_name(self.quota, "quota")


class ReleaseParked(msgspec.Struct, frozen=True, gc=False):
    """Make the units that wait for the next draw available: the draw has come."""

    day: int
    quota: str

    def __post_init__(self) -> None:
        check_integer(self.day, "day", 1, DAY_MAX)
        check_name(self.quota, "quota")


Command = (
    Reserve
    | Confirm
    | Release
    | Cancel
    | CheckIn
    | MarkNoShow
    | Reschedule
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
