"""The state machine of a waiting room, one rule at a time and against an oracle."""

from __future__ import annotations

import copy
import gc
import tracemalloc
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_engine.conformance.random_rooms import CLOSING_SEED, OPENS_AT_MS, SEED, terms, walk
from quota_engine.domain.epochs import AdvanceEpoch, epoch_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.commands import (
    ACTIVE_CALLS_MAX,
    TICKETS_PER_CALL_MAX,
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    ViewRoom,
)
from quota_engine.waiting_room.machine import RoomState, answer_query, apply, describe, tickets_ordered
from quota_engine.waiting_room.results import RoomStatus, RoomView
from tests.support import room_oracle
from tests.support.effort import examples


def person(number: int) -> str:
    return f"{number:032x}"


def created(**changes: object) -> RoomState:
    """Return a room that gives tickets."""
    state = RoomState()
    assert apply(state, CreateRoom(terms(**changes)), OPENS_AT_MS - 600_000).ok
    return state


def joined(state: RoomState, people: range, now_ms: int) -> list[int]:
    return [apply(state, JoinRoom(person(number)), now_ms).index for number in people]


def opened(people: int, **changes: object) -> RoomState:
    """Return an open room with ``tickets`` tickets."""
    state = created(**changes)
    joined(state, range(people), OPENS_AT_MS - 1_000)
    assert apply(state, OpenRoom(SEED), OPENS_AT_MS).ok
    return state


def call_tickets(
    state: RoomState, now_ms: int, per_minute: int = 6_000, call_max: int = TICKETS_PER_CALL_MAX, left: int = -1
) -> RoomView:
    answer = apply(state, CallTickets(per_minute, call_max, left), now_ms)
    assert answer.view is not None
    return answer.view


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=examples(100, 300), deadline=None)
def test_random_walks_match_the_oracle(seed: int) -> None:
    """Outcomes and all fields of the state agree."""
    state, oracle = RoomState(), room_oracle.Room()
    for command, now_ms in walk(seed):
        before = describe(state)
        answer = apply(state, command, now_ms)
        expected = oracle.apply(command, now_ms)
        assert (str(answer.status), answer.index, answer.replayed, answer.retry_at_ms) == expected, command
        assert describe(state) == oracle.description(), command
        if not answer.ok and describe(state):
            assert describe(state) == before, "a refusal leaves no state"
        looked = answer_query(state, ViewRoom(), now_ms)
        assert looked.ok == (state.config is not None and max(now_ms, state.now_ms) < state.config.forget_at_ms)
        if answer.status is RoomStatus.JOINED:
            assert answer.epoch == oracle.joins[answer.index][2]
        if answer.view is not None:
            assert looked.view == answer.view
            check(answer.view)


@pytest.mark.parametrize(("known", "seen", "then"), [(1, 0, 2), (1, 1, 2), (1, 7, 8), (7, 1, 8)])
def test_next_epoch_follows_the_latest_that_was_seen(known: int, seen: int, then: int) -> None:
    room = created()
    room.epoch = known
    assert apply(room, AdvanceEpoch(seen), OPENS_AT_MS).ok
    assert room.epoch == then


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=examples(70, 200), deadline=None)
def test_lost_tickets_are_told_apart_by_their_epoch(seed: int) -> None:
    """A store takes the room over with a copy that lacks the last joins, several times, and sometimes an older copy."""
    random = Random(seed)
    copies = [created()]
    given: set[tuple[str, int, int]] = set()
    seen = 1
    for _ in range(random.randint(1, 6)):
        room = copy.deepcopy(random.choice(copies[-2:]))
        for _ in range(random.randrange(8)):
            applicant = person(random.randrange(12))
            answer = apply(room, JoinRoom(applicant), OPENS_AT_MS - 1_000)
            given.add((applicant, answer.index, answer.epoch))
            copies.append(copy.deepcopy(room))
        seen = max(seen, room.epoch)
        room = copy.deepcopy(random.choice(copies[-6:]))
        apply(room, AdvanceEpoch(seen), OPENS_AT_MS - 1_000)
        copies.append(room)
    for applicant, index, epoch in given:
        is_known = room.identities.get(applicant) == index and apply(room, JoinRoom(applicant), 0).epoch == epoch
        assert (epoch_of(room.epoch_starts, index) == epoch) == is_known


