"""Goals of the project, checked against results of runs that never took place."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from quota_engine.bench.goals import goals_of
from quota_engine.bench.plan import GOALS
from quota_engine.bench.terminal import print_goals
from tests.support.bench_results import case_with, result_with


def test_goals_of_several_backends_fit_80_columns() -> None:
    """Each server has its own goals, such as a Redis 7 beside the embedded Valkey. Its ``fsync`` belongs to it."""
    cases = [
        case_with([rate], backend=backend, concurrency=500, ratio_to_handwritten=ratio)
        for backend, rate, ratio in (
            ("valkey+embedded://", 50_000.0, 9.0),
            ("valkey+embedded:// fsync", 45_000.0, 9.0),
            ("redis://localhost:6379", 40_000.0, 7.0),
        )
    ]
    goals = goals_of(msgspec.structs.replace(result_with(*cases), settings=GOALS))
    assert [(goal.backend, goal.name, goal.is_met) for goal in goals] == [
        ("valkey+embedded://", "reserve, 500 callers: times by hand", True),
        ("valkey+embedded://", "fsync against memory, 500 callers", True),
        ("redis://localhost:6379", "reserve, 500 callers: times by hand", False),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    print_goals(goals, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if "://" in line] == ["valkey+embedded://", "redis://localhost:6379"]
    assert sum(line.rstrip().endswith(("met", "missed")) for line in lines) == 3
