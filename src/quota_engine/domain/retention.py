"""The retention of days: they are forgotten, and the memory of their records is freed bit by bit."""

from __future__ import annotations

__all__ = ["purge"]

from quota_engine.domain.claims import remove_claims
from quota_engine.domain.ledger import Ledger, next_forget_ms
from quota_engine.domain.lifecycle import ACTIVE


def purge(ledger: Ledger, records_max: int) -> None:
    """Free the memory of up to ``records_max`` records of forgotten days. No outcome or read depends on it."""
    for _ in range(records_max):
        if not ledger.forgotten_days:
            ledger.next_forget_ms = next_forget_ms(ledger)
            return
        day = ledger.forgotten_days[-1]
        if not day.reservation_ids:
            ledger.forgotten_days.pop()
            continue
        record = ledger.reservations.get(day.reservation_ids.pop())
        # A reservation that was rescheduled away is still listed here, and one that came back is listed twice.
        if record is not None and record.day == day.number:
            del ledger.reservations[record.id]
            if record.state in ACTIVE:
                remove_claims(ledger, record)
