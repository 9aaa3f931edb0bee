"""New quotas of a day that is published again: renamed quotas keep their people, and guards count earlier bookings."""

from __future__ import annotations

__all__ = ["renamed_quotas", "replace_quotas"]

from heapq import heappush
from typing import Final

from msgspec.structs import replace

from quota_engine.domain.guards import matching_guards, rewrite_choice, rewrite_option
from quota_engine.domain.ledger import Day, Ledger, Quota, guards_of
from quota_engine.domain.lifecycle import ACTIVE, CONSUMING, State
from quota_engine.domain.model import Choice, DayTerms

_HELD: Final = State.HELD  # reading a member of the class costs as much as a call
_WAITING: Final = State.WAITING
_REWRITTEN: Final = ACTIVE | {State.EXPIRED}
"""States in which a reservation's choice may still be used. A late confirm can bring an expired hold back."""


def renamed_quotas(day: Day, terms: DayTerms) -> dict[str, str]:
    """Return the new names of the day's quotas that ``terms`` rename, by their old names."""
    return {quota.renamed_from: quota.name for quota in terms.quotas if quota.renamed_from in day.quotas}


def replace_quotas(ledger: Ledger, day: Day, terms: DayTerms) -> None:
    """Give a known day the quotas of new terms. Known ones keep their capacity, and renamed ones their people."""
    renamed = renamed_quotas(day, terms)
    wanted = {quota.name: quota for quota in terms.quotas}
    quotas: dict[str, Quota] = {}
    for name, quota in day.quotas.items():
        new_name = renamed.get(name, name)
        joins_another = new_name != name and new_name in day.quotas
        if new_name in wanted and not joins_another:
            quotas[new_name] = quota
    for name, quota_terms in wanted.items():
        quota = quotas.setdefault(name, Quota(quota_terms))
        quota.re_release, quota.reallocation, quota.guard = (
            quota_terms.re_release,
            quota_terms.reallocation,
            quota_terms.guard,
        )
    for old_name, name in renamed.items():
        old = day.quotas[old_name]
        if quotas[name] is not old:  # its people join a quota that exists already
            quotas[name].parked += old.parked
            quotas[name].cooling += old.cooling
            for entry in old.cooling_due:
                heappush(quotas[name].cooling_due, entry)
    guards, known_guards = guards_of(quotas), day.guards
    day.quotas, day.guards = quotas, guards
    if renamed or any(known_guards.get(name) != scope for name, scope in guards.items()):
        _rewrite_reservations(ledger, day, renamed)


def _rewrite_reservations(ledger: Ledger, day: Day, renamed: dict[str, str]) -> None:
    """Give the day's reservations the new names of their quotas and all guards that count them, and count again.

    This is no step of a reservation: it keeps its version.
    """
    for quota in day.quotas.values():
        quota.held = quota.confirmed = 0
    choices: dict[Choice, Choice] = {}  # equal choices stay one object
    for reservation_id in dict.fromkeys(day.reservation_ids):
        record = ledger.reservations.get(reservation_id)  # None if it moved to a day that is forgotten by now
        if record is None or record.day != day.number or record.state not in _REWRITTEN:
            continue
        choice = choices.get(record.choice)
        if choice is None:
            choice = choices[record.choice] = rewrite_choice(renamed, day.guards, record.choice)
        if choice is not record.choice:
            matching = matching_guards(day.guards, choice)
            option = rewrite_option(renamed, matching, record.quotas) if record.quotas else ()
            if record.state is _WAITING:
                day.wait_queues.discard(record)
            record = ledger.reservations[reservation_id] = replace(record, choice=choice, quotas=option)
            if record.state is _HELD:
                day.push_due(record)
            elif record.state is _WAITING:
                day.wait_queues.add(record)
        for name in record.quotas if record.state in CONSUMING else ():
            day.quotas[name].add_taken(record.state, record.units)
    for quota in day.quotas.values():
        free = quota.capacity - quota.held - quota.confirmed - quota.cooling
        quota.add_free(free - quota.free, ledger.now_ms)
