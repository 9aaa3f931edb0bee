"""Results of runs that never took place."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from quota_engine.bench.plan import BenchSettings
from quota_engine.bench.results import FORMAT, BenchResult, CaseResult

MACHINE: dict[str, Any] = {
    "python": "3.11.7",
    "system": "Linux",
    "processor": "A processor",
    "cores": 4,
    "quota_engine": "0.1.0",
    "redis_py": "8.1.0",
    "hiredis": None,
    "servers": {"redis://localhost": "valkey 9.1.2"},
    "pinned": True,
    "client_core": 0,
    "server_core": None,
}


def case_with(rounds: Sequence[float], **changes: Any) -> CaseResult:
    """A case of these rounds, in operations a second."""
    values: dict[str, Any] = {
        "name": "reserve",
        "backend": "redis://localhost",
        "kind": "engine",
        "concurrency": 64,
        "batch": 1,
        "offices": 1,
        "reservations": 0,
        "ops_per_s": statistics.median(rounds),
        "ops_per_s_min": min(rounds),
        "ops_per_s_max": max(rounds),
        "p50_us": 900.0,
        "p99_us": 2400.0,
        "ratio_to_limit": None,
        "ratio_to_handwritten": None,
        "rounds": list(rounds),
        "histogram_us": [(800.0, 3), (951.4, 0), (1131.4, 5)],
    }
    return CaseResult(**{**values, **changes})


def result_with(*cases: CaseResult, **machine: Any) -> BenchResult:
    """A run of these cases."""
    settings = BenchSettings(rounds=max((len(case.rounds) for case in cases), default=7))
    return BenchResult(quota_engine_bench=FORMAT, machine={**MACHINE, **machine}, settings=settings, cases=list(cases))
