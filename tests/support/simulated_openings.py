"""Small openings for the tests: scenarios with a few changes, and engines that misbehave in one way."""

from __future__ import annotations

import importlib.resources
import itertools
import pathlib
from typing import Any

import msgspec

from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import OutcomeUnknown
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.simulation.event_queue import ProgressObserver
from quota_engine.simulation.policy_comparison import (
    AgentResult,
    OpenEngine,
    PolicyComparison,
    compare_policies,
    simulate_with_agents,
)
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.simulation import PreparedSimulation, SimulationResult, prepare, simulate
from quota_engine.simulation.supply import build_supply


def scenario_with(applicants: int = 600, **parts: dict[str, Any]) -> Scenario:
    """Surabaya's scenario with other applicants, and with changes in the parts named."""
    scenario = Scenario(applicants=applicants)
    changed = {name: msgspec.structs.replace(getattr(scenario, name), **keys) for name, keys in parts.items()}
    return msgspec.structs.replace(scenario, **changed)


class LyingEngine(QuotaEngine):
    """An engine that answers refused applicants with the last winner's place."""

    winner: Outcome | None = None

    def reserve(self, *arguments: Any, **keywords: Any) -> Outcome:
        outcome = super().reserve(*arguments, **keywords)
        if outcome.status is Status.HELD:
            self.winner = outcome
        lie = outcome.status is Status.SOLD_OUT and self.winner is not None
        return self.winner if lie and self.winner is not None else outcome

    def confirm(self, reference: str, **keywords: Any) -> Outcome:
        record = self.lookup(reference)
        assert record is not None
        self._told = getattr(self, "_told", 0) + 1
        return Outcome(Status.CONFIRMED, msgspec.structs.replace(record, id=f"told-{self._told}"))


class ForgetfulNetwork(QuotaEngine):
    """Carries every command out, and loses the answer to every third."""

    _calls = 0

    def _perhaps(self, outcome: Outcome) -> Outcome:
        self._calls += 1
        if self._calls % 3 == 0:
            raise OutcomeUnknown("the answer was lost")
        return outcome

    def reserve(self, *arguments: Any, **keywords: Any) -> Outcome:
        return self._perhaps(super().reserve(*arguments, **keywords))

    def confirm(self, reference: str, **keywords: Any) -> Outcome:
        return self._perhaps(super().confirm(reference, **keywords))


def run_prepared(
    prepared: PreparedSimulation, *, baseline: bool = False, engine: type[QuotaEngine] = QuotaEngine
) -> SimulationResult:
    """Run it against a fresh engine in memory."""
    clock, numbers = ManualClock(0), itertools.count(1)
    with engine.open(identity_key=b"k" * 32, clock=clock, id_factory=lambda: f"t{next(numbers)}") as opened:
        return simulate(prepared, opened, clock, backend="memory://", baseline=baseline)


def run(scenario: Scenario, *, baseline: bool = False, engine: type[QuotaEngine] = QuotaEngine) -> SimulationResult:
    """Prepare a scenario and run it."""
    return run_prepared(prepare(scenario, "scenario.toml"), baseline=baseline, engine=engine)


def _opener(engine: type[QuotaEngine]) -> OpenEngine:
    def open_engine(clock: ManualClock, name: str) -> QuotaEngine:
        numbers = itertools.count(1)
        return engine.open(identity_key=b"k" * 32, clock=clock, id_factory=lambda: f"{name}-{next(numbers)}")

    return open_engine


def run_with_agents(
    scenario: Scenario, *, engine: type[QuotaEngine] = QuotaEngine, observe: ProgressObserver | None = None
) -> AgentResult:
    """Run an opening with agents; the earlier ones, from which they have learned, are always honest."""
    market = build_supply(scenario, "scenario.toml")
    return simulate_with_agents(scenario, market, _opener(engine), open_trial=_opener(QuotaEngine), observe=observe)


def compare_in_memory(scenario: Scenario) -> PolicyComparison:
    """Run an opening with agents under every policy."""
    return compare_policies(scenario, "scenario.toml", _opener(QuotaEngine), backend="memory://")


def catalog_with_wait_list(directory: pathlib.Path) -> str:
    """Surabaya's catalog, but given-back places go to a wait list; returns its path."""
    text = importlib.resources.files("quota_engine.catalog").joinpath("data", "surabaya.toml").read_text("utf-8")
    cooling = 're_release = { rule = "cooling", cooling_s = 600, jitter_s = 1200 }'
    assert cooling in text
    path = directory / "wait-list.toml"
    path.write_text(text.replace(cooling, 're_release = { rule = "wait_list" }'), "utf-8")
    return str(path)
