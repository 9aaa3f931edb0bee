"""What is measured, in which order: the engine's cases, and beside each the yardsticks that it is held to."""

from __future__ import annotations

__all__ = [
    "ACTIONS",
    "BATCH_OF_LIMIT",
    "GOALS",
    "GOAL_URLS",
    "IN_FLIGHT_OF_LIMIT",
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
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

SOLD_OUT: Final = "sold-out"
"""A refusal by an engine that remembers what is sold out; everything else is measured by one that does not."""
ACTIONS: Final = ("reserve", "confirm", "refusal", SOLD_OUT, "availability")
BATCH_OF_LIMIT: Final = 128
IN_FLIGHT_OF_LIMIT: Final = 4


class BackendKind(StrEnum):
    """What a backend is, as far as it decides which yardsticks there are."""

    MEMORY = "memory"
    REDIS = "redis"
    OTHER = "other"


class ApiStyle(StrEnum):
    """Who calls: one caller after its own answers, threads, or asyncio tasks."""

    SINGLE = "lone"
    THREADS = "threads"
    TASKS = "tasks"


class Implementation(StrEnum):
    """Who is measured: the engine, or one of the yardsticks."""

    ENGINE = "engine"
    LIMIT = "limit"
    BY_HAND = "by hand"
    DICT = "dict"


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. ``round_ms`` is what one case should take in one round; ``preset`` the name of these
    settings, "" if they have none.
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
        """The one that is used where concurrency is not what a case is about: the middle one."""
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
    offices=(10_000,),
    reservations=(1_000, 1_000_000),
    rounds=5,
)
"""What ``docs/performance.md`` holds the engine to; see :mod:`quota_engine.bench.goals`."""
GOAL_URLS: Final = ("valkey+embedded://", "valkey+embedded://?durability=fsync")
"""The stores for that; of the second only the plain reserve is measured."""
OFFICES_OF_CALLERS_MAX: Final = 1_000
"""Callers spread over more offices would share nothing: there batches are measured."""
RESERVATIONS_WITH_YARDSTICKS_MAX: Final = 100_000


@dataclasses.dataclass(frozen=True, slots=True)
class BenchCase:
    """One thing to measure: who does what, with how many callers at once, how many commands in a call, and where.

    ``reservations`` stand on the day before it begins.
    """

    action: str
    implementation: Implementation
    api_style: ApiStyle
    concurrency: int
    batch: int = 1
    offices: int = 1
    reservations: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether its place takes so long to set up that all rounds have the same one."""
        return bool(self.reservations) or self.offices > OFFICES_OF_CALLERS_MAX

    @property
    def name(self) -> str:
        """What it is called in tables and in JSON; with backend and concurrency it is the only one of that name."""
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
    """What one case of the engine is compared with; ``None`` where there is nothing of the kind."""

    limit: BenchCase | None
    by_hand: BenchCase | None


def engine_cases(settings: BenchSettings, kind: BackendKind) -> list[BenchCase]:
    """The engine's cases on a backend of this kind, in the order of the tables.

    In memory nothing is under way: calls that are made at once only wait for each other, so a lone caller stands for
    all, and there are no batches.
    """

    def tasks(action: str, concurrency: int) -> BenchCase:
        return BenchCase(action, Implementation.ENGINE, ApiStyle.TASKS, concurrency)

    lone = BenchCase("reserve", Implementation.ENGINE, ApiStyle.SINGLE, 1)
    main = lone if kind is BackendKind.MEMORY else tasks("reserve", settings.main_concurrency)
    measures = []
    if "reserve" in settings.actions:
        measures.append(lone)
        if settings.threads > 1:
            measures.append(BenchCase("reserve", Implementation.ENGINE, ApiStyle.THREADS, settings.threads))
        several = (settings.main_concurrency,) if kind is BackendKind.MEMORY else settings.concurrency
        measures += [tasks("reserve", concurrency) for concurrency in several]
    others = [action for action in settings.actions if action not in ("reserve", SOLD_OUT)]
    if kind is BackendKind.REDIS and SOLD_OUT in settings.actions:
        others.insert(others.index("refusal") + 1 if "refusal" in others else 0, SOLD_OUT)
    measures += [dataclasses.replace(main, action=action) for action in others]
    if "reserve" in settings.actions:
        if kind is not BackendKind.MEMORY:
            sizes = settings.batch
            measures += [dataclasses.replace(tasks("reserve", IN_FLIGHT_OF_LIMIT), batch=size) for size in sizes]
        for offices in settings.offices:
            if offices > OFFICES_OF_CALLERS_MAX and kind is not BackendKind.MEMORY:
                in_batches = dataclasses.replace(tasks("reserve", IN_FLIGHT_OF_LIMIT), batch=max(settings.batch))
                measures.append(dataclasses.replace(in_batches, offices=offices))
            elif offices > 1:
                measures.append(dataclasses.replace(main, offices=offices))
        measures += [dataclasses.replace(main, reservations=count) for count in settings.reservations if count]
    return measures


def yardsticks_of(measure: BenchCase, kind: BackendKind) -> Yardsticks:
    """What the limit and the work by hand are for one of the engine's cases.

    Where it takes minutes to have everything in place there are none: such a case is compared with a smaller one. A
    lone caller has no limit, for the limit keeps four batches under way; batches have nobody who makes them by hand.
    What is answered from memory asks no store: the dict is its limit.
    """
    if kind is BackendKind.MEMORY:
        return Yardsticks(BenchCase("reserve", Implementation.DICT, measure.api_style, measure.concurrency), None)
    is_costly = measure.offices > OFFICES_OF_CALLERS_MAX or measure.reservations > RESERVATIONS_WITH_YARDSTICKS_MAX
    if kind is BackendKind.OTHER or is_costly:
        return Yardsticks(None, None)
    by_hand = dataclasses.replace(measure, implementation=Implementation.BY_HAND)
    if measure.action == SOLD_OUT:
        return Yardsticks(
            BenchCase("reserve", Implementation.DICT, measure.api_style, measure.concurrency),
            dataclasses.replace(by_hand, action="refusal"),
        )
    limit = dataclasses.replace(
        measure,
        implementation=Implementation.LIMIT,
        api_style=ApiStyle.TASKS,
        concurrency=IN_FLIGHT_OF_LIMIT,
        batch=BATCH_OF_LIMIT,
    )
    return Yardsticks(limit if measure.concurrency > 1 else None, by_hand if measure.batch == 1 else None)


def cases_with_yardsticks(measures: Sequence[BenchCase], kind: BackendKind) -> list[BenchCase]:
    """The engine's cases and their yardsticks, each once, next to those that it is compared with."""

    def both() -> Iterable[BenchCase]:
        for measure in measures:
            yield measure
            yield from filter(None, yardsticks_of(measure, kind))

    return list(dict.fromkeys(both()))
