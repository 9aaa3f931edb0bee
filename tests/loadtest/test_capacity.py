"""Tests of the capacity measurement: arrivals, the search for the highest rate, bursts, and the load generator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from quota_engine.loadtest.capacity import _Memory, burst, find_capacity
from quota_engine.loadtest.capacity_plots import plots
from quota_engine.loadtest.load_generator import (
    CONNECTIONS,
    LoadGeneratorResult,
    SecondStatistics,
    due_times,
    generate_load,
)
from quota_engine.loadtest.staging_server import staging_server
from quota_engine.loadtest.workloads import ReserveWorkload
from quota_engine.reporting.statistics import Histogram
from tests.support.paths import DOCS


class Queue:
    """A simulated service that answers ``rate`` requests a second in order, and sheds waits beyond ``bound_s``."""

    people_per_place = 9.0

    def __init__(self, rate: float, bound_s: float | None = None) -> None:
        self.rate, self.bound_s = rate, bound_s

    def run(self, due_s: Sequence[float], places: float, connections: int = CONNECTIONS) -> LoadGeneratorResult:
        answers, statuses, done_s = Histogram(), Counter[int](), 0.0
        seconds: dict[int, tuple[Histogram, Counter[int]]] = {}
        for at_s in due_s:
            is_away = self.bound_s is not None and done_s - at_s > self.bound_s
            if not is_away:
                done_s = max(done_s, at_s) + 1 / self.rate
            took_us = 0 if is_away else round((done_s - at_s) * 1e6)
            histogram, counts = seconds.setdefault(int(at_s), (Histogram(), Counter()))
            for each in (answers, histogram):
                each.record(took_us)
            for count in (statuses, counts):
                count[503 if is_away else 409] += 1
        found = [
            SecondStatistics(one.count, 0.0, one.percentile(0.99) / 1000, counts) for one, counts in seconds.values()
        ]
        return LoadGeneratorResult(answers, statuses, 0, Histogram(), found, done_s)


class Failing:
    """A simulated service that fails once in a run of more than 3,000 requests."""

    people_per_place = 9.0

    def run(self, due_s: Sequence[float], places: float, connections: int = CONNECTIONS) -> LoadGeneratorResult:
        failed = int(len(due_s) > 3000)
        return LoadGeneratorResult(
            Histogram(), Counter({409: len(due_s) - failed, 500: failed}), 0, Histogram(), [], 1.0
        )


def test_arrivals_are_independent_and_repeat_with_the_seed() -> None:
    moments = due_times([(1000, 2.0), (10, 1.0)], 1)
    assert moments == sorted(moments) == due_times([(1000, 2.0), (10, 1.0)], 1)
    assert 1850 < sum(at_s < 2 for at_s in moments) < 2150
    assert sum(at_s >= 2 for at_s in moments) < 30


def test_the_highest_good_rate_is_found() -> None:
    """The rate is within some per cent of the service's; runs of a few seconds allow a little more."""
    capacity = find_capacity(Queue(1000), first=100, step_s=3.0)
    assert 900 < capacity.rate < 1200
    assert all(step.is_good == (step.p99_ms <= 250) for step in capacity.steps)


def test_a_rate_with_one_failure_is_too_high() -> None:
    assert find_capacity(Failing(), first=500, step_s=2.0).rate < 1600


@pytest.mark.parametrize(("factor", "recovered_s"), [(2, 2), (5, 6)])
def test_a_burst_leaves_work_for_later_seconds(factor: int, recovered_s: int) -> None:
    """A second at N times the rate leaves N - 1 seconds of work, less the quiet seconds' spare capacity."""
    found = burst(Queue(4000), 4000, factor, memory_mib=lambda: (1.0, 2.0))
    assert found.recovered_s is not None
    assert abs(found.recovered_s - recovered_s) <= 1
    assert found.p99_ms > 900 * (factor - 1)
    assert (found.service_mib[0], found.store_mib[-1]) == (1.0, 2.0)


def test_load_shedding_ends_a_burst_within_a_second() -> None:
    found = burst(Queue(4000, bound_s=0.2), 4000, 10, connections=4_000, memory_mib=lambda: (1.0, 1.0))
    assert found.p99_ms < 250
    assert found.recovered_s == 0
    assert 30_000 < found.by_status["503"] < 37_000
    assert found.connections == 4_000


def test_pictures_match_the_data() -> None:
    docs = DOCS
    for name, picture in plots(json.loads((docs / "data" / "load.json").read_text())).items():
        assert (docs / "images" / f"{name}.svg").read_text() == picture


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a server that answers every third request with 409, in two pieces."""
    ready, stop, ports = threading.Event(), asyncio.Event(), []
    answering: list[asyncio.Task[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.append(task)
        number = 0
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                number += 1
                status = b"409 Conflict" if number % 3 == 0 else b"201 Created"
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 5\r\n\r\nab")
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(b"cde")

    async def serve() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            ready.set()
            await stop.wait()
        # A handler may not have noticed yet that its connection was aborted.
        await asyncio.gather(*answering)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


def test_the_generator_sends_each_request_once(port: int) -> None:
    due_s = due_times([(600, 0.5)], 3)
    found = generate_load(
        "127.0.0.1", port, due_s, lambda number: b"GET / HTTP/1.1\r\n\r\n", connections=3, patience_s=60
    )
    assert found.lost == 0
    assert found.statuses.total() == len(due_s)
    assert len(due_s) / 3 - 3 <= found.statuses[409] <= len(due_s) / 3
    assert found.answer_us.count == len(due_s) == sum(second.due for second in found.seconds)


@pytest.mark.store
def test_reserves_on_a_service_are_held_or_sold_out() -> None:
    with staging_server("indonesia", opens_in_s=-60, workers=1) as here:
        pressing = ReserveWorkload(here)
        found = pressing.run(due_times([(400, 1.0)], 1), 40)
        assert found.statuses.total() + found.lost == len(due_times([(400, 1.0)], 1))
        assert found.lost == 0
        assert found.statuses.keys() == {201, 409}
        assert 7 < pressing.people_per_place < 12
        assert min(_Memory(here).mib()) > 5
