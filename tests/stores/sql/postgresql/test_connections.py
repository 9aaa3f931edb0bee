from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.sql.postgresql.connections import AsyncConnections, Connections
from quota_engine.stores.sql.postgresql.opening import RoundTrips
from quota_engine.stores.sql.postgresql.protocol import Prepared
from quota_engine.stores.sql.postgresql.url import parse_url
from quota_engine.stores.sql.steps import (
    CommitUnknown,
    LedgerRow,
    NotStarted,
    Pause,
    RolledBack,
    RoundTrip,
    Statement,
)
from tests.support.paths import ROOT
from tests.support.postgresql_proxy import PostgresqlProxy
from tests.support.postgresql_servers import PostgresqlServer
from tests.support.postgresql_steps import ADDRESS, append_entry, create_ledger, opened, read_bodies


def test_transaction_commits_in_two_round_trips(each_postgresql: PostgresqlServer, schema: str) -> None:
    with opened(each_postgresql, schema) as connections:
        assert connections.run(append_entry(b"first\0body")) == 1
        assert connections.run(append_entry(b"x" * 300_000)) == 2
        assert connections.run(read_bodies()) == [b"first\0body", b"x" * 300_000]


async def test_async_transaction_commits(each_postgresql: PostgresqlServer, schema: str) -> None:
    connections = AsyncConnections(parse_url(each_postgresql.url(schema=schema)))
    await connections.open()
    await connections.run(create_ledger())
    numbers = await asyncio.gather(*(connections.run(append_entry(b"%d" % number)) for number in range(20)))
    assert sorted(numbers) == list(range(1, 21))
    assert len(await connections.run(read_bodies())) == 20
    await connections.close()


def test_threads_append_without_gaps(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema, connections_max=4) as connections, ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda number: connections.run(append_entry(b"%d" % number)), range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_statements_run_without_preparing(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema, prepare="off") as connections:
        connections.run(append_entry(b"one"))
        assert connections.run(read_bodies()) == [b"one"]
        names = connections.run(_names_of_prepared_statements(connections))
    assert names == 0


def _names_of_prepared_statements(connections: Connections) -> RoundTrips[int]:
    yield RoundTrip((Statement("read_time"),))
    (link,) = connections._idle
    return len(link.prepared_names or ())


