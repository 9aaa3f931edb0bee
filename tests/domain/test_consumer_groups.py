"""Groups of consumers: who is given which numbers, what stays open, and what may be trimmed."""

from __future__ import annotations

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


def test_a_group_begins_within_what_is_kept() -> None:
    """After the number that is asked for, but not before the first kept event, nor after the last."""
    assert new_group(0, 1, 10) == ConsumerGroup(0)
    assert new_group(0, 5, 10) == ConsumerGroup(4)
    assert new_group(7, 5, 10) == ConsumerGroup(7)
    assert new_group(99, 5, 10) == ConsumerGroup(10)
    assert new_group(0, 11, 10) == ConsumerGroup(10)  # all have been trimmed


def test_new_numbers_go_to_one_consumer_each() -> None:
    """What one has been given, another is not, as long as it is not idle."""
    group, first = take(ConsumerGroup(0), "w1", 3, 60, 1000, 10)
    group, second = take(group, "w2", 3, 60, 1000, 10)
    assert (first, second) == ([(1, 3)], [(4, 6)])
    assert group == ConsumerGroup(6, (Lease(1, 3, "w1", 1000), Lease(4, 6, "w2", 1000)))


def test_who_asks_again_first_gets_what_it_has() -> None:
    """Its own open numbers come first and are its own anew; with a higher limit new ones come along, as one lease."""
    group, _ = take(ConsumerGroup(0), "w1", 3, 60, 1000, 10)
    group, again = take(group, "w1", 3, 60, 1010, 10)
    assert (again, group) == ([(1, 3)], ConsumerGroup(3, (Lease(1, 3, "w1", 1010),)))
    group, more = take(group, "w1", 5, 60, 1020, 10)
    assert (more, group) == ([(1, 5)], ConsumerGroup(5, (Lease(1, 5, "w1", 1020),)))


def test_what_is_left_by_the_limit_stays_as_it_was() -> None:
    """Of a lease that is longer than the limit, the rest keeps its consumer and its time."""
    group = ConsumerGroup(10, (Lease(1, 10, "w1", 1000),))
    mine, given = take(group, "w1", 4, 60, 1030, 10)
    assert (given, mine.leases) == ([(1, 4)], (Lease(1, 4, "w1", 1030), Lease(5, 10, "w1", 1000)))
    claimed, given = take(group, "w2", 4, 60, 1060, 10)
    assert (given, claimed.leases) == ([(1, 4)], (Lease(1, 4, "w2", 1060), Lease(5, 10, "w1", 1000)))


def test_idle_leases_are_claimed_and_no_others() -> None:
    """From the millisecond on at which a lease has been idle for long enough."""
    group = ConsumerGroup(4, (Lease(1, 2, "w1", 1000), Lease(3, 4, "w2", 1001)))
    assert take(group, "w3", 9, 60, 1059, 4)[1] == []
    assert take(group, "w3", 9, 60, 1060, 4)[1] == [(1, 2)]
    assert take(group, "w3", 9, 60, 1061, 4)[1] == [(1, 4)]
    assert take(group, "w3", 9, 0, 1001, 4)[1] == [(1, 4)]


def test_own_numbers_come_before_lower_ones_of_others() -> None:
    """The limit is for the consumer's own first; what is given stands in order all the same."""
    group = ConsumerGroup(4, (Lease(1, 2, "dead", 0), Lease(3, 4, "w1", 1000)))
    assert take(group, "w1", 2, 60, 1000, 9)[1] == [(3, 4)]
    after, given = take(group, "w1", 3, 60, 1000, 9)
    assert given == [(1, 1), (3, 4)]
    assert after.leases == (Lease(1, 1, "w1", 1000), Lease(2, 2, "dead", 0), Lease(3, 4, "w1", 1000))


def test_open_numbers_are_bounded() -> None:
    """With OPEN_MAX open numbers nothing new is given, until some are acknowledged."""
    group, given = take(ConsumerGroup(0), "w1", PENDING_MAX - 1, 60, 1000, 10**6)
    assert given == [(1, PENDING_MAX - 1)]
    group, given = take(group, "w2", PENDING_MAX, 60, 1000, 10**6)
    assert given == [(PENDING_MAX, PENDING_MAX)]
    assert take(group, "w3", 5, 60, 1000, 10**6)[1] == []
    group, _ = acknowledge(group, [(1, 2)])
    assert take(group, "w3", 5, 60, 1000, 10**6)[1] == [(PENDING_MAX + 1, PENDING_MAX + 2)]


def test_acknowledging_closes_open_numbers_whoever_has_them() -> None:
    """Ranges may cut leases anywhere; what was never given or is closed already counts nothing."""
    group = ConsumerGroup(12, (Lease(2, 6, "w1", 7), Lease(9, 12, "w2", 8)))
    after, closed = acknowledge(group, [(1, 2), (4, 4), (6, 10), (12, 20)])
    assert closed == 6
    assert after == ConsumerGroup(12, (Lease(3, 3, "w1", 7), Lease(5, 5, "w1", 7), Lease(11, 11, "w2", 8)))
    assert acknowledge(after, [(1, 2), (4, 4)]) == (after, 0)
    assert acknowledge(after, []) == (after, 0)
    assert acknowledge(after, [(1, 99)]) == (ConsumerGroup(12), 3)


def test_all_below_the_first_open_number_is_acknowledged() -> None:
    """What trimming goes by."""
    assert ConsumerGroup(12).acknowledged == 12
    assert ConsumerGroup(12, (Lease(5, 5, "w1", 0), Lease(7, 12, "w1", 0))).acknowledged == 4


def test_numbers_that_are_gone_are_not_waited_for() -> None:
    """Events that somebody trimmed without asking: what is left of the leases, and new ones from there on."""
    group = ConsumerGroup(9, (Lease(2, 3, "w1", 7), Lease(5, 9, "w2", 8)))
    assert drop_trimmed(group, 1) == group
    assert drop_trimmed(group, 6) == ConsumerGroup(9, (Lease(6, 9, "w2", 8),))
    assert drop_trimmed(group, 21) == ConsumerGroup(20)


def test_a_view_counts() -> None:
    """Pending is what is open, lag what is still to be given."""
    group = ConsumerGroup(12, (Lease(5, 5, "w1", 0), Lease(7, 12, "w1", 3)))
    assert view_of("mail", group, 20) == ConsumerGroupView("mail", 4, 12, 7, 8, group.leases)
    assert view_of("mail", ConsumerGroup(12), 3).lag == 0


def test_numbers_become_ranges() -> None:
    """In any order, and some twice."""
    assert ranges_of([]) == []
    assert ranges_of([7, 3, 2, 7, 1, 9]) == [(1, 3), (7, 7), (9, 9)]


def numbers_of(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(st.data())
def test_every_number_is_given_and_closed_once_in_the_end(data: st.DataObject) -> None:
    """Against sets of numbers: nobody is given what is closed or freshly another's, nothing is left out."""
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
