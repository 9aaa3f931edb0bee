"""The queue of a day's holds by deadline, for one set of quotas."""

from __future__ import annotations

__all__ = ["DueQueue"]

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush

from quota_engine.domain.model import Reservation


class DueQueue:
    """Holds in the order of their deadlines. Holds with the same deadline are ordered by id.

    Most deadlines arrive in ascending order. They go into a deque, which is cheaper than a heap; the rest go into a
    heap. An entry is live as long as the ledger's record of its id is the same object, because records are immutable.
    A hold that was confirmed, released or moved leaves a stale entry, which is dropped when its deadline comes.
    """

    __slots__ = ("_heap", "_in_order", "_latest_ms", "_pushed")

    def __init__(self) -> None:
        self._in_order: deque[Reservation] = deque()
        self._latest_ms = 0
        """The last deadline that the deque has taken. It stays valid when the deque runs empty."""
        self._heap: list[tuple[int, str, int, Reservation]] = []
        self._pushed = 0

    def push(self, record: Reservation, deadline_at_ms: int) -> None:
        """Add a hold. ``deadline_at_ms`` is its deadline, which the caller has read already."""
        if deadline_at_ms >= self._latest_ms:
            self._latest_ms = deadline_at_ms
            self._in_order.append(record)
        else:
            self.push_out_of_order(record)

    def push_out_of_order(self, record: Reservation) -> None:
        """Add a hold whose deadline lies behind those of the holds that follow, so that these stay in order."""
        self._pushed += 1  # breaks ties: records have no order, and an id may come twice with one deadline
        heappush(self._heap, (record.deadline_at_ms, record.id, self._pushed, record))

    def next_deadline_ms(self, reservations: dict[str, Reservation]) -> int | None:
        """Return the earliest deadline of a live hold, or ``None``. Drops stale entries at the head."""
        in_order, heap = self._in_order, self._heap
        while in_order and reservations.get(in_order[0].id) is not in_order[0]:
            in_order.popleft()
        while heap and reservations.get(heap[0][3].id) is not heap[0][3]:
            heappop(heap)
        deadlines_ms = [in_order[0].deadline_at_ms] if in_order else []
        if heap:
            deadlines_ms.append(heap[0][0])
        return min(deadlines_ms, default=None)

    def first_overdue(self, reservations: dict[str, Reservation], now_ms: int) -> Reservation | None:
        """Return the first live hold whose deadline has passed, or ``None``."""
        deadline_ms = self.next_deadline_ms(reservations)
        if deadline_ms is None or deadline_ms > now_ms:
            return None
        # The deque has holds of the same deadline in order of arrival. The heap orders them by id, as all stores do.
        while self._in_order and self._in_order[0].deadline_at_ms == deadline_ms:
            self.push_out_of_order(self._in_order.popleft())
        while reservations.get(self._heap[0][3].id) is not self._heap[0][3]:
            heappop(self._heap)
        return self._heap[0][3]

    def overdue(self, reservations: dict[str, Reservation], now_ms: int) -> Iterator[Reservation]:
        """Yield all live holds whose deadline has passed, in no particular order. Removes nothing."""
        for record in self._in_order:
            if record.deadline_at_ms > now_ms:
                break
            if reservations.get(record.id) is record:
                yield record
        for deadline_ms, _, _, record in self._heap:
            if deadline_ms <= now_ms and reservations.get(record.id) is record:
                yield record
