"""The life cycle of a reservation, as data. The state machine reads it; ``docs/generate.py`` draws it."""

from __future__ import annotations

__all__ = ["ACTIVE", "CONSUMING", "FINAL", "TRANSITIONS", "State", "Verb"]

import enum
from typing import Final


class State(enum.StrEnum):
    """The state of a reservation."""

    __hash__ = str.__hash__  # Enum.__hash__ is a Python function, and the hot path looks members up in dictionaries

    WAITING = "WAITING"
    """On the wait list. It counts against the identity limits and consumes no units."""
    HELD = "HELD"
    """It has units until its deadline."""
    CONFIRMED = "CONFIRMED"
    """It has units permanently, and queue numbers."""
    ATTENDED = "ATTENDED"
    """The party came."""
    NO_SHOW = "NO_SHOW"
    """The party did not come."""
    RELEASED = "RELEASED"
    """Released before it was confirmed, or after its move from another office failed."""
    EXPIRED = "EXPIRED"
    """The deadline passed before the hold was confirmed."""
    CANCELLED = "CANCELLED"
    """Cancelled after it was confirmed."""
    MOVED = "MOVED"
    """Moved to another office, where another reservation continues it."""


class Verb(enum.StrEnum):
    """The name of a step, and of the event that it leaves."""

    __hash__ = str.__hash__  # as in State

    RESERVE = "reserve"
    WAIT = "wait"
    OFFER = "offer"
    DECLINE = "decline"
    CONFIRM = "confirm"
    REACQUIRE = "reacquire"
    EXTEND = "extend"
    REMOVE_APPLICANT = "remove_applicant"
    REPLACE_APPLICANT = "replace_applicant"
    RELEASE = "release"
    EXPIRE = "expire"
    CANCEL = "cancel"
    RESCHEDULE = "reschedule"
    CHECK_IN = "check_in"
    MARK_NO_SHOW = "mark_no_show"
    UNDO_ATTENDANCE = "undo_attendance"
    STAY = "stay"
    MOVE_IN = "move_in"
    MOVE_IN_CONFIRMED = "move_in_confirmed"
    MOVE_OUT = "move_out"
    UNDO_MOVE = "undo_move"


TRANSITIONS: Final[dict[tuple[State | None, Verb], State]] = {
    (None, Verb.RESERVE): State.HELD,
    (None, Verb.WAIT): State.WAITING,
    (None, Verb.MOVE_IN): State.HELD,
    (None, Verb.MOVE_IN_CONFIRMED): State.CONFIRMED,
    (State.WAITING, Verb.OFFER): State.HELD,
    (State.WAITING, Verb.RELEASE): State.RELEASED,
    (State.HELD, Verb.DECLINE): State.WAITING,
    (State.HELD, Verb.CONFIRM): State.CONFIRMED,
    (State.HELD, Verb.EXTEND): State.HELD,
    **{
        (state, verb): state
        for state in (State.WAITING, State.HELD, State.CONFIRMED)
        for verb in (Verb.REMOVE_APPLICANT, Verb.REPLACE_APPLICANT)
    },
    (State.HELD, Verb.RELEASE): State.RELEASED,
    (State.HELD, Verb.EXPIRE): State.EXPIRED,
    (State.HELD, Verb.RESCHEDULE): State.HELD,
    (State.HELD, Verb.MOVE_OUT): State.MOVED,
    (State.HELD, Verb.UNDO_MOVE): State.RELEASED,
    (State.CONFIRMED, Verb.RESCHEDULE): State.CONFIRMED,
    (State.CONFIRMED, Verb.STAY): State.CONFIRMED,
    (State.CONFIRMED, Verb.MOVE_OUT): State.MOVED,
    (State.CONFIRMED, Verb.UNDO_MOVE): State.RELEASED,
    (State.CONFIRMED, Verb.CANCEL): State.CANCELLED,
    (State.CONFIRMED, Verb.CHECK_IN): State.ATTENDED,
    (State.CONFIRMED, Verb.MARK_NO_SHOW): State.NO_SHOW,
    (State.ATTENDED, Verb.UNDO_ATTENDANCE): State.CONFIRMED,
    (State.NO_SHOW, Verb.UNDO_ATTENDANCE): State.CONFIRMED,
    (State.EXPIRED, Verb.REACQUIRE): State.CONFIRMED,
}
"""Every permitted step, as (state, verb) to the next state. The state ``None`` means that there is no reservation yet.
A step that is not listed is refused with ``WRONG_STATE``.
"""

FINAL: Final = frozenset({State.ATTENDED, State.NO_SHOW, State.RELEASED, State.EXPIRED, State.CANCELLED, State.MOVED})
"""States that time alone does not end. A late confirm may still reacquire an expired hold, and the staff may undo a
check-in or no-show.
"""

ACTIVE: Final = frozenset({State.WAITING, State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW})
"""States that count against the identity limits."""

CONSUMING: Final = frozenset({State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW})
"""States in which a reservation consumes units."""
