"""Cases of a benchmark in their order: the engine's cases, and the yardsticks next to each."""

from __future__ import annotations

__all__ = [
    "ACTIONS",
    "BATCH_OF_LIMIT",
    "GOALS",
    "GOAL_URLS",
    "IN_FLIGHT_OF_LIMIT",
    "OFFICES_OF_CALLERS_MAX",
    "QUICK",
    "SOLD_OUT",
    "STANDARD",
    "ApiStyle",
    "BackendKind",
    "BenchCase",
    "BenchSettings",
    "Implementation",
    "Yardsticks",
    "cases_with_yardsticks",
    "engine_cases",
    "yardsticks_of",
]

import dataclasses
import importlib.util
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

SOLD_OUT: Final = "sold-out"
"""A refusal by an engine with a sold-out cache. All other cases run without the cache."""
ACTIONS: Final = ("reserve", "confirm", "refusal", SOLD_OUT, "availability")
BATCH_OF_LIMIT: Final = 128
IN_FLIGHT_OF_LIMIT: Final = 4


class BackendKind(StrEnum):
    """Kind of a backend, which decides about the yardsticks."""

    MEMORY = "memory"
    REDIS = "redis"
    SQL = "sql"
    POSTGRESQL = "postgresql"
    OTHER = "other"


class ApiStyle(StrEnum):
    """Style of the calls: a single synchronous caller, threads, or asyncio tasks."""

    SINGLE = "lone"
    THREADS = "threads"
    TASKS = "tasks"


