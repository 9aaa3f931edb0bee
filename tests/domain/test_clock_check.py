"""A ledger that was written at a wrong time, and the check of a clock against a second one."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import (
    DAY,
    FORGET_AT_MS,
    HOLD_TTL_MS,
    OFFICE,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    PUBLIC,
    RULES,
    STARTS_AT_MS,
    published,
    reserve,
)
from quota_engine.domain.audit import audit
from quota_engine.domain.clock_check import LEAP_MS_DEFAULT, explain_leap, find_leap
from quota_engine.domain.commands import Confirm, Release, SetCapacity, SetRules
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.events import TimeCorrected
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.outcomes import Status
from quota_engine.domain.queries import lookup, view
from quota_engine.domain.reconcile import CLOCKS_DIFFER_MS, correct_time
from quota_engine.domain.state_machine import apply, apply_batch

HALF_A_YEAR_MS = 182 * 86_400_000


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(OFFICE)
    apply_batch(ledger, published(), OPENS_AT_MS)
    apply(ledger, reserve("ani", ONLINE), OPENS_AT_MS)
    return ledger


def test_ledger_written_at_a_wrong_time_forgets_nothing(ledger: Ledger) -> None:
    """The last event is after the end of the days, but no later command is at such a time."""
    ledger.now_ms = FORGET_AT_MS + 1  # an event of then, which has forgotten no day itself
    assert apply(ledger, Release("nobody"), OPENS_AT_MS + 1).status is Status.NOT_FOUND
    assert view(ledger, DAY, OPENS_AT_MS + 1) is not None
    assert lookup(ledger, "ani", OPENS_AT_MS + 1) is not None
    assert apply(ledger, reserve("budi", ONLINE), OPENS_AT_MS + 1).status is Status.DAY_OVER
    apply(ledger, Release("nobody"), FORGET_AT_MS)
    assert view(ledger, DAY, FORGET_AT_MS) is None


def test_time_is_brought_back(ledger: Ledger) -> None:
    """Records of then are as if they were made now, and a hold of then ends no later than one of now."""
    later_ms = OPENS_AT_MS + 3_600_000
    apply(ledger, reserve("budi", PRIORITY), later_ms)
    apply(ledger, Confirm("budi"), later_ms)
    apply(ledger, reserve("citra", PUBLIC), later_ms)
    assert correct_time(ledger, OPENS_AT_MS + 1) == 3_599_999
    assert ledger.now_ms == OPENS_AT_MS + 1
    assert ledger.events[-1] == TimeCorrected(OPENS_AT_MS + 1, later_ms)
    hold, place = ledger.reservations["citra"], ledger.reservations["budi"]
    assert (hold.created_at_ms, hold.deadline_at_ms) == (OPENS_AT_MS + 1, OPENS_AT_MS + 1 + HOLD_TTL_MS)
    assert place.created_at_ms == OPENS_AT_MS + 1
    assert audit(ledger) == []
    assert describe(rebuild(OFFICE, ledger.events)) == describe(ledger)
    assert apply(ledger, Confirm("citra"), hold.deadline_at_ms).status is Status.HOLD_EXPIRED
    assert audit(ledger) == []


def test_hold_of_before_lasts_no_longer_than_an_offer(ledger: Ledger) -> None:
    """An offer of then to an applicant who has waited for longer."""
    apply(ledger, SetRules(replace(RULES, offer_ttl_ms=HOLD_TTL_MS)), OPENS_AT_MS)
    ledger.now_ms = OPENS_AT_MS + 3_600_000
    record = ledger.reservations["ani"]
    ledger.reservations["ani"] = replace(record, deadline_at_ms=ledger.now_ms + HOLD_TTL_MS)
    assert correct_time(ledger, OPENS_AT_MS) == 3_600_000
    assert ledger.reservations["ani"].deadline_at_ms == OPENS_AT_MS + HOLD_TTL_MS


def test_record_of_a_forgotten_day_keeps_its_time(ledger: Ledger) -> None:
    forgotten = replace(ledger.reservations["ani"], id="old", day=DAY - 1, created_at_ms=OPENS_AT_MS + 2)
    ledger.reservations["old"] = forgotten
    ledger.now_ms += 3_600_000
    correct_time(ledger, OPENS_AT_MS)
    assert ledger.reservations["old"] is forgotten


def test_small_difference_of_clocks_needs_no_correction(ledger: Ledger) -> None:
    assert correct_time(ledger, OPENS_AT_MS - CLOCKS_DIFFER_MS) == 0
    assert not isinstance(ledger.events[-1], TimeCorrected)


@pytest.mark.parametrize(
    ("now_ms", "caller_ms", "is_refused"),
    [
        (OPENS_AT_MS + HALF_A_YEAR_MS, OPENS_AT_MS, True),
        (OPENS_AT_MS - HALF_A_YEAR_MS, OPENS_AT_MS, True),
        (OPENS_AT_MS + HALF_A_YEAR_MS, OPENS_AT_MS + HALF_A_YEAR_MS, False),
        (OPENS_AT_MS + 1, OPENS_AT_MS + HALF_A_YEAR_MS, False),
        (OPENS_AT_MS + LEAP_MS_DEFAULT, OPENS_AT_MS, False),
        (OPENS_AT_MS + LEAP_MS_DEFAULT + 1, OPENS_AT_MS, True),
    ],
)
def test_time_must_fit_the_last_event_or_the_second_clock(
    ledger: Ledger, now_ms: int, caller_ms: int, is_refused: bool
) -> None:
    assert bool(find_leap(ledger, now_ms, caller_ms)) is is_refused


def test_day_is_forgotten_only_if_the_second_clock_agrees(ledger: Ledger) -> None:
    apply(ledger, SetCapacity(DAY, "online", 5), FORGET_AT_MS - 1)
    assert find_leap(ledger, FORGET_AT_MS - 1, STARTS_AT_MS) == ""
    assert find_leap(ledger, FORGET_AT_MS, STARTS_AT_MS) != ""
    assert find_leap(ledger, FORGET_AT_MS, FORGET_AT_MS - LEAP_MS_DEFAULT) == ""


def test_new_ledger_must_fit_the_second_clock() -> None:
    assert find_leap(Ledger(OFFICE), OPENS_AT_MS, OPENS_AT_MS + HALF_A_YEAR_MS) != ""
    assert find_leap(Ledger(OFFICE), OPENS_AT_MS, ManualClock(OPENS_AT_MS).now_ms()) == ""


def test_refusal_names_the_times() -> None:
    text = explain_leap(OPENS_AT_MS, 0, 10**17)
    assert "the store's clock shows 2001-09-09 01:46:40 UTC" in text
    assert "this machine's clock shows 1970-01-01 00:00:00 UTC" in text
    assert "the ledger's last event was at 100000000000000000 ms" in text
    assert "the ledger has no event yet" in explain_leap(OPENS_AT_MS, 0, 0)
