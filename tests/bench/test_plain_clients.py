"""The yardsticks on a cluster and behind Sentinels: they are measured, they are fair, and they leave nothing behind."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio

from benchmarks import cluster_goals
from quota_engine.bench.backends import BenchStore
from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.measurement import measure_once
from quota_engine.bench.plain_clients import CONNECTIONS
from quota_engine.bench.plain_redis import PlainRedisWorkload
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.bench.target_url import parse_target
from quota_engine.cli import main
from tests.support.server_groups import Cluster, Sentinels
from tests.support.servers import Server, valkey_server_binary

pytestmark = [pytest.mark.store, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three primaries."""
    with Cluster(valkey_server_binary()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> Iterator[BenchStore]:
    """The cluster under measurement, by a URL with an option that only the engine knows."""
    with BenchStore(parse_target(f"{_url(cluster)}?call_timeout_ms=9000&socket_timeout=9"), None) as store:
        yield store


def _url(cluster: Cluster) -> str:
    return cluster.url.replace("redis://", "redis+cluster://")


def _run(url: str, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """A run of a few rounds, which says nothing of keys that stay."""
    little = ["--rounds", "2", "--round-ms", "2", "--offices", "3", "--reservations", "20", "--json", "--yes-really"]
    assert main.main(["bench", "--backend", url, *little, *words]) == 0
    output = capsys.readouterr()
    assert "stay in the store" not in output.err
    result: dict[str, Any] = json.loads(output.out)
    return result


def _keys(servers: list[Server]) -> int:
    return sum(server.ask("DBSIZE") for server in servers)


def test_a_cluster_has_all_yardsticks(
    cluster: Cluster, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand, the limit and the bare ``DECR``, for each case that has them on one server; no key stays."""
    report = tmp_path / "report.html"
    figures = _run(_url(cluster), capsys, "--quick", "--report", str(report))
    cases = {(case["name"], case["concurrency"]): case for case in figures["cases"]}
    assert cases["bare DECR, batch 128", 4]["ops_per_s"] > 0
    for case in cases.values():
        is_engine = case["kind"] == "engine"
        assert (case["ratio_to_limit"] is not None) == (is_engine and case["concurrency"] > 1), case["name"]
        assert (case["ratio_to_handwritten"] is not None) == (is_engine and case["batch"] == 1), case["name"]
    assert cases["reserve, 3 offices", 32]["ratio_to_handwritten"] > 0
    (server,) = figures["machine"]["servers"].values()
    assert server.startswith("valkey ")
    assert server.endswith("in a cluster of 3 primaries")
    assert server in report.read_text("utf-8")
    assert [*figures["machine"]["primaries"].values()] == [3]
    assert _keys(cluster.members) == 0


def test_sentinels_have_all_yardsticks(capsys: pytest.CaptureFixture[str]) -> None:
    """They name one primary, whose goals have no ``per primary``."""
    with Sentinels(valkey_server_binary()) as sentinels:
        words = ["--preset", "goals", "--concurrency", "2", "--concurrency", "4", "--concurrency", "8"]
        figures = _run(sentinels.url, capsys, *words)
        assert _keys([sentinels.primary]) == 0
    goals = {goal["name"]: goal for goal in figures["goals"]}
    assert {f"reserve, 4 callers: {rest}" for rest in ("times by hand", "of the limit")} <= set(goals)
    assert {"16 threads: times by hand", "4 callers at 3 offices: times by hand"} <= set(goals)
    assert {goal["primaries"] for goal in goals.values()} == {1}
    assert "bare DECR, batch 128" in {case["name"] for case in figures["cases"]}
    (server,) = figures["machine"]["servers"].values()
    assert server.endswith("behind Sentinels")


def test_offices_are_spread_evenly_over_primaries(store: BenchStore, cluster: Cluster) -> None:
    """The engine and the yardsticks load the same primaries. A single office is always on the same one."""

    def owner(office: str) -> int:
        slot = cluster.slot_of(f"{{quota_engine:{store.target.namespace}:{office}}}:head")
        return cluster.owner_of(slot).port

    assert store.primaries == 3
    assert collections.Counter(map(owner, store.new_offices(30))).most_common() == [
        (port, 10) for port in dict.fromkeys(map(owner, store.new_offices(3)))
    ]
    assert len({owner(office) for _ in range(5) for office in store.new_offices(1)}) == 1


@pytest.mark.parametrize("action", ["reserve", "availability"])
@pytest.mark.parametrize("topology", ["single", "sentinels", "cluster"])
def test_callers_wait_for_a_connection(topology: str, action: str, request: pytest.FixtureRequest) -> None:
    """redis-py would raise an error with more callers than connections to a primary."""
    with contextlib.ExitStack() as undo:
        if topology == "cluster":
            store = request.getfixturevalue("store")
        else:
            binary = valkey_server_binary()
            if topology == "sentinels":
                url = undo.enter_context(Sentinels(binary)).url
            else:
                url = undo.enter_context(Server(binary)).url
            store = undo.enter_context(BenchStore(parse_target(url), None))
        case = BenchCase(action, Implementation.BY_HAND, ApiStyle.TASKS, 3 * CONNECTIONS)
        workload = PlainRedisWorkload(store, case)
        assert measure_once(store, workload, case, 4 * CONNECTIONS).operations == 4 * CONNECTIONS
        workload.remove()


def test_no_queue_of_a_pool_slows_the_yardstick() -> None:
    """A ``BlockingConnectionPool`` costs callers by hand up to a fifth of their rate."""
    with Server(valkey_server_binary()) as server, BenchStore(parse_target(server.url), None) as store:
        assert type(store.clients.client.connection_pool) is redis.ConnectionPool
        assert type(store.clients.async_client.connection_pool) is redis.asyncio.ConnectionPool
        case = BenchCase("reserve", Implementation.BY_HAND, ApiStyle.TASKS, CONNECTIONS)
        workload = PlainRedisWorkload(store, case)
        _, calls = workload.prepare(2 * CONNECTIONS)
        assert all(call[0] == 5 for call in calls)  # arguments of the script, without a semaphore
        workload.remove()


@pytest.mark.parametrize("style", list(ApiStyle))
def test_a_server_without_the_script_gets_it(store: BenchStore, cluster: Cluster, style: ApiStyle) -> None:
    """Such as a primary that has started again, or has got a slot; the effect is checked as ever."""
    case = BenchCase("reserve", Implementation.BY_HAND, style, 4, offices=3)
    workload = PlainRedisWorkload(store, case)
    for node in cluster.nodes:
        node.ask("SCRIPT", "FLUSH")
    measure_once(store, workload, case, 30)
    workload.remove()
    assert _keys(cluster.members) == 0


def test_a_wrong_effect_is_found_in_a_cluster(store: BenchStore, cluster: Cluster) -> None:
    """The counters of all primaries are read."""
    case = BenchCase("reserve", Implementation.LIMIT, ApiStyle.TASKS, 4, batch=10, offices=3)
    workload = PlainRedisWorkload(store, case)
    measure_once(store, workload, case, 60)
    client = store.clients.client
    client.hincrby(workload._keys[2][0], "free", 1)
    with pytest.raises(WrongOutcome, match="expected"):
        workload.check()
    workload.remove()


def test_goals_of_a_cluster_are_measured_by_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It starts the servers, and prints the goals per primary."""
    little = ["--case", "reserve", "--rounds", "2", "--round-ms", "2", "--reservations", "0", "--offices", "3"]
    callers = [word for count in ("2", "4", "8") for word in ("--concurrency", count)]
    assert cluster_goals.main(["--on", "single", "--on", "cluster", *little, *callers]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.rstrip().endswith(", per primary") for line in lines) == 1
    assert sum(line.startswith("4 callers at 3 offices: times by hand") for line in lines) == 2
