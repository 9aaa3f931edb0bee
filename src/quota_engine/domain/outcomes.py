"""Outcomes of commands, and views of a day. "Sold out" is an outcome, not an exception."""

from __future__ import annotations

__all__ = ["PRECEDENCE", "SUCCESSES", "AbandonedHolds", "DayView", "Outcome", "QuotaView", "Status", "WaitListPosition"]

import datetime
import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from quota_engine.domain.model import Reservation, SessionTerms, find_session
from quota_engine.domain.notebook_tables import html_table


class Status(enum.StrEnum):
    """The name of an outcome. Members are in order of precedence: the first that applies is the status."""

    __hash__ = str.__hash__  # Enum.__hash__ is a Python function, and the hot path looks members up in dictionaries

    OVERLOADED = "OVERLOADED"
    """The queue of calls to the store is full. The command was rejected before it was sent."""
    CONFLICT = "CONFLICT"
    """The idempotency key was used with another body, or the rules have another jitter seed than the office."""
    RESERVATION_ENDED = "RESERVATION_ENDED"
    """The reservation of this key has been released, expired, cancelled or moved away; see its state."""
    NOT_ADMITTED = "NOT_ADMITTED"
    """A policy denies admission (see ``reason``), or the admission pass has been used or has expired."""
    THROTTLED = "THROTTLED"
    """A policy asks the caller to wait (see ``reason``). Retry at ``retry_at_ms``."""
    COMMAND_EXPIRED = "COMMAND_EXPIRED"
    """The command arrived after its ``valid_until_ms`` and changed nothing. Send a new one."""
    MOVING = "MOVING"
    """Another move of the reservation between offices is in progress, until ``retry_at_ms`` at the latest."""
    NOT_FOUND = "NOT_FOUND"
    """There is no reservation of this id, or its day has been forgotten."""
    UNKNOWN_DAY = "UNKNOWN_DAY"
    """The day was never published, or has been forgotten."""
    UNKNOWN_QUOTA = "UNKNOWN_QUOTA"
    """The day has no quota of this name."""
    NOT_OWNER = "NOT_OWNER"
    """The given owner is not one of the reservation's applicants."""
    NOT_IN_PARTY = "NOT_IN_PARTY"
    """The applicant is not one of the reservation's applicants."""
    HOLD_EXPIRED = "HOLD_EXPIRED"
    """The hold's deadline has passed."""
    STALE = "STALE"
    """The reservation has changed since the given version, or the day since the given revision."""
    WRONG_STATE = "WRONG_STATE"
    """The life cycle has no such step from the present state."""
    DAY_CLOSED = "DAY_CLOSED"
    """The office has closed the day."""
    DAY_OVER = "DAY_OVER"
    """The day has ended."""
    SESSION_OVER = "SESSION_OVER"
    """The session has ended, or can no longer be booked. Another session of the day may still be open."""
    NOT_OPEN = "NOT_OPEN"
    """The day opens for booking at ``retry_at_ms``."""
    TOO_EARLY = "TOO_EARLY"
    """The day has not started, so there is no check-in and no no-show yet."""
    TOO_LATE = "TOO_LATE"
    """The last moment for a reschedule, or for the undo of a check-in or no-show, has passed."""
    MOVES_EXCEEDED = "MOVES_EXCEEDED"
    """The reservation has been moved as often as the office allows."""
    EXTENSIONS_EXCEEDED = "EXTENSIONS_EXCEEDED"
    """The hold has been extended as often as the office allows."""
    DECLINES_EXCEEDED = "DECLINES_EXCEEDED"
    """The party has declined as many offers of the wait list as the office allows."""
    PARTY_TOO_LARGE = "PARTY_TOO_LARGE"
    """The party has more applicants than the office allows."""
    PARTY_TOO_SMALL = "PARTY_TOO_SMALL"
    """The party would have no applicant left. Release or cancel the reservation instead."""
    BLOCKED = "BLOCKED"
    """An applicant is blocked until ``retry_at_ms``."""
    IDENTITY_LIMIT = "IDENTITY_LIMIT"
    """An applicant has as many active reservations as the office allows."""
    SOLD_OUT = "SOLD_OUT"
    """No option has enough available units for the party."""
    WAIT_LIST_FULL = "WAIT_LIST_FULL"
    """No option has enough available units, and the wait list is full."""

    QUOTA_IN_USE = "QUOTA_IN_USE"
    """The new terms of a day lack a quota that ``units`` people hold, have confirmed or wait for."""

    HELD = "HELD"
    WAITING = "WAITING"
    CONFIRMED = "CONFIRMED"
    ATTENDED = "ATTENDED"
    NO_SHOW = "NO_SHOW"
    RELEASED = "RELEASED"
    CANCELLED = "CANCELLED"
    MOVED = "MOVED"
    DONE = "DONE"
    """An operator's command has taken effect."""


