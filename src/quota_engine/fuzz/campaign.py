"""Runs many seeds, in one process or in several, and counts what they did and what they found."""

from __future__ import annotations

__all__ = ["CampaignResult", "run_campaign"]

import gc
import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.fuzz.runner import SeedReport, run_seed

_COLLECT_EVERY: Final = 20
_SEEDS_OF_A_TASK: Final = 10
_TASKS_AHEAD: Final = 2
"""Tasks that wait for each worker, so that none is idle."""


class CampaignResult(msgspec.Struct, frozen=True):
    """The result of many seeds.

    Attributes:
        seeds: count of the seeds that ran.
        operations: commands and questions that stores carried out and pure machines repeated.
        calls: calls of callers.
        faults: how often each fault happened.
        violations: by seed, what should not have happened.
        ops_per_s: operations in a second of processor time.
        processor_s: processor time of all processes in seconds.
        elapsed_s: real time in seconds.
        stores: seeds by store.
        operations_of: operations by store.
        ops_per_s_of: operations in a second of processor time, by store.
    """

    seeds: int
    operations: int
    calls: int
    faults: dict[str, int]
    violations: dict[int, tuple[str, ...]]
    ops_per_s: int
    processor_s: float
    elapsed_s: float
    stores: dict[str, int]
    operations_of: dict[str, int]
    ops_per_s_of: dict[str, int]


_Timed = tuple[SeedReport, float]
"""A report, and the processor time of its seed in seconds."""


def run_campaign(
    seeds: Iterable[int],
    *,
    store: str = "",
    minutes: float = 0,
    on_report: Callable[[SeedReport], None] = lambda _: None,
    failures_max: int = 20,
    keeps_history: bool = False,
    workers: int = 1,
) -> CampaignResult:
    """Run seeds. Each has the same report, in however many processes they run.

    Args:
        seeds: the seeds.
        store: the store of all seeds; ``""`` lets each seed choose.
        minutes: end after this time; 0 for no end.
        on_report: called after each seed.
        failures_max: the number of failed seeds after which it ends.
        keeps_history: True for reports with the lines of a history file.
        workers: processes, at least 1. Several pay off up to the number of cores.

    Raises:
        InvalidRequest: ``workers`` is below 1.
    """
    if workers < 1:
        raise InvalidRequest("workers", str(workers), "at least 1")
    began_s = time.monotonic()
    calls = 0
    faults: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    operations_of: Counter[str] = Counter()
    processor_s_of: dict[str, float] = {}
    violations: dict[int, tuple[str, ...]] = {}
    run = partial(_run_seeds, store=store, keeps_history=keeps_history)
    in_time = _until(seeds, began_s + 60 * minutes if minutes else float("inf"))
    for report, took_s in _in_one_process(run, in_time) if workers == 1 else _in_processes(run, in_time, workers):
        calls += report.calls
        faults.update(report.faults)
        stores[report.store] += 1
        operations_of[report.store] += report.operations
        processor_s_of[report.store] = processor_s_of.get(report.store, 0.0) + took_s
        if report.violations:
            violations[report.seed] = report.violations
        on_report(report)
        if len(violations) >= failures_max:
            break
    operations, processor_s = operations_of.total(), sum(processor_s_of.values())
    return CampaignResult(
        stores.total(),
        operations,
        calls,
        dict(sorted(faults.items())),
        dict(sorted(violations.items())),
        round(operations / max(processor_s, 0.001)),
        round(processor_s, 1),
        round(time.monotonic() - began_s, 1),
        dict(sorted(stores.items())),
        dict(sorted(operations_of.items())),
        {name: round(count / max(processor_s_of[name], 0.001)) for name, count in sorted(operations_of.items())},
    )


def _until(seeds: Iterable[int], ends_at_s: float) -> Iterator[int]:
    for seed in seeds:
        if time.monotonic() >= ends_at_s:
            return
        yield seed


def _run_seeds(seeds: Sequence[int], *, store: str, keeps_history: bool) -> list[_Timed]:
    reports = []
    for seed in seeds:
        began_s = time.process_time()
        report = run_seed(seed, store=store, keeps_history=keeps_history)
        reports.append((report, time.process_time() - began_s))
    return reports


def _in_one_process(run: Callable[[Sequence[int]], list[_Timed]], seeds: Iterator[int]) -> Iterator[_Timed]:
    gc.collect()
    gc.freeze()  # a collection then walks through what the seeds have left, and not through all modules
    try:
        for count, seed in enumerate(seeds, 1):
            yield from run((seed,))
            if count % _COLLECT_EVERY == 0:
                gc.collect()
    finally:
        gc.unfreeze()


def _begin_worker() -> None:
    gc.disable()
    gc.collect()
    gc.freeze()


def _run_task(run: Callable[[Sequence[int]], list[_Timed]], seeds: Sequence[int]) -> list[_Timed]:
    reports = run(seeds)
    gc.collect()
    return reports


def _in_processes(run: Callable[[Sequence[int]], list[_Timed]], seeds: Iterator[int], workers: int) -> Iterator[_Timed]:
    context = multiprocessing.get_context("spawn")  # a fork would copy threads and connections of the caller
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        tasks: deque[Future[list[_Timed]]] = deque()
        try:
            while True:
                while len(tasks) < workers * _TASKS_AHEAD and (part := list(islice(seeds, _SEEDS_OF_A_TASK))):
                    tasks.append(pool.submit(_run_task, run, part))
                if not tasks:
                    return
                yield from tasks.popleft().result()
        finally:
            for task in tasks:
                task.cancel()
