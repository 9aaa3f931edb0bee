"""The retention of days: they are forgotten, and the memory of their records is freed bit by bit."""

from __future__ import annotations

__all__ = ["PURGE_MAX", "forget_days"]

from typing import Final

from quota_engine.domain.claims import remove_claims
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import DayForgotten
from quota_engine.domain.ledger import Ledger, next_forget_ms
from quota_engine.domain.lifecycle import ACTIVE

PURGE_MAX: Final = 64
"""The most records of forgotten days whose memory one command frees."""


def forget_days(ledger: Ledger, clock_ms: int, now_ms: int) -> None:
    """Forget the days whose retention is over by the clock, and free the memory of some forgotten records.

    Args:
        ledger: the office's ledger; changed in place.
        clock_ms: the time by which days are forgotten, milliseconds since 1970 (UTC).
        now_ms: the time of the event, not before the ledger's last one.
    """
    for number in sorted(day.number for day in ledger.days.values() if day.terms.forget_at_ms <= clock_ms):
        evolve(ledger, DayForgotten(now_ms, number))
    _purge(ledger, PURGE_MAX)


def _purge(ledger: Ledger, records_max: int) -> None:
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
