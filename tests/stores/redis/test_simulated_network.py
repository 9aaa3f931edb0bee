"""Seeds of the simulation: a network with faults delivers copies late, and no copy undoes or contradicts an answer.

``python -m tests.support.simulator --seeds 10000`` runs more of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from quota_engine.stores.redis.server_clock import LastMoment
from tests.support.lua_store import LuaServer
from tests.support.simulator.faults import Faults
from tests.support.simulator.visit import SeedReport, run_seed

SEEDS_OF_A_TEST = 50


@pytest.fixture(scope="module")
def lua() -> LuaServer:
    return LuaServer()


def failing(reports: Iterable[SeedReport]) -> SeedReport | None:
    return next((report for report in reports if report.violations), None)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 4 * SEEDS_OF_A_TEST, SEEDS_OF_A_TEST))
def test_answers_are_final_on_a_network_with_faults(lua: LuaServer, first: int) -> None:
    """Every kind of fault happens, and the server refuses late copies."""
    fired: Counter[str] = Counter()
    for seed in range(first, first + SEEDS_OF_A_TEST):
        report = run_seed(seed, lua)
        assert report.violations == (), "\n".join([f"seed {seed}", *report.violations, *report.history])
        fired.update(report.faults)
    assert set(fired) == {*Faults.__struct_fields__, "late"}
    assert min(fired.values()) >= 10


def test_seed_repeats_its_history(lua: LuaServer) -> None:
    assert run_seed(3, lua).history == run_seed(3).history


def test_simulation_finds_a_server_that_accepts_late_copies(lua: LuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last moments of attempts never come."""
    stamp = LastMoment.stamp
    monkeypatch.setattr(LastMoment, "stamp", lambda self, node, end: stamp(self, node, end) + 10**9)
    report = failing(run_seed(seed, lua) for seed in range(20, 50))
    assert report is not None
    assert "follows from no call whose answer was still open" in report.violations[0]


@pytest.mark.slow
def test_simulation_finds_a_client_that_does_not_wait(lua: LuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends, or sends another copy, while one is in flight and still valid."""
    monkeypatch.setattr(LastMoment, "wait_ms", lambda self: 0)
    report = failing(run_seed(seed, lua) for seed in range(185, 215))
    assert report is not None
