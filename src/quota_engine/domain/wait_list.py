"""The queues of a day's wait list: which party is next among those that want the same.

Parties have the same *demand* if they have the same choice and the same number of applicants. Either all of them fit or
none does. Only the first party of each demand is therefore read, however long the list is.
"""

from __future__ import annotations

__all__ = ["Demand", "WaitQueues"]

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping

from quota_engine.domain.model import Choice, Reservation

Demand = tuple[Choice, int]
"""A choice and a number of applicants."""


class WaitQueues:
    """The waiting parties of one day, by demand and in the order of their numbers. Paused parties are kept apart.

    A party is paused for a while after it has declined an offer. The time of the command decides if a pause is over,
    not the queue that the party is in: the time of commands without an event may run back.
    """

    __slots__ = ("_paused", "_queues")

    def __init__(self) -> None:
        self._queues: dict[Demand, list[tuple[int, str]]] = {}
        """Numbers and ids, ascending. No queue is empty."""
        self._paused: list[tuple[int, str, int, Demand]] = []
        """End of the pause, id, number and demand, ascending."""

    def __len__(self) -> int:
        """Return the number of demands of parties that are not paused."""
        return len(self._queues)

    def __contains__(self, demand: Demand) -> bool:
        """Return True if a party with this demand waits and is not paused."""
        return demand in self._queues

    def add(self, record: Reservation) -> None:
        """Add a waiting party at its number."""
        number, demand = record.wait_list_number, (record.choice, record.units)
        if record.paused_until_ms:
            insort(self._paused, (record.paused_until_ms, record.id, number, demand), key=lambda one: one[:2])
        else:
            insort(self._queues.setdefault(demand, []), (number, record.id))

    def discard(self, record: Reservation) -> None:
        """Remove a party, if it is there."""
        number, demand = record.wait_list_number, (record.choice, record.units)
        queue = self._queues.get(demand, [])
        index = bisect_left(queue, (number, record.id))
        if queue[index : index + 1] == [(number, record.id)]:
            del queue[index]
            if not queue:
                del self._queues[demand]
            return
        index = bisect_left(self._paused, (record.paused_until_ms, record.id), key=lambda one: one[:2])
        if self._paused[index : index + 1] == [(record.paused_until_ms, record.id, number, demand)]:
            del self._paused[index]

    def resume(self, now_ms: int, limit: int) -> bool:
        """Put up to ``limit`` parties back whose pause is over. Return True if more are left."""
        due = self._paused[: min(limit, bisect_right(self._paused, now_ms, key=lambda one: one[0]))]
        del self._paused[: len(due)]
        for _, reservation_id, number, demand in due:
            insort(self._queues.setdefault(demand, []), (number, reservation_id))
        return bool(self._paused) and self._paused[0][0] <= now_ms

    def next_resume_ms(self) -> int | None:
        """Return the earliest end of a pause, in milliseconds since 1970, or ``None``."""
        return self._paused[0][0] if self._paused else None

    def heads(self, reservations: Mapping[str, Reservation], now_ms: int) -> Iterator[Reservation]:
        """Yield the first party of each demand that is not paused at ``now_ms``, in no particular order."""
        for demand in list(self._queues):
            head = self.next_of(demand, 0, reservations, now_ms)
            if head is not None:
                yield head

    def next_of(
        self, demand: Demand, number: int, reservations: Mapping[str, Reservation], now_ms: int
    ) -> Reservation | None:
        """Return the first party with ``demand`` behind ``number`` that is not paused at ``now_ms``, or ``None``."""
        queue = self._queues.get(demand, [])
        index = bisect_left(queue, (number + 1, ""))
        while index < len(queue):
            record = reservations[queue[index][1]]
            if record.paused_until_ms <= now_ms:
                return record
            self.discard(record)  # the time has run back since its pause ended
            self.add(record)
        return None
