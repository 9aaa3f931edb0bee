"""Engines in forked children, and async engines in other event loops: they work, or refuse at once."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from quota_engine import AsyncQuotaEngine, BackendUnavailable, forks
from tests.support.paths import ROOT
from tests.support.servers import Server, valkey_server_binary

pytestmark = pytest.mark.store

KEY = b"0123456789abcdef"

OPENED = """
import datetime, os, sys, threading, warnings
from quota_engine import BackendUnavailable, ManualClock, QuotaEngine, load_catalog
warnings.simplefilter("ignore")  # Python 3.12 warns of each fork of a process with threads
DAY = datetime.date(2026, 12, 7)
NOW = datetime.datetime(2026, 12, 5, tzinfo=datetime.timezone.utc)
catalog = load_catalog("surabaya")
engine = QuotaEngine.open(
    sys.argv[1],
    catalog=catalog,
    identity_key=b"0123456789abcdef",
    clock=ManualClock(int(NOW.timestamp() * 1000)),
)
engine.publish(catalog, DAY)
def reserve(number):
    return engine.reserve("surabaya", DAY, f"{number:016}", service="new", session="morning")
"""

BUSY_PARENT = (
    OPENED
    + """
stopped = threading.Event()
def call(first):
    number = first
    while not stopped.is_set():
        reserve(number)
        engine.availability("surabaya", DAY)
        number += 10
threads = [threading.Thread(target=call, args=(1000 + one,)) for one in range(8)]
for thread in threads:
    thread.start()
children = []
for number in range(20):
    child = os.fork()
    if not child:
        try:
            status = str(reserve(number).status)
        except BackendUnavailable as error:
            status = "refused: " + str(error)
        os.write(1, (status + "\\n").encode())
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
stopped.set()
for thread in threads:
    thread.join()
engine.close()
print("parent done")
"""
)

ASYNC_CHILD = """
import asyncio, os, sys
from quota_engine import AsyncQuotaEngine, BackendUnavailable, load_catalog
async def opened():
    return await AsyncQuotaEngine.open(sys.argv[1], catalog=load_catalog("surabaya"), identity_key=b"0123456789abcdef")
engine = asyncio.run(opened())
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    try:
        asyncio.run(engine.list_offices())
    except BackendUnavailable as error:
        print(error, flush=True)
    os._exit(0)
"""

NOT_CLOSED = """
import asyncio, sys
from quota_engine import AsyncQuotaEngine
async def ask():
    engine = await AsyncQuotaEngine.open(sys.argv[1], identity_key=b"0123456789abcdef")
    print(await engine.list_offices())
asyncio.run(ask())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(valkey_server_binary()) as server:
        yield server


def run(program: str, url: str) -> list[str]:
    """Run a program, which must end in time and complain about nothing; return its output."""
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_children_of_a_busy_parent_reserve(server: Server) -> None:
    """No child waits for a lock that a thread of the parent held, and the parent's calls continue."""
    server.ask("FLUSHALL")
    for _ in range(3):
        *children, last = run(BUSY_PARENT, server.url)
        assert last == "parent done"
        assert len(children) == 20
        assert set(children) <= {"HELD", "SOLD_OUT"}, Counter(children)


def test_memory_store_refuses_in_a_child() -> None:
    """A copy of the store would sell each place twice."""
    *children, last = run(BUSY_PARENT, "memory://")
    assert last == "parent done"
    assert len(children) == 20
    (message,) = set(children)
    assert message.startswith("refused: memory:// belongs to the process that opened it")


def test_async_engine_refuses_in_a_child(server: Server) -> None:
    (message,) = run(ASYNC_CHILD, server.url)
    assert message.startswith("this engine was opened before the process was forked")


def test_async_engine_refuses_another_loop(server: Server) -> None:
    """It names the remedy, and serves its own loop on."""

    async def opened() -> AsyncQuotaEngine:
        engine = await AsyncQuotaEngine.open(server.url, identity_key=KEY)
        await engine.list_offices()
        return engine

    async def ask(engine: AsyncQuotaEngine) -> str:
        with pytest.raises(BackendUnavailable) as raised:
            await engine.list_offices()
        return str(raised.value)

    with asyncio.Runner() as runner:
        engine = runner.run(opened())
        with asyncio.Runner() as other:
            messages = {other.run(ask(engine)) for _ in range(2)}
        assert messages == {
            "this engine belongs to another event loop: open one engine in each loop with AsyncQuotaEngine.open"
        }
        runner.run(engine.list_offices())
        runner.run(engine.close())


@pytest.mark.parametrize("program", [NOT_CLOSED, OPENED])
@pytest.mark.parametrize("url_of", [lambda server: server.url, lambda _: "memory://"], ids=["server", "memory"])
def test_exit_without_close_neither_hangs_nor_warns(
    program: str, url_of: Callable[[Server], str], server: Server
) -> None:
    run(program, url_of(server))


def test_exit_without_close_leaves_no_embedded_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("e", numbered=True) / "data"
    run(NOT_CLOSED, f"valkey+embedded://{place}")
    assert not (place / "valkey.sock").exists()


def test_a_dropped_object_is_forgotten() -> None:
    """The list of repairs does not keep objects alive, and does not grow with them."""

    class Locked:
        def repair(self) -> None: ...

    gc.collect()
    before = len(forks._methods)
    locked = Locked()
    forks.call_in_child(locked.repair)
    assert len(forks._methods) == before + 1
    del locked
    gc.collect()
    assert len(forks._methods) == before
