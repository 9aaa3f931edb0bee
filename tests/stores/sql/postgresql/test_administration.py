from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from quota_engine.cli.main import main
from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.outcomes import Status
from quota_engine.ports import Acknowledge, Audit, CreateConsumerGroup, ReadConsumerGroup, TrimEvents
from quota_engine.stores.sql.postgresql.administration import initialize
from quota_engine.stores.sql.postgresql.factory import open_store
from tests.support.postgresql_servers import PostgresqlServer


@pytest.fixture
def role(postgresql: PostgresqlServer) -> Iterator[str]:
    """A role without rights."""
    name = f"engine_{postgresql.new_schema()}"
    postgresql.query(f"CREATE ROLE {name} LOGIN")
    yield name
    postgresql.query(f"DROP OWNED BY {name}")
    postgresql.query(f"DROP ROLE {name}")


def test_granted_rights_are_enough_for_a_store(postgresql: PostgresqlServer, schema: str, role: str) -> None:
    initialize(postgresql.url(schema=schema), role)
    store = open_store(postgresql.url(schema=schema, user=role), ManualClock(OPENS_AT_MS))
    for command in published():
        store.apply(OFFICE, command)
    assert store.apply(OFFICE, reserve("one", ONLINE)).status is Status.HELD
    store.execute(CreateConsumerGroup(OFFICE, "group", 0))
    events = store.execute(ReadConsumerGroup(OFFICE, "group", "consumer", 10, 0))
    store.execute(Acknowledge(OFFICE, "group", tuple(event.number for event in events)))
    assert store.execute(TrimEvents(OFFICE, 2)) == len(events) - 2
    assert store.execute(Audit(OFFICE)) == []
    store.close()


@pytest.mark.parametrize("table", ["meta", "ledgers", "entries"])
def test_each_right_is_needed(postgresql: PostgresqlServer, schema: str, role: str, table: str) -> None:
    initialize(postgresql.url(schema=schema), role)
    postgresql.query(f"REVOKE ALL ON {schema}.{table} FROM {role}")
    with pytest.raises(BackendUnavailable, match="--grant-to"):
        open_and_publish(postgresql.url(schema=schema, user=role))


def open_and_publish(url: str) -> None:
    store = open_store(url, ManualClock(OPENS_AT_MS))
    try:
        store.apply(OFFICE, published()[0])
    finally:
        store.close()


def test_dry_run_prints_sql_that_makes_the_tables(
    postgresql: PostgresqlServer, schema: str, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgresql.url(schema=schema, user=role)
    assert main(["store", "init", url, "--dry-run", "--grant-to", role]) == 0
    printed = capsys.readouterr().out
    with postgresql.connect() as connection:
        connection.execute(printed.encode())
    store = open_store(url, ManualClock(OPENS_AT_MS))
    store.close()


def test_commands_make_show_and_vacuum_tables(
    postgresql: PostgresqlServer, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgresql.url(schema=schema)
    assert main(["store", "init", url]) == 0
    assert main(["store", "init", url]) == 0
    store = open_store(url, ManualClock(OPENS_AT_MS))
    for command in published():
        store.apply(OFFICE, command)
    store.close()
    assert main(["store", "vacuum", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table_bytes"]["entries"] > 0
    assert main(["store", "status", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == "1"
    assert [ledger["address"] for ledger in found["ledgers"]] == [OFFICE]
    assert main(["store", "status", url]) == 0
    assert OFFICE in capsys.readouterr().out


def test_commands_refuse_other_stores(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "status", "memory://"]) == 2
    assert "postgresql://" in capsys.readouterr().err
