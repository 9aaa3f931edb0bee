"""Calls end within their time, with any fault of the server, the network and other callers."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.connection import UnixDomainSocketConnection

from quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, published, reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, JobTimeout, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Lookup, View
from quota_engine.stores.redis.ending_connections import EndingConnectionPool, limit_socket, set_end
from quota_engine.stores.redis.factory import open_async_store, open_store
from quota_engine.stores.redis.node_channel import _WRITES_MAX
from quota_engine.stores.redis.sync_store import RedisStore
from tests.support import call_times
from tests.support.call_times import SLACK_MS, TimedBookings
from tests.support.daily_releases import DULL, OPENS_AT_MS, catalog_of
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import Server, until, valkey_server_binary

pytestmark = pytest.mark.store

TIME_MS = 600


class Fixed:
    """A clock within the opening hours of the conformance world."""

    def now_ms(self) -> int:
        return 1_000_000_000_000


CLOCK = Fixed()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that the tests may stop."""
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture
def stopped(server: Server) -> Iterator[Server]:
    """The same, with days; it is stopped after the store of a test is open, and continues after the test."""
    server.ask("FLUSHALL")
    yield server
    server.resume()


def url_of(server: Server, **options: object) -> str:
    options = {"timeout_ms": 60_000, **options}
    return server.url + "?" + "&".join(f"{name}={value}" for name, value in options.items())


def error_of(call: Callable[[], object]) -> Exception:
    """Return the error of a call, which ends within its time. Without a bound the time-out of its socket ends it."""
    return call_times.error_of(call, TIME_MS)


def opened(url: str) -> RedisStore:
    store = open_store(url, CLOCK)
    store.execute(ApplyMany(OFFICE, published()), ends_at_ms=monotonic_ms() + 60_000)
    return store


@pytest.mark.slow
def test_a_stopped_server_ends_each_call_in_time(stopped: Server) -> None:
    """A command that was sent may have been applied; a question has changed nothing."""
    store = opened(url_of(stopped, call_timeout_ms=TIME_MS))
    stopped.pause()
    assert isinstance(error_of(lambda: store.apply(OFFICE, reserve("ani", ONLINE))), OutcomeUnknown)
    # The silent connection is gone; the server accepts the next one, and never greets it.
    assert isinstance(error_of(lambda: store.apply(OFFICE, reserve("budi", ONLINE))), BackendUnavailable)
    assert isinstance(error_of(lambda: store.execute(Lookup(OFFICE, "ani"))), BackendUnavailable)
    assert isinstance(error_of(lambda: store.execute(View(OFFICE, (DAY, DAY + 1)))), BackendUnavailable)
    stopped.resume()
    assert store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
    store.close()


def test_an_opening_ends_in_time(stopped: Server) -> None:
    stopped.pause()
    for url in (url_of(stopped, call_timeout_ms=TIME_MS),):
        error_of(lambda url=url: open_store(url, CLOCK))  # type: ignore[misc]
        error_of(lambda url=url: asyncio.run(open_async_store(url, CLOCK)))  # type: ignore[misc]


def test_lost_replies_end_the_call_in_time(server: Server) -> None:
    """A proxy swallows each reply, and leaves the connection open or cuts it."""
    server.ask("FLUSHALL")
    with LossyProxy(server.socket_path) as proxy:
        store = opened(f"{proxy.url}?call_timeout_ms={TIME_MS}&attempts_max=1000")
        for is_silent in (True, False):
            proxy.holds, proxy.is_silent = 1000, is_silent
            error = error_of(lambda: store.apply(OFFICE, reserve("ani", ONLINE)))
            assert isinstance(error, OutcomeUnknown)
        proxy.holds = 0
        assert store.apply(OFFICE, reserve("ani", ONLINE)).status is Status.HELD
        store.close()


def waiting_in(store: RedisStore) -> int:
    """Return the number of attempts that wait because as many writes as there may be are in flight."""
    return sum(len(channel._channel._waiting) for channel in store._channels.values())


