"""Looks for the smallest schedule that still fails: the operations that it needs, and no other faults."""

from __future__ import annotations

__all__ = ["SmallestSchedule", "shrink"]

from collections.abc import Callable

import msgspec

from quota_engine.fuzz.faults import CLUSTER_INCIDENTS, INCIDENTS, Faults
from quota_engine.fuzz.runner import SeedReport, run_seed
from quota_engine.fuzz.schedule import draw_schedule


class SmallestSchedule(msgspec.Struct, frozen=True):
    """The part of a failing seed's schedule that it needs to fail.

    Attributes:
        without: faults and incidents that it does not need.
        only: numbers of the operations that it needs.
        operations: these operations as text.
        violations: what is found then.
    """

    without: tuple[str, ...]
    only: tuple[int, ...]
    operations: tuple[str, ...]
    violations: tuple[str, ...]


def shrink(
    seed: int, *, store: str = "", runs_max: int = 200, run: Callable[..., SeedReport] = run_seed
) -> SmallestSchedule:
    """Leave faults and operations of a failing seed out, as long as it still fails.

    Args:
        seed: a seed that fails.
        store: the store, as for :func:`~quota_engine.fuzz.runner.run_seed`.
        runs_max: the most runs.
        run: runs a seed; tests replace it.
    """
    schedule = draw_schedule(seed, store=store)
    only = [one.number for one in schedule.operations]
    without: list[str] = []
    runs = 0
    violations: tuple[str, ...] = ()

    def still_fails(without: list[str], only: list[int]) -> bool:
        nonlocal runs, violations
        runs += 1
        found = run(seed, store=store, without=tuple(without), only=frozenset(only)).violations
        if found:
            violations = found
        return bool(found)

    still_fails(without, only)
    for fault in (*INCIDENTS, *CLUSTER_INCIDENTS, *(field.name for field in msgspec.structs.fields(Faults))):
        if runs < runs_max and still_fails([*without, fault], only):
            without.append(fault)
    size = max(1, len(only) // 2)
    while runs < runs_max:
        at = 0
        while at < len(only) and runs < runs_max:
            fewer = only[:at] + only[at + size :]
            if fewer and still_fails(without, fewer):
                only = fewer
            else:
                at += size
        if size == 1:
            break
        size //= 2
    texts = tuple(
        f"{one.at_ms} ms, process {one.process}: {one.address} {one.request}"
        for one in schedule.operations
        if one.number in set(only)
    )
    return SmallestSchedule(tuple(without), tuple(only), texts, violations)
