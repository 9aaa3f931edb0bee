"""The extension of holds. The office's rules limit number and length, so that no hold keeps its units forever."""

from __future__ import annotations

__all__ = ["extend", "show_extensions_left"]

from msgspec.structs import replace

from quota_engine.domain.abandonment import announce, expire_own_holds
from quota_engine.domain.checks import not_closed, not_over, owned_reservation, refuse_transition, session_not_over
from quota_engine.domain.commands import Extend
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.outcomes import Outcome, Status


def extend(ledger: Ledger, command: Extend, now_ms: int) -> Outcome:
    """Apply an :class:`~quota_engine.domain.commands.Extend`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    record = owned_reservation(ledger, command, now_ms)
    if isinstance(record, Outcome):
        return record
    rules = ledger.rules
    if rules.abandoned_holds_max:
        expire_own_holds(ledger, record.applicants, now_ms)
        record = ledger.reservations[record.id]  # the wait list may have been served
    if record.state is State.HELD and command.extension <= record.extensions:
        return _held(ledger, Outcome(Status.HELD, record, replayed=True), now_ms)
    if command.extension > record.extensions + 1 and record.state is not State.EXPIRED:
        return Outcome(Status.STALE, record)
    refusal = refuse_transition(record, command.expected_version, Verb.EXTEND)
    if refusal is not None:
        return refusal
    day = ledger.days[record.day]
    status = not_closed(day, record, now_ms) or not_over(day, record, now_ms) or session_not_over(day, record, now_ms)
    if status is not None:
        return Outcome(status, record)
    if command.extension > rules.extensions_max:
        return Outcome(Status.EXTENSIONS_EXCEEDED, record)

    # From here on it must succeed.
    extended = replace(
        record,
        state=TRANSITIONS[record.state, Verb.EXTEND],
        version=record.version + 1,
        deadline_at_ms=record.deadline_at_ms + rules.extension_ms,
        extensions=command.extension,
    )
    evolve(ledger, ReservationChanged(now_ms, Verb.EXTEND, extended))
    return _held(ledger, Outcome(Status.HELD, extended), now_ms)


def _held(ledger: Ledger, outcome: Outcome, now_ms: int) -> Outcome:
    outcome = show_extensions_left(ledger, outcome)
    return announce(ledger, outcome, now_ms) if ledger.rules.abandoned_holds_max else outcome


def show_extensions_left(ledger: Ledger, outcome: Outcome) -> Outcome:
    """Add to an outcome how often its hold may still be extended. An outcome with another status stays as it is."""
    record, extensions_max = outcome.reservation, ledger.rules.extensions_max
    if not extensions_max or outcome.status is not Status.HELD or record is None:
        return outcome
    return replace(outcome, extensions_left=max(0, extensions_max - record.extensions))
