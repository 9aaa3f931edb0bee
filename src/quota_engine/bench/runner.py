"""A benchmark run: open the stores, run the rounds of all cases interleaved, and clean up."""

from __future__ import annotations

__all__ = ["Progress", "run_bench"]

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.host_info import describe_machine, pinned, usable_cores
from quota_engine.bench.measurement import BenchWorkload, RoundMeasurement, create_workload, measure_once
from quota_engine.bench.plan import (
    ApiStyle,
    BenchCase,
    BenchSettings,
    Implementation,
    cases_with_yardsticks,
    engine_cases,
    yardsticks_of,
)
from quota_engine.bench.results import FORMAT, BenchResult, CaseSamples, case_result
from quota_engine.bench.target_url import BenchTarget

Progress = Callable[[str, int, int], None]
"""Called with the name of the current case, the number of finished measurements, and their total."""

_OPERATIONS_MIN: Final = 64
_OPERATIONS_MAX: Final = 200_000
_WARM_UP: Final = 100
_WARM_UP_SHARE: Final = 4
_CALLS_OF_A_CALLER_MIN: Final = 4
"""Calls that each caller makes in a round: in its first call nothing is in flight yet, and in the last one less."""


class _Entry:
    """One case on one store, with its operations per round and its measurements."""

    def __init__(self, store: BenchStore, case: BenchCase) -> None:
        self.store = store
        self.case = case
        self.tally = CaseSamples()
        self.count = 0
        self._shared_workload: BenchWorkload | None = None

    def warm_up(self, settings: BenchSettings) -> None:
        """Set the workload up, and find the number of operations that fill a round in two steps."""
        calls_min = self.case.concurrency * (1 if settings.quick else _CALLS_OF_A_CALLER_MIN)
        floor = max(_OPERATIONS_MIN, calls_min * self.case.batch)
        self.count = max(floor, _WARM_UP)
        for share in (1,) if settings.quick else (_WARM_UP_SHARE, 1):
            wanted = self._once(self.count).ops_per_s * settings.round_ms / 1000 / share
            self.count = round(min(max(wanted, floor), max(floor, _OPERATIONS_MAX)))

    def run(self) -> None:
        """Run one round."""
        self.tally.add(self._once(self.count))

    def _once(self, count: int) -> RoundMeasurement:
        """Run on a new workload, so that each round begins equally, unless its setup takes too long."""
        if self._shared_workload is not None:
            return measure_once(self.store, self._shared_workload, self.case, count)
        workload = create_workload(self.store, self.case)
        if self.case.shares_workload:
            self._shared_workload = workload
            return measure_once(self.store, workload, self.case, count)
        try:
            return measure_once(self.store, workload, self.case, count)
        finally:
            workload.remove()


def run_bench(
    targets: Sequence[BenchTarget], settings: BenchSettings, progress: Progress, warn: Callable[[str], None]
) -> BenchResult:
    """Measure all cases on all targets.

    Args:
        targets: Stores to measure.
        settings: Extent of the benchmark.
        progress: Called before each measurement.
        warn: Called with a message if keys stay in a store.

    Raises:
        BackendUnavailable: A store cannot be used.
        WrongOutcome: A measurement had a wrong effect.
    """
    cores = usable_cores()
    client_core, server_core = cores or (None, None)
    with contextlib.ExitStack() as undo:
        # Servers start before the client is pinned, because their helpers would inherit the client's core.
        stores = [undo.enter_context(BenchStore(target, server_core)) for target in targets]
        client_is_pinned = undo.enter_context(pinned(0, client_core))
        entries = _entries(stores, settings)
        undo.enter_context(_collector_ignores_existing_objects())
        _run_rounds(entries, settings, progress)
        machine = _machine(stores, client_core if client_is_pinned else None, server_core)
    for store in stores:
        if store.cleanup_problem:
            warn(
                f"{store.target.label}: keys of this run stay in the store: {store.cleanup_problem}; they begin with "
                f"{{quota_engine:{store.target.namespace}:bench- and expire by themselves"
            )
    return BenchResult(quota_engine_bench=FORMAT, machine=machine, settings=settings, cases=_cases(entries, stores))


@contextlib.contextmanager
def _collector_ignores_existing_objects() -> Iterator[None]:
    """Keep the collection before each round short: it passes over what existed before the first one."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _entries(stores: Sequence[BenchStore], settings: BenchSettings) -> list[_Entry]:
    return [
        _Entry(store, case)
        for store in stores
        for case in cases_with_yardsticks(_measures(store, settings), store.target.kind)
    ]


def _measures(store: BenchStore, settings: BenchSettings) -> list[BenchCase]:
    cases = engine_cases(settings, store.target.kind)
    if settings.preset and store.target.durability:
        return [BenchCase("reserve", Implementation.ENGINE, ApiStyle.TASKS, settings.main_concurrency)]
    return cases


def _run_rounds(entries: Sequence[_Entry], settings: BenchSettings, progress: Progress) -> None:
    """Run all cases once in each round, so that a slow minute affects all of them.

    Every other round runs in reverse order, so that no case always follows the same one.
    """
    total, done = len(entries) * (settings.rounds + 1), 0
    for number in range(settings.rounds + 1):
        for entry in entries if number % 2 == 0 else reversed(entries):
            progress(f"{_round(number, settings)}: {entry.case.name}", done, total)
            if number == 0:
                entry.warm_up(settings)
            else:
                entry.run()
            done += 1
    progress("done", total, total)


def _round(number: int, settings: BenchSettings) -> str:
    return f"round {number} of {settings.rounds}" if number else "warm-up"


def _machine(stores: Sequence[BenchStore], client_core: int | None, server_core: int | None) -> dict[str, Any]:
    embedded = [store for store in stores if store.target.is_embedded]
    servers_are_pinned = all(store.is_pinned for store in embedded)
    return {
        **describe_machine(),
        "servers": {store.target.label: store.server for store in stores if store.server},
        "primaries": {store.target.label: store.primaries for store in stores if store.primaries > 1},
        "pinned": client_core is not None and servers_are_pinned,
        "client_core": client_core,
        "server_core": server_core if embedded and servers_are_pinned else None,
    }


def _cases(entries: Sequence[_Entry], stores: Sequence[BenchStore]) -> list[Any]:
    """Return the results, backend by backend: the engine's cases first, then the yardsticks."""
    cases = []
    for store in stores:
        mine = {entry.case: entry.tally for entry in entries if entry.store is store}
        for case in sorted(mine, key=lambda each: each.implementation is not Implementation.ENGINE):
            limit = by_hand = None
            if case.implementation is Implementation.ENGINE:
                limit, by_hand = yardsticks_of(case, store.target.kind)
            tallies = [mine[each] if each is not None else None for each in (limit, by_hand)]
            cases.append(case_result(store.target.label, case, mine[case], *tallies))
    return cases
