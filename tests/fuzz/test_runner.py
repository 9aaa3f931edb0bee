"""Seeds of the simulation: faults of clients, network, stores and clocks, and no answer that was not true.

``quota-engine fuzz --seeds 10000`` runs more of them.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import NoReturn

import pytest

from quota_engine.fuzz import runner
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.runner import SeedReport, run_seed
from quota_engine.stores.redis.server_clock import LastMoment
from tests.support.effort import seeds

pytestmark = pytest.mark.slow

STORES = ("memory", "lua", "sql")


run_once = functools.cache(run_seed)
"""Run a seed, once for all tests of this process that ask for the same one."""


def failing(reports: Iterable[SeedReport]) -> SeedReport | None:
    return next((report for report in reports if report.violations), None)


def explained(report: SeedReport) -> str:
    return "\n".join([f"seed {report.seed} on {report.store}", *report.violations])


@pytest.mark.parametrize(("store", "gate"), [("memory", 10), ("lua", 4), ("sql", 4)])
def test_seeds_show_no_violation(store: str, gate: int) -> None:
    for seed in seeds(gate, 60):
        report = run_once(seed, store=store)
        assert report.violations == (), explained(report)
        assert report.operations


@pytest.mark.parametrize(
    ("store", "seed"),
    [
        ("memory", 206),  # an answer that shows a reservation of another day, whose quota was renamed
        ("memory", 324),  # a repetition that finds its own reservation with another name of the quota
        ("memory", 1441),  # a day that one call closes and opens
        ("lua", 667),  # a hold that a correction of the time brings forward
        ("lua", 7702267),  # a call that ends before its attempt, while the clock is set back
        ("sql", 91),  # an effect that was lost while its call continued
        ("sql", 337),  # a pause that one process notes and another one ends
        ("sql", 1356),  # a transaction without changes that a failover ends
    ],
)
def test_seeds_that_were_hard_to_judge(store: str, seed: int) -> None:
    """The simulator or the checker was wrong about what may happen, and the SQL stores were about seed 337."""
    report = run_once(seed, store=store)
    assert report.violations == (), explained(report)


def test_many_kinds_of_faults_happen() -> None:
    """The seeds are some of those above."""
    fired: Counter[str] = Counter()
    for store, chosen in (("memory", (*range(10), 206)), ("lua", range(4)), ("sql", (*range(4), 91))):
        for seed in chosen:
            fired.update(run_once(seed, store=store).faults)
    assert len(fired) >= 20, fired


def test_late_copies_arrive_in_numbers_and_are_refused() -> None:
    """Requests arrive after their callers have given them up, and copies arrive after their last moments."""
    report = run_seed(37, store="lua")
    assert report.violations == (), explained(report)
    assert min(report.faults[one] for one in ("held_back", "copied_late", "late_copy_refused")) >= 100


@pytest.mark.parametrize("store", STORES)
def test_simulation_uses_no_thread_no_socket_and_no_sleep(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError(f"a simulation must not call this: {arguments}, {options}")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(time, "sleep", refuse)
    for seed in (11, 18):  # a load spike, and visits
        report = run_seed(seed, store=store)
        assert report.violations == (), explained(report)
        assert report.operations


def digest_of_seeds() -> str:
    lines = [
        line for seed, store in enumerate(STORES) for line in run_seed(seed, store=store, keeps_history=True).lines
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_seed_repeats_to_the_byte_under_another_hash_seed() -> None:
    code = "from tests.fuzz.test_runner import digest_of_seeds; print(digest_of_seeds())"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest_of_seeds()


def test_seed_has_the_same_history_on_the_interpreter_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run_seed(2, store="lua", keeps_history=True).lines
    monkeypatch.setattr(runner, "_lua_servers", [LuaServer(is_fast=False)])
    assert run_seed(2, store="lua", keeps_history=True).lines == lines != ()


def test_simulation_finds_a_server_that_accepts_late_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last moments of attempts never come."""
    stamp = LastMoment.stamp
    monkeypatch.setattr(LastMoment, "stamp", lambda self, node, end: stamp(self, node, end) + 10**9)
    report = failing(run_seed(seed, store="lua") for seed in (5, 19))
    assert report is not None
    assert "follows from no call whose answer was still open" in report.violations[0]
