"""The cap on abandoned holds: count an applicant's own overdue holds in time, and announce the block before it comes.

Nothing here runs while the office's ``abandoned_holds_max`` is 0.
"""

from __future__ import annotations

__all__ = ["announce", "expire_own_holds"]

from collections.abc import Sequence

from msgspec.structs import replace

from quota_engine.domain.inventory import distribute_free_units, expire
from quota_engine.domain.ledger import Ledger, known_reservation
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome
from quota_engine.domain.penalties import abandoned_holds_left


def expire_own_holds(ledger: Ledger, applicants: Sequence[str], now_ms: int) -> None:
    """Expire all overdue holds of these applicants, on every day of the office.

    Settling a day is bounded, and no command may have come to the other days since. An overdue hold counts as abandoned
    all the same.

    Args:
        ledger: the office's ledger; changed by expiries and offers.
        applicants: the applicants of the command.
        now_ms: milliseconds since 1970 (UTC).
    """
    overdue: dict[str, Reservation] = {}
    for applicant in applicants:
        ids = ledger.claims.get(applicant, ())
        for reservation_id in (ids,) if isinstance(ids, str) else ids:
            record = known_reservation(ledger, reservation_id)
            if record is not None and record.state is State.HELD and record.deadline_at_ms <= now_ms:
                overdue[record.id] = record
    for record in sorted(overdue.values(), key=lambda one: (one.deadline_at_ms, one.id)):
        expire(ledger, record, now_ms)
    for number in sorted({record.day for record in overdue.values()}):
        distribute_free_units(ledger, ledger.days[number], now_ms)


def announce(ledger: Ledger, outcome: Outcome, now_ms: int) -> Outcome:
    """Add to the outcome of a hold or of its release how many more holds its applicants may abandon.

    Args:
        ledger: the office's ledger; not changed.
        outcome: an outcome with a record that is held or released.
        now_ms: milliseconds since 1970 (UTC).

    Returns:
        The same outcome if none of the applicants has abandoned a hold within the window.
    """
    record, rules, penalties = outcome.reservation, ledger.rules, ledger.penalties
    assert record is not None
    known = [penalties[one] for one in record.applicants if one in penalties]
    counts = [abandoned_holds_left(penalty, now_ms, rules) for penalty in known]
    left = min((count for count in counts if count is not None), default=None)
    if left is None:
        return outcome
    blocked_until_ms = 0
    if record.state is State.HELD:
        if not left:
            blocked_until_ms = record.deadline_at_ms + rules.abandoned_holds_block_ms
    else:
        until_ms = max(penalty.blocked_until_ms for penalty in known)
        blocked_until_ms = until_ms if until_ms > now_ms else 0
    return replace(outcome, abandoned_holds_left=left, blocked_until_ms=blocked_until_ms)
