"""What the service counts, for Prometheus.

Counting is adding to plain numbers: a counter of prometheus_client that several processes share takes 1.3 µs, and a
histogram 3, several times in each request. What the workers of one machine have counted is put together by ``sharing``.
"""

from __future__ import annotations

__all__ = ["BATCH_BOUNDS", "BOUNDS_S", "CallTally", "Metrics", "Row", "exposition"]

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from quota_engine.admission import DecisionRecord
from quota_engine.domain.outcomes import Status
from quota_engine.draws.ledger import DrawStatus
from quota_engine.ports import Batch

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of durations."""
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in BOUNDS_S)
_BOUNDS_US: Final = tuple(round(bound * 1e6) for bound in BOUNDS_S)
_ROWS_MAX: Final = 500
"""Of verdicts and errors, whose labels come from elsewhere: the rest is counted as ``other``."""


class _Family(NamedTuple):
    """A metric: ``kind`` is ``counter``, ``gauge`` or ``histogram``; the bounds are a histogram's."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


FAMILIES: Final = {
    "quota_engine_outcomes": _Family("counter", "Answers of the engine, by status.", ("status",)),
    "quota_engine_draw_outcomes": _Family("counter", "Answers of draws, by status.", ("status",)),
    "quota_engine_http_requests": _Family("counter", "Requests, by call and HTTP status.", ("call", "http")),
    "quota_engine_http_request_duration_seconds": _Family(
        "histogram", "Time until an answer begins, by call.", ("call",), BOUNDS_S
    ),
    "quota_engine_verdicts": _Family(
        "counter",
        "What the admission policies said: enforced, or in shadow.",
        ("policy", "decision", "reason", "enforced"),
    ),
    "quota_engine_sold_out_from_memory": _Family("counter", "Answers SOLD_OUT that asked no store."),
    "quota_engine_store_batch_size": _Family("histogram", "Calls that went to the store together.", (), BATCH_BOUNDS),
    "quota_engine_store_duration_seconds": _Family(
        "histogram", "Time of a batch to the store and back, with its further attempts.", ("access",), BOUNDS_S
    ),
    "quota_engine_store_errors": _Family("counter", "Batches that ended with an error.", ("error",)),
    "quota_engine_event_streams": _Family("gauge", "Open event streams."),
    "quota_engine_workers": _Family("gauge", "Processes that serve."),
    "quota_engine_store_up": _Family("gauge", "Whether the last look at the store was answered."),
    "quota_engine_holds": _Family(
        "gauge", "Holds on the days being sold, at least so old.", ("office", "older_than_seconds")
    ),
    "quota_engine_wait_list_length": _Family("gauge", "Who waits on the days being sold.", ("office",)),
    "quota_engine_overbooked_places": _Family("gauge", "Places sold that do not exist any more.", ("office",)),
    "quota_engine_room_tickets": _Family("counter", "Tickets that a waiting room has given out.", ("room",)),
    "quota_engine_room_called": _Family("counter", "Tickets that a waiting room has called.", ("room",)),
    "quota_engine_room_length": _Family("gauge", "Tickets that have not been called yet.", ("room",)),
    "quota_engine_room_rate_per_second": _Family("gauge", "How fast a waiting room calls, as it is set.", ("room",)),
    "process_cpu_seconds": _Family("counter", "User and system time of the processes that serve."),
    "process_resident_memory_bytes": _Family("gauge", "Their resident memory."),
    "process_virtual_memory_bytes": _Family("gauge", "Their virtual memory."),
    "process_open_fds": _Family("gauge", "Their open file descriptors."),
}
"""All there is. A process adds its own to its fellows'; gauges of those that have ended count no more."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A metric with its labels, and what it comes to: one number, or a histogram's counts and its sum."""

    family: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


class _Histogram:
    """Counts by bound. ``bounds`` and what is added are of one unit; ``unit`` of them make one of the metric's."""

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


class CallTally:
    """What is counted of one call of the interface."""

    __slots__ = ("durations", "https")

    def __init__(self) -> None:
        self.https: dict[int, int] = {}
        self.durations = _Histogram(_BOUNDS_NS, 1e9)

    def add(self, http: int, duration_ns: int) -> None:
        """An answer has begun, so long after its request came."""
        self.https[http] = self.https.get(http, 0) + 1
        self.durations.add(duration_ns)