def check(view: RoomView) -> None:
    """Check the invariants of a room."""
    assert 0 <= view.turns_ended <= view.called_count <= tickets_ordered(view, view.changed_at_ms) <= view.tickets
    assert len(view.calls) <= ACTIVE_CALLS_MAX + 1
    assert [call.called_count for call in view.calls] == sorted({call.called_count for call in view.calls})
    burst = max(view.config.burst, -(-view.per_minute_max * view.config.step_ms // 60_000))
    assert 0 <= view.tokens <= burst * 60_000 < 2**53
    assert bool(view.seed) == bool(view.opened_at_ms)
    assert bool(view.closing_seed) == bool(view.closed_at_ms)


def test_identity_gets_the_same_ticket_again() -> None:
    state = created()
    assert joined(state, range(5), OPENS_AT_MS - 9_000) == [0, 1, 2, 3, 4]
    again = apply(state, JoinRoom(person(3)), OPENS_AT_MS + 5_000)
    assert (again.status, again.index, again.replayed) == (RoomStatus.JOINED, 3, True)
    apply(state, CloseRoom(CLOSING_SEED), OPENS_AT_MS + 6_000)
    assert apply(state, JoinRoom(person(3)), OPENS_AT_MS + 7_000).index == 3
    assert apply(state, JoinRoom(person(9)), OPENS_AT_MS + 7_000).status is RoomStatus.ROOM_CLOSED


def test_room_does_not_open_before_its_time() -> None:
    """BC Parks #414: a client with a fast clock opened a queue early. The store's clock decides here."""
    state = created()
    joined(state, range(10), OPENS_AT_MS - 2)
    before = describe(state)
    answer = apply(state, OpenRoom(SEED), OPENS_AT_MS - 1)
    assert (answer.status, answer.retry_at_ms) == (RoomStatus.NOT_OPEN, OPENS_AT_MS)
    assert call_tickets(state, OPENS_AT_MS - 1).called_count == 0
    assert describe(state) == before
    assert not state.seed, "a seed that was sent too early must not be told to anybody"


def test_no_ticket_is_called_before_the_seed_is_revealed() -> None:
    state = created()
    joined(state, range(10), OPENS_AT_MS - 2)
    assert call_tickets(state, OPENS_AT_MS + 60_000).called_count == 0
    assert apply(state, OpenRoom(SEED), OPENS_AT_MS + 61_000).ok
    assert call_tickets(state, OPENS_AT_MS + 61_000).called_count == 10


def test_number_of_tickets_is_fixed_at_the_opening() -> None:
    """Tickets from the first millisecond after it are in later windows."""
    state = created(window_ms=10_000)
    joined(state, range(3), OPENS_AT_MS - 1)
    joined(state, range(3, 5), OPENS_AT_MS)
    joined(state, range(5, 6), OPENS_AT_MS + 9_999)
    joined(state, range(6, 8), OPENS_AT_MS + 10_000)
    joined(state, range(8, 9), OPENS_AT_MS + 35_000)
    assert state.windows == [(0, 0), (1, 3), (2, 6), (4, 8)]


def test_room_cannot_be_created_after_its_opening() -> None:
    """A commitment has to exist before the tickets."""
    state = RoomState()
    assert apply(state, CreateRoom(terms()), OPENS_AT_MS).status is RoomStatus.ROOM_CLOSED
    assert describe(state) == {}


def test_other_settings_or_seed_conflict() -> None:
    state = opened(3)
    assert apply(state, CreateRoom(terms(burst=500)), OPENS_AT_MS).status is RoomStatus.CONFLICT
    assert apply(state, CreateRoom(terms()), OPENS_AT_MS).replayed
    assert apply(state, OpenRoom("00" * 32), OPENS_AT_MS).status is RoomStatus.CONFLICT
    assert apply(state, OpenRoom(SEED, "entropy that nobody announced"), OPENS_AT_MS).status is RoomStatus.CONFLICT
    assert apply(state, OpenRoom(SEED), OPENS_AT_MS).replayed
    assert apply(state, CloseRoom("00" * 32), OPENS_AT_MS).status is RoomStatus.CONFLICT


def test_announced_entropy_is_required_and_fixed() -> None:
    state = created(entropy_source="the lottery of 4 December 2026")
    assert apply(state, OpenRoom(SEED), OPENS_AT_MS).status is RoomStatus.CONFLICT
    assert apply(state, OpenRoom(SEED, "7 13 21"), OPENS_AT_MS).ok
    assert apply(state, OpenRoom(SEED, "7 13 22"), OPENS_AT_MS).status is RoomStatus.CONFLICT


def test_calls_keep_the_pace() -> None:
    """600 a minute are 10 a second, also if engines send more commands."""
    state = opened(1_000, per_minute_max=600, burst=10)
    for now_ms in range(OPENS_AT_MS, OPENS_AT_MS + 60_001, 100):
        call_tickets(state, now_ms)
    assert state.called_count == 610  # the first ten are called at once


def test_pause_accumulates_one_burst_at_most() -> None:
    state = opened(5_000, burst=200)
    call_tickets(state, OPENS_AT_MS)
    before = state.called_count
    assert call_tickets(state, OPENS_AT_MS + 3_000_000).called_count == before + 200


def test_abandoned_tickets_do_not_block_the_room() -> None:
    """AWS Virtual Waiting Room #154: abandoned tickets blocked a queue. Here the last 100 get their turn."""
    state = opened(1_000, per_minute_max=6_000, turn_ms=10_000)
    for second in range(30):
        view = call_tickets(state, OPENS_AT_MS + second * 1_000)
    assert view.called_count == 1_000
    assert view.turns_ended == 1_000
    assert view.calls == ()


def test_missed_turn_can_be_replaced_once() -> None:
    """A repeated command gets the same new ticket."""
    state = opened(3, turn_ms=1_000)
    call_tickets(state, OPENS_AT_MS)
    first = apply(state, JoinRoom(person(1), replaces_ticket=1), OPENS_AT_MS + 5_000)
    again = apply(state, JoinRoom(person(1), replaces_ticket=1), OPENS_AT_MS + 20_000)
    assert (first.index, again.index, again.replayed) == (3, 3, True)
    assert len(state.identities) == 3


@pytest.mark.slow
def test_joins_cost_one_entry_per_applicant() -> None:
    """A hundred thousand joins of a hundred applicants leave a hundred entries. Refusals leave none (G8)."""
    state = created(tickets_max=100)
    joined(state, range(100), OPENS_AT_MS - 1_000)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100_000):
            apply(state, JoinRoom(person(number)), OPENS_AT_MS - 1_000)
        traces = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    assert len(state.identities) == state.tickets == 100
    # Threads of the test runner allocate as well: only what the package itself allocated counts. Threads that earlier
    # tests left behind may still use it. A byte for each refusal is less than the smallest object.
    ours = traces.filter_traces([tracemalloc.Filter(True, "*/quota_engine/*")])
    assert sum(statistic.size for statistic in ours.statistics("filename")) < 99_900


def test_clock_set_back_adds_no_ticket_to_an_ended_window() -> None:
    state = opened(10)
    joined(state, range(10, 20), OPENS_AT_MS - 5_000)
    assert state.windows == [(0, 0), (1, 10)]
    assert tickets_ordered(state, state.now_ms) == 10


def test_query_does_not_end_a_window() -> None:
    """If the clock is set back after a query, the window can still get a ticket."""
    state = created(window_ms=10_000)
    joined(state, range(5), OPENS_AT_MS + 1_000)
    view = answer_query(state, ViewRoom(), OPENS_AT_MS + 50_000).view
    assert view is not None
    assert tickets_ordered(view, view.changed_at_ms) == 0
    apply(state, JoinRoom(person(9)), OPENS_AT_MS + 50_000)
    assert tickets_ordered(state, state.now_ms) == 5


def test_room_is_forgotten_at_forget_at_ms() -> None:
    """Its id can be used again."""
    state = opened(5)
    forget_at_ms = terms().forget_at_ms
    assert answer_query(state, ViewRoom(), forget_at_ms - 1).ok
    assert answer_query(state, ViewRoom(), forget_at_ms).status is RoomStatus.NOT_FOUND
    assert apply(state, JoinRoom(person(0)), forget_at_ms).status is RoomStatus.NOT_FOUND
    assert describe(state) == {}
    assert apply(state, CreateRoom(terms(opens_at_ms=forget_at_ms + 1, **later(forget_at_ms))), forget_at_ms).ok


def later(now_ms: int) -> dict[str, object]:
    return {"closes_at_ms": now_ms + 1_000_000, "forget_at_ms": now_ms + 9_000_000}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("office", "no such\tname"),
        ("office", ""),
        ("last_day", 739_000 - 1),
        ("last_day", 739_000 + 62),
        ("opens_at_ms", 0),
        ("opens_at_ms", True),
        ("closes_at_ms", OPENS_AT_MS),
        ("closes_at_ms", OPENS_AT_MS + 8 * 86_400_000),
        ("forget_at_ms", OPENS_AT_MS + 3_600_000),
        ("commitment", "AB" * 32),
        ("commitment", "ab" * 31),
        ("nonce", ""),
        ("entropy_source", "two\nlines"),
        ("entropy_source", " space"),
        ("tickets_max", 100_000_001),
        ("window_ms", 999),
        ("step_ms", 99),
        ("turn_ms", 513_000),
        ("pass_grace_ms", 0),
        ("per_minute_min", 0),
        ("per_minute_max", 6_000_001),
        ("burst", 99),
        ("units_max", 101),
    ],
)
def test_settings_out_of_range_are_rejected_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=field):
        terms(**{field: value})