def test_lock_ledger_returns_time_after_the_wait(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema) as connections, connections.session() as first:
        first(RoundTrip((Statement("lock_ledger", (ADDRESS,)),), begin=True))
        times: list[int] = []

        def lock() -> None:
            with connections.session() as second:
                (rows,) = second(RoundTrip((Statement("lock_ledger", (ADDRESS,)),), begin=True))
                times.append(LedgerRow(*rows[0]).now_ms)

        waiting = threading.Thread(target=lock)
        waiting.start()
        _wait_for_lock(postgresql)
        released_ms = int(postgresql.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")[0][0])
        first(RoundTrip((), end="rollback"))
        waiting.join()
    assert times[0] >= released_ms


def _wait_for_lock(server: PostgresqlServer) -> None:
    while server.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == [(0,)]:
        pass


def test_session_that_ends_in_mid_transaction_rolls_back(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema) as connections:
        with connections.session() as handle:
            handle(RoundTrip((Statement("raise_epoch", (1,)),), begin=True))
        with connections.session() as handle:
            ((row,),) = handle(RoundTrip((Statement("lock_ledger", (ADDRESS,)),), begin=True))
    assert LedgerRow(*row).epoch == 0


def test_statement_after_an_error_runs_on_the_same_connection(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema) as connections:
        connections.run(append_entry(b"one"))
        with pytest.raises(RolledBack, match="23505"):
            connections.run(_steps(Statement("insert_entry", (1, 1, 1, 1, b"", b""))))
        assert connections.run(append_entry(b"two")) == 2
        assert len(connections._idle) == 1


def _steps(statement: Statement) -> RoundTrips[None]:
    yield RoundTrip((statement,), begin=True, end="commit")


def test_statements_of_many_ledgers_are_one_command_each(postgresql: PostgresqlServer, schema: str) -> None:
    """Each ledger has the rows of a separate statement, or none if it does not exist or is locked."""
    addresses = ["a", "nowhere", "ü'\\", "b"]
    with opened(postgresql, schema) as connections, connections.session() as handle:
        for address in ("b", "ü'\\", "a", "locked"):
            connections.run(create_ledger(address))
        alone = [handle(RoundTrip((Statement("read_ledger", (one,)),)))[0] for one in addresses]
        with connections.session() as other:
            other(RoundTrip((Statement("lock_ledger", ("locked",)),), begin=True))
            locks = [Statement("try_lock_ledger", (one,)) for one in (*addresses, "locked")]
            rows = handle(RoundTrip((*locks[:2], Statement("read_time"), *locks[2:]), begin=True))
        rows.pop(2)  # the time
        assert [[row[:-1] for row in found] for found in rows] == [
            [row[:-1] for row in found] for found in [*alone, []]
        ]
        ids = [found[0][0] for found in rows if found]
        writes = []
        for number in ids:
            entry = (number, 1, 1, 2**40, b"\0" * 300_000 if number == ids[1] else b"", b"sum%d" % number)
            writes += [
                Statement("insert_entry", entry),
                Statement("update_ledger", (1, 2**40, -7, b"sum%d" % number, number)),
            ]
        assert handle(RoundTrip(tuple(writes), end="commit")) == [[]] * 6
        assert [len(body) for one in ("a", "ü'\\", "b") for body in connections.run(read_bodies(one))] == [
            0,
            300_000,
            0,
        ]
        for address in ("a", "ü'\\", "b"):
            row = LedgerRow(*handle(RoundTrip((Statement("read_ledger", (address,)),)))[0][0])
            assert row[2:5] == (1, 2**40, -7)
            assert row.checksum == b"sum%d" % row.id
        assert LedgerRow(*handle(RoundTrip((Statement("read_ledger", ("locked",)),)))[0][0]).last_number == 0
        prepared = connections.dialect.array_texts.values()
        assert {Prepared(text).name for text in prepared} <= (connections._idle[-1].prepared_names or set())


def test_pause_holds_no_connection(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema, connections_max=1) as connections, connections.session() as handle:
        handle(RoundTrip((Statement("read_time"),)))
        assert handle(Pause(0.1)) == []
        assert connections.run(read_bodies()) == []


def test_pool_refuses_when_all_connections_are_in_use(postgresql: PostgresqlServer, schema: str) -> None:
    options = {"connections_max": 1, "timeout_ms": 500}
    with opened(postgresql, schema, **options) as connections, connections.session() as handle:
        handle(RoundTrip((Statement("lock_ledger", (ADDRESS,)),), begin=True))
        with pytest.raises(NotStarted, match="connections_max"):
            connections.run(read_bodies())


def test_closed_connections_refuse(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema) as connections:
        connections.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            connections.run(read_bodies())


def test_idle_connections_that_the_server_ended_are_replaced(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema) as connections:
        connections.run(read_bodies())
        postgresql.query(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'quota_engine'"
        )
        assert connections.run(read_bodies()) == []


@pytest.mark.parametrize("prepare", ["on", "off"])
def test_lost_answer_to_commit_is_unknown(postgresql: PostgresqlServer, schema: str, prepare: str) -> None:
    with (
        PostgresqlProxy(postgresql, prepares=prepare == "on") as proxy,
        opened(postgresql, schema, host="127.0.0.1", port=proxy.port, prepare=prepare) as connections,
    ):
        proxy.losses = 1
        with pytest.raises(CommitUnknown):
            connections.run(append_entry(b"one"))
        assert connections.run(read_bodies()) == [b"one"]
        assert connections.run(append_entry(b"two")) == 2


async def test_async_lost_answer_to_commit_is_unknown(postgresql: PostgresqlServer, schema: str) -> None:
    with PostgresqlProxy(postgresql) as proxy:
        connections = AsyncConnections(parse_url(postgresql.url(schema=schema, host="127.0.0.1", port=proxy.port)))
        await connections.open()
        await connections.run(create_ledger())
        proxy.losses = 1
        with pytest.raises(CommitUnknown):
            await connections.run(append_entry(b"one"))
        assert await connections.run(read_bodies()) == [b"one"]
        await connections.close()


def test_commit_that_never_arrives_is_undone_by_the_server(postgresql: PostgresqlServer, schema: str) -> None:
    """A late copy of a commit finds its transaction ended, once its idle time is over."""
    with PostgresqlProxy(postgresql) as proxy:
        options = {"host": "127.0.0.1", "port": proxy.port, "timeout_ms": 1_000}
        with opened(postgresql, schema, **options) as connections:
            proxy.holds = 1
            with pytest.raises(CommitUnknown):
                connections.run(append_entry(b"late"))
            # The lock is granted only when the first transaction has ended.
            with opened(postgresql, schema) as others:
                assert others.run(append_entry(b"next")) == 1
            with contextlib.suppress(OSError):  # the server has closed the connection of the held commit
                proxy.deliver_late()
            assert connections.run(read_bodies()) == [b"next"]


async def test_cancelled_task_leaves_no_transaction(postgresql: PostgresqlServer, schema: str) -> None:
    connections = AsyncConnections(parse_url(postgresql.url(schema=schema, connections_max=2)))
    await connections.open()
    await connections.run(create_ledger())
    async with connections.session() as handle:
        await handle(RoundTrip((Statement("lock_ledger", (ADDRESS,)),), begin=True))
        waiting = asyncio.create_task(connections.run(append_entry(b"cancelled")))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await connections.run(append_entry(b"one")) == 1
    assert await connections.run(read_bodies()) == [b"one"]
    await connections.close()


SETTINGS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit")


def test_settings_hold_for_a_transaction_and_not_for_the_session(postgresql: PostgresqlServer, schema: str) -> None:
    """A pooler gives the session to other clients after the transaction."""
    columns = ", ".join(f"current_setting('{name}')" for name in SETTINGS)
    with opened(postgresql, schema, options="-csynchronous_commit%3Doff") as connections:
        connections._statements["settings"] = Prepared(f"SELECT {columns}")
        with connections.session() as handle:
            (inside,) = handle(RoundTrip((Statement("settings"),), begin=True))
            handle(RoundTrip((), end="commit"))
            (outside,) = handle(RoundTrip((Statement("settings"),)))
        assert len(connections._idle) == 1
    assert inside == [("4s", "3s", "5s", "on")]
    assert outside == [("0", "0", "0", "off")]


# The child uses the store after a fork, and then the parent does.
FORKING = """
import os, sys
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.stores.sql.postgresql.factory import open_store

store = open_store(sys.argv[1], ManualClock(OPENS_AT_MS))
for command in published():
    store.apply(OFFICE, command)
child = os.fork()
if not child:
    print(store.apply(OFFICE, reserve("child", ONLINE)).status, flush=True)
    store.close()
    os._exit(0)
os.waitpid(child, 0)
print(store.apply(OFFICE, reserve("parent", ONLINE)).status, flush=True)
store.close()
"""


def test_forked_child_has_its_own_connections(postgresql: PostgresqlServer, schema: str) -> None:
    command = [sys.executable, "-c", FORKING, postgresql.url(schema=schema)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["HELD", "HELD"], "")
