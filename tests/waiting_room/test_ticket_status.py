"""Status of tickets."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from quota_engine.conformance.random_rooms import CLOSING_SEED, OPENS_AT_MS, SEED, terms
from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import DayView, QuotaView
from quota_engine.waiting_room.commands import (
    PLACES_LEFT_UNKNOWN,
    TICKETS_PER_CALL_MAX,
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    ViewRoom,
)
from quota_engine.waiting_room.machine import RoomState, answer_query, apply
from quota_engine.waiting_room.order import RoomOrder
from quota_engine.waiting_room.pacing import count_places_left, next_pace
from quota_engine.waiting_room.results import RoomView
from quota_engine.waiting_room.ticket_status import (
    Chance,
    TicketPhase,
    TicketPositions,
    TicketStatus,
    TicketStatuses,
    called_at_ms,
    pass_until_ms,
)

PEOPLE = 1_000


class Room:
    """A room of a thousand tickets, driven as an engine does."""

    def __init__(self, people: int = PEOPLE, **changes: object) -> None:
        self.state = RoomState()
        self.terms = terms(**changes)
        self.orders = RoomOrder("december", self.terms.commitment, "", SEED, CLOSING_SEED)
        apply(self.state, CreateRoom(self.terms), OPENS_AT_MS - 600_000)
        self.join(range(people), OPENS_AT_MS - 500_000)

    def join(self, people: range, now_ms: int) -> None:
        for number in people:
            assert apply(self.state, JoinRoom(f"{number:032x}"), now_ms).ok

    def open(self) -> None:
        assert apply(self.state, OpenRoom(SEED), OPENS_AT_MS).ok

    def serve(self, now_ms: int, left: int = PLACES_LEFT_UNKNOWN, latency_ms: int = 0) -> RoomView:
        view = self.view(now_ms)
        answer = apply(self.state, CallTickets(*next_pace(view, left, latency_ms), left), now_ms)
        assert answer.view is not None
        return answer.view

    def view(self, now_ms: int) -> RoomView:
        view = answer_query(self.state, ViewRoom(), now_ms).view
        assert view is not None
        return view

    def statuses(self, now_ms: int, seen_ms: int = 0) -> list[TicketStatus]:
        """Return the status of each ticket at ``now_ms`` from the last view."""
        view = self.view(seen_ms or now_ms)
        return [self.one(view, index, now_ms) for index in range(view.tickets)]

    def one(self, view: RoomView, index: int, now_ms: int) -> TicketStatus:
        return TicketStatuses(view).of(index + 1, TicketPositions(view, self.orders).of(index), now_ms)

    def phases(self, now_ms: int) -> Counter[TicketPhase]:
        return Counter(one.phase for one in self.statuses(now_ms))


def test_phases_of_a_ticket() -> None:
    """A ticket gets a position at the opening, is called in order, and misses its turn."""
    room = Room(turn_ms=20_000)
    assert room.phases(OPENS_AT_MS - 1) == {TicketPhase.NOT_OPEN: PEOPLE}
    assert room.phases(OPENS_AT_MS) == {TicketPhase.SHUFFLING: PEOPLE}
    room.open()
    assert room.phases(OPENS_AT_MS) == {TicketPhase.WAITING: PEOPLE}
    for second in range(16):
        view = room.serve(OPENS_AT_MS + second * 1_000)
    now_ms = OPENS_AT_MS + 15_000
    found = room.statuses(now_ms)
    assert view.called_count == sum(one.phase is TicketPhase.CALLED for one in found) == PEOPLE
    assert sorted(one.position for one in found) == list(range(1, PEOPLE + 1))
    assert [one.number for one in found] == list(range(1, PEOPLE + 1))
    assert room.phases(OPENS_AT_MS + 19_999) == {TicketPhase.CALLED: PEOPLE}
    first_called = [one for one in found if one.enter_until_ms == OPENS_AT_MS + 20_000]
    assert len(first_called) == 100
    assert room.phases(OPENS_AT_MS + 20_000)[TicketPhase.TURN_MISSED] == 100
    assert room.phases(OPENS_AT_MS + 600_000) == {TicketPhase.TURN_MISSED: PEOPLE}
    apply(room.state, CloseRoom(CLOSING_SEED), OPENS_AT_MS + 601_000)
    assert room.phases(OPENS_AT_MS + 601_000) == {TicketPhase.ROOM_CLOSED: PEOPLE}


def test_later_window_is_shuffled_behind_earlier_ones() -> None:
    """A window that has not ended has no positions."""
    room = Room(people=100, window_ms=10_000)
    room.open()
    room.join(range(100, 130), OPENS_AT_MS + 3_000)
    assert room.phases(OPENS_AT_MS + 3_000) == {TicketPhase.WAITING: 100, TicketPhase.SHUFFLING: 30}
    room.serve(OPENS_AT_MS + 10_000)
    late = [one.position for one in room.statuses(OPENS_AT_MS + 10_000)[100:]]
    assert sorted(late) == list(range(101, 131))
    assert late != sorted(late)


def test_closed_room_gives_all_tickets_the_same_status() -> None:
    """Also if the time alone closed it, and from an older view."""
    room = Room(people=50)
    room.open()
    view = room.serve(OPENS_AT_MS)
    closes_at_ms = room.terms.closes_at_ms
    told = {room.one(view, index, closes_at_ms).phase for index in range(50)}
    assert told == {TicketPhase.ROOM_CLOSED}
    for left, chance in ((0, Chance.NONE_LEFT), (1, Chance.MAY_NOT_REACH)):
        view = room.serve(OPENS_AT_MS + 1_000 * (left + 1), left=left)
        waiting = [room.one(view, index, view.now_ms) for index in range(50)]
        assert {one.chance for one in waiting if one.phase is not TicketPhase.CALLED} <= {chance}
        assert {one.places_left for one in waiting} == {left}


def test_chance_compares_places_left_with_tickets_ahead() -> None:
    room = Room(per_minute_max=60, burst=1)
    room.open()
    for second in range(3):
        view = room.serve(OPENS_AT_MS + 1_000 * second, left=300)
    assert view.called_count == 3
    for one in room.statuses(view.now_ms):
        if one.phase is TicketPhase.WAITING:
            assert (one.chance is Chance.ENOUGH) == (one.position <= 300), one
            assert (one.chance is Chance.MAY_NOT_REACH) == (one.position > 300), one
            assert one.ahead == one.position - 4


def test_chance_counts_several_places_per_ticket() -> None:
    room = Room(people=300, units_max=2, per_minute_max=60, burst=1)
    room.open()
    view = room.serve(OPENS_AT_MS, left=300)
    chances = Counter(room.one(view, index, view.now_ms).chance for index in range(300))
    assert chances == {Chance.ENOUGH: 150, Chance.LIKELY: 150}


def test_chance_before_the_opening_is_the_same_for_all() -> None:
    room = Room(people=20)
    told = room.statuses(OPENS_AT_MS - 10)
    assert {(one.chance, one.ahead, one.position, one.wait_ms) for one in told} == {(Chance.UNKNOWN, -1, -1, -1)}


def test_expected_wait_is_within_a_tenth() -> None:
    """At a steady pace, from a minute after the opening."""
    room = Room(per_minute_min=300, per_minute_max=300, burst=5)
    room.open()
    for second in range(61):
        room.serve(OPENS_AT_MS + second * 1_000)
    seen_ms = OPENS_AT_MS + 60_000
    told = {one.position: one for one in room.statuses(seen_ms) if one.phase is TicketPhase.WAITING}
    assert len(told) > 600
    position_after = {}
    for second in range(61, 240):
        view = room.serve(OPENS_AT_MS + second * 1_000)
        position_after[view.now_ms] = view.called_count
    for position, one in told.items():
        took_ms = next(now_ms for now_ms, mark in position_after.items() if mark >= position) - seen_ms
        assert abs(one.wait_ms - took_ms) <= took_ms / 10 + 2_000, one
        assert one.wait_ms_min <= one.wait_ms


def test_expected_wait_is_unknown_without_calls() -> None:
    room = Room(turn_ms=10_000)
    room.open()
    for second in range(40):
        room.serve(OPENS_AT_MS + second * 1_000, left=0)
    waiting = room.statuses(OPENS_AT_MS + 40_000)
    assert {(one.phase, one.wait_ms, one.chance) for one in waiting} == {(TicketPhase.WAITING, -1, Chance.NONE_LEFT)}
    assert min(one.wait_ms_min for one in waiting) == 0


def test_expiry_of_a_pass_does_not_depend_on_the_view() -> None:
    room = Room(per_minute_max=600, burst=10, turn_ms=60_000, pass_grace_ms=900_000)
    room.open()
    for second in range(5):
        room.serve(OPENS_AT_MS + second * 1_000)
    ends = [pass_until_ms(room.view(OPENS_AT_MS + later), 26) for later in (4_000, 30_000, 59_000)]
    assert ends == [OPENS_AT_MS + 2_000 + 60_000 + 900_000] * 3
    view = room.view(OPENS_AT_MS + 4_000)
    assert called_at_ms(view, 51) == 0
    assert called_at_ms(view, 50) == OPENS_AT_MS + 4_000


def test_ticket_newer_than_the_view_has_no_position() -> None:
    room = Room(people=3)
    room.open()
    view = room.serve(OPENS_AT_MS)
    room.join(range(3, 4), OPENS_AT_MS + 1)
    assert room.one(view, 3, OPENS_AT_MS + 1).phase is TicketPhase.SHUFFLING
    assert room.one(room.view(OPENS_AT_MS + 1), 3, OPENS_AT_MS + 1).phase is TicketPhase.SHUFFLING


# --- Pace ---------------------------------------------------------------------------------------------------------


def test_pace_follows_the_response_time() -> None:
    """A slow response halves it, and quick ones raise it step by step."""
    room = Room(per_minute_min=60, per_minute_max=6_000, latency_max_ms=200)
    room.open()
    view = room.view(OPENS_AT_MS)
    assert view.per_minute == 6_000
    assert next_pace(view, PLACES_LEFT_UNKNOWN, 200).per_minute == 6_000
    assert next_pace(view, PLACES_LEFT_UNKNOWN, 201).per_minute == 3_000
    for second in range(10):
        view = room.serve(OPENS_AT_MS + second * 1_000, latency_ms=1_000)
    assert view.per_minute == 60
    for second in range(10, 26):
        view = room.serve(OPENS_AT_MS + second * 1_000, latency_ms=20)
    assert view.per_minute == 6_000


def test_calls_are_limited_by_the_places_left() -> None:
    """With 100 places, 150 tickets are called before one takes a place."""
    room = Room(calls_per_100_places=150, per_minute_max=60_000, burst=1_000)
    room.open()
    for second in range(10):
        view = room.serve(OPENS_AT_MS + second * 1_000, left=100)
    assert view.called_count == 150
    assert (
        room.serve(OPENS_AT_MS + 20_000, left=60).called_count == 150
    )  # 40 took one; 60 left may be called 90, and 110 are
    assert room.serve(OPENS_AT_MS + 21_000, left=20).called_count == 150
    assert (
        room.serve(OPENS_AT_MS + 400_000, left=20).called_count == 150 + 30
    )  # those who did not come have lost their turn


def test_no_ticket_is_called_without_places_left() -> None:
    room = Room()
    room.open()
    assert room.serve(OPENS_AT_MS, left=0).called_count == 0
    assert room.serve(OPENS_AT_MS + 1_000, left=2).called_count == 3


def test_unknown_places_do_not_limit_calls() -> None:
    room = Room()
    room.open()
    assert next_pace(room.view(OPENS_AT_MS), PLACES_LEFT_UNKNOWN, 0).tickets_max == TICKETS_PER_CALL_MAX


def day_view(online: int, priority: int, morning: int, **changes: object) -> DayView:
    """Return a day with a general and a group allotment, and a session that guards both."""
    quotas = {
        name: QuotaView(available, available, 0, 0, 0, 0, 0)
        for name, available in (("online", online), ("priority", priority), ("morning", morning))
    }
    return msgspec.structs.replace(DayView(739_000, 0, 100, 200, False, 0, quotas), **changes)


ONLINE = Choice("new", "", "morning", "online", "", (("online", "morning"),))
PRIORITY = Choice("new", "", "morning", "online", "priority", (("priority", "morning"), ("online", "morning")))


@pytest.mark.parametrize(
    ("days", "choices", "left"),
    [
        ([day_view(10, 5, 100)], [ONLINE], 10),
        ([day_view(10, 5, 100)], [PRIORITY], 15),
        ([day_view(10, 5, 7)], [PRIORITY], 7),
        ([day_view(10, 5, 100)], [ONLINE, ONLINE, PRIORITY], 15),
        ([day_view(10, 5, 100), day_view(3, 0, 2)], [ONLINE], 12),
        ([day_view(10, 5, 100, closed=True)], [ONLINE], 0),
        ([day_view(10, 5, 100, opens_at_ms=51)], [ONLINE], 0),
        ([day_view(10, 5, 100, ends_at_ms=50)], [ONLINE], 0),
        ([day_view(10, 5, 100, quotas={})], [ONLINE], 0),
        ([], [ONLINE], 0),
        ([day_view(10, 5, 100)], [], 0),
    ],
)
def test_shared_places_count_once(days: list[DayView], choices: list[Choice], left: int) -> None:
    """Days that are not open have no places."""
    assert count_places_left(days, choices, 50) == left
