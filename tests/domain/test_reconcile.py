"""A ledger is repaired from its events, or from its records if events are missing. Lost events are restored."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from quota_engine.conformance.world import (
    COOLING,
    DAY,
    NEXT_DAY,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    applicant,
    published,
    reserve,
)
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Cancel, Command, Confirm, Publish, Release, SetCapacity
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.events import DayClosed
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Status
from quota_engine.domain.reconcile import examine, recompute, restore_events
from quota_engine.domain.state_machine import apply

STEPS: tuple[Command, ...] = (
    SetCapacity(DAY, "online", 4),
    reserve("ani", ONLINE),
    reserve("budi", ONLINE, "budi", "citra"),
    Confirm("budi"),
    reserve("dewi", COOLING),
    Confirm("dewi"),
    Cancel("dewi"),
    reserve("eka", ONLINE, "eka", day=NEXT_DAY),
    Release("eka"),
    reserve("fajar", PRIORITY),
    reserve("gita", PRIORITY, "gita", wait=True),
    reserve("hadi", PRIORITY, "hadi", wait=True),
    reserve("ani-again", ONLINE, "ani", day=NEXT_DAY + 0),
)


def sample_ledger(*more: Command) -> Ledger:
    """Return a ledger with holds, a confirmed place, cooling units, a wait list and two claims of one applicant."""
    ledger = Ledger(OFFICE)
    for number, command in enumerate((*published(identity_limits=()), *STEPS, *more)):
        apply(ledger, command, OPENS_AT_MS + number)
    return ledger


@pytest.mark.parametrize("from_events", [True, False])
def test_a_consistent_ledger_is_unchanged(from_events: bool) -> None:
    """The result is a new ledger with the same state."""
    ledger = sample_ledger()
    before = describe(ledger)
    mended = recompute(ledger, from_events=from_events)
    assert mended is not ledger
    assert describe(mended) == describe(ledger) == before
    apply(mended, Confirm("ani"), OPENS_AT_MS + 100)
    apply(ledger, Confirm("ani"), OPENS_AT_MS + 100)
    assert describe(mended) == describe(ledger)


@pytest.mark.parametrize("from_events", [True, False])
def test_counters_lists_and_indexes_are_recomputed(from_events: bool) -> None:
    ledger, wanted = sample_ledger(), describe(sample_ledger())
    day = ledger.days[DAY]
    quota = day.quotas["online"]
    quota.free, quota.held, quota.confirmed = 9, 7, 0
    day.quotas["slow"].cooling = 0
    day.last_queue_number = 0
    day.waiting = {"nobody": 1, "hadi": 9}
    ledger.claims = {applicant("ani"): ("ani-again", "nobody"), applicant("nobody"): "ani"}
    assert len(audit(ledger)) > 5
    mended = recompute(ledger, from_events=from_events)
    assert audit(mended, from_events=from_events) == []
    found = describe(mended)
    assert found == wanted


def test_records_of_forgotten_days_are_dropped() -> None:
    """They wait to be purged and do not count."""
    ledger = sample_ledger()
    ledger.reservations["old"] = replace(ledger.reservations["ani"], id="old", day=1)
    assert "old" not in recompute(ledger, from_events=False).reservations


def test_ended_records_may_name_quotas_that_the_day_no_longer_has() -> None:
    """A day may be published without a quota that has no places taken."""
    ledger = sample_ledger(Cancel("budi"), Release("ani"))
    day = ledger.days[DAY].terms
    kept = tuple(replace(quota, reallocation=None) for quota in day.quotas if quota.name != "online")
    outcome = apply(ledger, Publish(DAY, replace(day, quotas=kept)), OPENS_AT_MS + 100)
    assert outcome.status is Status.DONE
    assert "online" in ledger.reservations["budi"].quotas
    assert describe(recompute(ledger, from_events=False)) == describe(ledger)


def test_an_office_without_days_forgets_nothing() -> None:
    ledger = Ledger(OFFICE)
    apply(ledger, published()[0], OPENS_AT_MS)
    assert recompute(ledger, from_events=False).next_forget_ms == ledger.next_forget_ms


def test_if_the_events_do_not_fit_together_the_records_decide() -> None:
    """An event refers to a day that no earlier event has published."""
    ledger = sample_ledger()
    ledger.events.insert(0, DayClosed(OPENS_AT_MS, DAY))
    assert describe(recompute(ledger, from_events=True)) == describe(sample_ledger())


@pytest.mark.parametrize("damage", ["none", "counter", "order of events"])
@pytest.mark.parametrize("from_events", [True, False])
def test_examination_is_the_audit_and_the_repair(from_events: bool, damage: str) -> None:
    ledger = sample_ledger()
    if damage == "counter":
        ledger.days[DAY].quotas["online"].held = 7
    if damage == "order of events":
        ledger.events.insert(0, DayClosed(OPENS_AT_MS, DAY))
    findings, repaired = examine(ledger, from_events=from_events)
    assert findings == audit(ledger, from_events=from_events)
    assert bool(findings) is (damage == "counter" or (damage == "order of events" and from_events))
    assert describe(repaired) == describe(recompute(ledger, from_events=from_events)) == describe(sample_ledger())


def test_lost_events_are_restored() -> None:
    """Events that the ledger has may precede them."""
    whole = sample_ledger()
    for kept in (3, 9, len(whole.events)):
        ledger = rebuild(OFFICE, whole.events[:kept])
        events = list(enumerate(whole.events, 1))[kept - 2 :]
        assert restore_events(ledger, kept, events) == len(whole.events) - kept
        assert describe(ledger) == describe(whole)
    assert restore_events(whole, len(whole.events), []) == 0


def test_trimmed_events_are_not_compared() -> None:
    """They are taken as the same."""
    whole = sample_ledger()
    ledger = rebuild(OFFICE, whole.events[:9])
    del ledger.events[:5]
    assert (
        restore_events(ledger, 9, [(1, whole.events[7]), *list(enumerate(whole.events, 1))[5:]])
        == len(whole.events) - 9
    )
    assert ledger.reservations["fajar"].state is State.HELD


def test_events_of_another_history_are_refused() -> None:
    """Refused are another event under a known number, a gap, and an event that does not fit."""
    whole = sample_ledger()
    numbered = list(enumerate(whole.events, 1))
    ledger = rebuild(OFFICE, whole.events[:9])
    with pytest.raises(InvalidRequest, match="number 9 is another event here"):
        restore_events(ledger, 9, [(9, whole.events[0])])
    with pytest.raises(InvalidRequest, match="number 11 follows 9"):
        restore_events(ledger, 9, numbered[10:])
    with pytest.raises(InvalidRequest, match="number 12 follows 10"):
        restore_events(rebuild(OFFICE, whole.events[:9]), 9, [numbered[9], numbered[11]])
    with pytest.raises(InvalidRequest, match="number 10 does not fit"):
        restore_events(ledger, 9, [(10, DayClosed(OPENS_AT_MS + 50, DAY + 7))])
