"""What a command came to. "Full" is an outcome, not an exception."""

from __future__ import annotations

__all__ = ["PRECEDENCE", "SUCCESSES", "DayView", "Outcome", "QuotaView", "Status", "WaitListPosition"]

import enum
from typing import Final

import msgspec

from quota_engine.domain.model import Reservation


class Status(enum.StrEnum):
    """The answer in a word. Members stand in order of precedence: the first that applies is the answer."""

    __hash__ = str.__hash__  # Enum's own is a Python function, and the hot path looks members up in tables

    OVERLOADED = "OVERLOADED"
    """Too many calls wait for the store already: this one was turned away before anything was looked at."""
    CONFLICT = "CONFLICT"
    """The idempotency key was used for another body; or rules come with another seed than the office's."""
    RESERVATION_ENDED = "RESERVATION_ENDED"
    """The key's reservation has been released, expired, cancelled or moved away since; see its state."""
    NOT_ADMITTED = "NOT_ADMITTED"
    """Admission says no: a policy denies it (see ``reason``), or the pass has been used or is over."""
    THROTTLED = "THROTTLED"
    """Admission says not now (see ``reason``): come again at ``retry_at_ms``."""
    COMMAND_EXPIRED = "COMMAND_EXPIRED"
    """It came after the last moment that was set for it, and changed nothing: ask again."""
    MOVING = "MOVING"
    """Another move of it between offices is under way, until ``retry_at_ms`` at the latest."""
    NOT_FOUND = "NOT_FOUND"
    """No reservation of this id, or its day has been forgotten."""
    UNKNOWN_DAY = "UNKNOWN_DAY"
    """The day was never published, or has been forgotten."""
    UNKNOWN_QUOTA = "UNKNOWN_QUOTA"
    """The day has no quota of this name."""
    NOT_OWNER = "NOT_OWNER"
    """The owner given is not one of the reservation's applicants."""
    HOLD_EXPIRED = "HOLD_EXPIRED"
    """The hold's deadline has passed."""
    STALE = "STALE"
    """The reservation has moved on since the version given."""
    WRONG_STATE = "WRONG_STATE"
    """The life cycle has no such step from here."""
    DAY_CLOSED = "DAY_CLOSED"
    """The office closed the day."""
    DAY_OVER = "DAY_OVER"
    """The day has ended."""
    NOT_OPEN = "NOT_OPEN"
    """The day's quota opens at ``retry_at_ms``."""
    TOO_EARLY = "TOO_EARLY"
    """The day has not started: nobody can come, or fail to."""
    TOO_LATE = "TOO_LATE"
    """The last moment for this has passed."""
    MOVES_EXCEEDED = "MOVES_EXCEEDED"
    """It has been rescheduled as often as the office allows."""
    PARTY_TOO_LARGE = "PARTY_TOO_LARGE"
    """More applicants than the office takes together."""
    BLOCKED = "BLOCKED"
    """An applicant is blocked until ``retry_at_ms``."""
    IDENTITY_LIMIT = "IDENTITY_LIMIT"
    """An applicant has as many active places as the office allows."""
    SOLD_OUT = "SOLD_OUT"
    """No option has room for the party."""
    WAIT_LIST_FULL = "WAIT_LIST_FULL"
    """No room, and none on the wait list either."""

    HELD = "HELD"
    WAITING = "WAITING"
    CONFIRMED = "CONFIRMED"
    ATTENDED = "ATTENDED"
    NO_SHOW = "NO_SHOW"
    RELEASED = "RELEASED"
    CANCELLED = "CANCELLED"
    MOVED = "MOVED"
    DONE = "DONE"
    """An operator's command has been carried out."""


PRECEDENCE: Final = tuple(Status)

SUCCESSES: Final = frozenset(PRECEDENCE[PRECEDENCE.index(Status.HELD) :])


class WaitListPosition(msgspec.Struct, frozen=True, gc=False):
    """Where somebody stands on the wait list of a day.

    ``ahead`` joined earlier and still wait, for whatever; so at most as many parties are served before this one, unless
    it does not fit where a smaller one does. ``waiting`` counts all on the list, this party with them.
    """

    ahead: int
    waiting: int


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The answer to one command.

    ``reservation`` is the record after the command; with a refusal it is the one in the way, if it is the asker's
    own. ``replayed`` says that the effect had been reached before: status and record tell the truth of now.
    ``resumed`` says that the same party has this place already, under another key. ``units`` counts what an operator's
    command moved or expired, and ``overbooked`` what ``SetCapacity`` left over. ``reason`` is a word of the admission
    policy that refused.
    """

    status: Status
    reservation: Reservation | None = None
    replayed: bool = False
    resumed: bool = False
    retry_at_ms: int = 0
    units: int = 0
    overbooked: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the asker has what they asked for."""
        return self.status in SUCCESSES

    @property
    def reference(self) -> str:
        """The reservation's ``office~id``, or ``""`` if there is none."""
        return self.reservation.reference if self.reservation is not None else ""

    @property
    def deadline_at_ms(self) -> int:
        """When the reservation's hold ends or ended, in milliseconds since 1970 (UTC); 0 if there is none."""
        return self.reservation.deadline_at_ms if self.reservation is not None else 0

    @property
    def queue_numbers(self) -> range:
        """The reservation's queue numbers, one an applicant; empty if it has none."""
        return self.reservation.queue_numbers if self.reservation is not None else range(0)


class QuotaView(msgspec.Struct, frozen=True, gc=False):
    """The counters of one quota: ``capacity + overbooked == available + held + confirmed + cooling``.

    ``cooling`` counts all units that were given back and are not available yet; ``parked`` are those among them that
    wait for the next draw.
    """

    capacity: int
    available: int
    held: int
    confirmed: int
    cooling: int
    parked: int
    overbooked: int


class DayView(msgspec.Struct, frozen=True):
    """One office-day as it stands: overdue holds count as given back, whether or not a sweep has seen them."""

    day: int
    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    closed: bool
    waiting: int
    quotas: dict[str, QuotaView]
