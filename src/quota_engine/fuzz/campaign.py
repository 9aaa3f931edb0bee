"""Runs many seeds, and counts what they did and what they found."""

from __future__ import annotations

__all__ = ["CampaignResult", "run_campaign"]

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from quota_engine.fuzz.runner import SeedReport, run_seed

_COLLECT_EVERY = 20


class CampaignResult(msgspec.Struct, frozen=True):
    """The result of many seeds.

    Attributes:
        seeds: count of the seeds that ran.
        operations: commands and questions that stores carried out and pure machines repeated.
        calls: calls of callers.
        faults: how often each fault happened.
        violations: by seed, what should not have happened.
        ops_per_s: operations in a second of processor time.
        processor_s: processor time in seconds.
        stores: seeds by store.
    """

    seeds: int
    operations: int
    calls: int
    faults: dict[str, int]
    violations: dict[int, tuple[str, ...]]
    ops_per_s: int
    processor_s: float
    stores: dict[str, int]


def run_campaign(
    seeds: Iterable[int],
    *,
    store: str = "",
    minutes: float = 0,
    on_report: Callable[[SeedReport], None] = lambda _: None,
    failures_max: int = 20,
    keeps_history: bool = False,
) -> CampaignResult:
    """Run seeds, one after the other.

    Args:
        seeds: the seeds.
        store: the store of all seeds; ``""`` lets each seed choose.
        minutes: end after this time; 0 for no end.
        on_report: called after each seed.
        failures_max: the number of failed seeds after which it ends.
        keeps_history: True for reports with the lines of a history file.
    """
    began_s, processor_began_s = time.monotonic(), time.process_time()
    count = operations = calls = 0
    faults: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    violations: dict[int, tuple[str, ...]] = {}
    gc.collect()
    gc.freeze()  # a collection then walks through what the seeds have left, and not through all modules
    for seed in seeds:
        if minutes and time.monotonic() - began_s >= 60 * minutes:
            break
        report = run_seed(seed, store=store, keeps_history=keeps_history)
        count += 1
        operations += report.operations
        calls += report.calls
        faults.update(report.faults)
        stores[report.store] += 1
        if report.violations:
            violations[seed] = report.violations
        on_report(report)
        if count % _COLLECT_EVERY == 0:
            gc.collect()
        if len(violations) >= failures_max:
            break
    gc.unfreeze()
    took_s = time.process_time() - processor_began_s
    return CampaignResult(
        count,
        operations,
        calls,
        dict(sorted(faults.items())),
        violations,
        round(operations / max(took_s, 0.001)),
        round(took_s, 1),
        dict(sorted(stores.items())),
    )
