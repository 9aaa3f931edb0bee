"""One measurement: prepare the work, run it, and check its effect."""

from __future__ import annotations

__all__ = ["BenchWorkload", "RoundMeasurement", "create_workload", "measure_once"]

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.dict_workload import DictWorkload
from quota_engine.bench.engine_workload import EngineWorkload
from quota_engine.bench.limits_workload import LimitsWorkload
from quota_engine.bench.load_drivers import CallTimes, run_single, run_tasks, run_threads
from quota_engine.bench.plain_sql import PlainSqlWorkload
from quota_engine.bench.plan import SOLD_OUT, ApiStyle, BackendKind, BenchCase, Implementation

_CALLS_PER_TIMING = 16
"""Calls for each timed call in memory, where a call takes little longer than reading the clock."""


class RoundMeasurement(NamedTuple):
    """Operations of one round, and their times."""

    operations: int
    sample: CallTimes

    @property
    def ops_per_s(self) -> float:
        """Rate in operations a second."""
        return self.operations / self.sample.took_s


class BenchWorkload(Protocol):
    """State that one implementation works on, prepared and checked outside the measured time."""

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return the call to measure, and the argument of each call for ``count`` operations."""
        ...

    def check(self) -> None:
        """Check the effect of all operations so far.

        Raises:
            WrongOutcome: It is not the expected one.
        """
        ...

    def remove(self) -> None:
        """Remove the state from the store."""
        ...


def create_workload(store: BenchStore, case: BenchCase) -> BenchWorkload:
    """Create the workload of a case, with the reservations that exist at its beginning."""
    if case.implementation is Implementation.ENGINE:
        return EngineWorkload(store, case)
    if case.implementation is Implementation.DICT:
        return DictWorkload(case)
    if case.implementation is Implementation.LIMITS:
        return LimitsWorkload()
    if store.target.kind is BackendKind.SQL:
        return PlainSqlWorkload(store.url, case)
    if store.target.kind is BackendKind.POSTGRESQL:
        from quota_engine.bench.plain_postgresql import PlainPostgresqlWorkload

        return PlainPostgresqlWorkload(store.postgresql, store.run_coroutine, case)
    from quota_engine.bench.plain_redis import PlainRedisWorkload

    return PlainRedisWorkload(store, case)


def measure_once(store: BenchStore, workload: BenchWorkload, case: BenchCase, count: int) -> RoundMeasurement:
    """Run ``count`` operations of a case on a workload.

    Raises:
        WrongOutcome: The operations did not have the expected effect.
    """
    call, calls = workload.prepare(count)
    in_memory = (
        store.target.kind is BackendKind.MEMORY or case.action == SOLD_OUT or case.implementation is Implementation.DICT
    )
    every = _CALLS_PER_TIMING if in_memory else 1
    if case.api_style is ApiStyle.SINGLE:
        sample = run_single(call, calls, every)
    elif case.api_style is ApiStyle.THREADS:
        sample = run_threads(call, calls, case.concurrency, every)
    else:
        sample = store.run_coroutine(run_tasks(call, calls, case.concurrency))
    workload.check()
    return RoundMeasurement(count, sample)