@pytest.mark.slow
def test_an_exhausted_pool_ends_the_call_in_time(stopped: Server) -> None:
    """Long calls make all writes that may be in flight, or wait; another office's call waits, and gives up unsent."""
    store = opened(url_of(stopped, call_timeout_ms=60_000, timeout_ms=60_000, attempt_valid_ms=60_000))
    stopped.pause()
    statuses: list[Status] = []

    def hold(office: str) -> None:
        statuses.append(store.apply(office, reserve("ani", ONLINE)).status)

    holders = [threading.Thread(target=hold, args=(f"office-{number}",)) for number in range(8)]
    for thread in holders:
        thread.start()
    until(lambda: waiting_in(store) == len(holders) - _WRITES_MAX, "calls that wait for the others")
    end_ms = monotonic_ms() + TIME_MS
    error = error_of(lambda: store.apply("another", reserve("budi", ONLINE), ends_at_ms=end_ms))
    assert isinstance(error, BackendUnavailable)
    assert "nothing was applied" in str(error)
    stopped.resume()
    for thread in holders:
        thread.join()
    assert statuses == [Status.UNKNOWN_DAY] * 8
    store.close()


def test_calls_of_a_batch_end_at_their_own_time(stopped: Server) -> None:
    """The thread that sends a batch stops at its end; another thread sends the calls that have time left."""
    store = opened(url_of(stopped, call_timeout_ms=60_000, timeout_ms=60_000))
    short, long = ([f"{kind}-{number}" for number in range(8)] for kind in ("short", "long"))
    bookings = TimedBookings(store, dict.fromkeys(short, TIME_MS) | dict.fromkeys(long, 10_000))
    stopped.pause()
    bookings.start()
    bookings.join(*short)
    stopped.resume()
    bookings.join()
    assert {bookings.results[person] for person in short} <= {OutcomeUnknown, BackendUnavailable}
    assert all(isinstance(bookings.results[person], Status) for person in long)
    store.close()


async def test_async_calls_end_in_time(stopped: Server) -> None:
    """Commands, questions and requests of several steps; those that wait in the queue, too."""
    # The first batch must leave before the end, also on a machine that stops this process for half a second.
    time_ms = 2 * TIME_MS
    store = await open_async_store(url_of(stopped, call_timeout_ms=time_ms), CLOCK)
    await store.execute(ApplyMany(OFFICE, published()))
    stopped.pause()
    commands = [store.apply(OFFICE, reserve(f"ani-{number}", ONLINE)) for number in range(600)]
    questions = [store.execute(Lookup(OFFICE, "ani")), store.execute(View(OFFICE, (DAY, DAY + 1)))]
    kinds = []
    for calls in (commands, questions):
        began_ms = monotonic_ms()
        kinds.append([type(one) for one in await asyncio.gather(*calls, return_exceptions=True)])
        assert monotonic_ms() - began_ms < time_ms + SLACK_MS
    assert (kinds[0][0], kinds[0][-1]) == (OutcomeUnknown, BackendUnavailable)  # sent, and waiting in the queue
    assert set(kinds[1]) == {BackendUnavailable}
    stopped.resume()
    assert (await store.apply(OFFICE, reserve("budi", ONLINE))).status is Status.HELD
    assert all(call.is_done() for batch in store._batches for call in batch.calls)
    await store.close()


@pytest.mark.slow
async def test_async_calls_that_come_later_end_later(stopped: Server) -> None:
    """One timer serves all calls: it goes on to the next end, in a batch in flight and in the queues."""
    store = await open_async_store(url_of(stopped, call_timeout_ms=TIME_MS), CLOCK)
    await store.execute(ApplyMany(OFFICE, published()))
    stopped.pause()

    async def timed(key: str) -> float:
        began_ms = monotonic_ms()
        with pytest.raises((OutcomeUnknown, BackendUnavailable)):
            await store.apply(OFFICE, reserve(key, ONLINE))
        return monotonic_ms() - began_ms

    calls = []
    for number in range(8):
        calls.append(asyncio.create_task(timed(f"ani-{number}")))
        await asyncio.sleep(TIME_MS / 16_000)
    taken_ms = await asyncio.gather(*calls)
    assert all(TIME_MS - 1 <= one < TIME_MS + SLACK_MS for one in taken_ms)
    stopped.resume()
    assert (await store.apply(OFFICE, reserve("budi", ONLINE))).status is Status.HELD
    await store.close()


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_without_a_primary_a_call_ends_in_time(kind: str, server: Server) -> None:
    """No server listens at the addresses: nothing is sent."""
    path = "/mymaster" if kind == "sentinel" else ""
    url = f"redis+{kind}://127.0.0.1:1,127.0.0.1:2{path}?call_timeout_ms={TIME_MS}&attempts_max=1000"
    assert isinstance(error_of(lambda: open_store(url, CLOCK)), BackendUnavailable)
    assert isinstance(error_of(lambda: asyncio.run(open_async_store(url, CLOCK))), BackendUnavailable)


