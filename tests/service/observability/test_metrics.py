"""Metrics count correctly, add up over workers, and read the store rarely."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.ports import Batch, StoreObserver, StoreRequest, View
from quota_engine.service.config.admission_settings import WaitingRoomsConfig
from quota_engine.service.observability.exposition import render
from quota_engine.service.observability.metric_families import METRIC_FAMILIES, Sample
from quota_engine.service.observability.metrics import ServiceMetrics
from quota_engine.service.observability.store_collector import COLLECT_INTERVAL_S, StoreCollector
from quota_engine.service.observability.worker_metrics import WorkerMetrics, _MetricsFile, _write, fold_ended_worker
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.service.test_runner import served
from tests.support.browser_service import wait_list_catalog
from tests.support.identities import nik
from tests.support.in_process_service import DAY_PATH, NIK, Client, running
from tests.support.paths import DOCS

DOCUMENT = DOCS / "monitoring.md"


def numbers(text: str) -> dict[str, float]:
    """Return all samples by name, with their labels sorted."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def collector_of(client: Client) -> StoreCollector:
    collector = client.service._store_collector
    assert collector is not None
    return collector


async def scrape(client: Client) -> dict[str, float]:
    """Return the metrics after a new collection from the store."""
    collector_of(client)._collected_at_s = float("-inf")
    response = await client.http.get("/metrics")
    assert response.status_code == 200
    return numbers(response.text)


async def test_requests_outcomes_and_store_metrics(client: Client) -> None:
    held = (await client.reserve(NIK)).json()["reservation"]["reference"]
    client.clock.advance_ms(120_000)
    await client.reserve(nik(2))
    assert (await client.reserve(nik(3))).status_code == 201
    assert (await client.step(held, "confirm")).status_code == 200
    assert (await client.http.get("/")).status_code == 200
    assert (await client.http.get("/v1/nothing")).status_code == 404
    assert (await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 1})).status_code == 200
    assert (await client.reserve(nik(4), join_wait_list=True)).status_code == 409  # cooling units have no wait list
    client.clock.advance_ms(61_000)
    found = await scrape(client)
    expected = {
        "quota_engine_outcomes_total status=HELD": 3,
        "quota_engine_outcomes_total status=SOLD_OUT": 1,
        "quota_engine_http_requests_total endpoint=reserve status=201": 3,
        "quota_engine_http_requests_total endpoint=reserve status=409": 1,
        "quota_engine_http_requests_total endpoint=pages status=200": 1,
        "quota_engine_http_requests_total endpoint=unknown-path status=404": 1,
        "quota_engine_http_request_duration_seconds_count endpoint=reserve": 4,
        "quota_engine_http_request_duration_seconds_bucket endpoint=reserve le=+Inf": 4,
        "quota_engine_store_up": 1,
        "quota_engine_holds office=surabaya older_than_seconds=0": 2,
        "quota_engine_holds office=surabaya older_than_seconds=60": 2,
        "quota_engine_holds office=surabaya older_than_seconds=300": 0,
        "quota_engine_wait_list_length office=surabaya": 0,
        "quota_engine_overbooked_units office=surabaya": 2,
        "quota_engine_abandoned_holds_total end=released office=surabaya": 0,
        "quota_engine_abandoned_holds_total end=expired office=surabaya": 0,
        "quota_engine_abandoned_hold_blocks_total office=surabaya": 0,
        "quota_engine_workers": 1,
        "quota_engine_event_streams": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert 0 < found["quota_engine_http_request_duration_seconds_sum endpoint=reserve"] < 10
    assert found["process_resident_memory_bytes"] > 1e6
    client.clock.advance_ms(400_000)
    older = await scrape(client)
    assert older["quota_engine_holds office=surabaya older_than_seconds=300"] == 2
    assert "quota_engine_holds office=surabaya older_than_seconds=900" not in older  # the hold time is shorter


async def test_holds_that_end_without_a_confirm_are_counted() -> None:
    """Two are released, the second of which blocks, and one expires."""
    async with running(catalog=wait_list_catalog(abandoned_holds_max=1)) as client:
        for _ in range(2):
            held = (await client.reserve()).json()["reservation"]["reference"]
            assert (await client.step(held, "release")).status_code == 200
        await client.reserve(nik(2))
        client.clock.advance_ms(900_000)
        await client.reserve(nik(3))
        found = await scrape(client)
        assert found["quota_engine_abandoned_holds_total end=released office=surabaya"] == 2
        assert found["quota_engine_abandoned_holds_total end=expired office=surabaya"] == 1
        assert found["quota_engine_abandoned_hold_blocks_total office=surabaya"] == 1


async def test_room_metrics_appear_with_the_room() -> None:
    async with running(
        before_ms=600_000, waiting_rooms=WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)))
    ) as client:
        room = client.service.current_room("surabaya")
        for number in range(3):
            joined = await client.call("POST", f"/v1/rooms/{room}/tickets", {"identity": nik(number)}, "service")  # type: ignore[arg-type]
            assert joined.status_code == 201, joined.text
        client.clock.advance_ms(1_000)
        found = await scrape(client)
        assert found[f"quota_engine_room_tickets_total room={room}"] == 3
        assert found[f"quota_engine_room_waiting_tickets room={room}"] == 3
        assert found[f"quota_engine_room_called_tickets_total room={room}"] == 0
        assert found[f"quota_engine_room_rate_per_second room={room}"] >= 0


