"""The undo of a no-show: its block ends, and every other block stays as it would be without the no-show."""

from __future__ import annotations

import pytest

from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    MarkNoShow,
    Publish,
    Release,
    Reserve,
    SetRules,
    UndoAttendance,
)
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.model import UNDO_WINDOW_MS_MAX, DayTerms, QuotaTerms, Rules
from quota_engine.domain.outcomes import Status
from quota_engine.domain.reconcile import correct_time
from quota_engine.domain.state_machine import apply
from tests.support.random_walks import choice_of

TOTAL = choice_of(("total",))
RULES = Rules(
    hold_ttl_ms=10_000,
    identity_limits=(),
    no_show_block_ms=500,
    undo_window_ms=100,
    cancellations_max=1,
    cancellations_window_ms=10_000,
    cancellations_block_ms=300,
    abandoned_holds_max=1,
    abandoned_holds_window_ms=10_000,
    abandoned_holds_block_ms=400,
)


def an_office(rules: Rules = RULES) -> Ledger:
    """Return an office with two days that have begun, and confirmed reservations ``a`` to ``d`` of one applicant."""
    ledger = Ledger("SBY")
    do(ledger, 0, SetRules(rules))
    for day in (11, 12):
        do(ledger, 0, Publish(day, DayTerms(0, 0, 50_000, 90_000, (QuotaTerms("total", 9),))))
    for name in "abcd":
        do(ledger, 0, Reserve(name, 11, ("ana", "budi"), TOTAL), Confirm(name))
    return ledger


def do(ledger: Ledger, now_ms: int, *commands: Command) -> None:
    for command in commands:
        assert apply(ledger, command, now_ms).ok, command


def blocked_until_ms(ledger: Ledger, now_ms: int, who: str = "ana") -> int:
    """Return the end of the applicant's block, or 0. Changes nothing."""
    copy = rebuild("SBY", ledger.events)
    assert describe(copy) == describe(ledger)
    return apply(copy, Reserve("probe", 12, (who,), TOTAL), now_ms).retry_at_ms


def test_undo_ends_the_block_of_all_applicants_and_forgets_them() -> None:
    ledger = an_office()
    do(ledger, 100, MarkNoShow("a"))
    assert [blocked_until_ms(ledger, 100, who) for who in ("ana", "budi")] == [600, 600]
    do(ledger, 199, UndoAttendance("a"))
    assert [blocked_until_ms(ledger, 199, who) for who in ("ana", "budi")] == [0, 0]
    assert ledger.penalties == {}


@pytest.mark.parametrize("steps_before", [0, 2])
def test_undo_keeps_a_block_of_cancellations(steps_before: int) -> None:
    ledger, cancellations = an_office(), (Cancel("c"), Cancel("d"))
    do(ledger, 100, *cancellations[:steps_before], MarkNoShow("a"), *cancellations[steps_before:])
    assert blocked_until_ms(ledger, 100) == 600
    do(ledger, 110, UndoAttendance("a"))
    assert blocked_until_ms(ledger, 110) == 400


def test_undo_keeps_a_block_of_abandoned_holds() -> None:
    ledger = an_office()
    do(ledger, 90, Reserve("e", 12, ("ana",), TOTAL), Release("e"))
    do(ledger, 100, Reserve("f", 12, ("ana",), TOTAL), MarkNoShow("a"), Release("f"))
    assert blocked_until_ms(ledger, 100) == 600
    assert ledger.abandoned.blocks == 0, "the no-show blocks for longer"
    do(ledger, 110, UndoAttendance("a"))
    assert blocked_until_ms(ledger, 110) == 500


def test_undo_keeps_the_blocks_of_other_no_shows() -> None:
    ledger = an_office()
    do(ledger, 100, MarkNoShow("a"))
    do(ledger, 150, MarkNoShow("b"))
    do(ledger, 160, UndoAttendance("b"))
    assert blocked_until_ms(ledger, 160) == 600
    do(ledger, 200, MarkNoShow("c"))  # from now on, "a" is final
    do(ledger, 210, UndoAttendance("c"))
    assert blocked_until_ms(ledger, 210) == 600
    assert apply(ledger, UndoAttendance("a"), 210).status is Status.TOO_LATE


def test_rules_of_the_no_show_decide_about_its_undo() -> None:
    ledger = an_office()
    do(ledger, 100, MarkNoShow("a"), CheckIn("b"))
    do(ledger, 101, SetRules(Rules(identity_limits=(), undo_window_ms=0)), MarkNoShow("c"))
    assert apply(ledger, UndoAttendance("c"), 101).status is Status.TOO_LATE
    do(ledger, 199, UndoAttendance("a"))
    assert blocked_until_ms(ledger, 199) == 0
    assert apply(ledger, UndoAttendance("b"), 200).status is Status.TOO_LATE


def test_undo_on_a_closed_day_ends_the_block_and_no_party_departs() -> None:
    ledger = an_office()
    do(ledger, 100, MarkNoShow("a"), CloseDay(11))
    do(ledger, 110, UndoAttendance("a"))
    assert blocked_until_ms(ledger, 110) == 0
    assert ledger.days[11].departed == 0
    assert ledger.days[11].quotas["total"].confirmed == 8


def test_corrected_time_bounds_the_undo() -> None:
    ledger = an_office()
    do(ledger, 40_000, CheckIn("a"))
    ledger.now_ms = 10_000_000  # a clock that was wrong
    assert correct_time(ledger, 1_000)
    assert ledger.reservations["a"].undo_until_ms == 1_100
    assert ledger.reservations["b"].undo_until_ms == 0


def test_undo_window_is_at_most_a_day() -> None:
    assert Rules(undo_window_ms=UNDO_WINDOW_MS_MAX).undo_window_ms == 86_400_000
    with pytest.raises(ValueError, match="undo_window_ms"):
        Rules(undo_window_ms=UNDO_WINDOW_MS_MAX + 1)
