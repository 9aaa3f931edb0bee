"""Calls of a PostgreSQL store end within their time, with any fault of the server, the network and other callers."""

# ruff: noqa: S608

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, CreateConsumerGroup, Lookup, View
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql.postgresql.dialect import time_outs
from quota_engine.stores.sql.postgresql.factory import open_async_store, open_store
from quota_engine.stores.sql.postgresql.protocol import Prepared
from quota_engine.stores.sql.postgresql.url import parse_url
from quota_engine.stores.sql.steps import LedgerRow, RoundTrip, Statement
from quota_engine.stores.sql.sync_store import SqlStore
from tests.support.call_times import SLACK_MS, TimedBookings, error_of
from tests.support.postgresql_proxy import PostgresqlProxy
from tests.support.postgresql_servers import PostgresqlServer
from tests.support.postgresql_steps import ADDRESS, opened

TIME_MS = 500
LONGER_MS = 1_200
"""For a call that must get as far as an attempt, or to its commit, on a busy machine."""
CLOCK = ManualClock(OPENS_AT_MS)


def open_office(server: PostgresqlServer, schema: str, **options: Any) -> SqlStore:
    """Open a store whose office is published. Without a bound, only the time-out of its socket ends a call."""
    with opened(server, schema):
        pass
    call_timeout_ms = options.pop("call_timeout_ms", TIME_MS)
    # A busy machine needs more time than that to open the store.
    store = open_store(server.url(schema=schema, call_timeout_ms=60_000, timeout_ms=60_000, **options), CLOCK)
    store.execute(ApplyMany(OFFICE, published()))
    store.call_timeout_ms = call_timeout_ms
    return store


@contextlib.contextmanager
def paused(server: PostgresqlServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextlib.contextmanager
def locked(server: PostgresqlServer, schema: str) -> Iterator[None]:
    """Lock the rows of all ledgers, as other processes do."""
    with server.connect() as other, other.transaction():
        other.execute(f"SELECT * FROM {schema}.ledgers FOR UPDATE")
        yield


def test_stopped_server_ends_each_call_in_time(postgresql: PostgresqlServer, schema: str) -> None:
    """No commit was sent. The first call loses its connection, and the server never greets the next one."""
    store = open_office(postgresql, schema)
    with paused(postgresql):
        for person in ("ani", "budi"):
            error = error_of(lambda person=person: store.apply(OFFICE, reserve(person, ONLINE)), TIME_MS)  # type: ignore[misc]
            assert isinstance(error, BackendUnavailable)
        assert isinstance(error_of(lambda: store.execute(View(OFFICE, (DAY,))), TIME_MS), BackendUnavailable)
    later_ms = monotonic_ms() + 10_000
    assert store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=later_ms).status is Status.HELD
    store.close()


def test_opening_ends_in_time(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema):
        pass
    url = postgresql.url(schema=schema, call_timeout_ms=TIME_MS, timeout_ms=60_000)
    with paused(postgresql):
        assert isinstance(error_of(lambda: open_store(url, CLOCK), TIME_MS), BackendUnavailable)
        assert isinstance(error_of(lambda: asyncio.run(open_async_store(url, CLOCK)), TIME_MS), BackendUnavailable)


def test_lock_of_another_process_ends_the_call_in_time(each_postgresql: PostgresqlServer, schema: str) -> None:
    """Commands, and requests of several steps; a question waits for no lock."""
    store = open_office(each_postgresql, schema)
    with locked(each_postgresql, schema):
        assert isinstance(error_of(lambda: store.apply(OFFICE, reserve("ani", ONLINE)), TIME_MS), BackendUnavailable)
        error = error_of(lambda: store.execute(CreateConsumerGroup(OFFICE, "accounting", 0)), TIME_MS)
        assert isinstance(error, BackendUnavailable)
        assert store.execute(Lookup(OFFICE, "ani"), ends_at_ms=monotonic_ms() + 10_000) is None
    later_ms = monotonic_ms() + 10_000
    assert store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=later_ms).status is Status.HELD
    store.close()