PRECEDENCE: Final = tuple(Status)
"""All statuses, the one with the highest precedence first."""

SUCCESSES: Final = frozenset(PRECEDENCE[PRECEDENCE.index(Status.HELD) :])
"""Statuses of commands that took effect. All others are refusals."""


class WaitListPosition(msgspec.Struct, frozen=True, gc=False):
    """A party's position on the wait list of a day.

    Attributes:
        ahead: parties that joined earlier and still wait, for any choice, those included that have declined an offer.
            At most this many are served first, unless a smaller party fits where this one does not.
        waiting: all parties on the list, this one included.
    """

    ahead: int
    waiting: int


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The result of one command.

    Attributes:
        status: the name of the result.
        reservation: the record after the command. With a refusal, the caller's own record that caused it, or ``None``.
        replayed: True if an earlier command had this effect already. Status and record are the present ones.
        resumed: True if the party already has this reservation under another idempotency key.
        retry_at_ms: when a retry may succeed, in milliseconds since 1970 (UTC); 0 if unknown.
        units: units that an operator's command moved, or holds that a sweep expired. After ``OpenDay``, the confirmed
            units that have left the day while it was closed. With ``QUOTA_IN_USE``, the units of
            people on the quotas that the terms lack.
        overbooked: units in use beyond the capacity after ``SetCapacity``. After ``Publish``, the growth of the day's
            overbooked units: a guard counts earlier bookings, or quotas have joined.
        reason: the name of the admission policy that refused, or ``""``.
        abandoned_holds_left: with a hold, or with a release: how many more holds the applicants may let go without a
            confirm before one of them leads to a block. ``None`` if the office has no such limit, or if no applicant
            has let a hold go within its window.
        blocked_until_ms: with a hold and ``abandoned_holds_left`` 0: when the block would end if the hold expired. With
            a release: the end of the applicants' block. Milliseconds since 1970 (UTC); 0 if there is none.
        extensions_left: with status ``HELD``: how many more times the hold may be extended; 0 with any other status.
        revision: the day's present revision, with the outcome of a command that may expect one; 0 for other commands.
    """

    status: Status
    reservation: Reservation | None = None
    replayed: bool = False
    resumed: bool = False
    retry_at_ms: int = 0
    units: int = 0
    overbooked: int = 0
    reason: str = ""
    abandoned_holds_left: int | None = None
    blocked_until_ms: int = 0
    revision: int = 0
    extensions_left: int = 0

    @property
    def ok(self) -> bool:
        """True if the command took effect, now or earlier."""
        return self.status in SUCCESSES

    @property
    def reference(self) -> str:
        """The reservation's ``office~id``; ``""`` if there is none."""
        return self.reservation.reference if self.reservation is not None else ""

    def _repr_html_(self) -> str:
        """Return a table for a notebook. It has no hash of an applicant."""
        rows: list[tuple[str, object]] = [("ok", self.ok)]
        if self.reservation is not None:
            rows += [("reference", self.reference), ("state", self.reservation.state)]
            rows.append(("day", datetime.date.fromordinal(self.reservation.day)))
            rows.append(("quotas", ", ".join(self.reservation.quotas)))
            rows.append(("queue numbers", ", ".join(map(str, self.reservation.queue_numbers))))
        rows += [(name, value) for name in ("retry_at_ms", "reason") if (value := getattr(self, name))]
        return html_table(str(self.status), (), rows)

    @property
    def deadline_at_ms(self) -> int:
        """The end of the reservation's latest hold, in milliseconds since 1970 (UTC); 0 if there is none."""
        return self.reservation.deadline_at_ms if self.reservation is not None else 0

    @property
    def queue_numbers(self) -> Sequence[int]:
        """The reservation's queue numbers, one per applicant; empty if it has none."""
        return self.reservation.queue_numbers if self.reservation is not None else range(0)