@pytest.mark.slow
def test_all_steps_of_a_call_share_its_time(stopped: Server) -> None:
    """A room's status reads the store, and may advance the room: one time for all of it. ``open`` sets it, too."""
    key = b"a key for tests, and only them"
    with QuotaEngine.open(stopped.url, identity_key=key, call_timeout_ms=TIME_MS) as engine:
        stopped.pause()
        error_of(lambda: engine.room("hall").view())
        error_of(lambda: engine.draw("dec").view())
        error_of(lambda: engine.list_offices())
        stopped.resume()


async def test_an_async_engine_takes_a_time_for_its_calls(stopped: Server) -> None:
    key = b"a key for tests, and only them"
    async with await AsyncQuotaEngine.open(stopped.url, identity_key=key, call_timeout_ms=TIME_MS) as engine:
        stopped.pause()
        began_ms = monotonic_ms()
        calls = [engine.room("hall").view(), engine.room("hall").view(), engine.draw("dec").view()]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {BackendUnavailable}
        assert monotonic_ms() - began_ms < TIME_MS + SLACK_MS
        stopped.resume()


@pytest.mark.slow
def test_a_job_ends_in_time_and_resumes(stopped: Server) -> None:
    """The server stops in the middle of a publication. The same call, with the server back, publishes the rest."""
    catalog = catalog_of()
    key, clock = b"a key for tests, and only them", ManualClock(OPENS_AT_MS)
    with QuotaEngine.open(stopped.url, identity_key=key, catalog=catalog, clock=clock) as engine:
        engine.publish(catalog, DULL, offices=["east"])
        stopped.pause()
        began_ms = monotonic_ms()
        with pytest.raises(JobTimeout) as caught:
            engine.publish(catalog, DULL, timeout_ms=TIME_MS)
        assert monotonic_ms() - began_ms < TIME_MS + SLACK_MS
        assert (caught.value.job, caught.value.done, caught.value.is_cut) == ("publish", 0, True)
        stopped.resume()
        report = engine.publish(catalog, DULL)
        assert (report.offices, report.days_published + report.days_unchanged) == (2, 2)
        assert engine.audit(timeout_ms=60_000).ok


@pytest.mark.parametrize("time_ms", [199, 3_600_001, True, "5000"])
def test_impossible_times_are_rejected(time_ms: Any) -> None:
    with pytest.raises(InvalidRequest, match="call_timeout_ms"):
        QuotaEngine.open(call_timeout_ms=time_ms)
    if not isinstance(time_ms, str):
        with pytest.raises(InvalidRequest, match="call_timeout_ms"):
            open_store(f"redis://127.0.0.1:1?call_timeout_ms={time_ms}", None)


@pytest.mark.parametrize(
    ("url", "expected_ms"),
    [
        ("redis://127.0.0.1:1", 5_000),
        ("redis+sentinel://127.0.0.1:1/mymaster", 10_000),
        ("redis+cluster://127.0.0.1:1", 10_000),
        ("redis+cluster://127.0.0.1:1?call_timeout_ms=700", 700),
    ],
)
def test_several_servers_have_more_time(url: str, expected_ms: int) -> None:
    """A failover takes seconds."""
    from quota_engine.stores.redis import factory

    assert factory._target(url).call_timeout_ms == expected_ms


def test_a_nearer_end_shortens_the_time_outs_of_a_socket(server: Server) -> None:
    """Only while it is nearer, and never to 0, which would not wait at all."""
    pool = EndingConnectionPool.from_url(server.url, socket_timeout=3, max_connections=1, timeout=5)
    assert issubclass(pool.connection_class, UnixDomainSocketConnection)
    set_end(math.inf)
    connection: Any = pool.get_connection()
    for left_ms, expected_s in ((60_000, 3), (1_000, 1), (0, 0.001), (60_000, 3)):
        limit_socket(connection, left_ms)
        assert connection._sock.gettimeout() == pytest.approx(expected_s, abs=0.1)
    pool.release(connection)
    pool.disconnect()
