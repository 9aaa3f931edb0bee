"""Every row of the table of errors in ``docs/postgresql.md``, against real servers."""

# ruff: noqa: S608

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql.postgresql.connections import Connections
from quota_engine.stores.sql.postgresql.url import parse_url
from quota_engine.stores.sql.steps import CommitUnknown, NotStarted, RolledBack, RoundTrip, Statement
from tests.support.alternating_proxy import AlternatingProxy
from tests.support.postgresql_proxy import PostgresqlProxy
from tests.support.postgresql_servers import PostgresqlServer, running, wait_until
from tests.support.postgresql_steps import ADDRESS, append_entry, create_ledger, opened, read_bodies

LOCK = RoundTrip((Statement("lock_ledger", (ADDRESS,)),), begin=True)
OPEN_TRANSACTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%%' || %s || '%%'"
)


@pytest.fixture
def role(postgresql: PostgresqlServer) -> Iterator[str]:
    """A role without rights."""
    name = f"role_{postgresql.new_schema()}"
    postgresql.query(f"CREATE ROLE {name} LOGIN")
    yield name
    postgresql.query(f"DROP OWNED BY {name}")
    postgresql.query(f"DROP ROLE {name}")


def error_of_opening(url: str) -> str:
    connections = Connections(parse_url(url))
    try:
        with pytest.raises(BackendUnavailable) as caught:
            connections.open()
    finally:
        connections.close()
    return str(caught.value)


def raising(server: PostgresqlServer, schema: str, sqlstate: str) -> None:
    """Let each new entry fail with a code."""
    server.query(
        f"CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{sqlstate}'; END$$"
    )
    server.query(f"CREATE TRIGGER fail BEFORE INSERT ON {schema}.entries FOR EACH ROW EXECUTE FUNCTION {schema}.fail()")


def terminate(server: PostgresqlServer, query: str = "%") -> None:
    """End all sessions of stores."""
    server.query(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name = 'quota_engine' AND query LIKE %s",
        query,
    )


def test_cut_connection_before_commit_rolls_back(each_postgresql: PostgresqlServer, schema: str) -> None:
    """57P01."""
    with opened(each_postgresql, schema) as connections:
        with connections.session() as handle:
            handle(LOCK)
            terminate(each_postgresql)
            with pytest.raises(RolledBack, match="57P01"):
                handle(RoundTrip((Statement("raise_epoch", (1,)),)))
        assert connections.run(append_entry(b"one")) == 1


def test_cut_connection_with_a_commit_is_unknown(each_postgresql: PostgresqlServer, schema: str) -> None:
    with opened(each_postgresql, schema) as connections:
        with connections.session() as handle:
            handle(LOCK)
            terminate(each_postgresql)
            with pytest.raises(CommitUnknown, match="57P01"):
                handle(RoundTrip((Statement("raise_epoch", (1,)),), end="commit"))
        assert connections.run(append_entry(b"one")) == 1


