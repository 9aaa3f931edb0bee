"""No place is sold twice or lost while workers, the store and the service are killed.

Two workers, a Valkey with fsync, and the clients are separate processes; clients repeat requests with the same key.
``python -m benchmarks.service_chaos`` runs the same for any time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from quota_engine.client import ServiceClient
from tests.service.test_runner import Served, served, started_workers
from tests.support.concurrent_bookers import BookerThreads, check, open_day, set_places, write_catalog
from tests.support.servers import Server, until, valkey_server_binary

pytestmark = [pytest.mark.store, pytest.mark.slow]

PLACES = 120
PEOPLE = 150
KEY = base64.b64encode(b"a key for tests, and only them").decode()


@pytest.fixture
def store() -> Iterator[Server]:
    """Yield a store that keeps acknowledged writes."""
    with Server(valkey_server_binary(), appendfsync="always") as server:
        yield server


@contextlib.contextmanager
def serving(folder: Path, store: Server, *options: str) -> Iterator[Served]:
    """Yield a service with two workers, after both have started."""
    environment = {
        "QUOTA_ENGINE_BACKEND": f"{store.url}?durability=fsync&attempts_max=4&timeout_ms=1000",
        "QUOTA_ENGINE_IDENTITY_KEY": KEY,
    }
    options = ("--workers", "2", "--catalog", str(write_catalog(folder)), *options)
    with served(folder, *options, **environment) as service:
        until(lambda: "quota_engine_workers 2.0\n" in get(service, "/metrics").text, "two workers")
        started_workers(service)
        yield service


def get(service: Served, path: str) -> httpx.Response:
    """Read from the service, with enough time on a busy machine."""
    return httpx.get(f"{service.url}{path}", timeout=30)


def token(service: Served) -> str:
    return service.token("operator")["authorization"].removeprefix("Bearer ")


@contextlib.contextmanager
def crowd_at(service: Served, pause_after: int = PEOPLE) -> Iterator[tuple[ServiceClient, BookerThreads]]:
    """Yield bookers that have started. The test waits for them."""
    with ServiceClient.open(service.url, token(service)) as client:
        day = open_day(client)
        set_places(client, day, PLACES)
        crowd = BookerThreads(service.url, token(service), day, PEOPLE, pause_after=pause_after)
        crowd.start()
        with contextlib.closing(crowd):
            yield client, crowd


def test_killed_worker_loses_nothing(tmp_path: Path, store: Server) -> None:
    """Its clients repeat their requests with the same key."""
    with serving(tmp_path, store) as service, crowd_at(service) as (client, crowd):
        crowd.wait_for_confirmed(10)
        first, second = service.workers()
        os.kill(first, signal.SIGKILL)
        assert service.wait_for(r"worker (\d+) ended") == str(first)
        crowd.wait_for_confirmed(60)
        os.kill(second, signal.SIGKILL)
        crowd.finish()
        assert (len(crowd.confirmed), crowd.sold_out) == (PLACES, PEOPLE - PLACES)
        check(client, crowd, PLACES)
    assert service.process.returncode == 0


def test_restarted_store_loses_nothing(tmp_path: Path, store: Server) -> None:
    """The service is not ready while the store is unavailable, and keeps acknowledged places."""
    with serving(tmp_path, store) as service, crowd_at(service) as (client, crowd):

        def ready() -> tuple[int, str]:
            answer = get(service, "/health/ready")
            return answer.status_code, answer.json()["status"]

        crowd.wait_for_confirmed(20)
        store.kill()
        until(lambda: ready() == (503, "store unavailable"), "a service that is not ready")
        assert get(service, "/health/live").status_code == 200
        store.start()
        until(lambda: ready() == (200, "ready"), "a service that is ready again")
        crowd.finish()
        assert (len(crowd.confirmed), crowd.sold_out) == (PLACES, PEOPLE - PLACES)
        check(client, crowd, PLACES)


def test_worker_killed_during_store_outage_is_replaced(tmp_path: Path, store: Server) -> None:
    """The other worker serves on, and the replacement starts when the store is back."""
    with serving(tmp_path, store) as service, ServiceClient.open(service.url, token(service)) as client:
        store.kill()
        first, second = service.workers()
        os.kill(first, signal.SIGKILL)
        service.wait_for(r"worker (\d+) ended with code 3")
        # The kernel's list of children can lack one while another one ends.
        until(lambda: second in service.workers(), "the other worker")
        assert get(service, "/health/live").status_code == 200
        store.start()
        until(lambda: len(service.workers()) == 2, "a second worker")
        until(lambda: get(service, "/health/ready").status_code == 200, "a service that is ready")
        assert client.audit().ok
    assert service.process.returncode == 0


def test_stopped_service_loses_nothing(tmp_path: Path, store: Server) -> None:
    """It completes its requests; the next service gives equal responses to the same keys."""
    with serving(tmp_path, store) as service, crowd_at(service, pause_after=PLACES - 10) as (_, crowd):
        crowd.wait_for_confirmed(20)
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert crowd.sold_out == 0, "the crowd finished before the stop"
        acknowledged = dict(crowd.confirmed)
        with serving(tmp_path, store, "--config", str(config_of(tmp_path, token(service)))) as successor:
            crowd.switch_to(successor.url)
            crowd.finish()
            with ServiceClient.open(successor.url, token(service)) as client:
                assert acknowledged.items() <= crowd.confirmed.items()
                assert (len(crowd.confirmed), crowd.sold_out) == (PLACES, PEOPLE - PLACES)
                check(client, crowd, PLACES)


def config_of(folder: Path, token: str) -> Path:
    """Write a configuration with the token of the first service."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    path = folder / "successor.toml"
    path.write_text(f'[[tokens]]\nname = "operator"\nrole = "operator"\nsha256 = "{digest}"\n')
    return path
