"""A quick and certain answer to a reserve that finds no units, without a change of the ledger."""

from __future__ import annotations

__all__ = ["is_certainly_sold_out"]

from quota_engine.domain.commands import Reserve
from quota_engine.domain.ledger import Ledger


def is_certainly_sold_out(ledger: Ledger, command: Reserve, now_ms: int) -> bool:
    """Return True if the outcome of a reserve is ``SOLD_OUT``, and its application would change nothing.

    Changes nothing. False means only that the state machine has to decide: the party may be known, something may be
    due, or another refusal may come first.

    Args:
        ledger: the office's ledger.
        command: the reserve.
        now_ms: milliseconds since 1970, UTC.
    """
    day = ledger.days.get(command.day)
    applicants, choice = command.applicants, command.choice
    units = len(applicants)
    if (
        day is None
        or command.join_wait_list
        or day.closed
        or choice is not day.last_valid_choice
        or not day.terms.opens_at_ms <= now_ms < day.last_valid_until_ms
        or now_ms >= day.next_due_ms
        or now_ms >= ledger.next_forget_ms
        or now_ms < ledger.now_ms
        or (command.valid_until_ms and now_ms > command.valid_until_ms)
        or units > ledger.rules.party_max
        or ledger.rules.abandoned_holds_max
        or command.id in ledger.reservations
    ):
        return False
    for applicant in applicants:
        if applicant in ledger.claims or applicant in ledger.penalties:
            return False
    quotas = day.quotas
    return all(any(quotas[name].free < units for name in option) for option in choice.options)
