"""Operators' commands: the rules of the office, capacities, reallocation, parked units, closed days and sweeps.

:mod:`~quota_engine.domain.publication` has the publication of a day.
"""

from __future__ import annotations

__all__ = ["expire_day", "reallocate_unused", "release_parked", "set_capacity", "set_closed", "set_rules", "with_quota"]

from collections.abc import Callable
from typing import Any

from quota_engine.domain.checks import REFUSED
from quota_engine.domain.commands import (
    CloseDay,
    Expire,
    OpenDay,
    ReallocateUnused,
    ReleaseParked,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import CapacitySet, DayClosed, DayOpened, ParkedReleased, RulesSet
from quota_engine.domain.inventory import distribute_free_units, reallocate, settle
from quota_engine.domain.ledger import Day, Ledger, Quota
from quota_engine.domain.outcomes import Outcome, Status


def set_rules(ledger: Ledger, command: SetRules, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.SetRules`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    if command.rules == ledger.rules:
        return Outcome(Status.DONE, replayed=True)
    # The jitter seed is derived from the identity key. Another seed means another key, and with another key the same
    # applicant has another hash: identity limits would no longer hold.
    if ledger.rules.jitter_seed and command.rules.jitter_seed not in ("", ledger.rules.jitter_seed):
        return REFUSED[Status.CONFLICT]

    # From here on it must succeed.
    evolve(ledger, RulesSet(now_ms, command.rules))
    return Outcome(Status.DONE)


def _done(day: Day, *, replayed: bool = False, units: int = 0, overbooked: int = 0) -> Outcome:
    return Outcome(Status.DONE, replayed=replayed, units=units, overbooked=overbooked, revision=day.revision)


def _refuse_revision(day: Day, expected_revision: int) -> Outcome | None:
    """Return the refusal of a command that expects another revision of the day, or ``None``."""
    if expected_revision in (0, day.revision):
        return None
    return Outcome(Status.STALE, revision=day.revision)


def set_capacity(ledger: Ledger, day: Day, quota: Quota, command: SetCapacity, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.SetCapacity`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        day: the day, settled.
        quota: the quota.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    replayed = quota.capacity == command.capacity
    stale = _refuse_revision(day, command.expected_revision)
    if stale is not None and not replayed:
        return stale
    # After its reallocation time a quota gives away what is set here at once, and again if the command is sent again.
    if quota.reallocation is not None and quota.reallocation.at_ms <= now_ms:
        return REFUSED[Status.WRONG_STATE]

    # From here on it must succeed.
    if not replayed:
        evolve(ledger, CapacitySet(now_ms, command.day, command.quota, command.capacity))
        distribute_free_units(ledger, day, now_ms)
    return _done(day, replayed=replayed, overbooked=max(0, -quota.free))


def reallocate_unused(ledger: Ledger, day: Day, quota: Quota, command: ReallocateUnused, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.ReallocateUnused`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        day: the day, settled.
        quota: the quota.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    stale = _refuse_revision(day, command.expected_revision)
    if stale is not None and (quota.free > 0 or quota.reallocation is None):
        return stale
    if quota.reallocation is None:
        return REFUSED[Status.WRONG_STATE]

    # From here on it must succeed.
    units = reallocate(ledger, day, command.quota, quota, now_ms, by_operator=True)
    distribute_free_units(ledger, day, now_ms)
    return _done(day, units=units)


def release_parked(ledger: Ledger, day: Day, quota: Quota, command: ReleaseParked, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.ReleaseParked`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        day: the day, settled.
        quota: the quota.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    units = quota.parked
    stale = _refuse_revision(day, command.expected_revision)
    if stale is not None and units:
        return stale

    # From here on it must succeed.
    if units:
        evolve(ledger, ParkedReleased(now_ms, command.day, command.quota, units))
        distribute_free_units(ledger, day, now_ms)
    return _done(day, units=units)


def with_quota(handler: Callable[[Ledger, Day, Quota, Any, int], Outcome]) -> Callable[[Ledger, Any, int], Outcome]:
    """Return a handler that settles the command's day and passes its day and quota on, or refuses unknown ones."""

    def handle(ledger: Ledger, command: Any, now_ms: int) -> Outcome:
        day = ledger.days.get(command.day)
        if day is None:
            return REFUSED[Status.UNKNOWN_DAY]
        settle(ledger, day, now_ms)
        quota = day.quotas.get(command.quota)
        if quota is None:
            return REFUSED[Status.UNKNOWN_QUOTA]
        return handler(ledger, day, quota, command, now_ms)

    return handle


def set_closed(event_type: type[DayClosed | DayOpened]) -> Callable[[Ledger, Any, int], Outcome]:
    """Return the handler that closes or opens a day."""

    def handle(ledger: Ledger, command: CloseDay | OpenDay, now_ms: int) -> Outcome:
        day = ledger.days.get(command.day)
        if day is None:
            return REFUSED[Status.UNKNOWN_DAY]
        settle(ledger, day, now_ms)
        if day.closed == (event_type is DayClosed):
            return _done(day, replayed=True, units=0 if day.closed else day.departed)
        stale = _refuse_revision(day, command.expected_revision)
        if stale is not None:
            return stale

        # From here on it must succeed.
        evolve(ledger, event_type(now_ms, command.day))
        distribute_free_units(ledger, day, now_ms)
        return _done(day, units=0 if day.closed else day.departed)

    return handle


def expire_day(ledger: Ledger, command: Expire, now_ms: int) -> Outcome:
    """Apply a :class:`~quota_engine.domain.commands.Expire`, as ``docs/rules.md`` states it.

    Args:
        ledger: the office's ledger; changed in place.
        command: the command.
        now_ms: milliseconds since 1970 (UTC), not before the ledger's last event.
    """
    day = ledger.days.get(command.day)
    if day is None:
        return REFUSED[Status.UNKNOWN_DAY]
    return Outcome(Status.DONE, units=settle(ledger, day, now_ms, command.limit))
