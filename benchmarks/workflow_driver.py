"""Measure the price of a workflow with one request beside a direct call: ``python -m benchmarks.workflow_driver``."""

from __future__ import annotations

__all__ = ["main", "measure"]

import argparse
import timeit
from typing import Any, Final

from quota_engine.ports import Backend, ListOffices
from quota_engine.workflows.generator_drivers import Flow, run

_REQUEST: Final = ListOffices()


class _Store:
    """Answers each request at once, so that only the price of the way remains."""

    def perform(self, request: Any) -> Any:
        return ()


def _workflow() -> Flow[tuple[str, ...]]:
    return (yield _REQUEST)


def measure(rounds: int = 7, calls: int = 100_000) -> dict[str, float]:
    """Return microseconds a call, the least of the rounds: without a workflow, and with one."""
    store: Any = _Store()
    backend: Backend = store
    ways = {
        "direct call": lambda: backend.perform(_REQUEST),
        "workflow": lambda: run(_workflow(), backend),
    }
    return {name: min(timeit.repeat(way, number=calls, repeat=rounds)) / calls * 1e6 for name, way in ways.items()}


def main() -> None:
    """Print both figures."""
    argparse.ArgumentParser(prog="python -m benchmarks.workflow_driver", description=__doc__).parse_args()
    for name, microseconds in measure().items():
        print(f"{name:12} {microseconds:6.2f} µs")


if __name__ == "__main__":
    main()
