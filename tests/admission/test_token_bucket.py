"""Token buckets against an oracle in fractions."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.admission.token_bucket import (
    BucketLevel,
    Buckets,
    Charge,
    Limit,
    PeekTokens,
    ResetTokens,
    SlidingWindow,
    TakeOutcome,
    TakeTokens,
    answer_query,
    apply,
    at_most,
    check_charges,
    describe,
    per_day,
    per_hour,
    per_minute,
    per_second,
)
from quota_engine.domain.errors import InvalidRequest

START_MS = 1_700_000_000_000
LIMITS = st.builds(
    Limit,
    amount=st.one_of(st.integers(1, 20), st.sampled_from((999, 1000, 999_983, 1_000_000))),
    per_ms=st.sampled_from((1, 7, 1000, 60_000, 3_600_000, 86_400_000)),
    burst=st.one_of(st.integers(1, 4), st.integers(1, 1000)),
)


class Oracle:
    """Levels of buckets as fractions of tokens."""

    def __init__(self) -> None:
        self.levels: dict[str, tuple[Fraction, int]] = {}
        self.now_ms = 0

    def level(self, charge: Charge, now_ms: int) -> Fraction:
        now_ms = max(now_ms, self.now_ms)
        burst, rate = charge.limit.burst, Fraction(charge.limit.amount, charge.limit.per_ms)
        level, at_ms = self.levels.get(charge.name, (Fraction(burst), now_ms))
        return min(Fraction(burst), level + rate * (now_ms - at_ms))

    def take(self, charges: tuple[Charge, ...], now_ms: int) -> bool:
        levels = [self.level(charge, now_ms) for charge in charges]
        if any(level < charge.cost for level, charge in zip(levels, charges, strict=True)):
            return False
        self.now_ms = max(now_ms, self.now_ms)
        for level, charge in zip(levels, charges, strict=True):
            self.levels[charge.name] = level - charge.cost, self.now_ms
        return True


@pytest.mark.slow
@given(
    limits=st.lists(LIMITS, min_size=3, max_size=3),
    calls=st.lists(
        st.tuples(
            st.one_of(st.integers(-5, 5), st.integers(0, 2000), st.integers(0, 10**8)),
            st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=3, unique_by=lambda c: c[0]),
        ),
        max_size=60,
    ),
)
def test_buckets_match_the_oracle(limits: list[Limit], calls: list[tuple[int, list[tuple[int, int]]]]) -> None:
    buckets, oracle, now_ms = Buckets(), Oracle(), START_MS
    for step_ms, keys in calls:
        now_ms += step_ms
        charges = tuple(Charge(f"k{key}", limits[key], min(cost, limits[key].burst)) for key, cost in keys)
        levels = tuple(int(oracle.level(charge, now_ms)) for charge in charges)
        assert tuple(level.available for level in buckets.peek(charges, now_ms)) == levels
        assert buckets.take(charges, now_ms).taken == oracle.take(charges, now_ms)


@given(limit=LIMITS, random=st.randoms(use_true_random=False))
def test_retry_time_is_the_first_that_fits(limit: Limit, random: Random) -> None:
    buckets, now_ms = Buckets(), START_MS
    for _ in range(30):
        charge = (Charge("k", limit, random.randint(1, limit.burst)),)
        answer = buckets.take(charge, now_ms)
        if answer.taken:
            continue
        assert answer.retry_at_ms > now_ms
        assert not buckets.take(charge, answer.retry_at_ms - 1).taken
        assert buckets.take(charge, answer.retry_at_ms) == TakeOutcome()
        now_ms = answer.retry_at_ms


def test_burst_of_ten_admits_ten_of_forty() -> None:
    """Another library admitted all 40 concurrent calls at 100 a second with a burst of 10."""
    buckets, charge = Buckets(), (Charge("k", per_second(100, burst=10)),)
    assert sum(buckets.take(charge, START_MS).taken for _ in range(40)) == 10
    assert sum(buckets.take(charge, START_MS + 9).taken for _ in range(40)) == 0
    assert sum(buckets.take(charge, START_MS + 10).taken for _ in range(40)) == 1


@pytest.mark.parametrize(("limit", "calls", "expected"), [(per_day(1), 86_400_000 * 3, 3), (per_second(7), 3000, 21)])
def test_no_fraction_of_a_token_is_lost(limit: Limit, calls: int, expected: int) -> None:
    """Over three whole periods the bucket admits the exact number, with calls in between."""
    buckets, charge = Buckets(), (Charge("k", limit),)
    while buckets.take(charge, START_MS).taken:
        pass
    step_ms = max(1, calls // 3000)
    taken = sum(buckets.take(charge, START_MS + ms).taken for ms in range(step_ms, calls + 1, step_ms))
    assert taken == expected


def test_million_a_second_is_exact_to_the_millisecond() -> None:
    buckets = Buckets()
    charge = (Charge("k", per_second(1_000_000, burst=5000), cost=500),)
    assert sum(buckets.take(charge, START_MS).taken for _ in range(99)) == 10
    assert sum(buckets.take(charge, START_MS + 1).taken for _ in range(99)) == 2


def test_take_is_all_or_nothing() -> None:
    """The outcome names the bucket that did not fit, and the time at which all fit."""
    buckets = Buckets()
    account, network = Charge("account", per_minute(2)), Charge("network", per_hour(1))
    assert buckets.take((account, network), START_MS).taken
    refused = buckets.take((account, network), START_MS)
    assert (refused.refused_by, refused.retry_at_ms) == (1, START_MS + 3_600_000)
    assert buckets.peek((account, network), START_MS) == (
        BucketLevel(1, START_MS + 30_000),
        BucketLevel(0, START_MS + 3_600_000),
    )
    assert buckets.take((account,), START_MS).taken


def test_refusal_changes_nothing() -> None:
    buckets, limit = Buckets(), per_minute(1)
    buckets.take((Charge("k", limit),), START_MS)
    before = describe(buckets)
    for one in range(1000):
        assert not buckets.take((Charge("k", limit), Charge(f"new{one}", limit)), START_MS + one).taken
    assert describe(buckets) == before


def test_time_never_runs_backwards() -> None:
    """After the clock is set back, buckets neither gain nor lose tokens until it has caught up."""
    buckets, charge = Buckets(), (Charge("k", per_second(1)),)
    assert buckets.take(charge, START_MS).taken
    assert buckets.take(charge, START_MS - 3_600_000) == TakeOutcome(0, START_MS + 1000)
    assert buckets.take(charge, START_MS + 1000).taken


def test_full_buckets_are_forgotten() -> None:
    """A million callers who come once leave almost no memory, and no call sweeps many buckets."""
    buckets, limit = Buckets(), per_second(1)
    for one in range(20_000):
        assert buckets.take((Charge(f"k{one}", limit),), START_MS + one).taken
    assert len(buckets.not_full()) == 1000
    assert len(buckets._by_name) <= 1001
    assert len(buckets._full_heap) <= 1001


def test_number_of_buckets_is_bounded() -> None:
    """New keys wait, and known keys are still charged."""
    buckets = Buckets(buckets_max=3)
    slow, fast = per_minute(2), per_second(2)
    for name, limit in (("a", slow), ("b", fast), ("c", slow)):
        assert buckets.take((Charge(name, limit),), START_MS).taken
    assert buckets.take((Charge("d", slow),), START_MS + 1) == TakeOutcome(0, START_MS + 500)
    assert buckets.take((Charge("a", slow),), START_MS + 1).taken
    assert buckets.take((Charge("b", fast),), START_MS + 1).taken
    assert buckets.take((Charge("d", slow),), START_MS + 999) == TakeOutcome(0, START_MS + 1000)
    assert buckets.take((Charge("d", slow),), START_MS + 1000).taken
    assert sorted(buckets.not_full()) == ["a", "c", "d"]
    assert Buckets(buckets_max=1).take((Charge("a", slow), Charge("b", slow)), START_MS) == TakeOutcome(0, START_MS + 1)


def test_reset_fills_buckets_and_leaves_no_memory() -> None:
    buckets, charge = Buckets(), (Charge("k", per_day(1)),)
    for _ in range(1000):
        assert buckets.take(charge, START_MS).taken
        assert apply(buckets, ResetTokens(("k", "other")), START_MS) == 1
    assert apply(buckets, ResetTokens(("k",)), START_MS) == 0
    assert len(buckets._full_heap) <= 66
    assert apply(buckets, TakeTokens(charge), START_MS) == TakeOutcome()
    assert answer_query(buckets, PeekTokens(charge), START_MS) == (BucketLevel(0, START_MS + 86_400_000),)
    # Heap entries of reset buckets are ignored: the retry time is that of a bucket.
    buckets.buckets_max = 1
    buckets.take((Charge("k", per_day(1)),), START_MS + 86_400_000)
    assert buckets.take((Charge("n", per_day(1)),), START_MS + 86_400_000) == TakeOutcome(0, START_MS + 2 * 86_400_000)


def test_changed_limit_keeps_the_time_of_a_full_bucket() -> None:
    """The time is shortened if the new limit fills the bucket earlier."""
    buckets = Buckets()
    buckets.take((Charge("k", per_day(10), 10),), START_MS)
    assert buckets.peek((Charge("k", per_second(7, burst=3)),), START_MS)[0].available == 0
    assert buckets.take((Charge("k", per_second(7, burst=3)),), START_MS) == TakeOutcome(0, START_MS + 86_399_715)
    assert buckets.take((Charge("k", per_day(10)),), START_MS + 8_640_000).taken


def test_full_bucket_lets_more_through_in_its_first_period() -> None:
    """Up to ``burst + amount - 1``, as the documents say; a sliding window is exact."""
    bucket, window = (Charge("k", per_minute(3)),), (Charge("k", at_most(3, per_minute)),)
    for charge, expected in ((bucket, 5), (window, 3)):
        buckets = Buckets()
        assert sum(buckets.take(charge, START_MS + ms).taken for ms in range(0, 60_000, 100)) == expected


WINDOW_CALLS = st.lists(
    st.tuples(st.one_of(st.integers(-3, 3), st.integers(0, 1500)), st.integers(0, 1), st.integers(1, 4)), max_size=60
)


@given(amount=st.integers(1, 4), per_ms=st.sampled_from((1, 500, 1000)), calls=WINDOW_CALLS)
def test_sliding_windows_match_a_log_of_times(amount: int, per_ms: int, calls: list[tuple[int, int, int]]) -> None:
    """No period has more units than the limit, and no unit is refused that would fit."""
    limit, buckets, now_ms, latest_ms = SlidingWindow(amount, per_ms, amount), Buckets(), START_MS, 0
    log: dict[str, list[int]] = {"a": [], "b": []}
    for step_ms, key, wanted in calls:
        now_ms += step_ms
        name, cost, at_ms = "ab"[key], min(wanted, amount), max(now_ms, latest_ms)
        recent = sorted(taken_ms for taken_ms in log[name] if taken_ms > at_ms - per_ms)
        charge = (Charge(name, limit, cost),)
        level = BucketLevel(amount - len(recent), recent[-1] + per_ms if recent else 0)
        assert buckets.peek(charge, now_ms) == (level,)
        answer = buckets.take(charge, now_ms)
        if len(recent) + cost <= amount:
            assert answer == TakeOutcome()
            log[name] += [at_ms] * cost
            latest_ms = at_ms
        else:
            assert answer == TakeOutcome(0, recent[len(recent) + cost - amount - 1] + per_ms)


def test_sliding_window_is_charged_with_buckets_or_not_at_all() -> None:
    buckets = Buckets()
    window, bucket = Charge("w", at_most(2, per_hour)), Charge("b", per_minute(1))
    assert buckets.take((window, bucket), START_MS).taken
    assert buckets.take((window, bucket), START_MS) == TakeOutcome(1, START_MS + 60_000)
    assert buckets.take((window,), START_MS + 1).taken
    both = buckets.take((bucket, window), START_MS + 2)
    assert both == TakeOutcome(0, START_MS + 3_600_000)
    assert buckets.reset(("w",), START_MS + 2) == 1
    assert buckets.peek((window,), START_MS + 2) == (BucketLevel(2, 0),)


def test_window_units_count_as_buckets() -> None:
    """They are bounded, and forgotten when their period has passed."""
    buckets = Buckets(buckets_max=3)
    window = at_most(2, per_minute)
    assert buckets.take((Charge("a", window, 2),), START_MS).taken
    assert buckets.take((Charge("b", window, 2),), START_MS) == TakeOutcome(0, START_MS + 60_000)
    assert buckets.take((Charge("b", window),), START_MS).taken
    assert buckets.take((Charge("b", window, 2),), START_MS + 60_000).taken
    assert sorted(buckets.not_full()) == ["b.0", "b.1"]


@pytest.mark.parametrize(("amount", "per_ms", "burst"), [(0, 1, 0), (101, 1, 101), (3, 0, 3), (3, 1000, 4)])
def test_windows_out_of_range_are_rejected(amount: int, per_ms: int, burst: int) -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        SlidingWindow(amount, per_ms, burst)


def test_equivalent_limits_are_equal() -> None:
    assert Limit(10, 1000, 5) == Limit(1, 100, 5) == per_second(10, burst=5)
    assert per_minute(3) == Limit(1, 20_000, 3)
    assert at_most(3, per_minute) == SlidingWindow(3, 60_000, 3) != Limit(3, 60_000, 3)
    assert (at_most(3, per_minute).refill_ms, at_most(9, per_day).per_ms) == (60_000, 86_400_000)


@pytest.mark.parametrize(
    ("amount", "per_ms", "burst"),
    [(0, 1, 1), (1, 0, 1), (1, 1, 0), (10**9 + 1, 1, 1), (1, 366 * 86_400_001, 1), (1, 86_400_000, 4000), (True, 1, 1)],
)
def test_limits_out_of_range_are_rejected(amount: int, per_ms: int, burst: int) -> None:
    with pytest.raises(InvalidRequest):
        Limit(amount, per_ms, burst)


@pytest.mark.parametrize(
    "charges",
    [
        (),
        tuple(Charge(f"k{one}", per_second(1)) for one in range(257)),
        (Charge("k", per_second(1)), Charge("k", per_second(1))),
        (Charge("", per_second(1)),),
        (Charge("a b", per_second(1)),),
        (Charge("k", per_second(1), 0),),
        (Charge("k", per_second(1), 2),),
    ],
    ids=["none", "too-many", "twice", "empty", "space", "costs-nothing", "costs-too-much"],
)
def test_invalid_charges_are_rejected(charges: tuple[Charge, ...]) -> None:
    with pytest.raises(InvalidRequest, match="charges"):
        check_charges(charges)


def test_largest_limits_are_exact_to_a_tick() -> None:
    limit = Limit(999_999_937, 4_503_599, 1_000_000_000)
    buckets, charge = Buckets(), (Charge("k", limit, limit.burst),)
    assert buckets.take(charge, START_MS).taken
    retry_at_ms = buckets.take(charge, START_MS).retry_at_ms
    assert retry_at_ms == START_MS + limit.refill_ms
    assert not buckets.take(charge, retry_at_ms - 1).taken
    assert buckets.take(charge, retry_at_ms).taken
