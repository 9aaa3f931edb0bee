"""Measure the price of a workflow with one request beside a direct call: ``python -m benchmarks.workflow_driver``."""

from __future__ import annotations

__all__ = ["main", "measure"]

import argparse
import timeit
from typing import Any, Final

from quota_engine.ports import ListOffices, Store
from quota_engine.workflows.generator_drivers import Workflow, run

_REQUEST: Final = ListOffices()


class _InstantStore:
    """Answers each request at once, so that only the price of the way remains."""

    def execute(self, request: Any) -> Any:
        return ()


def _workflow() -> Workflow[tuple[str, ...]]:
    offices: tuple[str, ...] = yield _REQUEST
    return offices


def measure(rounds: int = 7, calls: int = 100_000) -> dict[str, float]:
    """Return microseconds a call, the least of the rounds: without a workflow, and with one."""
    instant: Any = _InstantStore()
    store: Store = instant
    ways = {
        "direct call": lambda: store.execute(_REQUEST),
        "workflow": lambda: run(_workflow(), store),
    }
    return {name: min(timeit.repeat(way, number=calls, repeat=rounds)) / calls * 1e6 for name, way in ways.items()}


def main() -> None:
    """Print both figures."""
    argparse.ArgumentParser(prog="python -m benchmarks.workflow_driver", description=__doc__).parse_args()
    for name, microseconds in measure().items():
        print(f"{name:12} {microseconds:6.2f} µs")


if __name__ == "__main__":
    main()
