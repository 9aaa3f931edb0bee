"""Edge cases of the rules that random walks have found, each with as few commands as possible."""

from __future__ import annotations

import pytest

from quota_engine.domain.commands import (
    Cancel,
    CloseDay,
    Confirm,
    Expire,
    MarkNoShow,
    OpenDay,
    Publish,
    Release,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import DayTerms, QuotaTerms, Reallocation, ReRelease, ReReleaseRule, Rules
from quota_engine.domain.outcomes import Status
from quota_engine.domain.queries import lookup, view
from quota_engine.domain.state_machine import apply
from tests.support.random_walks import choice_of

OFFICE = "SBY"
TOTAL = choice_of(("total",))
WALK_IN = choice_of(("walkin",))


def an_office(*quotas: QuotaTerms, forget_at_ms: int = 900) -> Ledger:
    """Return an office with day 11, which is open from 0, starts at 500 and ends at 600."""
    ledger = Ledger(OFFICE)
    apply(ledger, Publish(11, DayTerms(0, 500, 600, forget_at_ms, quotas or (QuotaTerms("total", 2),))), 0)
    return ledger


class TestForeignRecords:
    def test_a_reschedule_to_an_unknown_day_shows_no_foreign_record(self) -> None:
        """The target is checked before the owner, so the refusal must not show the record."""
        ledger = an_office()
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 0)
        for day, choice, expected in (
            (12, TOTAL, Status.UNKNOWN_DAY),
            (11, choice_of(("nowhere",)), Status.UNKNOWN_QUOTA),
        ):
            outcome = apply(ledger, Reschedule("r1", day, choice, owner="eve"), 0)
            assert (outcome.status, outcome.reservation) == (expected, None)


class TestReallocation:
    @staticmethod
    def office_with_a_walk_in_allotment() -> Ledger:
        """Return an office whose allotment of one unit is reallocated at 75. The unit is held until 300."""
        ledger = an_office(QuotaTerms("total", 0), QuotaTerms("walkin", 1, reallocation=Reallocation("total", 75)))
        apply(ledger, Reserve("r1", 11, ("ana",), WALK_IN, hold_ttl_ms=300), 0)
        return ledger

    def test_units_returned_after_the_reallocation_time_are_reallocated(self) -> None:
        """At 75 there is no free unit. At 80 one is returned and reallocated in the same step."""
        ledger = self.office_with_a_walk_in_allotment()
        assert apply(ledger, Reserve("r2", 11, ("budi",), TOTAL), 76).status is Status.SOLD_OUT
        apply(ledger, Release("r1"), 80)
        assert apply(ledger, Reserve("r2", 11, ("budi",), TOTAL), 80).status is Status.HELD

    def test_a_refusal_does_not_advance_the_due_times(self) -> None:
        """A refusal at 80 leaves no event, so the time may be 60 again. The units are still reallocated at 75.

        Otherwise a rebuilt ledger would have other outcomes than the original.
        """
        ledger = self.office_with_a_walk_in_allotment()
        assert apply(ledger, Release("r1", owner="eve"), 80).status is Status.NOT_OWNER
        assert apply(ledger, Release("r1"), 60).status is Status.RELEASED
        again = rebuild(OFFICE, ledger.events)
        assert view(ledger, 11, 75) == view(again, 11, 75)
        for one in (ledger, again):
            assert apply(one, Reserve("r2", 11, ("budi",), TOTAL), 75).status is Status.HELD


