"""Summaries of waiting rooms."""

from __future__ import annotations

import datetime

import pytest

from quota_engine import ManualClock, QuotaEngine, load_catalog
from quota_engine.catalog import day_terms
from quota_engine.domain.outcomes import DayView
from quota_engine.waiting_room.commands import PLACES_LEFT_UNKNOWN
from quota_engine.waiting_room.summary import RoomPhase, RoomSummary, room_opening_times, summarize_room
from quota_engine.workflows.room_config import RoomSettings

DAY = datetime.date(2026, 12, 7)
CATALOG = load_catalog("surabaya")
TERMS = day_terms(CATALOG, "surabaya", DAY)
assert TERMS is not None
OPENS_AT_MS = TERMS.opens_at_ms
MINUTE_MS = 60_000


class OfficeWithRoom:
    """A week of an office in the memory store, its waiting room and a manual clock."""

    def __init__(self, *, entropy_source: str = "", **settings: int) -> None:
        self.clock = ManualClock(OPENS_AT_MS - 120 * MINUTE_MS)
        self.engine = QuotaEngine.open(clock=self.clock)
        self.engine.publish(CATALOG, DAY, DAY + datetime.timedelta(days=4))
        self.room = self.engine.room("surabaya-room")
        self.room.create(
            "surabaya",
            DAY,
            opens_at=OPENS_AT_MS,
            join_opens_at=OPENS_AT_MS - 60 * MINUTE_MS,
            entropy_source=entropy_source,
            settings=RoomSettings(**settings),
        )

    def set_minutes(self, minutes: float) -> None:
        """Set the clock to ``minutes`` after the opening."""
        self.clock.set_ms(OPENS_AT_MS + round(minutes * MINUTE_MS))

    def join(self, count: int) -> None:
        """Let ``count`` applicants take a ticket."""
        for number in range(count):
            assert self.room.join(f"{number:016}").ok

    def summary(self) -> RoomSummary:
        """Return the summary of the room now."""
        return summarize_room("surabaya-room", self.room.view())


def test_summary_before_the_room_gives_tickets() -> None:
    summary = OfficeWithRoom(per_minute_max=600, turn_ms=300_000).summary()
    assert (summary.phase, summary.tickets, summary.rate_per_minute) == (RoomPhase.SCHEDULED, 0, 0)
    assert summary.wait_ms == -1
    assert (summary.first_day, summary.last_day) == (DAY, DAY)


def test_summary_counts_tickets_before_the_opening() -> None:
    office = OfficeWithRoom(per_minute_max=600, turn_ms=300_000)
    office.set_minutes(-30)
    office.join(900)
    office.set_minutes(-29)
    summary = office.summary()
    assert (summary.phase, summary.tickets, summary.waiting, summary.called) == (RoomPhase.JOINING, 900, 900, 0)


def test_summary_of_an_open_and_a_closed_room() -> None:
    office = OfficeWithRoom(per_minute_max=600, turn_ms=300_000)
    office.set_minutes(-30)
    office.join(900)
    for second in range(5):
        office.set_minutes(second / 60)
        summary = office.summary()
    assert summary.phase is RoomPhase.OPEN
    assert (summary.tickets, summary.called, summary.waiting, summary.in_turn) == (900, 50, 850, 50)
    assert (summary.per_minute, summary.per_minute_min, summary.per_minute_max) == (600, 60, 600)
    assert (summary.places_left, summary.opened_at_ms, summary.ended_at_ms) == (100, OPENS_AT_MS, 0)
    assert summary.rate_per_minute == 600  # 40 tickets in 4 seconds, after the first ten at once
    assert summary.wait_ms == 850 * MINUTE_MS // 600
    office.room.close()
    office.set_minutes(1)
    summary = office.summary()
    assert (summary.phase, summary.waiting, summary.in_turn, summary.wait_ms) == (RoomPhase.CLOSED, 850, 0, -1)
    assert summary.ended_at_ms == OPENS_AT_MS + 4_000


def test_rate_counts_the_last_minute_only() -> None:
    """A room calls tickets when a request reaches it, so a room without requests has called none."""
    office = OfficeWithRoom(per_minute_max=60, turn_ms=300_000, calls_per_100_places=100_000)
    office.set_minutes(-1)
    office.join(300)
    for second in range(0, 120, 2):
        office.set_minutes(second / 60)
        office.summary()
    assert 58 <= office.summary().rate_per_minute <= 62
    called = office.summary().called
    office.set_minutes(4)
    assert office.summary().rate_per_minute <= office.summary().called - called


def test_room_without_its_entropy_is_opening() -> None:
    office = OfficeWithRoom(entropy_source="the lottery of the evening")
    office.set_minutes(1)
    summary = office.summary()
    assert (summary.phase, summary.entropy_source) == (RoomPhase.OPENING, "the lottery of the evening")
    assert summary.places_left == PLACES_LEFT_UNKNOWN
    office.room.open("4 8 15 16 23 42")
    office.set_minutes(2)
    assert (office.summary().phase, office.summary().places_left) == (RoomPhase.OPEN, 100)


@pytest.mark.parametrize(
    ("now_ms", "expected"),
    [(0, [1_000]), (1_000, [1_000, 2_000]), (2_500, [2_000, 3_000]), (3_000, [3_000]), (604_803_000, [])],
)
def test_room_opening_times_are_the_last_and_the_next(now_ms: int, expected: list[int]) -> None:
    """A room is open for a week at most, so the opening of a week ago has no room."""
    views = [DayView(day, at_ms, at_ms, at_ms, False, 0, {}) for day, at_ms in enumerate((1_000, 2_000, 3_000, 3_000))]
    assert room_opening_times(views, now_ms) == expected
