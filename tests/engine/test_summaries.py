"""What is seen of days and waiting rooms, from what the store answered."""

from __future__ import annotations

import datetime

import pytest

from quota_engine import ManualClock, QuotaEngine, load_catalog
from quota_engine.catalog import day_terms
from quota_engine.domain.outcomes import DayView
from quota_engine.engine.summaries import (
    PLACES_LEFT_UNKNOWN,
    AuditSummary,
    DayState,
    RoomPhase,
    RoomSummary,
    day_state,
    openings,
    plain_day,
    summarize_room,
)
from quota_engine.workflows.waiting_rooms import RoomSettings

DAY = datetime.date(2026, 12, 7)
CATALOG = load_catalog("surabaya")
TERMS = day_terms(CATALOG, "surabaya", DAY)
assert TERMS is not None
OPENS_MS = TERMS.opens_at_ms
MINUTE_MS = 60_000


class Stage:
    """A week of an office in memory, its waiting room, and the clock."""

    def __init__(self, *, entropy_source: str = "", **settings: int) -> None:
        self.clock = ManualClock(OPENS_MS - 120 * MINUTE_MS)
        self.engine = QuotaEngine.open(clock=self.clock)
        self.engine.publish(CATALOG, DAY, DAY + datetime.timedelta(days=4))
        self.room = self.engine.room("surabaya-room")
        self.room.create(
            "surabaya",
            DAY,
            opens_at=OPENS_MS,
            joins_from=OPENS_MS - 60 * MINUTE_MS,
            entropy_source=entropy_source,
            settings=RoomSettings(**settings),
        )

    def at(self, minutes: float) -> None:
        """Go to so many minutes after the opening."""
        self.clock.set_ms(OPENS_MS + round(minutes * MINUTE_MS))

    def join(self, count: int) -> None:
        """Let so many people take a ticket."""
        for number in range(count):
            assert self.room.join(f"{number:016}").ok

    def look(self) -> RoomSummary:
        """The room as it goes now."""
        return summarize_room("surabaya-room", self.room.view())


def test_a_room_from_its_making_to_its_end() -> None:
    """Phase by phase: who waits, who has been called, how fast it goes, and how long the last one waits."""
    stage = Stage(per_minute_max=600, claim_ms=300_000)
    look = stage.look()
    assert (look.phase, look.tickets, look.rate_per_minute, look.wait_ms) == (RoomPhase.EARLY, 0, 0, -1)
    assert (look.first_day, look.last_day) == (DAY, DAY)
    stage.at(-30)
    stage.join(900)
    stage.at(-29)
    look = stage.look()
    assert (look.phase, look.tickets, look.waiting, look.called) == (RoomPhase.JOINING, 900, 900, 0)
    for second in range(5):
        stage.at(second / 60)
        look = stage.look()
    assert look.phase is RoomPhase.RUNNING
    assert (look.tickets, look.called, look.waiting, look.in_turn) == (900, 50, 850, 50)
    assert (look.per_minute, look.per_minute_min, look.per_minute_max) == (600, 60, 600)
    assert (look.places_left, look.opened_at_ms, look.ended_at_ms) == (100, OPENS_MS, 0)
    assert look.rate_per_minute == 600  # 40 in 4 seconds, after the first ten at once
    assert look.wait_ms == 850 * MINUTE_MS // 600
    stage.room.close()
    stage.at(1)
    look = stage.look()
    assert (look.phase, look.waiting, look.in_turn, look.wait_ms) == (RoomPhase.OVER, 850, 0, -1)
    assert look.ended_at_ms == OPENS_MS + 4_000


def test_the_rate_is_that_of_the_last_minute() -> None:
    """A room that nobody has looked at for long has not called anybody meanwhile."""
    stage = Stage(per_minute_max=60, claim_ms=300_000, calls_per_100_places=100_000)
    stage.at(-1)
    stage.join(300)
    for second in range(0, 120, 2):
        stage.at(second / 60)
        stage.look()
    assert 58 <= stage.look().rate_per_minute <= 62
    called = stage.look().called
    stage.at(4)
    assert stage.look().rate_per_minute <= stage.look().called - called


def test_a_room_that_waits_for_its_entropy() -> None:
    """It is due, and says so."""
    stage = Stage(entropy_source="the lottery of the evening")
    stage.at(1)
    assert (stage.look().phase, stage.look().entropy_source) == (RoomPhase.DUE, "the lottery of the evening")
    assert stage.look().places_left == PLACES_LEFT_UNKNOWN
    stage.room.open("4 8 15 16 23 42")
    stage.at(2)
    assert (stage.look().phase, stage.look().places_left) == (RoomPhase.RUNNING, 100)


def test_days_and_their_openings() -> None:
    """Whether a day sells; and which openings are worth looking for a room at."""
    stage = Stage()
    (view, *_) = stage.engine.availability("surabaya", DAY)
    assert day_state(view, OPENS_MS - 1) is DayState.EARLY
    assert day_state(view, OPENS_MS) is DayState.OPEN
    assert day_state(view, view.ends_at_ms) is DayState.OVER
    stage.engine.close_day("surabaya", DAY)
    (closed,) = stage.engine.availability("surabaya", DAY)
    assert day_state(closed, view.ends_at_ms) is DayState.CLOSED
    assert plain_day(closed)["day"] == "2026-12-07"
    assert plain_day(closed)["quotas"]["online"]["available"] == 100


@pytest.mark.parametrize(
    ("now_ms", "found"),
    [(0, [1_000]), (1_000, [1_000, 2_000]), (2_500, [2_000, 3_000]), (3_000, [3_000]), (604_803_000, [])],
)
def test_the_last_opening_and_the_next(now_ms: int, found: list[int]) -> None:
    """Older ones are over within a week."""
    views = [DayView(day, at_ms, at_ms, at_ms, False, 0, {}) for day, at_ms in enumerate((1_000, 2_000, 3_000, 3_000))]
    assert openings(views, now_ms) == found


def test_a_verdict() -> None:
    assert AuditSummary(5, 1, ()).plain() == {"ok": True, "at_ms": 5, "offices": 1, "findings": []}
    assert not AuditSummary(5, 1, ("a unit is missing",)).ok