class TestBlocks:
    def test_the_present_rules_count_earlier_cancellations(self) -> None:
        """The rules at the last cancellation decide about all cancellations within the window."""
        ledger = an_office()
        for name, rules in (("r1", Rules()), ("r2", Rules(cancellations_max=1, cancellations_block_ms=50))):
            apply(ledger, SetRules(rules), 10)
            apply(ledger, Reserve(name, 11, ("ana",), TOTAL), 10)
            apply(ledger, Confirm(name), 10)
            assert apply(ledger, Cancel(name), 10).status is Status.CANCELLED
        outcome = apply(ledger, Reserve("r3", 11, ("ana",), TOTAL), 20)
        assert (outcome.status, outcome.retry_at_ms) == (Status.BLOCKED, 60)

    @pytest.mark.parametrize(("window_ms", "expected"), [(10, Status.HELD), (11, Status.BLOCKED)])
    def test_the_start_of_the_window_is_excluded(self, window_ms: int, expected: Status) -> None:
        """Two cancellations 10 ms apart are both within a window of 11 ms, but not of 10 ms."""
        ledger = an_office()
        rules = Rules(cancellations_max=1, cancellations_window_ms=window_ms, cancellations_block_ms=50)
        apply(ledger, SetRules(rules), 0)
        for name, at_ms in (("r1", 10), ("r2", 20)):
            apply(ledger, Reserve(name, 11, ("ana",), TOTAL), at_ms)
            apply(ledger, Confirm(name), at_ms)
            apply(ledger, Cancel(name), at_ms)
        assert apply(ledger, Reserve("r3", 11, ("ana",), TOTAL), 20).status is expected

    def test_a_longer_window_restores_no_cancellation(self) -> None:
        """The cancellation at 10 was outside the window at 20, so it does not count at 25 under any window."""
        ledger = an_office()
        for name, at_ms, window_ms in (("r1", 10, 5), ("r2", 20, 5), ("r3", 25, 100)):
            rules = Rules(cancellations_max=2, cancellations_window_ms=window_ms, cancellations_block_ms=50)
            apply(ledger, SetRules(rules), at_ms)
            apply(ledger, Reserve(name, 11, ("ana",), TOTAL), at_ms)
            apply(ledger, Confirm(name), at_ms)
            assert apply(ledger, Cancel(name), at_ms).status is Status.CANCELLED
        assert apply(ledger, Reserve("r4", 11, ("ana",), TOTAL), 25).status is Status.HELD

    def test_a_party_is_blocked_until_its_last_block_ends(self) -> None:
        """Each applicant has their own block. The refusal shows the latest end."""
        ledger = an_office(forget_at_ms=5_000)
        apply(ledger, Publish(12, DayTerms(0, 2_000, 3_000, 5_000, (QuotaTerms("total", 2),))), 0)
        apply(ledger, SetRules(Rules(no_show_block_ms=100)), 0)
        for name, at_ms in (("ana", 510), ("budi", 520)):
            apply(ledger, Reserve(f"r-{name}", 11, (name,), TOTAL), 0)
            apply(ledger, Confirm(f"r-{name}"), 0)
            assert apply(ledger, MarkNoShow(f"r-{name}"), at_ms).status is Status.NO_SHOW
        both = Reserve("r3", 12, ("ana", "budi"), TOTAL)
        for now_ms in (530, 619):
            outcome = apply(ledger, both, now_ms)
            assert (outcome.status, outcome.retry_at_ms) == (Status.BLOCKED, 620)
        assert apply(ledger, both, 620).status is Status.HELD


class TestLateConfirm:
    @pytest.mark.parametrize(("confirmed_at_ms", "expected"), [(49, Status.HOLD_EXPIRED), (50, Status.CONFIRMED)])
    def test_a_late_confirm_reacquires_only_while_the_day_is_open(self, confirmed_at_ms: int, expected: Status) -> None:
        """The opening was postponed to 50 after the hold was made."""
        ledger = an_office()
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL, hold_ttl_ms=20), 0)
        apply(ledger, Publish(11, DayTerms(50, 500, 600, 900, (QuotaTerms("total", 2),))), 10)
        assert apply(ledger, Confirm("r1", reacquire=True), confirmed_at_ms).status is expected