class AbandonedHolds(msgspec.Struct, frozen=True, gc=False):
    """Counts of an office's holds that ended without a confirm, since its ledger exists. They only grow.

    An overdue hold counts from the command that expires it.

    Attributes:
        released: holds that were released.
        expired: holds that expired. A late confirm on new units takes none of them back.
        blocks: how often the limit on such holds blocked an applicant, or extended their block.
    """

    released: int = 0
    expired: int = 0
    blocks: int = 0


class QuotaView(msgspec.Struct, frozen=True, gc=False):
    """The counters of one quota, in units: ``capacity + overbooked == available + held + confirmed + cooling``.

    ``cooling`` counts returned units that are not available yet. ``parked`` counts those of them that wait for the next
    draw. ``withheld`` counts available units that the wait list keeps from others, because a party on it needs more.
    """

    capacity: int
    available: int
    held: int
    confirmed: int
    cooling: int
    parked: int
    overbooked: int
    withheld: int = 0

    @property
    def bookable(self) -> int:
        """The available units that a party can take that is not on the wait list."""
        return self.available - self.withheld


class DayView(msgspec.Struct, frozen=True):
    """The state of one office-day. Overdue holds count as expired, even if no sweep has expired them yet.

    Attributes:
        day: a date's ordinal.
        opens_at_ms, starts_at_ms, ends_at_ms: the day's times, milliseconds since 1970 (UTC).
        closed: True if the office has closed the day.
        waiting: parties on the wait list.
        quotas: the counters by quota name.
        revision: the number of operators' changes of the day, from 1: its publications, and commands that changed a
            capacity, closed or opened it, reallocated units or released parked ones.
        sessions: the sessions, each with its own end of booking, in the order of the terms.
    """

    day: int
    opens_at_ms: int
    starts_at_ms: int
    ends_at_ms: int
    closed: bool
    waiting: int
    quotas: dict[str, QuotaView]
    revision: int = 0
    sessions: tuple[SessionTerms, ...] = ()

    def _repr_html_(self) -> str:
        """Return a table of the counters for a notebook."""
        names = ("capacity", "available", "held", "confirmed", "cooling", "overbooked")
        rows = [(quota, *(getattr(view, name) for name in names)) for quota, view in self.quotas.items()]
        caption = f"{datetime.date.fromordinal(self.day)}{' (closed)' if self.closed else ''}"
        return html_table(caption, ("quota", *names), rows)

    def can_be_booked(self, session: str, now_ms: int) -> bool:
        """Return True if the day's times allow a reserve at ``now_ms``. Units do not matter.

        Args:
            session: id of a session, or ``""``.
            now_ms: milliseconds since 1970 (UTC).
        """
        is_open = not self.closed and self.opens_at_ms <= now_ms < self.ends_at_ms
        return is_open and not self.is_session_over(session, now_ms)

    def is_session_over(self, session: str, now_ms: int) -> bool:
        """Return True if the session can no longer be booked at ``now_ms``; False for an unknown session or ``""``."""
        terms = find_session(self.sessions, session)
        return terms is not None and terms.book_until_ms <= now_ms
