"""The parts that need no store: what is measured, whose store a URL is, cores, histograms, words."""

from __future__ import annotations

import importlib.util
import itertools
import os

import pytest

from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.formatting import microseconds, percent, times
from quota_engine.bench.host_info import cores_apart, pinned
from quota_engine.bench.limits_workload import LimitsWorkload
from quota_engine.bench.load_drivers import run_single, run_threads
from quota_engine.bench.plan import (
    QUICK,
    STANDARD,
    BackendKind,
    BenchSettings,
    Implementation,
    cases_with_yardsticks,
    engine_cases,
)
from quota_engine.bench.results import quarter_octave_buckets
from quota_engine.bench.target_url import is_loopback, parse_target
from quota_engine.domain.errors import InvalidRequest
from quota_engine.reporting.statistics import Histogram
from quota_engine.stores.redis.url_options import STORE_OPTIONS


@pytest.mark.parametrize("kind", list(BackendKind))
@pytest.mark.parametrize("settings", [STANDARD, QUICK])
def test_case_names_are_unique(settings: BenchSettings, kind: BackendKind) -> None:
    """Comparisons identify a case by name and concurrency."""
    measures = cases_with_yardsticks(engine_cases(settings, kind), kind)
    assert len({(one.name, one.concurrency) for one in measures}) == len(measures) > 5


@pytest.mark.parametrize(
    ("kind", "subjects"),
    [
        (BackendKind.MEMORY, {Implementation.ENGINE, Implementation.DICT, Implementation.LIMITS}),
        (BackendKind.REDIS, set(Implementation) - {Implementation.LIMITS}),
        (BackendKind.SQL, {Implementation.ENGINE, Implementation.LIMIT, Implementation.BY_HAND}),
        (BackendKind.POSTGRESQL, {Implementation.ENGINE, Implementation.LIMIT, Implementation.BY_HAND}),
        (BackendKind.OTHER, {Implementation.ENGINE}),
    ],
)
def test_each_kind_of_backend_has_its_yardsticks(kind: BackendKind, subjects: set[Implementation]) -> None:
    """A store that is not known is measured all the same. Without ``limits``, memory has one yardstick less."""
    assert {one.implementation for one in cases_with_yardsticks(engine_cases(STANDARD, kind), kind)} == subjects


def test_the_benchmark_runs_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is no dependency of this one."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cases = cases_with_yardsticks(engine_cases(QUICK, BackendKind.MEMORY), BackendKind.MEMORY)
    assert {one.implementation for one in cases} == {Implementation.ENGINE, Implementation.DICT}


def test_hits_of_limits_are_counted() -> None:
    """A hit that is missing would make the library look faster."""
    workload = LimitsWorkload()
    call, identities = workload.prepare(3)
    assert [call(each) for each in identities] == [True] * 3
    workload.check()
    assert call(identities[0]) is False
    workload.prepare(1)
    with pytest.raises(WrongOutcome, match="3 identities after it; expected 4"):
        workload.check()
    workload.remove()


@pytest.mark.parametrize(
    ("url", "label", "hosts", "foreign"),
    [
        ("memory://", "memory://", (), ()),
        ("valkey+embedded://", "valkey+embedded://", (), ()),
        ("valkey+embedded:///a/b?appendfsync=always", "valkey+embedded:///a/b", (), ()),
        ("sqlite:///a/b.db?durability=memory", "sqlite:///a/b.db memory", (), ()),
        ("unix:///a/socket?db=2", "unix:///a/socket", (), ()),
        ("redis://", "redis://", ("localhost",), ()),
        ("redis://me:secret@127.0.0.2:6380/1", "redis://127.0.0.2:6380/1", ("127.0.0.2",), ()),
        ("redis://[::1]:6379", "redis://[::1]:6379", ("::1",), ()),
        ("rediss://Store.example:6379", "rediss://Store.example:6379", ("store.example",), ("store.example",)),
        # redis-py takes a host from the options too.
        ("redis://?host=10.0.0.7", "redis://", ("10.0.0.7",), ("10.0.0.7",)),
        ("redis+sentinel://:p@127.0.0.1:1,b:2/m", "redis+sentinel://127.0.0.1:1,b:2/m", None, ("127.0.0.1", "b")),
        ("mystore://one,localhost:5/x", "mystore://one,localhost:5/x", ("one", "localhost"), ("one",)),
        ("mystore:///dir", "mystore:///dir", (), ()),
    ],
)
def test_targets_hide_passwords_and_name_remote_hosts(
    url: str, label: str, hosts: tuple[str, ...] | None, foreign: tuple[str, ...]
) -> None:
    """Labels contain no password."""
    target = parse_target(url)
    assert target.label == label
    assert hosts is None or target.hosts == hosts
    assert target.foreign_hosts == foreign


