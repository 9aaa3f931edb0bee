# ruff: noqa: S608

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.load_drivers import run_tasks, run_threads
from quota_engine.bench.plain_postgresql import PlainPostgresql, PlainPostgresqlWorkload
from quota_engine.bench.plan import ApiStyle, BackendKind, BenchCase, Implementation
from quota_engine.bench.target_url import parse_target
from tests.support.postgresql_servers import PostgresqlServer, wheel_programs

pytestmark = pytest.mark.store

COUNT = 12


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server for the tests of this module."""
    with PostgresqlServer(wheel_programs()) as server:
        yield server


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of the benchmark."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def database(postgresql: PostgresqlServer, runner: asyncio.Runner) -> Iterator[PlainPostgresql]:
    """The connections of one run, in its schema."""
    database = PlainPostgresql(parse_target(postgresql.url()).url, 4, runner.run)
    yield database
    database.close()
    schemas = postgresql.query("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bench%%'")
    assert schemas == [(0,)]


def by_hand(action: str, style: ApiStyle) -> BenchCase:
    return BenchCase(action, Implementation.BY_HAND, style, 3)


@pytest.mark.parametrize("action", ["reserve", "confirm", "refusal", "availability"])
def test_transactions_by_hand_have_their_effect(database: PlainPostgresql, runner: asyncio.Runner, action: str) -> None:
    for style in (ApiStyle.TASKS, ApiStyle.THREADS):
        workload = PlainPostgresqlWorkload(database, runner.run, by_hand(action, style))
        call, calls = workload.prepare(COUNT)
        if style is ApiStyle.TASKS:
            runner.run(run_tasks(call, calls, 3))
        else:
            run_threads(call, calls, 3, 1)
        workload.check()
    rows = database.control.execute(f"SELECT state, count(*) FROM {database.settings.schema}.plain_records GROUP BY 1")
    wanted = {"reserve": [("held", 2 * COUNT)], "confirm": [("confirmed", 2 * COUNT)]}
    assert rows.fetchall() == wanted.get(action, [])


def test_limit_writes_one_entry_for_each_batch(database: PlainPostgresql, runner: asyncio.Runner) -> None:
    case = BenchCase("reserve", Implementation.LIMIT, ApiStyle.TASKS, 2, batch=5)
    workload = PlainPostgresqlWorkload(database, runner.run, case)
    call, calls = workload.prepare(COUNT)
    runner.run(run_tasks(call, calls, 2))
    workload.check()
    entries = database.control.execute(f"SELECT events FROM {database.settings.schema}.entries ORDER BY number")
    assert sorted(entries.fetchall()) == [(2,), (5,), (5,)]


def test_missing_operation_is_found(database: PlainPostgresql, runner: asyncio.Runner) -> None:
    workload = PlainPostgresqlWorkload(database, runner.run, by_hand("reserve", ApiStyle.TASKS))
    call, calls = workload.prepare(COUNT)
    runner.run(run_tasks(call, calls[:-1], 3))
    with pytest.raises(WrongOutcome, match="expected"):
        workload.check()


def test_target_has_a_schema_of_the_run() -> None:
    target = parse_target("postgresql://u:secret@localhost/quota?schema=kept&durability=fsync")
    assert target.kind is BackendKind.POSTGRESQL
    assert target.label == "postgresql://localhost/quota fsync"
    assert "schema=bench_" in target.url
    assert target.hosts == ("localhost",)
