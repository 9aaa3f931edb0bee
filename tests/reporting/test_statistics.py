"""The histogram against exact percentiles, and the series."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.reporting.statistics import SECONDS_MAX, Histogram, Series


@pytest.mark.slow
@given(
    st.lists(st.integers(0, 2**40) | st.integers(0, 400), min_size=1, max_size=200),
    st.sampled_from((0.5, 0.9, 0.99, 1)),
)
def test_percentiles_are_exact_or_less_than_one_percent_above(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(math.ceil(len(values) * share - 1e-9), 1) - 1]
    assert exact <= histogram.percentile(share) <= exact + exact // 128
    assert histogram.max == max(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.percentile(1) == histogram.max


@given(st.lists(st.integers(0, 2**40), max_size=100))
def test_buckets_cover_all_values_without_overlap(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    buckets = list(histogram.buckets())
    assert sum(count for _, _, count in buckets) == len(values)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(buckets))
    assert all(sum(low <= value <= high for value in values) == count for low, high, count in buckets)


def test_an_empty_histogram_is_all_zero() -> None:
    assert (Histogram().percentile(0.5), Histogram().max, Histogram().mean) == (0, 0, 0.0)


def test_a_negative_value_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.record(-5)
    assert (histogram.max, histogram.percentile(1), histogram.count) == (0, 0, 1)


def test_a_series_sums_by_second_from_before_the_opening() -> None:
    series = Series(-2)
    for at_us in (-2_000_000, -1, 0, 999_999, 1_000_000):
        series.add(at_us)
    assert series.window(-3, 3) == [0, 1, 1, 2, 1, 0]
    assert (series.total, series.peak, series.end_s) == (5, 2, 2)
    assert series.second_of_share(0.8) == 0


def test_a_series_stays_bounded() -> None:
    """Values outside its bounds count at its ends."""
    series = Series(0)
    series.add(-50_000_000)
    series.add(10**15)
    assert series.total == 2
    assert series.window(0, 1) == [1]
    assert series.end_s == SECONDS_MAX
