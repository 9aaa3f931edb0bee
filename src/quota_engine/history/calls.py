"""The calls of a history, and the effects that the rules give them (``docs/rules.md``)."""

from __future__ import annotations

__all__ = [
    "ENDED",
    "FOREVER_MS",
    "MAY_REPEAT",
    "NAMES_OF_KIND",
    "NAMES_OF_VERB",
    "SUCCESSES",
    "CallRecord",
]

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from quota_engine.history.model import ReservationState, place_of

NAMES_OF_VERB: Final[dict[str, tuple[str, ...]]] = {
    "reserve": ("reserve",),
    "wait": ("reserve",),
    "confirm": ("confirm",),
    "reacquire": ("confirm",),
    "extend": ("extend",),
    "decline": ("decline",),
    "release": ("release",),
    "cancel": ("cancel",),
    "reschedule": ("reschedule",),
    "check_in": ("check_in",),
    "mark_no_show": ("mark_no_show",),
    "undo_attendance": ("undo_attendance",),
    "remove_applicant": ("remove_applicant",),
    "replace_applicant": ("replace_applicant",),
    "stay": ("stay",),
    "move_in": ("move_in",),
    "move_in_confirmed": ("move_in",),
    "move_out": ("move_out",),
    "undo_move": ("undo_move",),
}
"""By verb: the calls that can cause it. Time and the wait list cause all other events."""
NAMES_OF_KIND: Final = {"CapacitySet": "set_capacity", "DayClosed": "close_day", "DayOpened": "open_day"}
SUCCESSES: Final = frozenset(
    {"HELD", "WAITING", "CONFIRMED", "ATTENDED", "NO_SHOW", "RELEASED", "CANCELLED", "MOVED", "DONE"}
)
_REPLAYED_FOREVER: Final = frozenset({"reserve", "confirm", "release", "cancel", "extend"})
"""Calls whose effect nothing undoes but a later step, so that most refusals prove that no attempt took effect."""
_ATTENDANCE: Final = frozenset({"check_in", "mark_no_show", "undo_attendance"})
MAY_REPEAT: Final = _ATTENDANCE | {"decline", "stay", "reschedule", "replace_applicant", *NAMES_OF_KIND.values()}
"""Calls that may take effect once with each attempt, if other calls undo the effect in between."""
ENDED: Final = ("RELEASED", "EXPIRED", "CANCELLED", "MOVED")
FOREVER_MS: Final = 2**53


@dataclasses.dataclass(eq=False, slots=True)
class CallRecord:
    """A call of a client. Times are milliseconds of the history's real time.

    Attributes:
        name: the command, as in :data:`NAMES_OF_VERB` or :data:`NAMES_OF_KIND`.
        office: the office.
        id: the reservation's id; ``""`` for a call on a day.
        day: the ordinal of the day that it names, or 0.
        quota, capacity: the quota and the new capacity of ``set_capacity``.
        options: the quotas of each alternative of a reserve or reschedule.
        units: applicants of a reserve.
        began_at_ms: the time of the call.
        ended_at_ms: the time after which nothing of it may take effect.
        status: the status of the answer; ``""`` without one.
        is_unknown: True if there is no answer and the call may have taken effect.
        repeats: True if the answer says that an earlier call had the effect.
        shown: the record that the answer shows, if any.
    """

    name: str
    office: str
    id: str = ""
    day: int = 0
    quota: str = ""
    capacity: int = 0
    options: tuple[tuple[str, ...], ...] = ()
    units: int = 1
    began_at_ms: int = 0
    ended_at_ms: int = FOREVER_MS
    status: str = ""
    is_unknown: bool = False
    repeats: bool = False
    shown: ReservationState | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> CallRecord:
        """Return a call from a line of a history file."""
        fields = {**line, "options": tuple(map(tuple, line.get("options", ())))}
        if fields.get("shown"):
            fields["shown"] = place_of(fields["shown"])
        return cls(**fields)

    def __str__(self) -> str:
        answer = self.status + " again" * self.repeats if self.status else "unknown" if self.is_unknown else "no effect"
        what = self.id or f"day {self.day}"
        return f"{self.began_at_ms} to {self.ended_at_ms}: {self.office}: {self.name} {what}: {answer}"

    @property
    def may_act(self) -> bool:
        """True if the answer allows an effect, perhaps of an earlier attempt."""
        if not self.status:
            return self.is_unknown
        # A call that has taken effect may find, with its next attempt, that other calls have changed more since.
        return (
            self.status in SUCCESSES
            or self.status in ("RESERVATION_ENDED", "HOLD_EXPIRED", "WRONG_STATE", "STALE")
            or self.name not in _REPLAYED_FOREVER
        )

    @property
    def may_act_before_a_change(self) -> bool:
        """True if an earlier attempt may have acted, and the answer is about what others have changed since.

        They may have replaced the applicants, or have published the day with other names of its quotas.
        """
        return self.name in _REPLAYED_FOREVER and self.status in ("CONFLICT", "NOT_OWNER")

    @property
    def must_act(self) -> bool:
        """True if the answer says that this call had an effect."""
        return self.status in SUCCESSES and not self.repeats