def test_deadlock_rolls_back_one_of_two(each_postgresql: PostgresqlServer, schema: str) -> None:
    """40P01."""
    with opened(each_postgresql, schema) as connections:
        connections.run(create_ledger("bogor"))
        errors: list[Exception] = []
        both_hold_one = threading.Barrier(2)

        def lock_both(first: str, second: str) -> None:
            with connections.session() as handle:
                handle(RoundTrip((Statement("lock_ledger", (first,)),), begin=True))
                both_hold_one.wait()
                try:
                    handle(RoundTrip((Statement("lock_ledger", (second,)),), end="commit"))
                except RolledBack as error:
                    errors.append(error)

        threads = [threading.Thread(target=lock_both, args=pair) for pair in ((ADDRESS, "bogor"), ("bogor", ADDRESS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [("40P01" in str(error)) for error in errors] == [True]


@pytest.mark.parametrize("sqlstate", ["40001", "53200"])
def test_failed_statement_rolls_back(postgresql: PostgresqlServer, schema: str, sqlstate: str) -> None:
    """The isolation ``READ COMMITTED`` never raises 40001; a trigger of the database may raise one."""
    with opened(postgresql, schema) as connections:
        raising(postgresql, schema, sqlstate)
        with pytest.raises(RolledBack, match=sqlstate):
            connections.run(append_entry(b"one"))
        assert connections.run(read_bodies()) == []


def test_full_disk_rolls_back(each_postgresql: PostgresqlServer, schema: str) -> None:
    """53100: the table's file leads to a device that is always full."""
    server = each_postgresql
    with opened(server, schema) as connections:
        file = server.data / str(server.query(f"SELECT pg_relation_filepath('{schema}.entries')")[0][0])
        kept = file.with_suffix(".kept")
        server.query("CHECKPOINT")
        file.rename(kept)
        file.symlink_to("/dev/full")
        terminate(server)  # sessions keep files open
        try:
            with pytest.raises(RolledBack, match="53100"):
                connections.run(append_entry(b"one"))
        finally:
            terminate(server)
            file.unlink()
            kept.rename(file)
        assert connections.run(append_entry(b"two")) == 1


def test_lock_timeout_rolls_back(each_postgresql: PostgresqlServer, schema: str) -> None:
    """55P03."""
    with opened(each_postgresql, schema, lock_timeout_ms=20) as connections, connections.session() as handle:
        handle(LOCK)
        with pytest.raises(RolledBack, match="55P03"):
            connections.run(append_entry(b"one"))


def test_statement_timeout_rolls_back(each_postgresql: PostgresqlServer, schema: str) -> None:
    """57014."""
    options = {"lock_timeout_ms": 2000, "statement_timeout_ms": 400}
    with opened(each_postgresql, schema, **options) as connections, connections.session() as handle:
        handle(LOCK)
        with pytest.raises(RolledBack, match="57014"):
            connections.run(append_entry(b"one"))


def test_idle_transaction_is_ended_by_the_server(each_postgresql: PostgresqlServer, schema: str) -> None:
    """25P03: a client that stops in mid-transaction does not keep the lock."""
    with opened(each_postgresql, schema, timeout_ms=1_000) as stopped, stopped.session() as handle:
        handle(LOCK)
        with opened(each_postgresql, schema) as others:
            assert others.run(append_entry(b"one")) == 1
        with pytest.raises(RolledBack, match="25P03"):
            handle(RoundTrip((Statement("raise_epoch", (1,)),)))


def test_transaction_beyond_its_end_is_ended_by_the_server(postgresql: PostgresqlServer, schema: str) -> None:
    """25P04, from PostgreSQL 17 on."""
    end = CallEnd(monotonic_ms() + 1_500)
    with opened(postgresql, schema) as connections, connections.session(end) as handle:
        handle(LOCK)
        end.ends_at_ms = end.cut_at_ms = monotonic_ms() + 60_000  # the client waits for what the server says
        wait_until(lambda: not postgresql.query(OPEN_TRANSACTIONS, schema)[0][0], "the end of the transaction")
        with pytest.raises(RolledBack, match="25P04"):
            handle(RoundTrip((Statement("raise_epoch", (1,)),)))


def test_answer_that_takes_too_long_is_unknown(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema, timeout_ms=1_000) as connections, connections.session() as handle:
        handle(LOCK)
        postgresql.pause()
        try:
            with pytest.raises(CommitUnknown, match="timeout_ms"):
                handle(RoundTrip((Statement("raise_epoch", (1,)),), end="commit"))
        finally:
            postgresql.resume()


def test_missing_prepared_statement_ends_preparing(postgresql: PostgresqlServer, schema: str) -> None:
    """26000: a pooler gave the transaction another session. The next attempt prepares nothing."""
    with opened(postgresql, schema) as connections:
        connections.run(append_entry(b"one"))
        (link,) = connections._idle
        connections._statements["read_time"].name, original = b"qe_unknown", connections._statements["read_time"].name
        assert link.prepared_names is not None
        link.prepared_names.add(b"qe_unknown")
        with pytest.raises(RolledBack, match="26000"), connections.session() as handle:
            handle(RoundTrip((Statement("read_time"),)))
        connections._statements["read_time"].name = original
        assert connections.run(append_entry(b"two")) == 2
        assert [link.prepared_names for link in connections._idle] == [None]


def test_statement_that_is_prepared_twice_ends_preparing(postgresql: PostgresqlServer, schema: str) -> None:
    """42P05: another client of the pooler has prepared it in this session."""
    with opened(postgresql, schema) as connections:
        connections.run(append_entry(b"one"))
        (link,) = connections._idle
        assert link.prepared_names is not None
        link.prepared_names.clear()
        with pytest.raises(RolledBack, match="42P05"):
            connections.run(append_entry(b"two"))
        assert connections.run(append_entry(b"two")) == 2
        assert [link.prepared_names for link in connections._idle] == [None]


def test_missing_table_names_the_command(each_postgresql: PostgresqlServer, schema: str) -> None:
    """42P01."""
    with opened(each_postgresql, schema) as connections:
        each_postgresql.query(f"DROP TABLE {schema}.entries")
        with pytest.raises(BackendUnavailable, match="quota-engine store init"):
            connections.run(append_entry(b"one"))


def test_tables_of_a_newer_version_are_refused(postgresql: PostgresqlServer, schema: str) -> None:
    with opened(postgresql, schema):
        postgresql.query(f"UPDATE {schema}.meta SET value = '2' WHERE name = 'schema_version'")
    assert "have version 2" in (text := error_of_opening(postgresql.url(schema=schema)))
    assert "upgrade quota_engine" in text


def test_schema_of_another_program_is_refused(postgresql: PostgresqlServer, schema: str) -> None:
    postgresql.query(f"CREATE SCHEMA {schema}")
    postgresql.query(f"CREATE TABLE {schema}.meta (name text, value text)")
    assert "another program" in error_of_opening(postgresql.url(schema=schema))


def test_url_that_leads_to_two_databases_is_refused(
    postgresql: PostgresqlServer, postgresql_debian_process: PostgresqlServer, schema: str
) -> None:
    """Both accept writes, so each place could be sold at both: a connection to the second one is refused."""
    other = running(postgresql_debian_process)
    with opened(other, schema), opened(postgresql, schema), PostgresqlProxy(postgresql) as proxy:
        first = proxy._server
        with opened(postgresql, schema, host="127.0.0.1", port=proxy.port) as connections:
            assert connections.run(append_entry(b"one")) == 1
            proxy._server = other.directory / f".s.PGSQL.{other.port}"
            terminate(postgresql)
            with pytest.raises(BackendUnavailable, match="leads to two databases"):
                connections.run(append_entry(b"two"))
            proxy._server = first
            assert connections.run(append_entry(b"two")) == 2


def test_transactions_that_alternate_between_two_servers_are_refused(
    postgresql: PostgresqlServer, postgresql_debian_process: PostgresqlServer, schema: str
) -> None:
    """A pooler that mixes two primaries keeps the connection, so each transaction looks whose tables it finds."""
    other = running(postgresql_debian_process)
    with opened(other, schema), AlternatingProxy((postgresql, other)) as proxy:
        options = {"host": "127.0.0.1", "port": proxy.port, "prepare": "off", "sslmode": "disable"}
        with opened(postgresql, schema, **options) as connections:
            proxy.is_alternating = True
            wrong = 0
            for body in (b"one", b"two", b"three", b"four"):
                with contextlib.suppress(BackendUnavailable):
                    connections.run(append_entry(body))
                    continue
                wrong += 1
            assert wrong == 2
            proxy.is_alternating = False
        assert read_all(postgresql, schema) == 2
        assert read_all(other, schema) == 0


def read_all(server: PostgresqlServer, schema: str) -> int:
    """Return the number of entries."""
    return int(server.query(f"SELECT count(*) FROM {schema}.entries")[0][0])


def test_wrong_password_is_final(each_postgresql: PostgresqlServer) -> None:
    """28P01."""
    server = each_postgresql
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        server.query("CREATE ROLE password_role LOGIN PASSWORD 'right'")
    url = server.url(user="password_role:wrong", host="127.0.0.1")
    text = error_of_opening(url)
    assert "rejected the password" in text
    assert "wrong" not in text
    assert "rejected the password" in error_of_opening(server.url(user="password_role", host="127.0.0.1"))


def test_unknown_role_and_database_are_final(each_postgresql: PostgresqlServer) -> None:
    """28000 and 3D000."""
    assert "check the role" in error_of_opening(each_postgresql.url(user="nobody_here"))
    assert "database does not exist" in error_of_opening(each_postgresql.url(database="nowhere"))


def test_missing_right_names_the_grants(postgresql: PostgresqlServer, schema: str, role: str) -> None:
    """42501."""
    assert "--grant-to ROLE" in error_of_opening(postgresql.url(schema=schema, user=role))


def test_too_many_connections_are_retried(postgresql: PostgresqlServer, schema: str, role: str) -> None:
    """53300."""
    postgresql.query(f"ALTER ROLE {role} CONNECTION LIMIT 1")
    with postgresql.connect(user=role):
        connections = Connections(parse_url(postgresql.url(schema=schema, user=role)))
        with pytest.raises(NotStarted, match="lower connections_max"):
            connections.run(read_bodies())


def test_starting_or_stopping_server_is_retried(each_postgresql: PostgresqlServer, schema: str) -> None:
    """57P03: a smart shutdown waits for the sessions that exist, and refuses new ones."""
    server = each_postgresql
    with server.connect():
        server.signal_smart_shutdown()
        connections = Connections(parse_url(server.url(schema=schema)))

        def refused() -> bool:
            try:
                connections.run(read_bodies())
            except NotStarted as error:
                return "starting, stopping or recovering" in str(error)
            except BackendUnavailable:  # it has not handled the signal yet, and the schema does not exist
                return False
            return False

        wait_until(refused, "a server that is shutting down")
    server.restart()


def test_server_that_is_gone_is_retried(tmp_path: Path) -> None:
    connections = Connections(parse_url(f"postgresql://u@/d?host={tmp_path}"))
    with pytest.raises(NotStarted, match="no server was reached"):
        connections.run(read_bodies())
    assert "no server was reached" in error_of_opening(f"postgresql://u@/d?host={tmp_path}")


def test_read_only_server_is_retried(each_postgresql: PostgresqlServer, schema: str) -> None:
    """25006: the session of a demoted server is dropped, so that the next attempt finds the new primary."""
    server = each_postgresql
    with opened(server, schema) as connections:
        server.set("default_transaction_read_only", "on")
        try:
            with pytest.raises(RolledBack, match="25006"):
                connections.run(append_entry(b"one"))
            assert len(connections._idle) <= 1
        finally:
            with psycopg.connect(
                host=str(server.directory), port=server.port, user="postgres", dbname="postgres", autocommit=True
            ) as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: server.query("SHOW default_transaction_read_only") == [("off",)], "a writable server")


def test_server_without_fsync_is_refused(postgresql: PostgresqlServer, schema: str) -> None:
    postgresql.set("fsync", "off")
    try:
        assert "durability=memory" in error_of_opening(postgresql.url(schema=schema))
        with opened(postgresql, schema, durability="memory") as connections:
            assert connections.run(append_entry(b"one")) == 1
    finally:
        postgresql.set("fsync", "on")
