"""Groups of consumers that share the events of one office: which are open, who has them, and what may be trimmed.

Only numbers of events are kept, as ranges. A number is *delivered* when a consumer of the group has been given it, and
*open* until it is acknowledged, by whomever. Who has open numbers gets them again first; what somebody else has had for
too long goes to the next who asks.
"""

from __future__ import annotations

__all__ = [
    "GROUPS_MAX",
    "PENDING_MAX",
    "ConsumerGroup",
    "ConsumerGroupView",
    "Lease",
    "Range",
    "acknowledge",
    "drop_trimmed",
    "new_group",
    "ranges_of",
    "take",
    "view_of",
]

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

GROUPS_MAX: Final = 64
"""Groups of one office."""
PENDING_MAX: Final = 10_000
"""Open numbers of one group: with as many it is given nothing new until some of them are acknowledged."""

Range = tuple[int, int]
"""The first and the last of numbers that follow each other."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """Open numbers from ``first`` to ``last``, which ``consumer`` was given (last) at ``since_ms``."""

    first: int
    last: int
    consumer: str
    since_ms: int


class ConsumerGroup(msgspec.Struct, frozen=True):
    """A group: numbers up to ``delivered`` have been given to somebody, those in ``leases`` are open. Leases stand in
    the order of their numbers and share none.
    """

    delivered: int
    leases: tuple[Lease, ...] = ()

    @property
    def acknowledged(self) -> int:
        """All numbers up to this one are done with."""
        return self.leases[0].first - 1 if self.leases else self.delivered

    @property
    def pending(self) -> int:
        """How many numbers are open."""
        return sum(lease.last - lease.first + 1 for lease in self.leases)


class ConsumerGroupView(msgspec.Struct, frozen=True):
    """A group as it stands.

    Attributes:
        name: the group's.
        acknowledged: all events up to this number are done with; trimming stops there.
        delivered: the highest number that a consumer has been given.
        pending: events that a consumer has been given and nobody has acknowledged.
        lag: events that no consumer has been given yet.
        leases: who has the pending ones, and since when.
    """

    name: str
    acknowledged: int
    delivered: int
    pending: int
    lag: int
    leases: tuple[Lease, ...]


def new_group(after: int, first: int, last: int) -> ConsumerGroup:
    """A group that gets the numbers above ``after``, as far as they are kept: from ``first`` to ``last``."""
    return ConsumerGroup(min(max(after, first - 1), last))


def drop_trimmed(group: ConsumerGroup, first: int) -> ConsumerGroup:
    """The group without the numbers below ``first``. They are gone (somebody else trimmed the events): nobody can be
    given them, and so nobody would ever acknowledge them.
    """
    leases = tuple(
        Lease(max(lease.first, first), lease.last, lease.consumer, lease.since_ms)
        for lease in group.leases
        if lease.last >= first
    )
    return ConsumerGroup(max(group.delivered, first - 1), leases)


def take(
    group: ConsumerGroup, consumer: str, limit: int, min_idle_ms: int, now_ms: int, last: int
) -> tuple[ConsumerGroup, list[Range]]:
    """Give ``consumer`` up to ``limit`` numbers: what it has open, then what others have had open for ``min_idle_ms``
    or longer, then new ones up to ``last``; in each the lowest first.

    Returns the group after it, and the numbers in their order. What is given is the consumer's since ``now_ms``.
    """
    wanted = limit
    taken: list[Lease] = []
    left: list[Lease] = []
    mine = [lease for lease in group.leases if lease.consumer == consumer]
    others = [lease for lease in group.leases if lease.consumer != consumer]
    for lease in (*mine, *others):
        may_have = lease.consumer == consumer or now_ms - lease.since_ms >= min_idle_ms
        units = min(wanted, lease.last - lease.first + 1) if may_have else 0
        wanted -= units
        if units:
            taken.append(Lease(lease.first, lease.first + units - 1, consumer, now_ms))
        if lease.first + units <= lease.last:
            left.append(Lease(lease.first + units, lease.last, lease.consumer, lease.since_ms))
    new = max(0, min(wanted, PENDING_MAX - group.pending, last - group.delivered))
    if new:
        taken.append(Lease(group.delivered + 1, group.delivered + new, consumer, now_ms))
    given = _joined(sorted(taken, key=_first))
    leases = _joined(sorted([*given, *left], key=_first))
    return ConsumerGroup(group.delivered + new, tuple(leases)), [(lease.first, lease.last) for lease in given]


def acknowledge(group: ConsumerGroup, ranges: Sequence[Range]) -> tuple[ConsumerGroup, int]:
    """Close the open ones among the numbers in ``ranges`` (in order, apart from each other), whoever has them.

    Returns the group after it, and how many they were.
    """
    leases: list[Lease] = []
    at = 0
    for lease in group.leases:
        first = lease.first
        while at < len(ranges) and ranges[at][1] < first:
            at += 1
        look = at  # the last range of this lease may reach into the next
        while look < len(ranges) and ranges[look][0] <= lease.last:
            if ranges[look][0] > first:
                leases.append(Lease(first, ranges[look][0] - 1, lease.consumer, lease.since_ms))
            first = max(first, ranges[look][1] + 1)
            at, look = look, look + 1
        if first <= lease.last:
            leases.append(Lease(first, lease.last, lease.consumer, lease.since_ms))
    after = ConsumerGroup(group.delivered, tuple(leases))
    return after, group.pending - after.pending


def view_of(name: str, group: ConsumerGroup, last: int) -> ConsumerGroupView:
    """The group as it stands when ``last`` is the number of the last event."""
    lag = max(0, last - group.delivered)
    return ConsumerGroupView(name, group.acknowledged, group.delivered, group.pending, lag, group.leases)


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """Numbers, in any order and some perhaps twice, as ranges in order and apart from each other."""
    ranges: list[Range] = []
    for number in sorted(numbers):
        if ranges and number <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _first(lease: Lease) -> int:
    return lease.first


def _joined(leases: Iterable[Lease]) -> list[Lease]:
    """Neighbours that one consumer was given at one moment become one."""
    joined: list[Lease] = []
    for lease in leases:
        before = joined[-1] if joined else None
        if before is not None and (before.last + 1, before.consumer, before.since_ms) == (
            lease.first,
            lease.consumer,
            lease.since_ms,
        ):
            joined[-1] = Lease(before.first, lease.last, lease.consumer, lease.since_ms)
        else:
            joined.append(lease)
    return joined
