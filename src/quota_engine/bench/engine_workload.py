"""Workload of a measurement: new offices with one open day, and the operations on them."""

from __future__ import annotations

__all__ = ["EngineWorkload", "benchmark_catalog", "next_working_day"]

import asyncio
import datetime
import gc
import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.errors import WrongOutcome
from quota_engine.bench.plan import OFFICES_OF_CALLERS_MAX, SOLD_OUT, ApiStyle, BenchCase
from quota_engine.catalog import Catalog, Selection, catalog_from, day_terms, rules_of
from quota_engine.domain.commands import Command, Confirm, Publish, SetRules
from quota_engine.domain.outcomes import Status
from quota_engine.engine.quota_engine import AsyncQuotaEngine, QuotaEngine
from quota_engine.ports import ApplyMany, StoreRequest, View
from quota_engine.workflows.request_builder import RequestBuilder

T = TypeVar("T")

_CAPACITY: Final = 10_000_000
_REFUSED: Final = ("refusal", SOLD_OUT)
_WARM_UP_PAUSE_S: Final = 0.005
_SELECTION: Final = Selection()
_OFFICES_CHECKED_MAX: Final = 100
_PRELOAD: Final = 10_000
"""Reservations in one request while a day is filled."""

_numbers = itertools.count(1)

_Work = list[tuple[int, tuple[Any, ...], Command]]
"""For each operation: index of the office, arguments of the engine's method, and the equivalent command."""


