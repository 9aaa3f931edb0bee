"""Pending requests of a discrete-event run, and the count of those that have arrived."""

from __future__ import annotations

__all__ = ["DONE", "NEVER_US", "PROGRESS_EVERY", "ArrivalCounter", "EventQueue", "ProgressObserver", "first_events"]

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from quota_engine.reporting.statistics import Series
from quota_engine.simulation.arrivals import Population
from quota_engine.simulation.latency import LatencyTables
from quota_engine.simulation.rng import TABLE_BITS

DONE: Final = -1
"""Returned in place of a delay: the applicant sends nothing more."""
NEVER_US: Final = -(2**62)
"""A moment before every event."""
PROGRESS_EVERY: Final = 8192
"""Requests between two calls of a progress observer."""

ProgressObserver = Callable[[int, int], None]
"""Called every :data:`PROGRESS_EVERY` requests with the applicants who have a final answer, and the requests so far."""


class EventQueue:
    """Requests in the order of their arrival at the servers.

    An event is one integer: the moment of arrival in microseconds from the opening, shifted left by ``bits``, plus the
    number of the sender. Events of the same microsecond follow each other in the order of these numbers.

    Args:
        bits: Bits of the largest sender's number.
        first: One event for each applicant, in any order.
        later: Further events that are known from the beginning.
    """

    __slots__ = ("_first", "_later", "_took_first", "bits", "mask")

    def __init__(self, bits: int, first: Iterable[int], later: Iterable[int] = ()) -> None:
        self.bits = bits
        self.mask = (1 << bits) - 1
        # First requests are sorted once, which is faster than keeping all of them in the heap.
        self._first = sorted(first, reverse=True)
        self._later = list(later)
        heapq.heapify(self._later)
        self._took_first = False

    def take(self) -> int | None:
        """Return the earliest event, or ``None`` at the end of the run. Call :meth:`replace` before the next one."""
        first, later = self._first, self._later
        if first and (not later or first[-1] < later[0]):
            self._took_first = True
            return first.pop()
        self._took_first = False
        return later[0] if later else None

    def replace(self, event: int | None) -> None:
        """Put the sender's next event in place of the one taken last; ``None`` if there is no next one.

        One step on the heap is cheaper than a removal and an insertion.
        """
        if self._took_first:
            if event is not None:
                heapq.heappush(self._later, event)
        elif event is None:
            heapq.heappop(self._later)
        else:
            heapq.heapreplace(self._later, event)


class ArrivalCounter:
    """Count of the requests that have arrived, in all and by the second.

    Requests arrive in order, so the series is updated once a second and not once a request.
    """

    __slots__ = ("_counted", "_second_end_us", "_series", "requests")

    def __init__(self, series: Series) -> None:
        self._series = series
        self._second_end_us = (series.start_s + 1) * 1_000_000
        self._counted = 0
        self.requests = 0

    def count(self, arrival_us: int) -> None:
        """Count one request, which arrives no earlier than the one before."""
        if arrival_us >= self._second_end_us:
            self.flush()
            self._second_end_us = (arrival_us // 1_000_000 + 1) * 1_000_000
        self.requests += 1

    def flush(self) -> None:
        """Add the requests of the current second to the series. Call it at the end of the run."""
        self._series.add(self._second_end_us - 1, self.requests - self._counted)
        self._counted = self.requests


def first_events(population: Population, latencies: LatencyTables, bits: int) -> list[int]:
    """Return the event of each applicant's first request: the moment of the press plus one latency."""
    tables, latency_bits = latencies.tables, latencies.bits
    office_day_of = population.office_day
    return [
        (press_us + tables[office_day_of[index]][latency_bits(TABLE_BITS)]) << bits | index
        for index, press_us in enumerate(population.first_press_us)
    ]