async def test_concurrent_scrapes_share_one_collection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[StoreRequest[Any]] = []
    perform = AsyncMemoryStore.execute

    async def counted(self: AsyncMemoryStore, request: StoreRequest[Any]) -> Any:
        await asyncio.sleep(0)
        if isinstance(request, View):
            views.append(request)
        return await perform(self, request)

    monkeypatch.setattr(AsyncMemoryStore, "execute", counted)
    await asyncio.gather(*(client.http.get("/metrics") for _ in range(10)))
    assert len(views) == 1
    collector_of(client)._collected_at_s -= COLLECT_INTERVAL_S
    await client.http.get("/metrics")
    assert len(views) == 2


async def test_unavailable_store_leaves_its_metrics_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of the process are still reported."""
    await client.reserve()

    def away(*_: object) -> None:
        raise BackendUnavailable("away")

    monkeypatch.setattr(MemoryStore, "execute", away)
    found = await scrape(client)
    assert found["quota_engine_store_up"] == 0
    assert found["quota_engine_outcomes_total status=HELD"] == 1
    assert not any(name.startswith("quota_engine_holds") for name in found)


async def test_slow_collection_times_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("quota_engine.service.observability.store_collector.COLLECT_TIMEOUT_S", 0.02)
    monkeypatch.setattr(AsyncMemoryStore, "execute", never)
    assert (await scrape(client))["quota_engine_store_up"] == 0


def test_batches_errors_and_cache_hits_are_counted() -> None:
    metrics = ServiceMetrics()
    assert isinstance(metrics, StoreObserver)
    for size in (1, 3, 128):
        metrics.on_batch(Batch("surabaya", False, size, 2_000, "", ()))
    metrics.on_batch(Batch("surabaya", True, 1, 700_000, "BackendUnavailable", ()))
    metrics.on_sold_out("surabaya")
    found = numbers(render(metrics.samples()).decode())
    assert found["quota_engine_store_batch_size_bucket le=1.0"] == 2
    assert found["quota_engine_store_batch_size_bucket le=4.0"] == 3
    assert found["quota_engine_store_batch_size_count"] == 4
    assert found["quota_engine_store_batch_size_sum"] == 133
    assert found["quota_engine_store_batch_duration_seconds_bucket access=write le=0.0025"] == 3
    assert found["quota_engine_store_batch_duration_seconds_sum access=read"] == pytest.approx(0.7)
    assert found["quota_engine_store_errors_total error=BackendUnavailable"] == 1
    assert found["quota_engine_sold_out_cache_hits_total"] == 1


def test_label_sets_are_bounded() -> None:
    metrics = ServiceMetrics()
    for number in range(2000):
        metrics.on_batch(Batch("surabaya", True, 1, 1, f"Error{number}", ()))
    rows = [row for row in metrics.samples() if row.family == "quota_engine_store_errors"]
    assert len(rows) == 501
    assert sum(row.values[0] for row in rows) == 2000


# --- Several workers ------------------------------------------------------------------------------------------------


def own(count: int, streams: int) -> list[Sample]:
    return [
        Sample("quota_engine_outcomes", ("HELD",), (count,)),
        Sample("quota_engine_store_batch_size", (), (count, 0, 0, 0, 0, 0, 0, 0, 0, count)),
        Sample("quota_engine_event_streams", (), (streams,)),
    ]


def test_workers_add_up(tmp_path: Path) -> None:
    one, other = WorkerMetrics(tmp_path), WorkerMetrics(tmp_path)
    one.write(own(5, 7))
    other.write(own(2, 1))
    assert one.aggregate(own(6, 7)) == [
        Sample("quota_engine_outcomes", ("HELD",), (8,)),
        Sample("quota_engine_store_batch_size", (), (8, 0, 0, 0, 0, 0, 0, 0, 0, 8)),
        Sample("quota_engine_event_streams", (), (8,)),
    ]


def test_ended_worker_keeps_its_counters(tmp_path: Path) -> None:
    """Its gauges no longer count."""
    one = WorkerMetrics(tmp_path)
    page = tmp_path / "77-1.samples"
    _write(page, _MetricsFile(time.time() - 60, own(2, 1)))
    lasting = [row for row in own(5, 0) if row.family != "quota_engine_event_streams"]
    assert one.aggregate(own(3, 0))[:2] == lasting
    assert one.aggregate(own(3, 9))[2].values == (9,)
    content = page.read_bytes()
    fold_ended_worker(tmp_path, 77)
    assert not page.exists()
    assert one.aggregate(own(3, 0))[:2] == lasting
    page.write_bytes(content)  # a partly written file
    assert one.aggregate(own(3, 0))[:2] == lasting
    (tmp_path / "1-1.samples").write_bytes(b"half of some")
    assert one.aggregate(own(3, 0))[:2] == lasting


@pytest.mark.store
def test_metrics_of_two_workers_survive_a_kill(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as service:

        def found() -> dict[str, float]:
            return numbers(httpx.get(f"{service.url}/metrics", timeout=30).text)

        def wait_for(name: str, value: float) -> None:
            deadline_s = time.monotonic() + 20
            while found().get(name) != value:
                assert time.monotonic() < deadline_s, found()
                time.sleep(0.05)

        wait_for("quota_engine_workers", 2)  # one worker is ready before the other
        for _ in range(40):
            assert httpx.get(f"{service.url}/v1/offices", timeout=30).status_code == 200
        wait_for("quota_engine_http_requests_total endpoint=offices status=200", 40)
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for(r"worker (\d+) ended")
        assert found()["quota_engine_http_requests_total endpoint=offices status=200"] == 40
        wait_for("quota_engine_workers", 2)
        assert found()["quota_engine_http_requests_total endpoint=offices status=200"] == 40


# --- The document ---------------------------------------------------------------------------------------------------


def test_documented_metrics_and_labels_are_the_real_ones() -> None:
    listed = {}
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("| `") and line.count("|") >= 5:
            name, labels = (cell.strip() for cell in line.split("|")[1:3])
            listed[name.strip("`")] = tuple(label.strip(" `") for label in labels.split(",") if label.strip())
    expected = {
        name + ("_total" if family.kind == "counter" else ""): family.labels for name, family in METRIC_FAMILIES.items()
    }
    assert listed == expected


def test_names_follow_prometheus_conventions() -> None:
    for name, family in METRIC_FAMILIES.items():
        assert family.help.endswith("."), name
        assert not name.endswith(("_total", "_ms", "_us", "_count", "_sum", "_bucket")), name
        assert (family.kind == "histogram") is bool(family.bounds), name
    assert StoreCollector.__doc__