class Metrics:
    """The numbers of one process. The observer of its engine, as which it may be called from any thread."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, streams_open: Callable[[], int] = lambda: 0) -> None:
        """``streams_open`` tells how many event streams there are."""
        self._outcomes = dict.fromkeys(Status, 0)
        self._draws = dict.fromkeys(DrawStatus, 0)
        self._calls: dict[str, CallTally] = {}
        self._verdicts: Counter[tuple[str, ...]] = Counter()
        self._errors: Counter[tuple[str, ...]] = Counter()
        self._sold_out = 0
        self._batches = _Histogram(BATCH_BOUNDS, 1)
        self._store = {access: _Histogram(_BOUNDS_US, 1e6) for access in ("read", "write")}
        self._streams_open = streams_open
        self._process = ProcessCollector(registry=None)

    def outcome(self, status: Status) -> None:
        """An answer of the engine."""
        self._outcomes[status] += 1

    def drawn(self, status: DrawStatus) -> None:
        """An answer of a draw."""
        self._draws[status] += 1

    def call(self, name: str) -> CallTally:
        """Where the answers to the call of this name are counted."""
        tally = self._calls.get(name)
        if tally is None:
            tally = self._calls[name] = CallTally()
        return tally

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        """What a policy said: see :class:`quota_engine.ports.Observer`."""
        decision = record.decision
        enforced = "true" if record.enforced else "false"
        _add(self._verdicts, (record.policy, str(decision.kind), decision.reason, enforced))

    def on_enqueue(self) -> Any:
        """See :class:`quota_engine.ports.StoreObserver`; it does not matter here whose call it is."""

    def on_batch(self, batch: Batch) -> None:
        """Calls went to the store together."""
        self._batches.add(batch.size)
        self._store["read" if batch.reads else "write"].add(batch.duration_us)
        if batch.error:
            _add(self._errors, (batch.error,))

    def on_sold_out(self, office: str) -> None:
        """Somebody was answered without the store."""
        self._sold_out += 1

    def rows(self) -> list[Row]:
        """All numbers of this process."""
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        for status, count in self._outcomes.items():
            yield Row("quota_engine_outcomes", (str(status),), (count,))
        for of_draw, count in self._draws.items():
            yield Row("quota_engine_draw_outcomes", (str(of_draw),), (count,))
        for name, tally in self._calls.items():
            for http, count in tally.https.items():
                yield Row("quota_engine_http_requests", (name, str(http)), (count,))
            yield Row("quota_engine_http_request_duration_seconds", (name,), tally.durations.values())
        for labels, count in list(self._verdicts.items()):
            yield Row("quota_engine_verdicts", labels, (count,))
        for labels, count in list(self._errors.items()):
            yield Row("quota_engine_store_errors", labels, (count,))
        yield Row("quota_engine_sold_out_from_memory", (), (self._sold_out,))
        yield Row("quota_engine_store_batch_size", (), self._batches.values())
        for access, durations in self._store.items():
            yield Row("quota_engine_store_duration_seconds", (access,), durations.values())
        yield Row("quota_engine_event_streams", (), (self._streams_open(),))
        yield Row("quota_engine_workers", (), (1,))
        for family in self._process.collect():
            if family.name in FAMILIES:
                yield Row(family.name, (), (family.samples[0].value,))


def _add(counter: Counter[tuple[str, ...]], labels: tuple[str, ...]) -> None:
    if labels not in counter and len(counter) >= _ROWS_MAX:
        labels = ("other",) * len(labels)
    counter[labels] += 1


def exposition(rows: Iterable[Row]) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Rows(rows))
    return generate_latest(registry)


class _Rows(Collector):
    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = tuple(rows)

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Any] = {}
        for row in self._rows:
            family = FAMILIES[row.family]
            metric = found.get(row.family)
            if metric is None:
                metric = found[row.family] = _KINDS[family.kind](row.family, family.help, labels=family.labels)
            if family.kind == "histogram":
                counts, total = row.values[:-1], 0.0
                buckets = []
                for bound, count in zip((*map(str, family.bounds), "+Inf"), counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                metric.add_metric(row.labels, buckets, row.values[-1])
            else:
                metric.add_metric(row.labels, row.values[0])
        yield from found.values()


_KINDS: Final[dict[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
