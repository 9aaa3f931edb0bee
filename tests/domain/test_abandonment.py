"""The cap on holds that end without a confirm: the window, late sweeps, bounds, and the announcement."""

from __future__ import annotations

from itertools import permutations
from typing import Final

import pytest

from quota_engine.domain.abandonment import announce
from quota_engine.domain.commands import Cancel, Confirm, Expire, MoveIn, Publish, Release, Reserve, SetRules
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.model import ABANDONED_HOLDS_MAX, DayTerms, QuotaTerms, ReRelease, ReReleaseRule, Rules
from quota_engine.domain.outcomes import AbandonedHolds, Outcome, Status
from quota_engine.domain.penalties import PenaltyRecord
from quota_engine.domain.state_machine import apply
from tests.support.random_walks import choice_of

TOTAL = choice_of(("total",))
DAYS: Final = (11, 12, 13)
FORGET_AT_MS: Final = 100_000


def an_office(*, capacity: int = 9, rule: ReReleaseRule = ReReleaseRule.AT_ONCE, **rules: int) -> Ledger:
    """Return an office without identity limits. By default the second abandoned hold within 50 blocks for 30."""
    defaults = {"abandoned_holds_max": 1, "abandoned_holds_window_ms": 50, "abandoned_holds_block_ms": 30}
    ledger = Ledger("SBY")
    apply(ledger, SetRules(Rules(hold_ttl_ms=20, identity_limits=(), **(defaults | rules))), 0)  # type: ignore[arg-type]
    for day in DAYS:
        quotas = (QuotaTerms("total", capacity, ReRelease(rule)),)
        apply(ledger, Publish(day, DayTerms(0, 90_000, 90_000, FORGET_AT_MS, quotas)), 0)
    return ledger


def reserve(ledger: Ledger, name: str, now_ms: int, *, day: int = 11, who: str = "ana", wait: bool = False) -> Outcome:
    return apply(ledger, Reserve(name, day, (who,), TOTAL, wait), now_ms)


def abandon(ledger: Ledger, name: str, now_ms: int) -> Outcome:
    reserve(ledger, name, now_ms)
    return apply(ledger, Release(name), now_ms)


@pytest.mark.parametrize(("second_ms", "expected"), [(149, Status.BLOCKED), (150, Status.HELD)])
def test_the_window_excludes_its_start(second_ms: int, expected: Status) -> None:
    ledger = an_office()
    abandon(ledger, "a", 100)
    abandon(ledger, "b", second_ms)
    assert reserve(ledger, "c", second_ms).status is expected


def test_a_block_ends() -> None:
    ledger = an_office()
    abandon(ledger, "a", 100)
    assert abandon(ledger, "b", 101).blocked_until_ms == 131
    refused = reserve(ledger, "c", 130)
    assert (refused.status, refused.retry_at_ms) == (Status.BLOCKED, 131)
    assert reserve(ledger, "c", 131).status is Status.HELD


def test_a_later_block_shortens_no_earlier_one() -> None:
    ledger = an_office(cancellations_max=1, cancellations_block_ms=1000, abandoned_holds_window_ms=500)
    abandon(ledger, "a", 100)
    for name, day in zip(("b", "c", "d"), DAYS, strict=True):
        reserve(ledger, name, 101, day=day)
    for name in ("b", "c"):
        apply(ledger, Confirm(name), 102)
        apply(ledger, Cancel(name), 102)
    assert apply(ledger, Release("d"), 103).blocked_until_ms == 1102


@pytest.mark.parametrize("order", list(permutations(DAYS)))
def test_the_order_of_sweeps_does_not_matter(order: tuple[int, ...]) -> None:
    """Three holds expire on three days. Any order of sweeps, or none, leads to the same block."""
    for swept in range(4):
        ledger = an_office(abandoned_holds_max=2)
        for number, day in enumerate(DAYS):
            reserve(ledger, f"r{day}", 100 + number, day=day)
        for number, day in enumerate(order[:swept]):
            apply(ledger, Expire(day), 122 + number)
        refused = reserve(ledger, "late", 130)
        assert (refused.status, refused.retry_at_ms) == (Status.BLOCKED, 152)
        assert ledger.abandoned == AbandonedHolds(0, 3, 1)


def test_a_hold_that_a_sweep_finds_late_counts_at_its_deadline() -> None:
    """A block that the deadline led to may be over by then."""
    ledger = an_office()
    abandon(ledger, "a", 100)
    reserve(ledger, "b", 110, day=12)  # until 130: blocked until 160
    assert reserve(ledger, "c", 159).status is Status.BLOCKED
    ledger = an_office()
    abandon(ledger, "a", 100)
    reserve(ledger, "b", 110, day=12)
    assert reserve(ledger, "c", 160).status is Status.HELD


