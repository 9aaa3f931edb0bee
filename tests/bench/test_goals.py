"""Goals of the project, checked against results of runs that never took place."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import msgspec
from rich.console import Console

from quota_engine.bench.goals import goals_of
from quota_engine.bench.plan import GOALS
from quota_engine.bench.report import html_report
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


def test_goals_of_a_cluster_are_per_primary() -> None:
    """One office lives on one primary; several load all of them. The terminal and the JSON state it."""
    backend = f"redis+cluster://{','.join(f'node-{number}.example:7000' for number in range(5))}"
    cases = [
        case_with([9000.0], backend=backend, concurrency=500, ratio_to_handwritten=9.0),
        case_with([8000.0], backend=backend, concurrency=500, offices=10, name="reserve, 10 offices"),
    ]
    result = result_with(*cases, primaries={backend: 3})
    goals = goals_of(msgspec.structs.replace(result, settings=GOALS))
    assert [(goal.name, goal.primaries) for goal in goals] == [
        ("reserve, 500 callers: times by hand", 1),
        ("500 callers at 10 offices against 1", 3),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    print_goals(goals, console)
    text = console.export_text()
    assert f"{backend}, per primary".replace(" ", "") in "".join(text.split())
    assert "per primary: an office lives on one primary" in text
    assert "spread evenly over all 3" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_engine_cases_are_compared_within_rounds() -> None:
    """A minute in which the machine is slow is slow for both."""
    cases = [
        case_with([1000.0, 9000.0, 2000.0], concurrency=500),
        case_with([900.0, 1000.0, 1800.0], concurrency=5_000),
    ]
    goals = goals_of(msgspec.structs.replace(result_with(*cases), settings=GOALS))
    assert [(goal.name, goal.measured) for goal in goals] == [("reserve, 5,000 callers against 500", 0.9)]


def test_the_report_has_the_goals() -> None:
    """It shows what is wanted, what was measured, and if that is met; without the preset there are none."""
    backend = "redis+cluster://node.example:7000"
    result = result_with(
        case_with([9000.0], backend=backend, concurrency=500, ratio_to_handwritten=7.25, ratio_to_limit=0.95),
        case_with([8000.0], backend=backend, concurrency=500, offices=10, name="reserve, 10 offices"),
        primaries={backend: 3},
    )
    page = html_report(msgspec.structs.replace(result, settings=GOALS))
    tree = ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own text
    rows = [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]
    assert ["goal", "measured", "wanted", "result"] in rows
    assert [backend] in rows
    assert ["reserve, 500 callers: times by hand", "7.25", "at least 8", "missed"] in rows
    assert ["reserve, 500 callers: of the limit", "0.95", "at least 0.90", "met"] in rows
    assert ["500 callers at 10 offices against 1 (3 primaries)", "0.89", "at least 0.80", "met"] in rows
    assert "<h2>Goals</h2>" not in html_report(result)
