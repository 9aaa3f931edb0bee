"""Result of a benchmark, as the JSON file contains it for a later comparison."""

from __future__ import annotations

__all__ = [
    "FORMAT",
    "BenchResult",
    "CaseResult",
    "CaseSamples",
    "case_result",
    "decode_result",
    "quarter_octave_buckets",
]

import dataclasses
import math
import statistics
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from quota_engine import typed_data
from quota_engine.bench.measurement import RoundMeasurement
from quota_engine.bench.plan import BenchCase, BenchSettings, Implementation
from quota_engine.reporting.statistics import Histogram

FORMAT: Final = 2
_STEPS_AN_OCTAVE: Final = 4


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one case. A batch counts as one call with one latency.

    Attributes:
        kind: Implementation that was measured.
        ops_per_s: Median of ``rounds``, in operations a second.
        p50_us: Median latency of all rounds together, in microseconds.
        p99_us: 99th percentile, likewise.
        ratio_to_limit: Median of the ratios within each round; ``None`` without this yardstick.
        ratio_to_handwritten: Likewise.
        rounds: Operations a second of each round.
        histogram_us: Pairs of a bucket's upper end in microseconds and its number of calls.
    """

    name: str
    backend: str
    kind: str
    concurrency: int
    batch: int
    offices: int
    reservations: int
    ops_per_s: float
    ops_per_s_min: float
    ops_per_s_max: float
    p50_us: float
    p99_us: float
    ratio_to_limit: float | None
    ratio_to_handwritten: float | None
    rounds: list[float]
    histogram_us: list[tuple[float, int]]

    @property
    def key(self) -> tuple[str, str, int]:
        """Identity of the case within a run."""
        return self.backend, self.name, self.concurrency

    @property
    def is_yardstick(self) -> bool:
        """True if the case is a yardstick, not the engine."""
        return self.kind != Implementation.ENGINE

    @property
    def spread(self) -> float:
        """Half of the range of the rounds, as a share of the median."""
        return (self.ops_per_s_max - self.ops_per_s_min) / 2 / self.ops_per_s


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a benchmark."""

    quota_engine_bench: int
    machine: dict[str, Any]
    settings: BenchSettings
    cases: list[CaseResult]

    def cases_of(self, backend: str) -> list[CaseResult]:
        """Return the cases of one backend."""
        return [case for case in self.cases if case.backend == backend]

    @property
    def backends(self) -> list[str]:
        """Labels of the backends, in order."""
        return list(dict.fromkeys(case.backend for case in self.cases))


def decode_result(text: bytes) -> BenchResult:
    """Decode a result that ``--json`` has written.

    Raises:
        ValueError: The text is no result, or has another format.
    """
    result = typed_data.decode_json(text, BenchResult)
    if result.quota_engine_bench != FORMAT:
        raise ValueError(f"format {result.quota_engine_bench}, not {FORMAT}")
    if not all(case.rounds and min(case.rounds) > 0 for case in result.cases):
        raise ValueError("a case without rounds")
    return result


@dataclasses.dataclass(slots=True)
class CaseSamples:
    """Measurements of one case, round by round."""

    ops_per_s: list[float] = dataclasses.field(default_factory=list)
    p50_ns: list[float] = dataclasses.field(default_factory=list)
    latency_ns: Histogram = dataclasses.field(default_factory=Histogram)

    def add(self, measured: RoundMeasurement) -> None:
        """Add one round."""
        self.ops_per_s.append(measured.ops_per_s)
        self.p50_ns.append(statistics.median(measured.sample.latencies_ns))
        for latency_ns in measured.sample.latencies_ns:
            self.latency_ns.record(latency_ns)


def case_result(
    backend: str, measure: BenchCase, tally: CaseSamples, limit: CaseSamples | None, by_hand: CaseSamples | None
) -> CaseResult:
    """Return the result of one case, with its ratios to the yardsticks."""
    by_hand_ratio = None
    if by_hand is not None and measure.concurrency == 1:
        # A single caller waits for each answer, so its latency counts. The median ignores a few late answers.
        by_hand_ratio = _median_ratio(by_hand.p50_ns, tally.p50_ns)
    elif by_hand is not None:
        by_hand_ratio = _median_ratio(tally.ops_per_s, by_hand.ops_per_s)
    return CaseResult(
        name=measure.name,
        backend=backend,
        kind=str(measure.implementation),
        concurrency=measure.concurrency,
        batch=measure.batch,
        offices=measure.offices,
        reservations=measure.reservations,
        ops_per_s=_rounded(statistics.median(tally.ops_per_s)),
        ops_per_s_min=_rounded(min(tally.ops_per_s)),
        ops_per_s_max=_rounded(max(tally.ops_per_s)),
        p50_us=_rounded(tally.latency_ns.percentile(0.5) / 1000),
        p99_us=_rounded(tally.latency_ns.percentile(0.99) / 1000),
        ratio_to_limit=None if limit is None else _median_ratio(tally.ops_per_s, limit.ops_per_s),
        ratio_to_handwritten=by_hand_ratio,
        rounds=[_rounded(each) for each in tally.ops_per_s],
        histogram_us=[(_rounded(end_ns / 1000), count) for end_ns, count in quarter_octave_buckets(tally.latency_ns)],
    )


def quarter_octave_buckets(histogram: Histogram) -> Iterator[tuple[float, int]]:
    """Yield a histogram with four buckets an octave: upper end and count of each.

    Empty buckets between the first and the last one are included.
    """
    counts: dict[int, int] = {}
    for _, high, count in histogram.buckets():
        step = math.ceil(math.log2(max(high, 1)) * _STEPS_AN_OCTAVE)
        counts[step] = counts.get(step, 0) + count
    if counts:
        for step in range(min(counts), max(counts) + 1):
            yield 2 ** (step / _STEPS_AN_OCTAVE), counts.get(step, 0)


def _median_ratio(values: list[float], yardstick: list[float]) -> float:
    """Return the median of the ratios within each round, so that a slow round does not count."""
    return _rounded(statistics.median(value / other for value, other in zip(values, yardstick, strict=True)))


def _rounded(value: float) -> float:
    """Return four significant digits; more would be noise."""
    return float(f"{value:.4g}")
