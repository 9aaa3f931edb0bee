"""All acknowledged commands survive the end of a server, and of a primary with synchronous standbys."""

# ruff: noqa: S608

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quota_engine.conformance.world import OFFICE, ONLINE, reserve
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.ports import Lookup
from quota_engine.stores.sql.postgresql.connections import Connections
from quota_engine.stores.sql.postgresql.url import parse_url
from quota_engine.stores.sql.steps import CommitUnknown
from tests.support.acknowledged_load import Load, check_acknowledged, open_office
from tests.support.killing_proxy import KillingProxy
from tests.support.postgresql_servers import (
    PostgresqlPair,
    PostgresqlServer,
    debian_programs_or_skip,
    wait_until,
    wheel_programs,
)
from tests.support.postgresql_steps import append_entry, opened, read_bodies

pytestmark = pytest.mark.store

KILLS = 3


@pytest.fixture(params=["wheel", "debian"])
def programs(request: pytest.FixtureRequest) -> Path:
    """The programs of each kind of server."""
    return wheel_programs() if request.param == "wheel" else debian_programs_or_skip()


@pytest.mark.slow
def test_killed_server_loses_nothing_acknowledged(postgresql: PostgresqlServer, schema: str) -> None:
    """``python -m benchmarks.postgresql_kills --kills 100`` does the same for longer."""
    url = postgresql.url(schema=schema)
    store = open_office(url)
    with Load(store) as load:
        for _ in range(KILLS):
            load.wait_for(50)
            postgresql.kill()
            postgresql.start()
        load.wait_for(50)
    store.close()
    assert check_acknowledged(url, load.acknowledged) >= len(load.acknowledged)


@pytest.mark.slow
def test_kill_at_each_point_of_a_transaction_books_once(postgresql: PostgresqlServer, schema: str) -> None:
    """Before and after each write of either side: the same key finds or makes one reservation."""
    url = postgresql.url(schema=schema)
    outcomes: list[Outcome] = []
    with KillingProxy(postgresql) as proxy:
        store = open_office(postgresql.url(schema=schema, host="127.0.0.1", port=proxy.port))
        while True:
            key = f"point{len(outcomes)}"
            store.apply(OFFICE, reserve(f"{key}-before", ONLINE))  # a connection that is ready
            proxy.passes = len(outcomes)
            outcomes.append(until_known(functools.partial(store.apply, OFFICE, reserve(key, ONLINE))))
            if proxy.passes is not None:
                proxy.passes = None  # closing the store writes, too
                break
        store.close()
    assert {one.status for one in outcomes} == {Status.HELD}
    # The two round trips of a transaction are at least two writes of each side; the last one follows the commit.
    assert len(outcomes) - 1 >= 4
    keys = [f"point{number}{end}" for number in range(len(outcomes)) for end in ("", "-before")]
    assert check_acknowledged(url, dict.fromkeys(keys, State.HELD)) == len(keys) + 1, "an event each, and the day's"


def until_known(call: Callable[[], Outcome]) -> Outcome:
    """Repeat a call under its key, as its caller does, for at most a minute."""
    ends_s = time.monotonic() + 60
    while True:
        try:
            return call()
        except (BackendUnavailable, OutcomeUnknown):
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.02)


@pytest.mark.slow
def test_lost_primary_loses_nothing_replicated(programs: Path) -> None:
    """The engine follows the promotion. No fence closes the office, and nothing is reconciled."""
    with PostgresqlPair(programs, synchronous=True) as pair:
        url = pair.url(schema="failover")
        store = open_office(url)
        with Load(store) as load:
            load.wait_for(50)
            pair.fail_over()
            load.wait_for(50)
        store.close()
        check_acknowledged(url, load.acknowledged)


@pytest.mark.slow
def test_asynchronous_standby_that_is_behind_loses_events_and_no_rule() -> None:
    """A commit that the standby never got is lost, and the cached ledger with it: the numbers have no gap."""
    with PostgresqlPair(wheel_programs(), synchronous=False) as pair:
        url = pair.url(schema="lag")
        store = open_office(url)
        store.apply(OFFICE, reserve("kept", ONLINE))
        cut_off(pair)
        store.apply(OFFICE, reserve("lost", ONLINE))
        pair.primary.kill()
        pair.standby.promote()
        assert store.apply(OFFICE, reserve("new", ONLINE)).status is Status.HELD
        assert store.execute(Lookup(OFFICE, "lost")) is None
        store.close()
        check_acknowledged(url, {"kept": State.HELD, "new": State.HELD})


def cut_off(pair: PostgresqlPair) -> None:
    """Let the standby receive all that is committed, and nothing later."""
    position = pair.primary.query("SELECT pg_current_wal_lsn()")[0][0]
    wait_until(
        lambda: pair.standby.query("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position) == [(True,)], "replay"
    )
    pair.standby.set("primary_conninfo", "")
    wait_until(lambda: pair.primary.query("SELECT count(*) FROM pg_stat_replication") == [(0,)], "no standby")


def test_replicated_needs_a_synchronous_standby(postgresql: PostgresqlServer, schema: str) -> None:
    connections = Connections(parse_url(postgresql.url(schema=schema, durability="replicated")))
    with pytest.raises(BackendUnavailable, match="synchronous_standby_names = 'ANY 1"):
        connections.open()


@pytest.mark.slow
def test_replicated_is_checked_in_each_transaction() -> None:
    """Several checks on one pair, because its start takes seconds."""
    with PostgresqlPair(wheel_programs(), synchronous=True) as pair:
        options = {"durability": "replicated", "timeout_ms": 2500}
        with opened(pair.primary, "replicated", **options) as connections:
            assert connections.run(append_entry(b"one")) == 1
            # The server reports success with a warning if an operator cancels the wait for the standby.
            pair.standby.pause()
            canceling = threading.Thread(target=cancel_waits, args=(pair.primary,))
            canceling.start()
            with pytest.raises(CommitUnknown, match="standbys"):
                connections.run(append_entry(b"two"))
            canceling.join()
            # Without a cancellation, the client's time-out ends the wait.
            with pytest.raises(CommitUnknown, match="timeout_ms"):
                connections.run(append_entry(b"three"))
            pair.standby.resume()
            assert connections.run(append_entry(b"four")) == 4
            pair.primary.set("synchronous_standby_names", "")
            with pytest.raises(BackendUnavailable, match="waits for 0 standbys"):
                connections.run(append_entry(b"five"))
            assert connections.run(read_bodies()) == [b"one", b"two", b"three", b"four"]


def cancel_waits(server: PostgresqlServer) -> None:
    """Cancel the wait of a commit for a standby."""
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: server.query(waits), "a commit that waits")
    server.query(f"SELECT pg_cancel_backend(pid) FROM ({waits}) AS waiting")