@pytest.mark.slow
def test_swallowed_answer_to_a_commit_is_unknown(postgresql: PostgresqlServer, schema: str) -> None:
    """The transaction was committed: the same key finds its outcome."""
    with PostgresqlProxy(postgresql) as proxy:
        store = open_office(postgresql, schema, host="127.0.0.1", port=proxy.port, call_timeout_ms=LONGER_MS)
        proxy.losses, proxy.is_silent = 1_000, True
        sent = proxy.scripts_seen
        error = error_of(lambda: store.apply(OFFICE, reserve("ani", ONLINE)), LONGER_MS)
        was_sent = proxy.scripts_seen > sent  # always, unless the machine stood still for a second
        assert type(error) is (OutcomeUnknown if was_sent else BackendUnavailable)
        sent = proxy.scripts_seen
        error = error_of(lambda: store.execute(CreateConsumerGroup(OFFICE, "accounting", 0)), LONGER_MS)
        assert type(error) is (OutcomeUnknown if proxy.scripts_seen > sent else BackendUnavailable)
        proxy.losses = 0
        outcome = store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=monotonic_ms() + 10_000)
        assert (outcome.status, outcome.replayed) == (Status.HELD, was_sent)
        store.close()


@pytest.mark.slow
def test_commit_that_arrives_after_the_end_is_undone(each_postgresql: PostgresqlServer, schema: str) -> None:
    """The network holds it. The server has ended the transaction by the end of the call, and so released its lock."""
    with PostgresqlProxy(each_postgresql) as proxy:
        store = open_office(each_postgresql, schema, host="127.0.0.1", port=proxy.port, call_timeout_ms=LONGER_MS)
        other = open_store(each_postgresql.url(schema=schema), CLOCK)
        proxy.holds, proxy.is_silent = 1, True
        error = error_of(lambda: store.apply(OFFICE, reserve("late", ONLINE)), LONGER_MS)
        assert type(error) is (BackendUnavailable if proxy.holds else OutcomeUnknown)
        assert other.apply(OFFICE, reserve("next", ONLINE)).status is Status.HELD
        with contextlib.suppress(OSError):  # the server has closed the connection of the held commit
            proxy.deliver_late()
        assert other.execute(Lookup(OFFICE, "late")) is None
        other.close()
        store.close()


def test_exhausted_pool_ends_the_call_in_time(postgresql: PostgresqlServer, schema: str) -> None:
    """One long call holds the only connection; another office's call waits for it, and gives up unsent."""
    store = open_office(postgresql, schema, connections_max=1)
    store.execute(ApplyMany("another", published()), ends_at_ms=monotonic_ms() + 10_000)
    results: list[Status] = []

    def hold() -> None:
        end_ms = monotonic_ms() + 10_000
        results.append(store.apply(OFFICE, reserve("ani", ONLINE), ends_at_ms=end_ms).status)

    holder = threading.Thread(target=hold)
    with locked(postgresql, schema):
        holder.start()
        while store._connections._slots._value and holder.is_alive():
            time.sleep(0.005)
        error = error_of(lambda: store.apply("another", reserve("budi", ONLINE)), TIME_MS)
        assert isinstance(error, BackendUnavailable)
    holder.join(60)
    assert results == [Status.HELD]
    store.close()


def test_calls_of_a_batch_end_at_their_own_time(postgresql: PostgresqlServer, schema: str) -> None:
    """The thread that sends a batch stops at its end; another thread sends the calls that have time left."""
    store = open_office(postgresql, schema)
    short, long = ([f"{kind}-{number}" for number in range(4)] for kind in ("short", "long"))
    bookings = TimedBookings(store, dict.fromkeys(short, TIME_MS) | dict.fromkeys(long, 10_000))
    with locked(postgresql, schema):
        bookings.start()
        bookings.join(*short)
    bookings.join()
    assert {bookings.results[person] for person in short} == {BackendUnavailable}
    assert all(isinstance(bookings.results[person], Status) for person in long)
    store.close()


