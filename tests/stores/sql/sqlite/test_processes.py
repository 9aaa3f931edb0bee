"""Several processes on one file, and processes that die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import SetCapacity
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Audit, Lookup, ReadEvents, View
from quota_engine.stores.sql.sqlite.factory import open_async_store, open_store
from quota_engine.stores.sql.sync_store import SqlStore

CLOCK = ManualClock(OPENS_AT_MS)


def new_office(url: str, capacity: int) -> SqlStore:
    store = open_store(url, CLOCK)
    for command in (*published(identity_limits=()), SetCapacity(DAY, "online", capacity)):
        assert store.apply(OFFICE, command).ok
    return store


def start_writer(url: str, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.sqlite_writer", url, str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_sell_each_place_once(tmp_path: Path) -> None:
    """Three processes with four threads each reserve 100 places with 180 calls."""
    url = f"sqlite://{tmp_path}/quota.db?durability=memory&call_timeout_ms=60000"
    store = new_office(url, 100)
    writers = [start_writer(url, 1000 * number, 60) for number in range(3)]
    held = [line for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(held) == len(set(held)) == 100
    (day,) = store.execute(View(OFFICE, (DAY,)))
    assert (day.quotas["online"].held, day.quotas["online"].available) == (100, 0)
    assert store.execute(Audit(OFFICE)) == []
    numbers = [one.number for one in store.execute(ReadEvents(OFFICE, 0, 1000))]
    assert numbers == list(range(1, len(numbers) + 1))
    store.close()


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """SIGKILL in the middle of the load, three times; other processes continue at once."""
    url = f"sqlite://{tmp_path}/quota.db?call_timeout_ms=60000"
    store = new_office(url, 100_000)
    acknowledged: list[str] = []
    for number in range(3):
        writer = start_writer(url, 100_000 * number, 100_000)
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(20 * number + 1)]
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate(timeout=120)
        acknowledged += [line for line in rest.split("\n")[:-1] if line]
        assert store.apply(OFFICE, reserve(f"after{number}", ONLINE)).status is Status.HELD
    for key in acknowledged:
        assert store.execute(Lookup(OFFICE, key)) is not None, key
    assert store.execute(Audit(OFFICE)) == []
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_uses_the_file_by_itself(tmp_path: Path) -> None:
    """The child inherits neither ledgers nor connections, and the parent's file stays whole."""
    store = new_office(f"sqlite://{tmp_path}/quota.db?durability=memory", 10)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if store.apply(OFFICE, reserve("child", ONLINE)).status is Status.HELD else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.execute(Lookup(OFFICE, "child")) is not None
    assert store.apply(OFFICE, reserve("parent", ONLINE)).status is Status.HELD
    assert store.execute(Audit(OFFICE)) == []
    store.close()


def test_an_async_store_belongs_to_one_loop_and_one_process(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/quota.db?durability=memory"
    new_office(url, 10).close()
    store = asyncio.run(opened_and_used(url))
    with pytest.raises(BackendUnavailable, match="another event loop"):
        asyncio.run(reserve_once(store))
    store._is_forked = True
    with pytest.raises(BackendUnavailable, match="before the process was forked"):
        asyncio.run(reserve_once(store))


async def opened_and_used(url: str):  # type: ignore[no-untyped-def]
    store = await open_async_store(url, CLOCK)
    assert (await store.apply(OFFICE, reserve("ani", ONLINE))).status is Status.HELD
    return store


async def reserve_once(store) -> None:  # type: ignore[no-untyped-def]
    await store.apply(OFFICE, reserve("budi", ONLINE))


async def test_a_closed_store_refuses_calls(tmp_path: Path) -> None:
    """Calls in flight end first; those that come later are refused."""
    url = f"sqlite://{tmp_path}/quota.db?durability=memory"
    sync_store = new_office(url, 10)
    store = await open_async_store(url, CLOCK)
    calls = [asyncio.ensure_future(store.apply(OFFICE, reserve(f"k{n}", ONLINE))) for n in range(5)]
    await asyncio.sleep(0)
    await store.close()
    assert {(await call).status for call in calls} == {Status.HELD}
    for _ in range(2):
        sync_store.close()
        await store.close()
    with pytest.raises(BackendUnavailable, match="has been closed"):
        await store.apply(OFFICE, reserve("late", ONLINE))
    with pytest.raises(BackendUnavailable, match="has been closed"):
        sync_store.execute(Audit(OFFICE))


async def test_a_cancelled_call_disturbs_no_other(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/quota.db?durability=memory"
    new_office(url, 100).close()
    store = await open_async_store(url, CLOCK)
    calls = [asyncio.ensure_future(store.apply(OFFICE, reserve(f"k{n}", ONLINE))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert {one.status for one in done[1::2]} == {Status.HELD}  # type: ignore[union-attr]
    assert (await store.apply(OFFICE, reserve("k0", ONLINE))).status is Status.HELD
    assert await store.execute(Audit(OFFICE)) == []
    await store.close()
