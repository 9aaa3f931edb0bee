"""Counters of one process.

They are plain numbers: a counter of prometheus_client that several processes share takes 1.3 µs and a histogram 3 µs,
several times for each request. :mod:`quota_engine.service.observability.worker_metrics` adds up the workers' numbers.
"""

from __future__ import annotations

__all__ = ["EndpointMetrics", "ServiceMetrics"]

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client import ProcessCollector

from quota_engine.admission import DecisionRecord
from quota_engine.domain.outcomes import Status
from quota_engine.draws.outcomes import DrawStatus
from quota_engine.ports import Batch
from quota_engine.service.observability.metric_families import (
    BATCH_SIZE_BOUNDS,
    DURATION_BOUNDS_S,
    METRIC_FAMILIES,
    Sample,
)

_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in DURATION_BOUNDS_S)
_BOUNDS_US: Final = tuple(round(bound * 1e6) for bound in DURATION_BOUNDS_S)
_LABEL_SETS_MAX: Final = 500
"""Most label sets of decisions and of errors, whose labels are not a fixed set; the rest counts as ``other``."""


class _Histogram:
    """Counts of values by upper bound. ``unit`` is the number of value units in one unit of the metric."""

    __slots__ = ("_bounds", "_unit", "counts", "total")

    def __init__(self, bounds: tuple[float, ...], unit: float) -> None:
        self._bounds = bounds
        self._unit = unit
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def values(self) -> tuple[float, ...]:
        return (*self.counts, self.total / self._unit)


class EndpointMetrics:
    """Counts of one endpoint's responses, by HTTP status, and their durations."""

    __slots__ = ("durations", "responses")

    def __init__(self) -> None:
        self.responses: dict[int, int] = {}
        self.durations = _Histogram(_BOUNDS_NS, 1e9)

    def add(self, status: int, duration_ns: int) -> None:
        """Count a response. ``duration_ns`` is the time from the request to the start of the response."""
        self.responses[status] = self.responses.get(status, 0) + 1
        self.durations.add(duration_ns)


class ServiceMetrics:
    """The metrics of one process. As the engine's observer it may be called from any thread."""

    def __init__(self, open_streams: Callable[[], int] = lambda: 0) -> None:
        """``open_streams`` returns the number of open event streams."""
        self._outcomes = dict.fromkeys(Status, 0)
        self._draw_outcomes = dict.fromkeys(DrawStatus, 0)
        self._contradictions = {"room": 0, "draw": 0}
        self._endpoints: dict[str, EndpointMetrics] = {}
        self._decisions: Counter[tuple[str, ...]] = Counter()
        self._errors: Counter[tuple[str, ...]] = Counter()
        self._sold_out_cache_hits = 0
        self._batch_sizes = _Histogram(BATCH_SIZE_BOUNDS, 1)
        self._batch_durations = {access: _Histogram(_BOUNDS_US, 1e6) for access in ("read", "write")}
        self._open_streams = open_streams
        self._process = ProcessCollector(registry=None)

    def record_outcome(self, status: Status) -> None:
        """Count an outcome of the engine."""
        self._outcomes[status] += 1

    def record_draw_outcome(self, status: DrawStatus) -> None:
        """Count an outcome of a draw."""
        self._draw_outcomes[status] += 1

    def record_contradiction(self, kind: str) -> None:
        """Count a room or draw (``room`` or ``draw``) that contradicts what was published of it before."""
        self._contradictions[kind] += 1

    def endpoint(self, name: str) -> EndpointMetrics:
        """Return the counts of the endpoint ``name``."""
        counts = self._endpoints.get(name)
        if counts is None:
            counts = self._endpoints[name] = EndpointMetrics()
        return counts

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        """See :class:`quota_engine.ports.Observer`."""
        decision = record.decision
        enforced = "true" if record.enforced else "false"
        _count(self._decisions, (record.policy, str(decision.kind), decision.reason, enforced))

    def on_enqueue(self) -> Any:
        """Return no correlation token; see :class:`quota_engine.ports.StoreObserver`."""

    def on_batch(self, batch: Batch) -> None:
        """See :class:`quota_engine.ports.StoreObserver`."""
        self._batch_sizes.add(batch.size)
        self._batch_durations["read" if batch.reads else "write"].add(batch.duration_us)
        if batch.error:
            _count(self._errors, (batch.error,))

    def store_batches(self, slow_s: float) -> tuple[int, int]:
        """Return the number of batches to the store, and of those that took longer than ``slow_s``, one of the bounds.

        Args:
            slow_s: One of :data:`~quota_engine.service.observability.metric_families.DURATION_BOUNDS_S`, in seconds.
        """
        slow_from = DURATION_BOUNDS_S.index(slow_s) + 1
        histograms = list(self._batch_durations.values())
        return (
            sum(sum(histogram.counts) for histogram in histograms),
            sum(sum(histogram.counts[slow_from:]) for histogram in histograms),
        )

    def on_sold_out(self, office: str) -> None:
        """See :class:`quota_engine.ports.StoreObserver`."""
        self._sold_out_cache_hits += 1

    def samples(self) -> list[Sample]:
        """Return all values of this process."""
        return list(self._samples())

    def _samples(self) -> Iterator[Sample]:
        for status, count in self._outcomes.items():
            yield Sample("quota_engine_outcomes", (str(status),), (count,))
        for draw_status, count in self._draw_outcomes.items():
            yield Sample("quota_engine_draw_outcomes", (str(draw_status),), (count,))
        for kind, count in self._contradictions.items():
            yield Sample("quota_engine_contradictions", (kind,), (count,))
        for name, endpoint in self._endpoints.items():
            for http_status, count in endpoint.responses.items():
                yield Sample("quota_engine_http_requests", (name, str(http_status)), (count,))
            yield Sample("quota_engine_http_request_duration_seconds", (name,), endpoint.durations.values())
        for labels, count in list(self._decisions.items()):
            yield Sample("quota_engine_policy_decisions", labels, (count,))
        for labels, count in list(self._errors.items()):
            yield Sample("quota_engine_store_errors", labels, (count,))
        yield Sample("quota_engine_sold_out_cache_hits", (), (self._sold_out_cache_hits,))
        yield Sample("quota_engine_store_batch_size", (), self._batch_sizes.values())
        for access, durations in self._batch_durations.items():
            yield Sample("quota_engine_store_batch_duration_seconds", (access,), durations.values())
        yield Sample("quota_engine_event_streams", (), (self._open_streams(),))
        yield Sample("quota_engine_workers", (), (1,))
        for family in self._process.collect():
            if family.name in METRIC_FAMILIES:
                yield Sample(family.name, (), (family.samples[0].value,))


def _count(counter: Counter[tuple[str, ...]], labels: tuple[str, ...]) -> None:
    if labels not in counter and len(counter) >= _LABEL_SETS_MAX:
        labels = ("other",) * len(labels)
    counter[labels] += 1