@pytest.mark.slow
async def test_async_calls_end_in_time(postgresql: PostgresqlServer, schema: str) -> None:
    """A call whose commit was sent, calls that wait in the queue, and requests of several steps."""
    open_office(postgresql, schema).close()
    with PostgresqlProxy(postgresql) as proxy:
        options: dict[str, Any] = {"call_timeout_ms": LONGER_MS, "timeout_ms": 60_000}
        url = postgresql.url(schema=schema, host="127.0.0.1", port=proxy.port, **options)
        store = await open_async_store(url, CLOCK)
        await store.execute(Lookup(OFFICE, "ani-0"), ends_at_ms=monotonic_ms() + 10_000)
        proxy.losses, proxy.is_silent = 1_000, True
        seen, began_ms = proxy.scripts_seen, monotonic_ms()
        calls: list[Any] = [asyncio.ensure_future(store.apply(OFFICE, reserve("ani-0", ONLINE)))]
        while proxy.scripts_seen == seen and not calls[0].done():
            await asyncio.sleep(0.005)
        calls += [store.apply(OFFICE, reserve(f"ani-{number}", ONLINE)) for number in range(1, 50)]
        kinds = [type(one) for one in await asyncio.gather(*calls, return_exceptions=True)]
        assert monotonic_ms() - began_ms < 2 * LONGER_MS + SLACK_MS
        was_sent = proxy.scripts_seen > seen
        assert kinds[0] is (OutcomeUnknown if was_sent else BackendUnavailable)
        assert set(kinds[1:]) == {BackendUnavailable}
        seen, began_ms = proxy.scripts_seen, monotonic_ms()
        with pytest.raises((OutcomeUnknown, BackendUnavailable)) as caught:
            await store.execute(CreateConsumerGroup(OFFICE, "accounting", 0))
        assert caught.type is (OutcomeUnknown if proxy.scripts_seen > seen else BackendUnavailable)
        assert monotonic_ms() - began_ms < LONGER_MS + SLACK_MS
        proxy.losses = 0
        later_ms = monotonic_ms() + 10_000
        assert (await store.apply(OFFICE, reserve("ani-0", ONLINE), ends_at_ms=later_ms)).replayed is was_sent
        await store.close()


SETTINGS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")


def test_time_outs_of_a_transaction_come_from_the_time_left(each_postgresql: PostgresqlServer, schema: str) -> None:
    """PostgreSQL 17 and newer bounds the whole transaction; an older one bounds each part."""
    with opened(each_postgresql, schema) as connections:
        query = f"SELECT name, setting::int FROM pg_settings WHERE name IN {SETTINGS}"
        connections._statements["settings"] = Prepared(query)
        with connections.session(CallEnd(monotonic_ms() + 2_000)) as handle:
            (rows,) = handle(RoundTrip((Statement("settings"),), begin=True))
    newest = set(SETTINGS) if each_postgresql.query("SHOW server_version_num")[0][0] >= "170000" else set(SETTINGS[:3])
    assert {name for name, _ in rows} == newest
    assert all(0 < value <= 2_000 for _, value in rows)


def test_wait_for_a_lock_shortens_the_wait_for_a_commit(each_postgresql: PostgresqlServer, schema: str) -> None:
    """Before PostgreSQL 17, a commit that the network holds would otherwise be late by the wait for the lock."""
    with opened(each_postgresql, schema) as connections:
        connections._statements["idle"] = Prepared(
            "SELECT setting::int FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'"
        )
        idle, lock = Statement("idle"), Statement("lock_ledger", (ADDRESS,))
        with connections.session(CallEnd(monotonic_ms() + 4_000)) as handle:
            (((before,),),) = handle(RoundTrip((idle,), begin=True))
            held = threading.Event()

            def hold() -> None:
                with locked(each_postgresql, schema):
                    held.set()
                    time.sleep(0.3)

            holder = threading.Thread(target=hold)
            holder.start()
            held.wait(60)
            (row,), ((after,),) = handle(RoundTrip((lock, idle)))
            holder.join()
    assert LedgerRow(*row).last_number == 0
    is_older = each_postgresql.query("SHOW server_version_num")[0][0] < "170000"
    assert before - after >= 300 if is_older else before == after


def test_time_outs_are_the_shorter_of_the_settings_and_the_time_left() -> None:
    settings = parse_url("postgresql:///quota?timeout_ms=1000&lock_timeout_ms=300")
    assert time_outs(settings, float("inf")) == (800, 300, 1_000, 0)
    assert time_outs(settings, 700.5) == (680, 300, 700, 700)
    assert time_outs(settings, -5) == (1, 1, 1, 1)  # 0 would be no bound


@pytest.mark.parametrize(
    ("url", "expected_ms"),
    [
        ("postgresql://127.0.0.1/quota", 5_000),
        ("postgresql://127.0.0.1:1,127.0.0.1:2/quota", 10_000),
        ("postgresql://127.0.0.1/quota?durability=replicated", 10_000),
        ("postgresql://127.0.0.1:1,127.0.0.1:2/quota?call_timeout_ms=700", 700),
    ],
)
def test_several_servers_have_more_time(url: str, expected_ms: int) -> None:
    """A failover takes seconds."""
    assert parse_url(url).call_timeout_ms == expected_ms


@pytest.mark.parametrize("time_ms", ["199", "3600001", "soon"])
def test_impossible_times_are_rejected(time_ms: str) -> None:
    with pytest.raises(InvalidRequest, match="option call_timeout_ms"):
        parse_url(f"postgresql:///quota?call_timeout_ms={time_ms}")
