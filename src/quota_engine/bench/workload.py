"""Where a measurement takes place: offices of its own with one open day, and the work that is to be done there."""

from __future__ import annotations

__all__ = ["Workload", "WrongOutcome", "encoded_command"]

import asyncio
import datetime
import itertools
import secrets
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from quota_engine.bench.backends import BenchStore
from quota_engine.bench.plan import OFFICES_OF_CALLERS_MAX, SOLD_OUT, ApiStyle, BenchCase
from quota_engine.catalog import Catalog, Selection, catalog_from
from quota_engine.domain.commands import Command, Confirm
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, StoreRequest, View
from quota_engine.workflows import day_workflows
from quota_engine.workflows.generator_drivers import run, run_async
from quota_engine.workflows.request_builder import RequestBuilder

T = TypeVar("T")

_CAPACITY: Final = 10_000_000
_REFUSED: Final = ("refusal", SOLD_OUT)
_RUSH_S: Final = 0.005
_SELECTION: Final = Selection()
_OFFICES_CHECKED_MAX: Final = 100
_PRELOAD: Final = 10_000
"""Reservations in one request while a place is filled."""

_numbers = itertools.count(1)


class WrongOutcome(QuotaEngineError):
    """What was measured did not do what it was asked to: its speed means nothing."""


class Workload:
    """Some offices with a day a week ahead, one quota, and the identity limit, idempotency and events on.

    Attributes:
        offices: their ids, which no earlier measurement had.
        day: the ordinal of the day.
        desk: makes commands of calls, for the engine and for the yardsticks alike.
        backend, async_backend: the two ways to the store.
    """

    def __init__(self, store: BenchStore, measure: BenchCase) -> None:
        """Publish the offices of ``measure``, and fill them with the reservations that it wants to find."""
        self._store = store
        self._face = measure.api_style
        self._next = 0
        self._done = [0] * measure.offices
        self._block = measure.batch if measure.offices > OFFICES_OF_CALLERS_MAX else 1
        tag = secrets.token_hex(4)
        self.offices = [f"bench-{tag}-{number}" for number in range(measure.offices)]
        self.day = _next_working_day()
        catalog = _catalog(self.offices, 0 if measure.action in _REFUSED else _CAPACITY)
        self.request_builder = RequestBuilder(secrets.token_bytes(32), catalog)
        self.backend, self.async_backend = store.open_stores(remembering=measure.action == SOLD_OUT)
        store.note_offices(self.offices)
        publish = day_workflows.publish(self.request_builder, catalog, self.day, None)
        if self._face is ApiStyle.TASKS:
            store.run_coroutine(run_async(publish, self.async_backend))
        else:
            run(publish, self.backend)
        left = measure.reservations
        while left:
            count = min(left, _PRELOAD)
            work = self.make_reserves(count)
            self._carry_out(work)
            self._note(work)
            left -= count

    def make_reserves(self, count: int) -> list[tuple[int, tuple[str, str, str], Command]]:
        """As many reserves by people who have not come before, office by office in turn (one each; where there are
        very many, a batch each): the office's index, the arguments of the call (office, identity, key), and the command
        that it comes to.
        """
        offices, desk = self.offices, self.request_builder
        work: list[tuple[int, tuple[str, str, str], Command]] = []
        for index in range(count):
            number = next(_numbers)
            at = (self._next + index // self._block) % len(offices)
            office = offices[at]
            identity, key = f"{3578_0000_0000_0000 + number}", f"k{number:021d}"
            command = desk.reserve(office, self.day, identity, _SELECTION, key, False, 0)
            work.append((at, (office, identity, key), command))
        self._next = (self._next + -(-count // self._block)) % len(offices)
        return work

    def make_confirms(self, count: int) -> list[tuple[int, tuple[str], Command]]:
        """As many confirms, of holds that are made here and now: index, argument (the reference), command."""
        reserves = self.make_reserves(count)
        self._carry_out(reserves)
        work: list[tuple[int, tuple[str], Command]] = []
        for index, (office, _, key), _ in reserves:
            reference = f"{office}~{key}"
            command = self.request_builder.reservation_command(Confirm, reference, None, 0, False).command
            work.append((index, (reference,), command))
        return work

    def check(self, measure: BenchCase, work: Sequence[tuple[int, Any, Any]]) -> None:
        """See that the calls had the effect that they should have had; of very many offices, at some of them.

        Raises:
            WrongAnswer: they had not.
        """
        if measure.action not in (*_REFUSED, "availability"):
            self._note(work)
        step = -(-len(self.offices) // _OFFICES_CHECKED_MAX)
        looked_at = range(0, len(self.offices), step)
        views = [view for index in looked_at for view in self._ask(View(self.offices[index], (self.day,)))]
        held = sum(quota.held for view in views for quota in view.quotas.values())
        confirmed = sum(quota.confirmed for view in views for quota in view.quotas.values())
        done = sum(self._done[index] for index in looked_at)
        wanted = (0, done) if measure.action == "confirm" else (done, 0)
        if len(views) != len(looked_at) or (held, confirmed) != wanted:
            raise WrongOutcome(
                f"{self._store.target.label}: {measure.name}: {held:,} held and {confirmed:,} confirmed places after "
                f"it; expected {wanted[0]:,} and {wanted[1]:,}"
            )
        if measure.action in _REFUSED:
            ((_, (office, _, _), command),) = self.make_reserves(1)
            (outcome,) = self._ask(ApplyMany(office, (command,)))
            if outcome.status is not Status.SOLD_OUT:
                raise WrongOutcome(f"{self._store.target.label}: {measure.name}: {outcome.status}; expected SOLD_OUT")

    def remove(self) -> None:
        """Take the offices away again."""
        self._store.remove(self.offices)

    def warm_sold_out_cache(self) -> None:
        """Lose often enough for the engine to remember it, just before that is measured."""
        self._store.run_coroutine(self._rush())

    async def _rush(self) -> None:
        for _, (office, _, _), command in self.make_reserves(4 * len(self.offices)):
            await self.async_backend.apply(office, command)
            await asyncio.sleep(_RUSH_S)

    def _ask(self, request: StoreRequest[T]) -> T:
        """By the way that is measured: a store may be another one by another way."""
        if self._face is ApiStyle.TASKS:
            return self._store.run_coroutine(self.async_backend.execute(request))
        return self.backend.execute(request)

    def _carry_out(self, work: Sequence[tuple[int, Any, Command]]) -> None:
        by_office: dict[int, list[Command]] = {}
        for index, _, command in work:
            by_office.setdefault(index, []).append(command)
        for index, commands in by_office.items():
            self._ask(ApplyMany(self.offices[index], tuple(commands)))

    def _note(self, work: Sequence[tuple[int, Any, Any]]) -> None:
        for index, _, _ in work:
            self._done[index] += 1


def encoded_command(place: Workload, action: str, command: Command | None) -> str:
    """What the engine's scripts are given for a call."""
    from quota_engine.stores.redis.codecs.office import encode

    if action == "availability":
        return f"view\t{place.day}"
    assert command is not None
    return encode(command)


def _next_working_day() -> int:
    """A working day about a week ahead: open by the schedule, and not over, in every time zone."""
    day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=7)
    while day.weekday() > 4:
        day += datetime.timedelta(days=1)
    return day.toordinal()


def _catalog(offices: list[str], capacity: int) -> Catalog:
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