class TestWaitList:
    @pytest.mark.parametrize(("deadline_ms", "state"), [(599, State.HELD), (600, State.WAITING)])
    def test_a_day_that_is_over_makes_no_offers(self, deadline_ms: int, state: State) -> None:
        """The day ends at 600. A unit that is returned one millisecond earlier is offered."""
        ledger = an_office(QuotaTerms("total", 1, ReRelease(ReReleaseRule.WAIT_LIST)))
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL, hold_ttl_ms=deadline_ms), 0)
        assert apply(ledger, Reserve("r2", 11, ("budi",), TOTAL, join_wait_list=True), 0).status is Status.WAITING
        apply(ledger, Expire(11), deadline_ms)
        waiting = lookup(ledger, "r2", deadline_ms)
        assert waiting is not None
        assert waiting.state is state

    def test_opening_a_closed_day_serves_the_wait_list_first(self) -> None:
        """Units returned while the day was closed are offered in the step that opens it."""
        ledger = an_office(QuotaTerms("total", 1, ReRelease(ReReleaseRule.WAIT_LIST)))
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL, hold_ttl_ms=100), 0)
        apply(ledger, Reserve("r2", 11, ("budi",), TOTAL, join_wait_list=True), 0)
        for command, state in (
            (CloseDay(11), State.WAITING),
            (Release("r1"), State.WAITING),
            (OpenDay(11), State.HELD),
        ):
            apply(ledger, command, 1)
            waiting = lookup(ledger, "r2", 1)
            assert waiting is not None
            assert waiting.state is state

    def test_a_small_party_overtakes_a_large_one_that_does_not_fit(self) -> None:
        """The large party keeps its position and is served when it fits."""
        ledger = an_office(QuotaTerms("total", 2, ReRelease(ReReleaseRule.WAIT_LIST)))
        for name in ("h1", "h2"):
            apply(ledger, Reserve(name, 11, (name,), TOTAL, hold_ttl_ms=100), 0)
        apply(ledger, Reserve("large", 11, ("ana", "budi"), TOTAL, join_wait_list=True), 0)
        apply(ledger, Reserve("small", 11, ("citra",), TOTAL, join_wait_list=True), 0)

        def states() -> list[State]:
            return [found.state for name in ("large", "small") if (found := lookup(ledger, name, 1))]

        apply(ledger, Release("h1"), 1)
        assert states() == [State.WAITING, State.HELD]
        apply(ledger, Release("h2"), 1)
        assert states() == [State.WAITING, State.HELD]
        apply(ledger, Release("small"), 1)
        assert states() == [State.HELD, State.RELEASED]


class TestForgetting:
    def test_a_forgotten_day_stays_unknown_when_the_clock_jumps_back(self) -> None:
        """Neither the day nor an earlier one can be published again; a later one can."""
        ledger = an_office(forget_at_ms=700)
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 0)
        assert apply(ledger, Confirm("r1"), 700).status is Status.NOT_FOUND
        assert apply(ledger, Confirm("r1"), 10).status is Status.NOT_FOUND
        assert apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 10).status is Status.UNKNOWN_DAY
        terms = DayTerms(0, 1_500, 1_600, 1_700, (QuotaTerms("total", 1),))
        assert [apply(ledger, Publish(day, terms), 10).status for day in (10, 11, 12)] == [
            Status.DAY_OVER,
            Status.DAY_OVER,
            Status.DONE,
        ]

    def test_the_ids_of_a_forgotten_day_are_free_again(self) -> None:
        """The record is unknown, so the same key makes a new reservation on another day."""
        ledger = an_office(forget_at_ms=700)
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 0)
        apply(ledger, Publish(12, DayTerms(0, 1_500, 1_600, 1_700, (QuotaTerms("total", 1),))), 0)
        outcome = apply(ledger, Reserve("r1", 12, ("budi",), TOTAL), 700)
        assert (outcome.status, outcome.replayed) == (Status.HELD, False)


