"""The life cycle of a reservation, as data. The machine reads it; the diagram in ``docs/`` is made from it."""

from __future__ import annotations

__all__ = ["ACTIVE", "FINAL", "TRANSITIONS", "State", "Verb"]

import enum
from typing import Final


class State(enum.StrEnum):
    """Where a reservation stands."""

    __hash__ = str.__hash__  # Enum's own is a Python function, and the hot path looks members up in tables

    WAITING = "WAITING"
    """On the wait list: claims the identity limit, consumes no unit."""
    HELD = "HELD"
    """Units are claimed until a deadline."""
    CONFIRMED = "CONFIRMED"
    """Units are claimed for good, and a queue number has been given."""
    ATTENDED = "ATTENDED"
    NO_SHOW = "NO_SHOW"
    RELEASED = "RELEASED"
    """Given up before it was confirmed; or taken back, because its move from another office came to nothing."""
    EXPIRED = "EXPIRED"
    """The deadline of the hold passed first."""
    CANCELLED = "CANCELLED"
    """Given up after it was confirmed."""
    MOVED = "MOVED"
    """Gone to another office, where a reservation of its own carries it on."""


class Verb(enum.StrEnum):
    """What happened to a reservation; the name of the event it leaves."""

    __hash__ = str.__hash__  # Enum's own is a Python function, and the hot path looks members up in tables

    RESERVE = "reserve"
    WAIT = "wait"
    OFFER = "offer"
    CONFIRM = "confirm"
    REACQUIRE = "reacquire"
    RELEASE = "release"
    EXPIRE = "expire"
    CANCEL = "cancel"
    RESCHEDULE = "reschedule"
    CHECK_IN = "check_in"
    MARK_NO_SHOW = "mark_no_show"
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
    (State.HELD, Verb.CONFIRM): State.CONFIRMED,
    (State.HELD, Verb.RELEASE): State.RELEASED,
    (State.HELD, Verb.EXPIRE): State.EXPIRED,
    (State.HELD, Verb.RESCHEDULE): State.HELD,
    (State.HELD, Verb.MOVE_OUT): State.MOVED,
    (State.HELD, Verb.UNDO_MOVE): State.RELEASED,
    (State.CONFIRMED, Verb.RESCHEDULE): State.CONFIRMED,
    (State.CONFIRMED, Verb.MOVE_OUT): State.MOVED,
    (State.CONFIRMED, Verb.UNDO_MOVE): State.RELEASED,
    (State.CONFIRMED, Verb.CANCEL): State.CANCELLED,
    (State.CONFIRMED, Verb.CHECK_IN): State.ATTENDED,
    (State.CONFIRMED, Verb.MARK_NO_SHOW): State.NO_SHOW,
    (State.EXPIRED, Verb.REACQUIRE): State.CONFIRMED,
}
"""Every permitted step; ``None`` is "no reservation yet". What is not here is ``WRONG_STATE``."""

FINAL: Final = frozenset({State.ATTENDED, State.NO_SHOW, State.RELEASED, State.EXPIRED, State.CANCELLED, State.MOVED})
"""States that no time leads out of (an expired one may still be re-acquired by a late confirm)."""

ACTIVE: Final = frozenset({State.WAITING, State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW})
"""States that count against the identity limits."""