@pytest.mark.parametrize(
    "make",
    [
        lambda: JoinRoom("not a hash"),
        lambda: JoinRoom(person(1), -2),
        lambda: JoinRoom(person(1), 100_000_000),
        lambda: OpenRoom("5E" * 32),
        lambda: OpenRoom(SEED, "a\tb"),
        lambda: OpenRoom(SEED, "x" * 257),
        lambda: CallTickets(-1),
        lambda: CallTickets(1, 1_000_001),
        lambda: CallTickets(1, 1, -2),
        lambda: CallTickets(1.5),  # type: ignore[arg-type]
        lambda: CloseRoom(""),
    ],
)
def test_invalid_commands_are_rejected(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidRequest):
        make()


def test_number_of_calls_in_a_view_is_bounded() -> None:
    """With the shortest steps and the longest turns."""
    state = opened(10_000, step_ms=100, turn_ms=51_200, per_minute_max=600, burst=1)
    for now_ms in range(OPENS_AT_MS, OPENS_AT_MS + 200_000, 100):
        call_tickets(state, now_ms, per_minute=600)
    view = call_tickets(state, OPENS_AT_MS + 200_000)
    assert ACTIVE_CALLS_MAX - 1 <= len(view.calls) <= ACTIVE_CALLS_MAX
    assert len(msgspec.json.encode(view)) < 25_000