class TestPublishing:
    @pytest.mark.parametrize(("now_ms", "expected"), [(899, Status.DONE), (900, Status.DAY_OVER)])
    def test_a_day_that_is_forgotten_at_once_is_not_published(self, now_ms: int, expected: Status) -> None:
        """The bound is exact to the millisecond."""
        terms = DayTerms(0, 500, 600, 900, (QuotaTerms("total", 2),))
        assert apply(Ledger(OFFICE), Publish(11, terms), now_ms).status is expected

    def test_publishing_a_day_again_keeps_its_capacities(self) -> None:
        """Capacities that an operator set stay, and another order is no difference. The publish is a replay."""
        ledger = an_office(QuotaTerms("total", 5), QuotaTerms("walkin", 3))
        apply(ledger, SetCapacity(11, "total", 2), 0)
        reversed_terms = DayTerms(0, 500, 600, 900, (QuotaTerms("walkin", 3), QuotaTerms("total", 5)))
        again = apply(ledger, Publish(11, reversed_terms), 1)
        assert (again.status, again.replayed) == (Status.DONE, True)
        seen = view(ledger, 11, 1)
        assert seen is not None
        assert {name: quota.capacity for name, quota in seen.quotas.items()} == {"total": 2, "walkin": 3}

    def test_publishing_a_day_again_takes_over_times_and_new_quotas(self) -> None:
        """An existing hold is unchanged."""
        ledger = an_office(QuotaTerms("total", 1))
        held = apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 0).reservation
        quotas = (QuotaTerms("total", 1), QuotaTerms("walkin", 3))
        apply(ledger, Publish(11, DayTerms(20, 500, 600, 900, quotas)), 10)
        early = apply(ledger, Reserve("r2", 11, ("budi",), WALK_IN), 10)
        assert (early.status, early.retry_at_ms) == (Status.NOT_OPEN, 20)
        assert apply(ledger, Reserve("r2", 11, ("budi",), WALK_IN), 20).status is Status.HELD
        assert apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 20).reservation == held


class TestOverbooking:
    def test_overdue_holds_reduce_an_overbooking_in_order_of_their_quota_sets(self) -> None:
        """The order of expiry decides which units reduce the overbooking and which cool."""
        cooling = ReRelease(ReReleaseRule.COOLING, cooling_ms=5)
        ledger = an_office(QuotaTerms("a", 2, cooling), QuotaTerms("b", 2))
        apply(ledger, Reserve("r1", 11, ("ana",), choice_of(("b", "a")), hold_ttl_ms=10), 0)
        apply(ledger, Reserve("r2", 11, ("eve",), choice_of(("a",)), hold_ttl_ms=20), 0)
        apply(ledger, SetCapacity(11, "a", 1), 0)
        seen = view(ledger, 11, 20)
        assert seen is not None
        assert (seen.quotas["a"].available, seen.quotas["a"].cooling) == (1, 0), "r2 worked it off, r1 has cooled since"
        apply(ledger, Expire(11), 20)
        assert view(ledger, 11, 20) == seen


class TestChangedReReleaseRule:
    def test_quotas_without_the_wait_list_rule_make_no_offers(self) -> None:
        """The quota's rule was changed while a party waited. The next reserve gets the unit."""
        served, not_served = ReRelease(ReReleaseRule.WAIT_LIST), ReRelease()
        ledger = an_office(QuotaTerms("total", 1, served))
        apply(ledger, Reserve("r1", 11, ("ana",), TOTAL), 0)
        assert apply(ledger, Reserve("r2", 11, ("budi",), TOTAL, join_wait_list=True), 0).status is Status.WAITING
        apply(ledger, Publish(11, DayTerms(0, 500, 600, 900, (QuotaTerms("total", 1, not_served),))), 1)
        apply(ledger, Release("r1"), 2)
        assert ledger.reservations["r2"].state is State.WAITING
        assert apply(ledger, Reserve("r3", 11, ("citra",), TOTAL), 2).status is Status.HELD


class TestPenalties:
    def test_each_cancellation_removes_two_outdated_penalties(self) -> None:
        """The number of penalties and the cost of a command stay bounded."""
        ledger = an_office(QuotaTerms("total", 9))
        apply(ledger, SetRules(Rules(cancellations_max=2, cancellations_window_ms=5)), 0)
        for number in range(6):
            apply(ledger, Reserve(f"r{number}", 11, (f"p{number}",), TOTAL), 0)
            apply(ledger, Confirm(f"r{number}"), 0)
        for number in range(5):
            apply(ledger, Cancel(f"r{number}"), 0)
        assert sorted(ledger.penalties) == ["p0", "p1", "p2", "p3", "p4"]
        apply(ledger, Cancel("r5"), 5)
        assert sorted(ledger.penalties) == ["p2", "p3", "p4", "p5"]
