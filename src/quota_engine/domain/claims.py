"""Identity claims: the entries that make an active reservation count for its applicants."""

from __future__ import annotations

__all__ = ["active_claims", "add_claims", "remove_claims"]

from collections.abc import Iterator, Sequence
from typing import Final

from quota_engine.domain.ledger import Ledger, known_reservation
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation

_HELD: Final = State.HELD  # reading a member of the class costs as much as a call
_WAITING: Final = State.WAITING


def active_claims(ledger: Ledger, applicant: str, now_ms: int) -> Iterator[Reservation]:
    """Yield the applicant's reservations that count against the identity limits at ``now_ms``.

    These are the active ones, except for overdue holds, entries on the wait list of a day or session that is over, and
    reservations on a closed day. An overdue hold does not count, even if no sweep has expired it yet.
    """
    ids = ledger.claims.get(applicant)
    if ids is None:
        return
    for reservation_id in (ids,) if isinstance(ids, str) else ids:
        record = known_reservation(ledger, reservation_id)
        if record is None or (record.state is _HELD and record.deadline_at_ms <= now_ms):
            continue
        day = ledger.days[record.day]
        if not day.closed and (record.state is not _WAITING or now_ms < day.book_until_ms(record.choice.session)):
            yield record


def add_claims(ledger: Ledger, record: Reservation, newcomers: Sequence[str] = ()) -> None:
    """Add the claims of all applicants, or of ``newcomers`` alone."""
    claims, reservation_id = ledger.claims, record.id
    for applicant in newcomers or record.applicants:
        others = claims.get(applicant)
        if others is None:
            claims[applicant] = reservation_id
        else:
            claims[applicant] = (*((others,) if isinstance(others, str) else others), reservation_id)


def remove_claims(ledger: Ledger, record: Reservation, leaving: Sequence[str] = ()) -> None:
    """Delete the claims of all applicants, or of those ``leaving`` alone."""
    claims = ledger.claims
    for applicant in leaving or record.applicants:
        ids = claims[applicant]
        left = () if isinstance(ids, str) else tuple(other for other in ids if other != record.id)
        if not left:
            del claims[applicant]
        else:
            claims[applicant] = left if len(left) > 1 else left[0]
