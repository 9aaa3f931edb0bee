"""Backlogs larger than one command handles: records of forgotten days, cooled units, holds with one deadline."""

from __future__ import annotations

import pytest

from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Confirm, Expire, Publish, Release, Reschedule, Reserve, SetCapacity, SetRules
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, DayTerms, IdentityLimit, QuotaTerms, ReRelease, ReReleaseRule, Rules
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.queries import lookup, view
from quota_engine.domain.state_machine import apply

COOLING = ReRelease(ReReleaseRule.COOLING, cooling_ms=10)


def choice(*option: str) -> Choice:
    return Choice("", "", "", "", "", (option,))


def office(*quotas: QuotaTerms, forget_at_ms: int = 2000) -> Ledger:
    """Return days 1 and 2, open from 0 to 1000, with holds of 100 ms."""
    ledger = Ledger("office")
    apply(ledger, SetRules(Rules(hold_ttl_ms=100, identity_limits=(IdentityLimit(1, 0),))), 0)
    for day in (1, 2):
        apply(ledger, Publish(day, DayTerms(0, 500, 1000, forget_at_ms * day, quotas)), 0)
    return ledger


def test_ids_and_applicants_of_a_forgotten_day_are_free_before_it_is_purged() -> None:
    """Two hundred records wait to be purged. Their ids and applicants can be used at once."""
    ledger = office(QuotaTerms("q", 500))
    for one in range(200):
        apply(ledger, Reserve(f"r{one}", 1, (f"a{one}",), choice("q")), 0)
    apply(ledger, Release("r0"), 0)
    apply(ledger, Confirm("r1"), 0)
    apply(ledger, Publish(3, DayTerms(0, 5000, 6000, 7000, (QuotaTerms("q", 500),))), 0)
    assert apply(ledger, Confirm("r5"), 2000).status is Status.NOT_FOUND
    assert len(ledger.reservations) > 100, "it is not purged at once"
    for one in (0, 1, 2):
        assert lookup(ledger, f"r{one}", 2000) is None
        assert apply(ledger, Reserve(f"r{one}", 3, (f"a{one}",), choice("q")), 2000).status is Status.HELD
    assert apply(ledger, Reserve("new", 3, ("a7",), choice("q")), 2000).status is Status.HELD
    for _ in range(5):
        apply(ledger, Expire(3), 2000)
    assert sorted(ledger.reservations) == ["new", "r0", "r1", "r2"]
    assert sorted(ledger.claims) == ["a0", "a1", "a2", "a7"]
    assert audit(ledger) == []
    assert describe(rebuild("office", ledger.events)) == describe(ledger)


def test_holds_with_the_same_deadline_expire_in_the_order_of_their_ids() -> None:
    """The order of the reserves does not matter. A confirmed one is skipped."""
    ledger = office(QuotaTerms("q", 9))
    for name in ("d", "b", "a", "c"):
        apply(ledger, Reserve(name, 1, (name,), choice("q")), 0)
    apply(ledger, Confirm("a"), 1)
    apply(ledger, Reserve("late", 1, ("late",), choice("q"), hold_ttl_ms=500), 1)
    apply(ledger, Reserve("soon", 1, ("soon",), choice("q"), hold_ttl_ms=50), 1)
    expired = []
    while apply(ledger, Expire(1, 1), 100).units:
        last = ledger.events[-1]
        expired.append(last.reservation.id)  # type: ignore[union-attr]
    assert expired == ["soon", "b", "c", "d"]


def test_a_view_counts_overdue_holds_in_any_order() -> None:
    """Deadlines did not arrive in ascending order. Confirmed reservations do not count."""
    ledger = office(QuotaTerms("q", 9))
    for name, ttl_ms in (("a", 300), ("b", 100), ("c", 200), ("d", 400)):
        apply(ledger, Reserve(name, 1, (name,), choice("q"), hold_ttl_ms=ttl_ms), 0)
    apply(ledger, Confirm("c"), 1)
    for now_ms, held in ((99, 3), (100, 2), (300, 1), (400, 0)):
        seen = view(ledger, 1, now_ms)
        assert seen is not None
        assert (seen.quotas["q"].held, seen.quotas["q"].confirmed) == (held, 1)


def test_one_command_releases_a_bounded_number_of_cooled_units() -> None:
    """Of seventy cooled units, settling releases sixty-four, and a reserve releases the rest that it needs."""
    ledger = office(QuotaTerms("q", 70, COOLING))
    for one in range(70):
        apply(ledger, Reserve(f"r{one}", 1, (f"a{one}",), choice("q")), 0)
        apply(ledger, Release(f"r{one}"), 0)
    quota = ledger.days[1].quotas["q"]
    apply(ledger, Expire(1), 10)
    assert (quota.free, quota.cooling) == (64, 6)
    seen = view(ledger, 1, 10)
    assert seen is not None
    assert (seen.quotas["q"].available, seen.quotas["q"].cooling) == (70, 0)
    apply(ledger, Expire(1), 10)
    assert (quota.free, quota.cooling) == (70, 0)