class Implementation(StrEnum):
    """Implementation under measurement: the engine or a yardstick."""

    ENGINE = "engine"
    LIMIT = "limit"
    BY_HAND = "by hand"
    DECR = "bare DECR"
    DICT = "dict"
    LIMITS = "limits"


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of a benchmark.

    Attributes:
        preset: Name of these settings; "" if they have none.
        concurrency: Numbers of concurrent asyncio callers.
        batch: Sizes of batches.
        offices: Numbers of offices in the cases with several.
        reservations: Numbers of existing reservations in the cases with many.
        round_ms: Approximate duration of a case in one round, in milliseconds.
    """

    preset: str = ""
    quick: bool = False
    actions: tuple[str, ...] = ACTIONS
    concurrency: tuple[int, ...] = (16, 64, 256)
    threads: int = 16
    batch: tuple[int, ...] = (8, 32, 128)
    offices: tuple[int, ...] = (10,)
    reservations: tuple[int, ...] = (100_000,)
    rounds: int = 7
    round_ms: int = 120

    @property
    def main_concurrency(self) -> int:
        """Concurrency of the cases that do not vary it: the middle one."""
        return self.concurrency[len(self.concurrency) // 2]


STANDARD: Final = BenchSettings()
QUICK: Final = BenchSettings(
    quick=True, concurrency=(32,), batch=(128,), offices=(), reservations=(), rounds=5, round_ms=10
)
GOALS: Final = BenchSettings(
    preset="goals",
    actions=("reserve", SOLD_OUT),
    concurrency=(50, 500, 5_000),
    batch=(BATCH_OF_LIMIT,),
    offices=(10, 125, 10_000),
    reservations=(1_000, 1_000_000),
    rounds=5,
    round_ms=500,
)
"""Cases of the goals in ``docs/performance.md``; see :mod:`quota_engine.bench.goals`."""
GOAL_URLS: Final = ("valkey+embedded://", "valkey+embedded://?durability=fsync")
"""Stores of the goals. On the second one only the plain reserve is measured."""
OFFICES_OF_CALLERS_MAX: Final = 1_000
"""With more offices, callers would share no script call, so batches are measured."""
RESERVATIONS_WITH_YARDSTICKS_MAX: Final = 100_000


@dataclasses.dataclass(frozen=True, slots=True)
class BenchCase:
    """One case: an action, an implementation, and its parameters.

    Attributes:
        concurrency: Concurrent callers.
        batch: Commands in a call.
        reservations: Reservations that exist on the day at the beginning.
    """

    action: str
    implementation: Implementation
    api_style: ApiStyle
    concurrency: int
    batch: int = 1
    offices: int = 1
    reservations: int = 0

    @property
    def shares_workload(self) -> bool:
        """True if all rounds share one workload, because its setup takes long."""
        return bool(self.reservations) or self.offices > OFFICES_OF_CALLERS_MAX

    @property
    def name(self) -> str:
        """Name in tables and in JSON. Name, backend and concurrency identify a case."""
        if self.implementation is Implementation.DECR:
            return f"bare DECR, batch {self.batch}"
        if self.implementation is Implementation.LIMITS:
            return "limits: a hit, lone"
        parts = ["a dict behind a lock" if self.implementation is Implementation.DICT else self.action]
        if self.api_style is not ApiStyle.TASKS:
            parts.append("lone" if self.api_style is ApiStyle.SINGLE else "threads")
        if self.batch > 1 and self.implementation is Implementation.ENGINE:
            parts.append(f"batch {self.batch}")
        if self.offices > 1:
            parts.append(f"{self.offices:,} offices")
        if self.reservations:
            parts.append(f"{self.reservations:,} held")
        name = ", ".join(parts)
        return (
            f"{self.implementation}: {name}"
            if self.implementation in (Implementation.LIMIT, Implementation.BY_HAND)
            else name
        )


class Yardsticks(NamedTuple):
    """Yardsticks of one case; ``None`` where there is none."""

    limit: BenchCase | None
    by_hand: BenchCase | None


def engine_cases(settings: BenchSettings, kind: BackendKind) -> list[BenchCase]:
    """Return the engine's cases on a kind of backend, in the order of the tables.

    In memory no call is ever in flight, so concurrent calls only wait for each other. A single caller stands for all,
    and there are no batches.
    """

    def tasks(action: str, concurrency: int) -> BenchCase:
        return BenchCase(action, Implementation.ENGINE, ApiStyle.TASKS, concurrency)

    lone = BenchCase("reserve", Implementation.ENGINE, ApiStyle.SINGLE, 1)
    main = lone if kind is BackendKind.MEMORY else tasks("reserve", settings.main_concurrency)
    cases = []
    if "reserve" in settings.actions:
        cases.append(lone)
        if settings.threads > 1:
            cases.append(BenchCase("reserve", Implementation.ENGINE, ApiStyle.THREADS, settings.threads))
        several = (settings.main_concurrency,) if kind is BackendKind.MEMORY else settings.concurrency
        cases += [tasks("reserve", concurrency) for concurrency in several]
    others = [action for action in settings.actions if action not in ("reserve", SOLD_OUT)]
    if kind is BackendKind.REDIS and SOLD_OUT in settings.actions:
        others.insert(others.index("refusal") + 1 if "refusal" in others else 0, SOLD_OUT)
    cases += [dataclasses.replace(main, action=action) for action in others]
    if "reserve" in settings.actions:
        if kind is not BackendKind.MEMORY:
            sizes = settings.batch
            cases += [dataclasses.replace(tasks("reserve", IN_FLIGHT_OF_LIMIT), batch=size) for size in sizes]
        for offices in settings.offices:
            if offices > OFFICES_OF_CALLERS_MAX and kind is not BackendKind.MEMORY:
                in_batches = dataclasses.replace(tasks("reserve", IN_FLIGHT_OF_LIMIT), batch=max(settings.batch))
                cases.append(dataclasses.replace(in_batches, offices=offices))
            elif offices > 1:
                cases.append(dataclasses.replace(main, offices=offices))
        cases += [dataclasses.replace(main, reservations=count) for count in settings.reservations if count]
    return cases


def yardsticks_of(case: BenchCase, kind: BackendKind) -> Yardsticks:
    """Return the limit and the work by hand for one of the engine's cases.

    Cases with a setup of minutes have none, and are compared with a smaller case. A single caller has no limit, because
    the limit keeps four batches in flight. A batch has no equivalent by hand. The limit of the sold-out cache is the
    dict, because neither reaches a store.
    """
    if kind is BackendKind.MEMORY:
        return Yardsticks(BenchCase("reserve", Implementation.DICT, case.api_style, case.concurrency), None)
    is_costly = case.offices > OFFICES_OF_CALLERS_MAX or case.reservations > RESERVATIONS_WITH_YARDSTICKS_MAX
    if kind is BackendKind.OTHER or is_costly:
        return Yardsticks(None, None)
    by_hand = dataclasses.replace(case, implementation=Implementation.BY_HAND)
    if case.action == SOLD_OUT:
        return Yardsticks(
            BenchCase("reserve", Implementation.DICT, case.api_style, case.concurrency),
            dataclasses.replace(by_hand, action="refusal"),
        )
    limit = dataclasses.replace(
        case,
        implementation=Implementation.LIMIT,
        api_style=ApiStyle.TASKS,
        concurrency=IN_FLIGHT_OF_LIMIT,
        batch=BATCH_OF_LIMIT,
    )
    return Yardsticks(limit if case.concurrency > 1 else None, by_hand if case.batch == 1 else None)


def cases_with_yardsticks(cases: Sequence[BenchCase], kind: BackendKind) -> list[BenchCase]:
    """Return the engine's cases, each followed by its yardsticks, without repetitions.

    On Redis and Valkey the bare ``DECR`` of the server is added, and in memory the rate limiter ``limits``, if it is
    installed.
    """

    def both() -> Iterable[BenchCase]:
        for case in cases:
            yield case
            yield from filter(None, yardsticks_of(case, kind))
        has_reserve = any(case.action == "reserve" for case in cases)
        if kind is BackendKind.REDIS and has_reserve:
            yield BenchCase("reserve", Implementation.DECR, ApiStyle.TASKS, IN_FLIGHT_OF_LIMIT, BATCH_OF_LIMIT)
        if kind is BackendKind.MEMORY and has_reserve and importlib.util.find_spec("limits") is not None:
            yield BenchCase("reserve", Implementation.LIMITS, ApiStyle.SINGLE, 1)

    return list(dict.fromkeys(both()))
