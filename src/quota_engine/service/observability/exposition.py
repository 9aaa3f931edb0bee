"""Prometheus' text format of samples."""

from __future__ import annotations

__all__ = ["CONTENT_TYPE", "render"]

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from quota_engine.service.observability.metric_families import METRIC_FAMILIES, Sample

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_METRIC_CLASSES: Final[dict[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def render(samples: Iterable[Sample]) -> bytes:
    """Return the samples in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_SampleCollector(samples))
    return generate_latest(registry)


class _SampleCollector(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = tuple(samples)

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Any] = {}
        for sample in self._samples:
            family = METRIC_FAMILIES[sample.family]
            metric = metrics.get(sample.family)
            if metric is None:
                metric_class = _METRIC_CLASSES[family.kind]
                metric = metrics[sample.family] = metric_class(sample.family, family.help, labels=family.labels)
            if family.kind == "histogram":
                counts, cumulated = sample.values[:-1], 0.0
                buckets = []
                for bound, count in zip((*map(str, family.bounds), "+Inf"), counts, strict=True):
                    cumulated += count
                    buckets.append((bound, cumulated))
                metric.add_metric(sample.labels, buckets, sample.values[-1])
            else:
                metric.add_metric(sample.labels, sample.values[0])
        yield from metrics.values()
