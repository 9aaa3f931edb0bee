"""Increases of counters over the last minutes."""

from __future__ import annotations

from quota_engine.clocks import ManualClock
from quota_engine.service.observability.recent_increase import RecentIncrease


def test_an_increase_counts_within_the_window_only() -> None:
    clock = ManualClock(1_000_000)
    recent = RecentIncrease(60_000, 10, clock.now_ms)
    assert recent.of("a", (5, 7)) == (0, 0)
    clock.advance_ms(30_000)
    assert recent.of("a", (8, 7)) == (3, 0)
    clock.advance_ms(40_000)
    assert recent.of("a", (9, 9)) == (4, 2)
    clock.advance_ms(59_999)
    assert recent.of("a", (9, 9)) == (1, 2)
    clock.advance_ms(60_000)
    assert recent.of("a", (9, 9)) == (0, 0)


def test_an_old_look_and_a_restarted_counter_are_no_increase() -> None:
    clock = ManualClock(1_000_000)
    recent = RecentIncrease(60_000, 1, clock.now_ms)
    recent.of("a", (5,))
    clock.advance_ms(121_000)
    assert recent.of("a", (500,)) == (0,)
    assert recent.of("a", (2,)) == (0,)
    recent.of("b", (1,))
    assert recent.of("a", (900,)) == (0,)
