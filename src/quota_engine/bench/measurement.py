"""One measurement: the work is prepared, the callers do it, and the place is looked at afterwards."""

from __future__ import annotations

__all__ = ["RoundMeasurement", "measure_once"]

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.load_drivers import CallTimes, run_single, run_tasks, run_threads
from quota_engine.bench.plan import SOLD_OUT, ApiStyle, BackendKind, BenchCase, Implementation
from quota_engine.bench.workload import Workload, encoded_command
from quota_engine.domain.commands import Command
from quota_engine.engine.quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.ports import ApplyMany

_LOOKED_AT_IN_MEMORY = 16
"""A call in memory takes little more than looking at the clock does: the time of one in so many is noted."""

_Work = list[tuple[int, tuple[Any, ...], Command | None]]
"""Index of the office, arguments of the engine's method, and the command that they come to, for each operation."""


class RoundMeasurement(NamedTuple):
    """Operations done, and how long they took."""

    operations: int
    sample: CallTimes

    @property
    def ops_per_s(self) -> float:
        """Operations a second."""
        return self.operations / self.sample.took_s


def measure_once(store: BenchStore, place: Workload, measure: BenchCase, count: int) -> RoundMeasurement:
    """Do ``count`` operations at ``place``.

    Raises:
        WrongAnswer: they did not do what they should have done.
    """
    work = _prepare(place, measure.action, count)
    calls: Sequence[Any]
    call: Callable[[Any], Any]
    if measure.implementation is Implementation.DICT:
        call, calls = _dict_and_lock(measure.api_style), [arguments[-1] for _, arguments, _ in work]
    elif measure.implementation is Implementation.ENGINE:
        call, calls = _engine(place, measure), _batches(place, work, measure.batch)
    else:
        call, calls = _by_script(store, measure.api_style), _scripted(store, place, measure, work)
    in_memory = (
        store.target.kind is BackendKind.MEMORY
        or measure.action == SOLD_OUT
        or measure.implementation is Implementation.DICT
    )
    every = _LOOKED_AT_IN_MEMORY if in_memory else 1
    if measure.action == SOLD_OUT:
        place.warm_sold_out_cache()
    if measure.api_style is ApiStyle.SINGLE:
        sample = run_single(call, calls, every)
    elif measure.api_style is ApiStyle.THREADS:
        sample = run_threads(call, calls, measure.concurrency, every)
    else:
        sample = store.run_coroutine(run_tasks(call, calls, measure.concurrency))
    if measure.implementation is not Implementation.DICT:
        place.check(measure, work)
    return RoundMeasurement(count, sample)


def _prepare(place: Workload, action: str, count: int) -> _Work:
    if action == "confirm":
        return [*place.make_confirms(count)]
    if action == "availability":
        offices = place.offices
        return [(index % len(offices), (offices[index % len(offices)],), None) for index in range(count)]
    return [*place.make_reserves(count)]


def _engine(place: Workload, measure: BenchCase) -> Callable[[Any], Any]:
    """A call of the engine's own method, for one tuple of arguments; for batches, of the backend's."""
    day = place.day
    if measure.batch > 1:
        perform = place.async_backend.execute
        return lambda batch: perform(ApplyMany(*batch))
    asynchronous = measure.api_style is ApiStyle.TASKS
    engine: Any = (
        AsyncQuotaEngine(place.async_backend, place.request_builder)
        if asynchronous
        else QuotaEngine(place.backend, place.request_builder)
    )
    if measure.action == "confirm":
        confirm = engine.confirm
        return lambda arguments: confirm(arguments[0])
    if measure.action == "availability":
        availability = engine.availability
        return lambda arguments: availability(arguments[0], day)
    reserve = engine.reserve
    return lambda arguments: reserve(arguments[0], day, arguments[1], idempotency_key=arguments[2])


def _batches(place: Workload, work: _Work, size: int) -> Sequence[tuple[Any, ...]]:
    if size == 1:
        return [arguments for _, arguments, _ in work]
    return [
        (place.offices[index], tuple(command for _, _, command in part)) for index, part in _parts(place, work, size)
    ]


def _by_script(store: BenchStore, face: ApiStyle) -> Callable[[Any], Any]:
    """A call as a user would write it, for one tuple of arguments of EVALSHA."""
    evalsha: Callable[..., Any] = (store.async_client if face is ApiStyle.TASKS else store.client).evalsha
    return lambda arguments: evalsha(*arguments)


def _scripted(store: BenchStore, place: Workload, measure: BenchCase, work: _Work) -> list[tuple[Any, ...]]:
    """The same work for the engine's own scripts, in batches of the measure's size."""
    from quota_engine.stores.redis.keys import keys_of
    from quota_engine.stores.redis.scripts import OFFICE_COMMANDS, OFFICE_QUERIES

    keys = [keys_of(store.target.namespace, office) for office in place.offices]
    script = OFFICE_COMMANDS
    if measure.action == "availability":
        script = OFFICE_QUERIES
        # The other script is known to the server already: the offices were published with it.
        store.client.eval(script.text, len(keys[0]), *keys[0], "")
    return [
        (
            script.sha1,
            len(keys[index]),
            *keys[index],
            "",  # the time: the server's own
            *(encoded_command(place, measure.action, command) for _, _, command in part),
        )
        for index, part in _parts(place, work, measure.batch)
    ]


def _parts(place: Workload, work: _Work, size: int) -> Iterable[tuple[int, _Work]]:
    """The work in parts of up to ``size`` for one office, office by office in turn."""
    by_office: dict[int, _Work] = {}
    for one in work:
        by_office.setdefault(one[0], []).append(one)
    for start in range(0, max(map(len, by_office.values()), default=0), size):
        for index, mine in by_office.items():
            if part := mine[start : start + size]:
                yield index, part


def _dict_and_lock(face: ApiStyle) -> Callable[[Any], Any]:
    """What does next to nothing: a dict that remembers keys, behind a lock."""
    places: dict[str, int] = {}
    lock = threading.Lock()

    def call(key: str) -> None:
        with lock:
            if key not in places:
                places[key] = 1

    async def call_async(key: str) -> None:
        call(key)

    return call_async if face is ApiStyle.TASKS else call
