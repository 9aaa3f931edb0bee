"""A store on an embedded server starts the server again after it has ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Reserve, SetCapacity
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import ApplyMany, Audit
from quota_engine.stores import embedded_directory
from quota_engine.stores.embedded import open_embedded
from quota_engine.stores.redis.factory import open_async_store, open_store
from tests.support.servers import until

pytestmark = pytest.mark.store

CLOCK = ManualClock(OPENS_AT_MS)
PUBLISHED = ApplyMany(OFFICE, (*published(), SetCapacity(DAY, "online", 1_000)))


def booking(number: int) -> Reserve:
    """Return the reserve of one of many applicants."""
    return reserve(f"n{number}", ONLINE)


@pytest.fixture
def url() -> Iterator[str]:
    """A URL whose path is short enough for a socket. Nothing acknowledged is lost there."""
    with tempfile.TemporaryDirectory(prefix="restart-") as directory:
        yield f"valkey+embedded://{directory}/data?appendfsync=always"


@pytest.fixture
def patient_url(url: str) -> str:
    """The same URL, for calls that wait until a busy machine has started the server again."""
    return f"{url}&call_timeout_ms=60000&attempts_max=1000"


def kill_server(url: str) -> int:
    """Kill the server of a URL; return its process id."""
    pid = int((Path(url.partition("://")[2].partition("?")[0]) / "valkey.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes(),
        "the end of the server",
    )
    return pid


def test_calls_survive_kills_of_the_server(patient_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Callers wait and get their outcome; each restart is logged, with the reason to look for."""
    with caplog.at_level(logging.WARNING, "quota_engine.embedded"):
        store = open_store(patient_url, CLOCK)
        store.execute(PUBLISHED)
        for number in range(3):
            kill_server(patient_url)
            assert store.apply(OFFICE, booking(number)).status is Status.HELD
        assert store.execute(Audit(OFFICE)) == []
        assert caplog.text.count("had ended; started again as process") == 3
        store.close()


def test_threads_lose_no_acknowledged_hold(patient_url: str) -> None:
    """Sixteen threads reserve while the server is killed twice: each call gets a separate hold."""
    store = open_store(patient_url, CLOCK)
    store.execute(PUBLISHED)
    outcomes: list[Outcome] = []

    def book(first: int) -> None:
        outcomes.extend(store.apply(OFFICE, booking(first + one)) for one in range(20))

    threads = [threading.Thread(target=book, args=(100 * one,)) for one in range(16)]
    for thread in threads:
        thread.start()
    until(lambda: len(outcomes) > 0 or not any(thread.is_alive() for thread in threads), "a hold")
    for _ in range(2):
        kill_server(patient_url)
        assert store.apply(OFFICE, booking(5_000)).ok
    for thread in threads:
        thread.join()
    assert [outcome.status for outcome in outcomes] == [Status.HELD] * 320
    assert store.execute(Audit(OFFICE)) == []
    store.close()


async def test_async_store_survives_a_kill(patient_url: str) -> None:
    """The event loop runs on while the server starts."""
    store = await open_async_store(patient_url, CLOCK)
    await store.execute(PUBLISHED)
    kill_server(patient_url)
    outcomes = await asyncio.gather(*(store.apply(OFFICE, booking(number)) for number in range(50)))
    assert {outcome.status for outcome in outcomes} == {Status.HELD}
    await store.close()


def test_restarts_are_limited(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends again and again is left alone, and the error says where to look."""
    monkeypatch.setattr(embedded_directory, "RESTARTS_MAX", 2)
    with open_embedded(url) as server:
        for _ in range(2):
            kill_server(url)
            server.ensure_running()
        kill_server(url)
        with pytest.raises(BackendUnavailable, match=r"ended 2 times within a minute .* its log"):
            server.ensure_running()
        monkeypatch.setattr(embedded_directory, "RESTARTS_WINDOW_S", 0.0)
        server.ensure_running()


def test_a_running_server_is_not_started_again(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_embedded(url) as server, caplog.at_level(logging.WARNING, "quota_engine.embedded"):
        pid = server.pid
        server.ensure_running()
        assert server.pid == pid
        assert caplog.text == ""