def test_more_overdue_holds_than_a_settling_expires() -> None:
    """Another applicant's 64 overdue holds come first in the settling. The own one counts all the same."""
    ledger = an_office(capacity=100)
    for number in range(70):
        reserve(ledger, f"other{number}", 100, who=f"other{number}")
    abandon(ledger, "a", 101)
    reserve(ledger, "zz", 101)
    assert reserve(ledger, "c", 121).status is Status.BLOCKED


def test_two_applicants_cannot_pass_an_offer_to_each_other() -> None:
    rules = {"abandoned_holds_max": 2, "abandoned_holds_window_ms": 9_000, "abandoned_holds_block_ms": 9_000}
    ledger = an_office(capacity=1, rule=ReReleaseRule.WAIT_LIST, **rules)
    reserve(ledger, "r0", 100, who="ana")
    statuses = []
    for number in range(1, 20):
        who = ("ana", "budi")[number % 2]
        statuses.append(reserve(ledger, f"r{number}", 100 + number, who=who, wait=True).status)
        apply(ledger, Release(f"r{number - 1}"), 100 + number)
    assert statuses == [Status.WAITING] * 5 + [Status.BLOCKED] * 14


def test_all_applicants_of_a_party_count() -> None:
    ledger = an_office()
    apply(ledger, Reserve("a", 11, ("ana", "budi"), TOTAL), 100)
    apply(ledger, Release("a"), 100)
    apply(ledger, Reserve("b", 11, ("budi", "citra"), TOTAL), 101)
    apply(ledger, Release("b"), 101)
    assert [reserve(ledger, who, 102, who=who).status for who in ("ana", "budi", "citra")] == [
        Status.HELD, Status.BLOCKED, Status.HELD,
    ]  # fmt: skip
    assert ledger.abandoned == AbandonedHolds(2, 0, 1)


def test_a_late_confirm_takes_an_abandoned_hold_back() -> None:
    ledger = an_office(abandoned_holds_max=2)
    reserve(ledger, "a", 100)
    apply(ledger, Expire(11), 125)
    assert ledger.penalties["ana"].abandoned_at_ms == (120,)
    assert apply(ledger, Confirm("a", reacquire=True), 126).status is Status.CONFIRMED
    assert "ana" not in ledger.penalties


def test_a_blocked_applicant_gets_no_place_by_a_late_confirm_or_a_move() -> None:
    ledger = an_office()
    abandon(ledger, "a", 100)
    reserve(ledger, "b", 101)
    assert apply(ledger, Confirm("b", reacquire=True), 121).status is Status.HOLD_EXPIRED
    assert apply(ledger, MoveIn("m", 12, ("ana",), TOTAL, 0, 1), 122).status is Status.BLOCKED


def test_memory_of_an_applicant_is_bounded() -> None:
    """Ends beyond the highest limit are dropped, and so is an applicant whose ends matter no more."""
    ledger = an_office(abandoned_holds_max=ABANDONED_HOLDS_MAX, abandoned_holds_window_ms=1, capacity=999)
    for number in range(2 * ABANDONED_HOLDS_MAX):
        abandon(ledger, f"r{number}", 100)
    assert len(ledger.penalties["ana"].abandoned_at_ms) == ABANDONED_HOLDS_MAX + 1
    reserve(ledger, "other", 500, who="budi")
    apply(ledger, Release("other"), 500)
    assert list(ledger.penalties) == ["budi"]


def test_without_a_limit_ends_are_counted_but_not_remembered() -> None:
    ledger = an_office(abandoned_holds_max=0)
    for number in range(5):
        released = abandon(ledger, f"r{number}", 100)
    assert (released.abandoned_holds_left, released.blocked_until_ms) == (None, 0)
    assert ledger.penalties == {}
    assert ledger.abandoned == AbandonedHolds(5, 0, 0)
    assert describe(rebuild("SBY", ledger.events)) == describe(ledger)


def test_the_announcement_is_of_the_applicant_with_the_fewest_left() -> None:
    ledger = an_office(abandoned_holds_max=3)
    abandon(ledger, "a", 100)
    ledger.penalties["budi"] = PenaltyRecord((), 0, (99, 100))
    held = apply(ledger, Reserve("b", 11, ("ana", "budi", "citra"), TOTAL), 101)
    assert (held.abandoned_holds_left, held.blocked_until_ms) == (1, 0)
    assert announce(ledger, Outcome(Status.HELD, held.reservation), 151).abandoned_holds_left is None