class EngineWorkload:
    """Offices with a day about a week ahead, one quota, identity limit, idempotency and events.

    Attributes:
        offices: Ids of the offices. No earlier measurement has used them.
        day: Ordinal of the day.
        request_builder: Builds the commands of calls, for the engine and for the yardsticks.
        backend: Store for synchronous calls.
        async_backend: Store for asyncio.
    """

    def __init__(self, store: BenchStore, case: BenchCase) -> None:
        """Publish the offices of a case, and fill them with its existing reservations."""
        self._store = store
        self._case = case
        self._api_style = case.api_style
        self._next = 0
        self._done = [0] * case.offices
        self._block = case.batch if case.offices > OFFICES_OF_CALLERS_MAX else 1
        self.offices = store.new_offices(case.offices)
        self.day = next_working_day()
        catalog = benchmark_catalog(self.offices, 0 if case.action in _REFUSED else _CAPACITY)
        self.request_builder = RequestBuilder(secrets.token_bytes(32), catalog)
        self.backend, self.async_backend = store.open_stores(sold_out_cache=case.action == SOLD_OUT)
        store.register_offices(self.offices)
        self._publish(catalog)
        left = case.reservations
        while left:
            count = min(left, _PRELOAD)
            work = self.make_reserves(count)
            self._execute(work)
            self._count(work)
            left -= count

    def _publish(self, catalog: Catalog) -> None:
        """Publish the day directly: the store may have the identity key of another program, which stays as it is."""
        rules = SetRules(rules_of(catalog, self.offices[0], jitter_seed=self.request_builder.jitter_seed))
        terms = day_terms(catalog, self.offices[0], datetime.date.fromordinal(self.day))
        assert terms is not None, "a working day"
        for office in self.offices:
            self._ask(ApplyMany(office, (rules, Publish(self.day, terms))))

    def prepare(self, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return the call to measure, and the arguments of each call for ``count`` operations."""
        case = self._case
        work: _Work
        if case.action == "availability":
            offices = self.offices
            return self._call(), [(offices[index % len(offices)],) for index in range(count)]
        work = [*self.make_confirms(count)] if case.action == "confirm" else [*self.make_reserves(count)]
        if case.action not in _REFUSED:
            self._count(work)
        calls = self._batches(work, case.batch)
        if case.action == SOLD_OUT:
            # The driver collects garbage before its first call. With all commands, that would outlast the cache.
            del work
            gc.collect()
            self._store.run_coroutine(self._fill_sold_out_cache())
        return self._call(), calls

    def _call(self) -> Callable[[Any], Any]:
        """Return a call of the engine's method, or for batches of the store's, that takes a tuple of arguments."""
        case, day = self._case, self.day
        if case.batch > 1:
            execute = self.async_backend.execute
            return lambda batch: execute(ApplyMany(*batch))
        engine: Any = (
            AsyncQuotaEngine(self.async_backend, self.request_builder)
            if case.api_style is ApiStyle.TASKS
            else QuotaEngine(self.backend, self.request_builder)
        )
        if case.action == "confirm":
            confirm = engine.confirm
            return lambda arguments: confirm(arguments[0])
        if case.action == "availability":
            availability = engine.availability
            return lambda arguments: availability(arguments[0], day)
        reserve = engine.reserve
        return lambda arguments: reserve(arguments[0], day, arguments[1], idempotency_key=arguments[2])

    def _batches(self, work: _Work, size: int) -> Sequence[tuple[Any, ...]]:
        """Return the arguments of each call: those of the method, or an office and up to ``size`` commands."""
        if size == 1:
            return [arguments for _, arguments, _ in work]
        by_office: dict[int, list[Command]] = {}
        for index, _, command in work:
            by_office.setdefault(index, []).append(command)
        longest = max(map(len, by_office.values()), default=0)
        return [
            (self.offices[index], tuple(part))
            for start in range(0, longest, size)
            for index, commands in by_office.items()
            if (part := commands[start : start + size])
        ]

    def make_reserves(self, count: int) -> list[tuple[int, tuple[str, str, str], Command]]:
        """Return reserves of new applicants, round robin over the offices.

        With very many offices, a whole batch goes to each. An operation has the index of the office, the arguments of
        the call (office, identity, key), and the equivalent command.
        """
        offices, requests = self.offices, self.request_builder
        work: list[tuple[int, tuple[str, str, str], Command]] = []
        for index in range(count):
            number = next(_numbers)
            at = (self._next + index // self._block) % len(offices)
            office = offices[at]
            identity, key = f"{3578_0000_0000_0000 + number}", f"k{number:021d}"
            command = requests.reserve(office, self.day, identity, _SELECTION, key, False, 0)
            work.append((at, (office, identity, key), command))
        self._next = (self._next + -(-count // self._block)) % len(offices)
        return work

    def make_confirms(self, count: int) -> list[tuple[int, tuple[str], Command]]:
        """Return confirms of new holds: index of the office, argument (the reference), command."""
        reserves = self.make_reserves(count)
        self._execute(reserves)
        work: list[tuple[int, tuple[str], Command]] = []
        for index, (office, _, key), _ in reserves:
            reference = f"{office}~{key}"
            command = self.request_builder.reservation_command(Confirm, reference, None, 0, False).command
            work.append((index, (reference,), command))
        return work

    def check(self) -> None:
        """Check the effect of the calls. Of very many offices, only some are checked.

        Raises:
            WrongOutcome: The effect is wrong.
        """
        case = self._case
        step = -(-len(self.offices) // _OFFICES_CHECKED_MAX)
        checked = range(0, len(self.offices), step)
        views = [view for index in checked for view in self._ask(View(self.offices[index], (self.day,)))]
        held = sum(quota.held for view in views for quota in view.quotas.values())
        confirmed = sum(quota.confirmed for view in views for quota in view.quotas.values())
        done = sum(self._done[index] for index in checked)
        wanted = (0, done) if case.action == "confirm" else (done, 0)
        if len(views) != len(checked) or (held, confirmed) != wanted:
            raise WrongOutcome(
                f"{self._store.target.label}: {case.name}: {held:,} held and {confirmed:,} confirmed places after "
                f"it; expected {wanted[0]:,} and {wanted[1]:,}"
            )
        if case.action in _REFUSED:
            ((_, (office, _, _), command),) = self.make_reserves(1)
            (outcome,) = self._ask(ApplyMany(office, (command,)))
            if outcome.status is not Status.SOLD_OUT:
                raise WrongOutcome(f"{self._store.target.label}: {case.name}: {outcome.status}; expected SOLD_OUT")

    def remove(self) -> None:
        """Remove the offices."""
        self._store.remove(self.offices)

    async def _fill_sold_out_cache(self) -> None:
        """Let refusals fill the sold-out cache, just before it is measured."""
        for _, (office, _, _), command in self.make_reserves(4 * len(self.offices)):
            await self.async_backend.apply(office, command)
            await asyncio.sleep(_WARM_UP_PAUSE_S)

    def _ask(self, request: StoreRequest[T]) -> T:
        """Execute a request through the measured store. In memory, the two stores of a target differ."""
        if self._api_style is ApiStyle.TASKS:
            return self._store.run_coroutine(self.async_backend.execute(request))
        return self.backend.execute(request)

    def _execute(self, work: Sequence[tuple[int, Any, Command]]) -> None:
        by_office: dict[int, list[Command]] = {}
        for index, _, command in work:
            by_office.setdefault(index, []).append(command)
        for index, commands in by_office.items():
            self._ask(ApplyMany(self.offices[index], tuple(commands)))

    def _count(self, work: Sequence[tuple[int, Any, Any]]) -> None:
        for index, _, _ in work:
            self._done[index] += 1


def next_working_day() -> int:
    """Return the ordinal of a working day about a week ahead, which is open and not over in every time zone."""
    day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=7)
    while day.weekday() > 4:
        day += datetime.timedelta(days=1)
    return day.toordinal()


def benchmark_catalog(offices: list[str], capacity: int) -> Catalog:
    """Return a catalog of offices whose working days have one quota, open 300 days ahead.

    Args:
        offices: Ids of the offices.
        capacity: Units of the quota, 0 to 10,000,000.
    """
    raw: dict[str, Any] = {
        "title": "benchmark",
        "services": [{"id": "passport", "name": "Passport"}],
        "channels": [{"id": "online", "name": "Online"}],
        "schedules": [{"id": "ahead", "kind": "days_ahead", "at": "00:00", "days": 300}],
        "plans": [
            {
                "id": "plan",
                "services": ["passport"],
                "hours": {"start": "08:00", "end": "16:00"},
                "schedule": "ahead",
                "allotments": [{"id": "online", "channels": ["online"], "capacity": capacity}],
            }
        ],
        "offices": [
            {"id": office, "name": "Benchmark", "time_zone": "Asia/Jakarta", "plan": "plan"} for office in offices
        ],
    }
    return catalog_from(raw, "benchmark")