def test_a_reschedule_needs_no_sweep() -> None:
    """It keeps the units it shares and takes overdue units of the quotas that lack some."""
    ledger = office(QuotaTerms("q", 301), QuotaTerms("am", 200), QuotaTerms("pm", 100))
    apply(ledger, Reserve("mine", 1, ("mine",), choice("q", "am"), hold_ttl_ms=900), 0)
    for one in range(199):
        apply(ledger, Reserve(f"am{one}", 1, (f"x{one}",), choice("q", "am")), 0)
    for one in range(100):
        apply(ledger, Reserve(f"pm{one}", 1, (f"y{one}",), choice("q", "pm")), 0)
    moved = apply(ledger, Reschedule("mine", 1, choice("q", "pm")), 100)
    assert (moved.status, moved.reservation and moved.reservation.state) == (Status.HELD, State.HELD)
    assert audit(ledger) == []


@pytest.mark.parametrize("changed", [QuotaTerms("q", 5, COOLING), QuotaTerms("r", 5)])
def test_publishing_again_takes_over_rules_and_new_quotas(changed: QuotaTerms) -> None:
    """The times are the same, but a rule or a quota differs."""
    ledger = office(QuotaTerms("q", 5))
    same = DayTerms(0, 500, 1000, 2000, (QuotaTerms("q", 5),))
    assert apply(ledger, Publish(1, same), 0).replayed
    outcome = apply(ledger, Publish(1, DayTerms(0, 500, 1000, 2000, (changed,))), 0)
    assert (outcome.status, outcome.replayed) == (Status.DONE, False)
    assert ledger.days[1].quotas[changed.name].re_release == changed.re_release


def test_an_outcome_has_reference_deadline_and_queue_numbers() -> None:
    """They are empty without a record."""
    ledger = office(QuotaTerms("q", 5))
    held = apply(ledger, Reserve("r", 1, ("a", "b"), choice("q")), 0)
    assert (held.reference, held.deadline_at_ms, list(held.queue_numbers)) == ("office~r", 100, [])
    assert list(apply(ledger, Confirm("r"), 0).queue_numbers) == [1, 2]
    nothing = Outcome(Status.SOLD_OUT)
    assert (nothing.reference, nothing.deadline_at_ms, list(nothing.queue_numbers)) == ("", 0, [])


def test_overdue_units_reduce_an_overbooking_first() -> None:
    """Units of hundreds of overdue holds beyond the overbooking are available at once."""
    ledger = office(QuotaTerms("q", 600, ReRelease(ReReleaseRule.WAIT_LIST)), QuotaTerms("r", 9))
    for one in range(600):
        apply(ledger, Reserve(f"r{one}", 1, (f"a{one}",), choice("q")), 0)
    apply(ledger, Reserve("waits", 1, ("w1", "w2", "w3", "w4", "w5"), choice("q"), join_wait_list=True), 0)
    apply(ledger, SetCapacity(1, "q", 100), 0)
    outcome = apply(ledger, Reserve("new", 1, ("new",), choice("q")), 100)
    assert outcome.status is Status.HELD
    waiting = lookup(ledger, "waits", 100)
    assert waiting is not None
    assert waiting.state is State.WAITING, "one unit was free at a time, and five are needed"
    assert audit(ledger) == []


def test_an_applicant_has_at_most_a_hundred_places_without_any_limit() -> None:
    """The bound keeps the number of claims to count small."""
    ledger = office(QuotaTerms("q", 500))
    apply(ledger, SetRules(Rules(identity_limits=())), 0)
    for one in range(100):
        assert apply(ledger, Reserve(f"r{one}", 1, ("a",), choice("q")), 0).status is Status.HELD
        apply(ledger, Confirm(f"r{one}"), 0)
    assert apply(ledger, Reserve("one more", 1, ("a",), choice("q")), 0).status is Status.IDENTITY_LIMIT
    assert apply(ledger, Reserve("other", 1, ("b",), choice("q")), 0).status is Status.HELD


def test_cooled_units_reduce_an_overbooking_as_far_as_a_reserve_needs() -> None:
    """Seventy units have cooled and sixty-seven are overbooked. The next reserve releases all of them."""
    ledger = office(QuotaTerms("q", 70, COOLING))
    for one in range(70):
        apply(ledger, Reserve(f"r{one}", 1, (f"a{one}",), choice("q")), 0)
        apply(ledger, Release(f"r{one}"), 0)
    assert apply(ledger, SetCapacity(1, "q", 3), 0).overbooked == 67
    outcome = apply(ledger, Reserve("new", 1, ("n1", "n2", "n3"), choice("q")), 10)
    assert outcome.status is Status.HELD
    assert audit(ledger) == []
