"""The benchmark on SQLite: yardsticks that are checked, and a file that is left as it was."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.measurement import create_workload, measure_once
from quota_engine.bench.plain_sql import PlainSqlWorkload
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.bench.target_url import parse_target

RESERVE = BenchCase("reserve", Implementation.ENGINE, ApiStyle.TASKS, 8)
BY_HAND = dataclasses.replace(RESERVE, implementation=Implementation.BY_HAND)
CASES = [
    RESERVE,
    dataclasses.replace(RESERVE, action="confirm"),
    dataclasses.replace(RESERVE, api_style=ApiStyle.THREADS, offices=3),
    BY_HAND,
    dataclasses.replace(BY_HAND, api_style=ApiStyle.SINGLE, concurrency=1, reservations=10),
    dataclasses.replace(BY_HAND, action="confirm", offices=3),
    dataclasses.replace(BY_HAND, action="refusal"),
    dataclasses.replace(BY_HAND, action="availability"),
    dataclasses.replace(BY_HAND, implementation=Implementation.LIMIT, batch=16, concurrency=4),
]


def tables_and_ledgers(path: Path) -> tuple[int, int]:
    with sqlite3.connect(path) as connection:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        (ledgers,) = connection.execute("SELECT count(*) FROM ledgers").fetchone()
    return tables, ledgers


@pytest.mark.slow
def test_cases_run_and_leave_nothing_behind(tmp_path: Path) -> None:
    """Each measurement checks its effect. Offices and tables are removed from the file."""
    path = tmp_path / "quota.db"
    with BenchStore(parse_target(f"sqlite://{path}?durability=memory"), None) as store:
        assert store.server == f"sqlite {sqlite3.sqlite_version}"
        before = tables_and_ledgers(path)
        for case in CASES:
            workload = create_workload(store, case)
            assert measure_once(store, workload, case, 64).operations == 64, case.name
            workload.remove()
    assert tables_and_ledgers(path) == before


def test_a_url_without_a_path_uses_a_temporary_file() -> None:
    with BenchStore(parse_target("sqlite://?durability=memory"), None) as store:
        path = Path(store.url.removeprefix("sqlite://").partition("?")[0])
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("batch", [1, 16])
def test_each_refusal_is_a_refusal(batch: int, tmp_path: Path) -> None:
    """A batch does not end with its first one, which would be the limit of nothing."""
    refusal = dataclasses.replace(BY_HAND, implementation=Implementation.LIMIT, action="refusal", batch=batch)
    with BenchStore(parse_target(f"sqlite://{tmp_path}/quota.db?durability=memory"), None) as store:
        workload = PlainSqlWorkload(store.url, refusal)
        statements: list[str] = []
        workload._connection.set_trace_callback(statements.append)
        measure_once(store, workload, refusal, 32)
        assert sum("SET free = free - 1" in one for one in statements) == 32
        workload.remove()


def test_a_wrong_effect_is_found(tmp_path: Path) -> None:
    with BenchStore(parse_target(f"sqlite://{tmp_path}/quota.db?durability=memory"), None) as store:
        workload = create_workload(store, BY_HAND)
        assert isinstance(workload, PlainSqlWorkload)
        workload.prepare(5)
        with pytest.raises(WrongOutcome, match="expected 5 of each"):
            workload.check()
        workload.remove()
