"""Poll intervals: no turn is missed, and the load stays bounded."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest

from quota_engine.conformance.random_rooms import CLOSING_SEED, OPENS_AT_MS, SEED, terms
from quota_engine.waiting_room.commands import INDEX_NONE
from quota_engine.waiting_room.polling import POLL_MS_MAX, POLLS_PER_S, room_poll_after_ms, ticket_poll_after_ms
from quota_engine.waiting_room.results import RoomView, TicketCall
from quota_engine.waiting_room.ticket_status import TicketPhase, TicketStatuses

HOUR_MS = 3_600_000
TERMS = msgspec.structs.replace(
    terms(), opens_at_ms=OPENS_AT_MS, closes_at_ms=OPENS_AT_MS + 2 * HOUR_MS, turn_ms=300_000, per_minute_max=6_000
)


def make_view(after_ms: int, tickets: int = 1_000, mark: int = 0, **changes: object) -> RoomView:
    """Return a view of a room ``after_ms`` after its opening."""
    is_open = after_ms >= 0
    now_ms = OPENS_AT_MS + after_ms
    room = RoomView(
        now_ms=now_ms,
        changed_at_ms=now_ms,
        config=TERMS,
        tickets=tickets,
        windows=((0, 0),),
        seed=SEED if is_open else "",
        entropy="",
        opened_at_ms=OPENS_AT_MS if is_open else 0,
        called_count=mark,
        turns_ended=0,
        calls=(TicketCall(now_ms, mark, -1),) if mark else (),
        tokens=0,
        per_minute=6_000 if is_open else 0,
        last_step_at_ms=now_ms,
        places_left=-1,
        closed_at_ms=0,
        closing_seed="",
    )
    return msgspec.structs.replace(room, **changes)


def ticket_interval_ms(room: RoomView, position: int = INDEX_NONE) -> int:
    return ticket_poll_after_ms(room, TicketStatuses(room).of(1, position, room.now_ms))


def test_interval_before_the_opening_is_a_quarter_of_the_time_left() -> None:
    before = {
        bounds_ms: ticket_interval_ms(make_view(-bounds_ms)) for bounds_ms in (HOUR_MS, 120_000, 40_000, 5_000, 100)
    }
    assert before == {HOUR_MS: 60_000, 120_000: 30_000, 40_000: 10_000, 5_000: 1_000, 100: 1_000}
    assert all(room_poll_after_ms(make_view(-bounds_ms)) == after_ms for bounds_ms, after_ms in before.items())


def test_interval_is_zero_in_turn_and_a_minute_after_it() -> None:
    room = make_view(1_000, mark=10)
    assert ticket_interval_ms(room, 10) == 0
    lapsed = make_view(400_000, mark=10, calls=(), turns_ended=10)
    assert TicketStatuses(lapsed).of(1, 10, lapsed.now_ms).phase is TicketPhase.TURN_MISSED
    assert ticket_interval_ms(lapsed, 10) == POLL_MS_MAX
    over = make_view(1_000, closed_at_ms=OPENS_AT_MS + 1, closing_seed=CLOSING_SEED)
    assert (ticket_interval_ms(over, 10), room_poll_after_ms(over)) == (POLL_MS_MAX, POLL_MS_MAX)


def test_interval_is_half_of_the_shortest_wait() -> None:
    """It is half a window while tickets are shuffled."""
    room = make_view(1_000, tickets=100_000, mark=10)
    found = [ticket_interval_ms(room, 11 + ahead) for ahead in (0, 100, 1_000, 5_000, 80_000)]
    assert found == [1_000, 1_000, 5_000, 20_000, 30_000]
    assert ticket_interval_ms(room, INDEX_NONE) == 20_000
    assert ticket_interval_ms(make_view(1_000)) == 5_000
    assert room_poll_after_ms(make_view(1_000)) == 2_000


@pytest.mark.parametrize("tickets", [1, 100, 10_000, 1_000_000, 100_000_000])
@pytest.mark.parametrize("after_ms", [-HOUR_MS, -10_000, -1, 0, 1_000, HOUR_MS])
def test_interval_keeps_both_bounds(after_ms: int, tickets: int) -> None:
    """At most a quarter of a turn, and at most ``POLLS_PER_S`` polls of all tickets."""
    room = make_view(after_ms, tickets=tickets)
    longest_ms = TERMS.turn_ms // 4
    positions = {min(tickets, int(1.3**power)) for power in range(75)} if after_ms >= 0 else {INDEX_NONE}
    waits = {position: ticket_interval_ms(room, position) for position in positions}
    assert all(1_000 <= wait_ms <= max(longest_ms, POLL_MS_MAX) for wait_ms in waits.values())
    if after_ms >= 0:
        assert all(wait_ms <= longest_ms for wait_ms in waits.values())
        ordered = sorted(waits)
        polls_per_s = sum((second - first) * 1_000 / waits[first] for first, second in pairwise([*ordered, tickets]))
        near = 4 * TERMS.per_minute_max / 60 * (1 + math.log(tickets))  # steps round down: at most twice as often
        assert polls_per_s <= near + 2 * max(POLLS_PER_S, tickets * 1_000 / longest_ms)
    else:
        # Steps round down, by less than a half.
        (wait_ms,) = waits.values()
        assert wait_ms > min(tickets * 1_000 / POLLS_PER_S, longest_ms, POLL_MS_MAX) / 2
    assert room_poll_after_ms(room) <= POLL_MS_MAX


def test_short_turns_shorten_the_interval() -> None:
    brief = msgspec.structs.replace(TERMS, turn_ms=10_000)
    room = make_view(1_000, tickets=1_000_000, config=brief)
    assert ticket_interval_ms(room, 900_000) == 2_000
    assert room_poll_after_ms(room) == 2_000
