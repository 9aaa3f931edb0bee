"""The result of a run, as it stands in the JSON file and is read back for a comparison."""

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

from quota_engine.bench.measurement import RoundMeasurement
from quota_engine.bench.plan import BenchCase, BenchSettings, Implementation
from quota_engine.reporting.statistics import Histogram

FORMAT: Final = 2
_STEPS_AN_OCTAVE: Final = 4


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case. Rates are operations a second, latencies microseconds; a batch's latency is that of all in it.

    ``ops_per_s`` is the median of ``rounds``; ``p50_us`` and ``p99_us`` are of all rounds together. Ratios are medians
    of the ratios within a round; ``None`` if there is no such yardstick. ``histogram_us`` has pairs of a bucket's upper
    end and its count of calls.
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
        """What tells it from all other cases of a run."""
        return self.backend, self.name, self.concurrency

    @property
    def is_yardstick(self) -> bool:
        """Whether it is none of the engine's."""
        return self.kind != Implementation.ENGINE

    @property
    def spread(self) -> float:
        """How far the rounds lie from their middle, as a share of the median."""
        return (self.ops_per_s_max - self.ops_per_s_min) / 2 / self.ops_per_s


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run found out."""

    quota_engine_bench: int
    machine: dict[str, Any]
    settings: BenchSettings
    cases: list[CaseResult]

    def cases_of(self, backend: str) -> list[CaseResult]:
        """The cases of one backend."""
        return [case for case in self.cases if case.backend == backend]

    @property
    def backends(self) -> list[str]:
        """The labels of the backends, in order."""
        return list(dict.fromkeys(case.backend for case in self.cases))


def decode_result(text: bytes) -> BenchResult:
    """Read what ``--json`` wrote.

    Raises:
        ValueError: it is something else, or of another format.
    """
    result = msgspec.json.decode(text, type=BenchResult)
    if result.quota_engine_bench != FORMAT:
        raise ValueError(f"format {result.quota_engine_bench}, not {FORMAT}")
    if not all(case.rounds and min(case.rounds) > 0 for case in result.cases):
        raise ValueError("a case without rounds")
    return result


@dataclasses.dataclass(slots=True)
class CaseSamples:
    """What was measured of one case so far, round by round."""

    ops_per_s: list[float] = dataclasses.field(default_factory=list)
    p50_ns: list[float] = dataclasses.field(default_factory=list)
    latency_ns: Histogram = dataclasses.field(default_factory=Histogram)

    def add(self, measured: RoundMeasurement) -> None:
        """Take in one round."""
        self.ops_per_s.append(measured.ops_per_s)
        self.p50_ns.append(statistics.median(measured.sample.latencies_ns))
        for latency_ns in measured.sample.latencies_ns:
            self.latency_ns.record(latency_ns)


def case_result(
    backend: str, measure: BenchCase, tally: CaseSamples, limit: CaseSamples | None, by_hand: CaseSamples | None
) -> CaseResult:
    """The figures of one case, beside its yardsticks."""
    by_hand_ratio = None
    if by_hand is not None and measure.concurrency == 1:
        # One caller waits for each answer: what counts is how long, and a few late answers should not.
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
    """The histogram with four buckets an octave, which is as fine as an eye wants it: upper end and count of each,
    empty ones between the first and the last included.
    """
    counts: dict[int, int] = {}
    for _, high, count in histogram.buckets():
        step = math.ceil(math.log2(max(high, 1)) * _STEPS_AN_OCTAVE)
        counts[step] = counts.get(step, 0) + count
    if counts:
        for step in range(min(counts), max(counts) + 1):
            yield 2 ** (step / _STEPS_AN_OCTAVE), counts.get(step, 0)


def _median_ratio(values: list[float], yardstick: list[float]) -> float:
    """Round by round, so that what slows a whole round down does not count."""
    return _rounded(statistics.median(value / other for value, other in zip(values, yardstick, strict=True)))


def _rounded(value: float) -> float:
    """Four digits that count: more would be noise."""
    return float(f"{value:.4g}")
