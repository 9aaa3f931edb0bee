"""One measurement: prepare the work, run it, and check its effect."""

from __future__ import annotations

__all__ = ["RoundMeasurement", "measure_once"]

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.load_drivers import CallTimes, run_single, run_tasks, run_threads
from quota_engine.bench.plan import SOLD_OUT, ApiStyle, BackendKind, BenchCase, Implementation
from quota_engine.bench.workload import BenchWorkload, encoded_command
from quota_engine.domain.commands import Command
from quota_engine.engine.quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.ports import ApplyMany

_CALLS_PER_TIMING = 16
"""Calls for each timed call in memory, where a call takes little longer than reading the clock."""

_Work = list[tuple[int, tuple[Any, ...], Command | None]]
"""For each operation: index of the office, arguments of the engine's method, and the equivalent command."""


class RoundMeasurement(NamedTuple):
    """Operations of one round, and their times."""

    operations: int
    sample: CallTimes

    @property
    def ops_per_s(self) -> float:
        """Rate in operations a second."""
        return self.operations / self.sample.took_s


def measure_once(store: BenchStore, workload: BenchWorkload, case: BenchCase, count: int) -> RoundMeasurement:
    """Run ``count`` operations of a case on a workload.

    Raises:
        WrongOutcome: The operations did not have the expected effect.
    """
    work = _prepare(workload, case.action, count)
    calls: Sequence[Any]
    call: Callable[[Any], Any]
    if case.implementation is Implementation.DICT:
        call, calls = _dict_and_lock(case.api_style), [arguments[-1] for _, arguments, _ in work]
    elif case.implementation is Implementation.ENGINE:
        call, calls = _engine(workload, case), _batches(workload, work, case.batch)
    else:
        call, calls = _by_script(store, case.api_style), _scripted(store, workload, case, work)
    in_memory = (
        store.target.kind is BackendKind.MEMORY or case.action == SOLD_OUT or case.implementation is Implementation.DICT
    )
    every = _CALLS_PER_TIMING if in_memory else 1
    if case.action == SOLD_OUT:
        workload.warm_sold_out_cache()
    if case.api_style is ApiStyle.SINGLE:
        sample = run_single(call, calls, every)
    elif case.api_style is ApiStyle.THREADS:
        sample = run_threads(call, calls, case.concurrency, every)
    else:
        sample = store.run_coroutine(run_tasks(call, calls, case.concurrency))
    if case.implementation is not Implementation.DICT:
        workload.check(case, work)
    return RoundMeasurement(count, sample)


def _prepare(workload: BenchWorkload, action: str, count: int) -> _Work:
    if action == "confirm":
        return [*workload.make_confirms(count)]
    if action == "availability":
        offices = workload.offices
        return [(index % len(offices), (offices[index % len(offices)],), None) for index in range(count)]
    return [*workload.make_reserves(count)]


def _engine(workload: BenchWorkload, case: BenchCase) -> Callable[[Any], Any]:
    """Return a call of the engine's method, or for batches of the store's, that takes a tuple of arguments."""
    day = workload.day
    if case.batch > 1:
        perform = workload.async_backend.execute
        return lambda batch: perform(ApplyMany(*batch))
    asynchronous = case.api_style is ApiStyle.TASKS
    engine: Any = (
        AsyncQuotaEngine(workload.async_backend, workload.request_builder)
        if asynchronous
        else QuotaEngine(workload.backend, workload.request_builder)
    )
    if case.action == "confirm":
        confirm = engine.confirm
        return lambda arguments: confirm(arguments[0])
    if case.action == "availability":
        availability = engine.availability
        return lambda arguments: availability(arguments[0], day)
    reserve = engine.reserve
    return lambda arguments: reserve(arguments[0], day, arguments[1], idempotency_key=arguments[2])


def _batches(workload: BenchWorkload, work: _Work, size: int) -> Sequence[tuple[Any, ...]]:
    if size == 1:
        return [arguments for _, arguments, _ in work]
    return [
        (workload.offices[index], tuple(command for _, _, command in part))
        for index, part in _parts(workload, work, size)
    ]


def _by_script(store: BenchStore, face: ApiStyle) -> Callable[[Any], Any]:
    """Return a plain EVALSHA call that takes a tuple of arguments."""
    evalsha: Callable[..., Any] = (store.async_client if face is ApiStyle.TASKS else store.client).evalsha
    return lambda arguments: evalsha(*arguments)


def _scripted(store: BenchStore, workload: BenchWorkload, case: BenchCase, work: _Work) -> list[tuple[Any, ...]]:
    """Return the same work as arguments of EVALSHA, in batches of the case's size."""
    from quota_engine.stores.redis.keys import keys_of
    from quota_engine.stores.redis.scripts import OFFICE_COMMANDS, OFFICE_QUERIES

    keys = [keys_of(store.target.namespace, office) for office in workload.offices]
    script = OFFICE_COMMANDS
    if case.action == "availability":
        script = OFFICE_QUERIES
        # The server knows the other script already, because it has published the offices.
        store.client.eval(script.text, len(keys[0]), *keys[0], "")
    return [
        (
            script.sha1,
            len(keys[index]),
            *keys[index],
            "",  # Time: the server's own.
            *(encoded_command(workload, case.action, command) for _, _, command in part),
        )
        for index, part in _parts(workload, work, case.batch)
    ]


def _parts(workload: BenchWorkload, work: _Work, size: int) -> Iterable[tuple[int, _Work]]:
    """Yield parts of up to ``size`` operations for one office, round robin over the offices."""
    by_office: dict[int, _Work] = {}
    for one in work:
        by_office.setdefault(one[0], []).append(one)
    for start in range(0, max(map(len, by_office.values()), default=0), size):
        for index, mine in by_office.items():
            if part := mine[start : start + size]:
                yield index, part


def _dict_and_lock(face: ApiStyle) -> Callable[[Any], Any]:
    """Return a call that stores a key in a dict behind a lock, which is the least that any store does."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def call(key: str) -> None:
        with lock:
            if key not in seen:
                seen[key] = 1

    async def call_async(key: str) -> None:
        call(key)

    return call_async if face is ApiStyle.TASKS else call