def test_a_shared_store_gets_a_new_namespace() -> None:
    """In place of the one in the URL, and each time another one; redis-py is not told about the engine's options."""
    url = "redis://localhost:1/0?namespace=live&timeout_ms=9&socket_keepalive=yes"
    one, other = parse_target(url), parse_target(url)
    assert one.namespace.startswith("bench-")
    assert one.namespace != other.namespace
    assert one.url == f"redis://localhost:1/0?namespace={one.namespace}&timeout_ms=9&socket_keepalive=yes"
    assert one.client_url == "redis://localhost:1/0?socket_keepalive=yes"


def test_no_option_of_the_engine_reaches_redis_py() -> None:
    """On one server and on several."""
    words = "&".join(f"{name}=1" for name in STORE_OPTIONS)
    for base in ("redis://h:1", "redis+cluster://h:1,h:2", "rediss+sentinel://h:1,h:2/name/3"):
        target = parse_target(f"{base}?{words}&socket_keepalive=yes")
        assert target.kind is BackendKind.REDIS
        assert target.client_url == f"{base}?socket_keepalive=yes"


@pytest.mark.parametrize("url", ["", "redis", "localhost:6379", "redis://[::1", "redis://localhost?db=x"])
def test_an_invalid_url_is_rejected(url: str) -> None:
    """With an error of the library."""
    with pytest.raises(InvalidRequest):
        parse_target(url)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("localhost.example", False)],  # noqa: S104
)
def test_loopback_addresses_are_recognized(host: str, is_here: bool) -> None:
    """By name or address, never by asking a resolver."""
    assert is_loopback(host) is is_here


@pytest.mark.parametrize(
    ("allowed", "siblings", "cores"),
    [
        ({3}, {}, None),
        ({2, 5}, {}, (2, 5)),
        ({0, 1, 2, 3}, {0: {0, 1}, 2: {2, 3}}, (0, 2)),
        ({0, 1}, {0: {0, 1}}, (0, 1)),
    ],
)
def test_client_and_server_get_different_cores(
    allowed: set[int], siblings: dict[int, set[int]], cores: tuple[int, int] | None
) -> None:
    """They are different physical cores, if there are two."""
    assert cores_apart(allowed, siblings) == cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_pinning_ends_with_the_block() -> None:
    """A process gets all its cores back; a core that is not there is no error."""
    before = os.sched_getaffinity(0)
    with pinned(0, min(before)) as worked:
        assert worked
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
    with pinned(0, 100_000) as worked:
        assert not worked
    with pinned(0, None) as worked:
        assert not worked


def test_every_item_is_processed_once() -> None:
    """By one caller and by several; one time in ``every`` is noted."""
    done: list[int] = []
    assert len(run_single(done.append, range(100), 16).latencies_ns) == 7
    sample = run_threads(done.append, range(100, 200), 4)
    assert sorted(done) == list(range(200))
    assert len(sample.latencies_ns) == 100
    assert sample.took_s > 0


def test_an_error_in_a_thread_is_raised() -> None:
    """A measurement that fails does not pass for a fast one."""

    def fail(item: int) -> None:
        raise ValueError(item)

    with pytest.raises(ValueError):
        run_threads(fail, range(10), 3)


def test_coarse_histograms_keep_all_counts() -> None:
    """Four buckets an octave, without gaps."""
    histogram = Histogram()
    for value in (0, 1, 500, 1000, 1024, 1025, 70_000):
        histogram.record(value)
    buckets = list(quarter_octave_buckets(histogram))
    assert sum(count for _, count in buckets) == 7
    ends = [end for end, _ in buckets]
    assert all(abs(after / before - 2**0.25) < 1e-9 for before, after in itertools.pairwise(ends))
    assert list(quarter_octave_buckets(Histogram())) == []


def test_values_are_formatted_with_units() -> None:
    """Three digits, in the unit that suits."""
    values = (0.461, 4.83, 99.7, 250, 999.6, 2802, 1_250_000)
    told = ["0.46 µs", "4.8 µs", "100 µs", "250 µs", "1.0 ms", "2.8 ms", "1.2 s"]
    assert [microseconds(value) for value in values] == told
    assert [percent(share) for share in (None, 0.064, 0.634, 1.05)] == ["", "6.4%", "63%", "105%"]
    assert [times(ratio) for ratio in (None, 0.858, 5.14)] == ["", "0.86×", "5.1×"]
