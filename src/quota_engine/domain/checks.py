"""Checks that several commands share: of the reservation, its owner and version, its day, and its applicants."""

from __future__ import annotations

__all__ = [
    "REFUSED",
    "STATUS_OF",
    "DayCheck",
    "conflicting_claim",
    "end_of_block_ms",
    "is_party_of",
    "is_same_party",
    "not_closed",
    "not_over",
    "not_over_unless_closed",
    "owned_reservation",
    "refuse_day",
    "refuse_identity",
    "refuse_transition",
    "session_not_over",
    "started",
    "undo_in_time",
]

from collections.abc import Callable, Sequence
from typing import Any, Final

from quota_engine.domain.claims import active_claims
from quota_engine.domain.inventory import settle_reservation
from quota_engine.domain.ledger import Day, Ledger, known_reservation
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.model import CLAIMS_MAX, Choice, Reservation, find_session
from quota_engine.domain.outcomes import Outcome, Status

STATUS_OF: Final = {state: Status.HOLD_EXPIRED if state is State.EXPIRED else Status(state) for state in State}
"""The status of a success is the name of the state that it leads to."""
REFUSED: Final = {status: Outcome(status) for status in Status}
"""Refusals without a record are shared objects, so that a refused applicant costs no memory."""

_EXPIRED: Final = State.EXPIRED  # reading a member of the class costs as much as a call
_DECLINE: Final = Verb.DECLINE

DayCheck = Callable[[Day, Reservation, int], Status | None]
"""Returns the status of a refusal of the reservation's day, or ``None``."""


def not_closed(day: Day, record: Reservation, now_ms: int) -> Status | None:
    """Refuse a step on a closed day."""
    return Status.DAY_CLOSED if day.closed else None


def not_over(day: Day, record: Reservation, now_ms: int) -> Status | None:
    """Refuse a step on a day that is over at ``now_ms``."""
    return Status.DAY_OVER if now_ms >= day.terms.ends_at_ms else None


def not_over_unless_closed(day: Day, record: Reservation, now_ms: int) -> Status | None:
    """Refuse a step on a day that is over, unless the office has closed it."""
    return None if day.closed else not_over(day, record, now_ms)


def session_not_over(day: Day, record: Reservation, now_ms: int) -> Status | None:
    """Refuse a step of a reservation whose session is over."""
    session = find_session(day.terms.sessions, record.choice.session)
    return Status.SESSION_OVER if session is not None and now_ms >= session.ends_at_ms else None


def started(day: Day, record: Reservation, now_ms: int) -> Status | None:
    """Refuse a step on a day that has not started."""
    return Status.TOO_EARLY if now_ms < day.terms.starts_at_ms else None


def undo_in_time(day: Day, record: Reservation, now_ms: int) -> Status | None:
    """Refuse to undo a check-in or no-show after its undo window."""
    return Status.TOO_LATE if record.undo_until_ms <= now_ms else None


def refuse_day(day: Day, choice: Choice, now_ms: int) -> Outcome | None:
    """Return the refusal for a day that takes no booking of ``choice`` now, or ``None``."""
    quotas = day.quotas
    for option in choice.options:
        for name in option:
            if name not in quotas:
                return REFUSED[Status.UNKNOWN_QUOTA]
    terms = day.terms
    if day.closed:
        return REFUSED[Status.DAY_CLOSED]
    if now_ms >= terms.ends_at_ms:
        return REFUSED[Status.DAY_OVER]
    if now_ms >= day.book_until_ms(choice.session):
        return REFUSED[Status.SESSION_OVER]
    if now_ms < terms.opens_at_ms:
        return Outcome(Status.NOT_OPEN, retry_at_ms=terms.opens_at_ms)
    return None


def owned_reservation(ledger: Ledger, command: Any, now_ms: int) -> Reservation | Outcome:
    """Return the command's reservation, settled, or the refusal if it does not exist or belongs to another owner."""
    known = known_reservation(ledger, command.id)
    if known is None:
        return REFUSED[Status.NOT_FOUND]
    record = settle_reservation(ledger, known, now_ms)
    if command.owner and command.owner not in record.applicants:
        return REFUSED[Status.NOT_OWNER]
    return record


def refuse_transition(record: Reservation, expected_version: int, verb: Verb) -> Outcome | None:
    """Return the refusal if the life cycle has no step ``verb`` from this record and version, or ``None``."""
    if record.state is _EXPIRED:
        return Outcome(Status.HOLD_EXPIRED, record)
    if expected_version and expected_version != record.version:
        return Outcome(Status.STALE, record)
    if (record.state, verb) not in TRANSITIONS or (verb is _DECLINE and not record.is_offer):
        return Outcome(Status.WRONG_STATE, record)
    return None


def end_of_block_ms(ledger: Ledger, applicants: Sequence[str], now_ms: int) -> int:
    """Return the end of the latest block of these applicants, or 0 if none is blocked."""
    penalties = ledger.penalties
    until_ms = max(penalties[one].blocked_until_ms if one in penalties else 0 for one in applicants)
    return until_ms if until_ms > now_ms else 0


def is_same_party(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return True if both have the same applicants, in any order."""
    return one == other or sorted(one) == sorted(other)


def is_party_of(record: Reservation, applicants: tuple[str, ...]) -> bool:
    """Return True if the reservation was made for these applicants, as far as its record says.

    Of a party that has changed since, each of them must belong to it or have left it.
    """
    former = record.former_applicants
    if not former:
        return is_same_party(record.applicants, applicants)
    return all(one in record.applicants or one in former for one in applicants)


def conflicting_claim(
    ledger: Ledger, applicants: Sequence[str], day: int, now_ms: int, except_id: str = ""
) -> Reservation | None:
    """Return an active reservation that uses up an applicant's identity limit for ``day``, or ``None``.

    The first applicant and the first limit count. ``except_id`` is a reservation that does not count.
    """
    for applicant in applicants:
        claims = [record for record in active_claims(ledger, applicant, now_ms) if record.id != except_id]
        if len(claims) >= CLAIMS_MAX:
            return claims[0]
        for limit in ledger.rules.identity_limits:
            near = [one for one in claims if not limit.span_days or abs(one.day - day) < limit.span_days]
            if len(near) >= limit.places_max:
                return near[0]
    return None


def refuse_identity(ledger: Ledger, applicants: tuple[str, ...], day: int, now_ms: int) -> Outcome | None:
    """Return the ``IDENTITY_LIMIT`` refusal, or ``None``. It shows the conflicting record to its own party only."""
    conflicting = conflicting_claim(ledger, applicants, day, now_ms)
    if conflicting is None:
        return None
    is_own = is_same_party(conflicting.applicants, applicants)
    return Outcome(Status.IDENTITY_LIMIT, conflicting if is_own else None)
