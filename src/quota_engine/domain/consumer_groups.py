"""Consumer groups: consumers that share the events of one office.

A group keeps ranges of event numbers, not events. A number is *delivered* when a consumer of the group has received it,
and *pending* until a consumer of the group acknowledges it. A consumer receives its own pending numbers again first.
Numbers that another consumer has had pending for too long go to the next consumer that reads.
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
"""The most groups of one office."""
PENDING_MAX: Final = 10_000
"""The most pending numbers of one group. At this limit it receives no new events until some are acknowledged."""

Range = tuple[int, int]
"""The first and the last of consecutive numbers."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """Pending numbers from ``first`` to ``last``, delivered to ``consumer`` most recently at ``since_ms``."""

    first: int
    last: int
    consumer: str
    since_ms: int


class ConsumerGroup(msgspec.Struct, frozen=True):
    """The state of a group.

    Attributes:
        delivered: the highest number that has been delivered.
        leases: the pending numbers, in ascending order and without overlap.
    """

    delivered: int
    leases: tuple[Lease, ...] = ()

    @property
    def acknowledged(self) -> int:
        """All numbers up to this one have been acknowledged."""
        return self.leases[0].first - 1 if self.leases else self.delivered

    @property
    def pending(self) -> int:
        """The count of pending numbers."""
        return sum(lease.last - lease.first + 1 for lease in self.leases)


class ConsumerGroupView(msgspec.Struct, frozen=True):
    """The progress of a group.

    Attributes:
        name: the group's name.
        acknowledged: all events up to this number have been acknowledged. Trimming stops there.
        delivered: the highest number that has been delivered.
        pending: events that have been delivered and not acknowledged.
        lag: events that have not been delivered.
        leases: the pending ones, with their consumers and times.
    """

    name: str
    acknowledged: int
    delivered: int
    pending: int
    lag: int
    leases: tuple[Lease, ...]


def new_group(after: int, first: int, last: int) -> ConsumerGroup:
    """Return a group that receives the numbers above ``after``.

    Args:
        after: the first number to deliver is the next one.
        first, last: the numbers that the office still keeps.
    """
    return ConsumerGroup(min(max(after, first - 1), last))


def drop_trimmed(group: ConsumerGroup, first: int) -> ConsumerGroup:
    """Return the group without the numbers below ``first``.

    An operator has trimmed their events. They can no longer be delivered, so no consumer would acknowledge them.
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
    """Deliver numbers to a consumer: its own pending ones, then idle ones of other consumers, then new ones.

    Args:
        group: the group; not changed.
        consumer: the consumer's name.
        limit: the most numbers to deliver.
        min_idle_ms: another consumer's pending numbers are delivered if it has had them for at least this long.
        now_ms: the time of the delivery, milliseconds since 1970 (UTC).
        last: the number of the office's last event.

    Returns:
        The group afterwards, and the delivered numbers in ascending order.
    """
    remaining = limit
    taken: list[Lease] = []
    left: list[Lease] = []
    own = [lease for lease in group.leases if lease.consumer == consumer]
    foreign = [lease for lease in group.leases if lease.consumer != consumer]
    for lease in (*own, *foreign):
        is_available = lease.consumer == consumer or now_ms - lease.since_ms >= min_idle_ms
        count = min(remaining, lease.last - lease.first + 1) if is_available else 0
        remaining -= count
        if count:
            taken.append(Lease(lease.first, lease.first + count - 1, consumer, now_ms))
        if lease.first + count <= lease.last:
            left.append(Lease(lease.first + count, lease.last, lease.consumer, lease.since_ms))
    new = max(0, min(remaining, PENDING_MAX - group.pending, last - group.delivered))
    if new:
        taken.append(Lease(group.delivered + 1, group.delivered + new, consumer, now_ms))
    delivered = _joined(sorted(taken, key=_first))
    leases = _joined(sorted([*delivered, *left], key=_first))
    return ConsumerGroup(group.delivered + new, tuple(leases)), [(lease.first, lease.last) for lease in delivered]


def acknowledge(group: ConsumerGroup, ranges: Sequence[Range]) -> tuple[ConsumerGroup, int]:
    """Acknowledge numbers, whichever consumer has them.

    Args:
        group: the group; not changed.
        ranges: the numbers as :func:`ranges_of` returns them. Numbers that are not pending are ignored.

    Returns:
        The group afterwards, and the count of numbers that were pending.
    """
    leases: list[Lease] = []
    index = 0
    for lease in group.leases:
        first = lease.first
        while index < len(ranges) and ranges[index][1] < first:
            index += 1
        scanned = index  # the last range that touches this lease may reach into the next one
        while scanned < len(ranges) and ranges[scanned][0] <= lease.last:
            if ranges[scanned][0] > first:
                leases.append(Lease(first, ranges[scanned][0] - 1, lease.consumer, lease.since_ms))
            first = max(first, ranges[scanned][1] + 1)
            index, scanned = scanned, scanned + 1
        if first <= lease.last:
            leases.append(Lease(first, lease.last, lease.consumer, lease.since_ms))
    after = ConsumerGroup(group.delivered, tuple(leases))
    return after, group.pending - after.pending


def view_of(name: str, group: ConsumerGroup, last: int) -> ConsumerGroupView:
    """Return the progress of a group. ``last`` is the number of the office's last event."""
    lag = max(0, last - group.delivered)
    return ConsumerGroupView(name, group.acknowledged, group.delivered, group.pending, lag, group.leases)


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """Return numbers as ascending ranges with gaps between them. Order and duplicates of ``numbers`` do not matter."""
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
    """Join adjacent leases of the same consumer and time."""
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
