"""Consumer groups: deliveries, pending numbers, and the number up to which events may be trimmed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.domain.consumer_groups import (
    PENDING_MAX,
    ConsumerGroup,
    ConsumerGroupView,
    Lease,
    Range,
    acknowledge,
    drop_trimmed,
    new_group,
    ranges_of,
    take,
    view_of,
)


def test_a_new_group_starts_within_the_kept_events() -> None:
    """It starts after the given number, but not before the first kept event and not after the last."""
    assert new_group(0, 1, 10) == ConsumerGroup(0)
    assert new_group(0, 5, 10) == ConsumerGroup(4)
    assert new_group(7, 5, 10) == ConsumerGroup(7)
    assert new_group(99, 5, 10) == ConsumerGroup(10)
    assert new_group(0, 11, 10) == ConsumerGroup(10)  # all have been trimmed


def test_new_numbers_go_to_one_consumer_each() -> None:
    """Another consumer does not receive them while they are not idle."""
    group, first = take(ConsumerGroup(0), "w1", 3, 60, 1000, 10)
    group, second = take(group, "w2", 3, 60, 1000, 10)
    assert (first, second) == ([(1, 3)], [(4, 6)])
    assert group == ConsumerGroup(6, (Lease(1, 3, "w1", 1000), Lease(4, 6, "w2", 1000)))


def test_a_consumer_receives_its_pending_numbers_first() -> None:
    """They get a new time. With a higher limit, new numbers follow in the same lease."""
    group, _ = take(ConsumerGroup(0), "w1", 3, 60, 1000, 10)
    group, again = take(group, "w1", 3, 60, 1010, 10)
    assert (again, group) == ([(1, 3)], ConsumerGroup(3, (Lease(1, 3, "w1", 1010),)))
    group, more = take(group, "w1", 5, 60, 1020, 10)
    assert (more, group) == ([(1, 5)], ConsumerGroup(5, (Lease(1, 5, "w1", 1020),)))


def test_the_rest_of_a_long_lease_is_unchanged() -> None:
    """A lease longer than the limit keeps consumer and time for its rest."""
    group = ConsumerGroup(10, (Lease(1, 10, "w1", 1000),))
    mine, given = take(group, "w1", 4, 60, 1030, 10)
    assert (given, mine.leases) == ([(1, 4)], (Lease(1, 4, "w1", 1030), Lease(5, 10, "w1", 1000)))
    claimed, given = take(group, "w2", 4, 60, 1060, 10)
    assert (given, claimed.leases) == ([(1, 4)], (Lease(1, 4, "w2", 1060), Lease(5, 10, "w1", 1000)))


def test_only_idle_leases_go_to_another_consumer() -> None:
    """They do so from the exact millisecond at which they are idle."""
    group = ConsumerGroup(4, (Lease(1, 2, "w1", 1000), Lease(3, 4, "w2", 1001)))
    assert take(group, "w3", 9, 60, 1059, 4)[1] == []
    assert take(group, "w3", 9, 60, 1060, 4)[1] == [(1, 2)]
    assert take(group, "w3", 9, 60, 1061, 4)[1] == [(1, 4)]
    assert take(group, "w3", 9, 0, 1001, 4)[1] == [(1, 4)]


def test_own_numbers_come_before_idle_ones() -> None:
    """The limit counts the consumer's own numbers first. Deliveries are in ascending order."""
    group = ConsumerGroup(4, (Lease(1, 2, "dead", 0), Lease(3, 4, "w1", 1000)))
    assert take(group, "w1", 2, 60, 1000, 9)[1] == [(3, 4)]
    after, given = take(group, "w1", 3, 60, 1000, 9)
    assert given == [(1, 1), (3, 4)]
    assert after.leases == (Lease(1, 1, "w1", 1000), Lease(2, 2, "dead", 0), Lease(3, 4, "w1", 1000))


def test_pending_numbers_are_bounded() -> None:
    """With ``PENDING_MAX`` pending numbers, no new ones are delivered until some are acknowledged."""
    group, given = take(ConsumerGroup(0), "w1", PENDING_MAX - 1, 60, 1000, 10**6)
    assert given == [(1, PENDING_MAX - 1)]
    group, given = take(group, "w2", PENDING_MAX, 60, 1000, 10**6)
    assert given == [(PENDING_MAX, PENDING_MAX)]
    assert take(group, "w3", 5, 60, 1000, 10**6)[1] == []
    group, _ = acknowledge(group, [(1, 2)])
    assert take(group, "w3", 5, 60, 1000, 10**6)[1] == [(PENDING_MAX + 1, PENDING_MAX + 2)]


