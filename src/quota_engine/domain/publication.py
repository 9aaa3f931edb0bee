"""The publication of a day: its terms, and quotas that are new, renamed or missing when it is published again."""

from __future__ import annotations

__all__ = ["publish"]

from quota_engine.domain.checks import REFUSED
from quota_engine.domain.commands import Publish
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import DayPublished
from quota_engine.domain.inventory import distribute_free_units, settle
from quota_engine.domain.ledger import Day, Ledger
from quota_engine.domain.model import DayTerms
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.quota_replacement import renamed_quotas


def publish(ledger: Ledger, command: Publish, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.Publish`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    if command.terms.forget_at_ms <= now_ms or command.day <= ledger.forgotten_day_max:
        return REFUSED[Status.DAY_OVER]
    day = ledger.days.get(command.day)
    if day is not None:
        settle(ledger, day, now_ms)
        if _is_published(day, command.terms):
            return Outcome(Status.DONE, replayed=True)
        people = _people_on_lacking_quotas(ledger, day, command.terms)
        if people:
            return Outcome(Status.QUOTA_IN_USE, units=people)
        overbooked_before = _overbooked(day)

    # From here on it must succeed.
    evolve(ledger, DayPublished(now_ms, command.day, command.terms))
    if day is None:
        return Outcome(Status.DONE)
    overbooked = max(0, _overbooked(day) - overbooked_before)
    distribute_free_units(ledger, day, now_ms)
    return Outcome(Status.DONE, overbooked=overbooked)


def _people_on_lacking_quotas(ledger: Ledger, day: Day, terms: DayTerms) -> int:
    """Return the units of people on quotas that ``terms`` neither have nor rename: held, confirmed and waiting."""
    kept = {quota.name for quota in terms.quotas} | renamed_quotas(day, terms).keys()
    lacking = day.quotas.keys() - kept
    if not lacking:
        return 0
    people = sum(day.quotas[name].held + day.quotas[name].confirmed for name in lacking)
    for reservation_id in day.waiting:
        record = ledger.reservations[reservation_id]
        named = {name for option in record.choice.options for name in option}
        people += record.units * len(named & lacking)
    return people


def _overbooked(day: Day) -> int:
    return sum(max(0, -quota.free) for quota in day.quotas.values())


def _is_published(day: Day, terms: DayTerms) -> bool:
    """Return True if publishing ``terms`` would change nothing. Capacities do not count: operators may set them."""
    if _times_of(terms) != _times_of(day.terms):
        return False
    for new in terms.quotas:
        quota = day.quotas.get(new.name)
        if quota is None or (new.re_release, new.reallocation, new.guard) != (
            quota.re_release,
            quota.reallocation,
            quota.guard,
        ):
            return False
    return len(day.quotas) == len(terms.quotas)


def _times_of(terms: DayTerms) -> tuple[object, ...]:
    return terms.opens_at_ms, terms.starts_at_ms, terms.ends_at_ms, terms.forget_at_ms, terms.sessions