def test_any_consumer_may_acknowledge() -> None:
    """Ranges may split leases anywhere. Undelivered and acknowledged numbers do not count."""
    group = ConsumerGroup(12, (Lease(2, 6, "w1", 7), Lease(9, 12, "w2", 8)))
    after, closed = acknowledge(group, [(1, 2), (4, 4), (6, 10), (12, 20)])
    assert closed == 6
    assert after == ConsumerGroup(12, (Lease(3, 3, "w1", 7), Lease(5, 5, "w1", 7), Lease(11, 11, "w2", 8)))
    assert acknowledge(after, [(1, 2), (4, 4)]) == (after, 0)
    assert acknowledge(after, []) == (after, 0)
    assert acknowledge(after, [(1, 99)]) == (ConsumerGroup(12), 3)


def test_all_numbers_below_the_first_pending_one_are_acknowledged() -> None:
    assert ConsumerGroup(12).acknowledged == 12
    assert ConsumerGroup(12, (Lease(5, 5, "w1", 0), Lease(7, 12, "w1", 0))).acknowledged == 4


def test_trimmed_numbers_are_dropped() -> None:
    """The rest of the leases stays, and new numbers follow."""
    group = ConsumerGroup(9, (Lease(2, 3, "w1", 7), Lease(5, 9, "w2", 8)))
    assert drop_trimmed(group, 1) == group
    assert drop_trimmed(group, 6) == ConsumerGroup(9, (Lease(6, 9, "w2", 8),))
    assert drop_trimmed(group, 21) == ConsumerGroup(20)


def test_a_view_counts_pending_and_lag() -> None:
    group = ConsumerGroup(12, (Lease(5, 5, "w1", 0), Lease(7, 12, "w1", 3)))
    assert view_of("mail", group, 20) == ConsumerGroupView("mail", 4, 12, 7, 8, group.leases)
    assert view_of("mail", ConsumerGroup(12), 3).lag == 0


def test_numbers_become_ranges() -> None:
    """They may be unordered and have duplicates."""
    assert ranges_of([]) == []
    assert ranges_of([7, 3, 2, 7, 1, 9]) == [(1, 3), (7, 7), (9, 9)]


def numbers_of(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@pytest.mark.slow
@given(st.data())
def test_every_number_is_delivered_and_acknowledged_once(data: st.DataObject) -> None:
    """A naive model with sets of numbers is the reference."""
    group, last, now_ms = ConsumerGroup(0), 0, 0
    open_: dict[int, tuple[str, int]] = {}
    closed: set[int] = set()
    for _ in range(data.draw(st.integers(1, 25))):
        last += data.draw(st.integers(0, 4))
        now_ms += data.draw(st.integers(0, 3))
        consumer = data.draw(st.sampled_from("abc"))
        limit, idle_ms = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 4))
        mine = [one for one in sorted(open_) if open_[one][0] == consumer]
        idle = [one for one in sorted(open_) if open_[one][0] != consumer and now_ms - open_[one][1] >= idle_ms]
        new = list(range(group.delivered + 1, last + 1))
        expected = [*mine, *idle, *new][:limit]
        group, ranges = take(group, consumer, limit, idle_ms, now_ms, last)
        assert [number for first, end in ranges for number in range(first, end + 1)] == sorted(expected)
        open_ |= dict.fromkeys(expected, (consumer, now_ms))
        done = data.draw(st.lists(st.integers(1, last + 2), max_size=5))
        group, count = acknowledge(group, ranges_of(done))
        assert count == len(set(done) & set(open_))
        closed |= set(done) & set(open_)
        open_ = {number: whose for number, whose in open_.items() if number not in done}
        found = {one: (lease.consumer, lease.since_ms) for lease in group.leases for one in numbers_of([_range(lease)])}
        assert found == open_
        assert group.pending == len(open_)
        assert [lease.first for lease in group.leases] == sorted(lease.first for lease in group.leases)
        assert closed | set(open_) == set(range(1, group.delivered + 1))
        assert set(range(1, group.acknowledged + 1)) <= closed


def _range(lease: Lease) -> Range:
    return lease.first, lease.last
