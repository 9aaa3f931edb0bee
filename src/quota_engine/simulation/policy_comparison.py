"""Openings with agents under one policy or under all of them.

Earlier openings come first, from which brokers and customers learn. They are smaller, have other seeds and the same
rules, and run against their own engines.
"""

from __future__ import annotations

__all__ = [
    "AgentResult",
    "OpenEngine",
    "PolicyComparison",
    "compare_policies",
    "re_release_rule",
    "simulate_with_agents",
]

import contextlib
import dataclasses
import datetime
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from quota_engine.clocks import ManualClock
from quota_engine.domain.model import ReRelease as ReReleaseTerms
from quota_engine.domain.model import ReReleaseRule
from quota_engine.simulation.agent_metrics import AgentMetrics
from quota_engine.simulation.agent_opening import AgentOpening
from quota_engine.simulation.brokers import MarketHistory, TrialOpening
from quota_engine.simulation.engine_port import SimulatedEngine
from quota_engine.simulation.event_queue import ProgressObserver
from quota_engine.simulation.people import People, draw_people, with_identities
from quota_engine.simulation.population_config import BrokerEntry, ReReleasePolicy
from quota_engine.simulation.rng import SEED_PREFIX
from quota_engine.simulation.scenario import PolicyName, Scenario
from quota_engine.simulation.supply import Supply, build_supply, choice_from_booking

TRIAL_PLACES_MIN = 10
"""Fewest places at an earlier opening, unless this opening has fewer."""

OpenEngine = Callable[[ManualClock, str], contextlib.AbstractContextManager[SimulatedEngine]]
"""Opens a fresh engine that reads the clock. The text becomes part of the ids that the engine generates."""


@dataclasses.dataclass(frozen=True, slots=True)
class AgentResult:
    """Result of an opening with agents under one policy. ``findings`` are broken guarantees of the engine's run."""

    metrics: AgentMetrics
    history: MarketHistory
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics and findings for JSON."""
        return {**self.metrics.as_dict(), "findings": list(self.findings)}


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyComparison:
    """Results of the same people under several policies."""

    scenario: Scenario
    supply: Supply
    backend: str
    runs: tuple[AgentResult, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings of all runs, each with its policy."""
        return tuple(
            f"{result.metrics.scenario.policy}: {finding}" for result in self.runs for finding in result.findings
        )

    @property
    def ok(self) -> bool:
        """True if no run has findings."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON. The same scenario and seed give the same bytes."""
        opening = datetime.datetime.fromtimestamp(self.supply.opening_ms / 1000, datetime.UTC)
        return {
            "title": self.scenario.title,
            "seed": self.scenario.seed,
            "backend": self.backend,
            "opening_at": opening.isoformat().replace("+00:00", "Z"),
            "offices": self.supply.offices,
            "office_days": len(self.supply.office_days),
            "applicants": self.scenario.applicants,
            "capacity": self.supply.capacity,
            "policies": [result.as_dict() for result in self.runs],
            "findings": list(self.findings),
        }


def re_release_rule(scenario: Scenario) -> ReReleasePolicy:
    """Return the scenario's re-release policy, or else the one that belongs to its policy."""
    if scenario.re_release is not None:
        return scenario.re_release
    return ReReleasePolicy.NEXT_DRAW if scenario.policy is PolicyName.DRAW else ReReleasePolicy.IMMEDIATE


def compare_policies(
    scenario: Scenario,
    file: str,
    open_engine: OpenEngine,
    *,
    backend: str,
    open_trial: OpenEngine | None = None,
    policies: tuple[PolicyName, ...] = tuple(PolicyName),
    observe: Callable[[PolicyName], ProgressObserver | None] | None = None,
) -> PolicyComparison:
    """Run an opening under each policy with the same people.

    Args:
        scenario: The scenario. Its policy is replaced.
        file: Name of the scenario in validation issues.
        open_engine: Opens the engine of a run.
        backend: Name of the engines' store in the result, without credentials.
        open_trial: Opens the engines of earlier openings; ``open_engine`` by default.
        policies: Policies to run, in order.
        observe: Returns the progress observer of a policy's run.

    Raises:
        CatalogError: The catalog or the sale is invalid.
    """
    supply = build_supply(scenario, file)
    people = draw_people(scenario, supply)
    results = []
    for policy in policies:
        run_scenario = msgspec.structs.replace(scenario, policy=policy)
        run_observer = observe(policy) if observe else None
        results.append(
            simulate_with_agents(
                run_scenario, supply, open_engine, open_trial=open_trial, people=people, observe=run_observer
            )
        )
    return PolicyComparison(scenario, supply, backend, tuple(results))


def simulate_with_agents(
    scenario: Scenario,
    supply: Supply,
    open_engine: OpenEngine,
    *,
    open_trial: OpenEngine | None = None,
    people: People | None = None,
    observe: ProgressObserver | None = None,
) -> AgentResult:
    """Run the earlier openings, and then one opening under the scenario's policy.

    Args:
        scenario: The scenario.
        supply: Office-days on sale.
        open_engine: Opens the engine of the opening.
        open_trial: Opens the engines of earlier openings; ``open_engine`` by default.
        people: Result of ``draw_people`` for this scenario, if the caller has it already.
        observe: Called with the progress of the run.
    """
    supply = _with_re_release(supply, re_release_rule(scenario))
    history = _run_trials(scenario, supply, open_trial or open_engine)
    plan = history.plan(supply.capacity)
    return _run(scenario, supply, plan.identities, history, open_engine, people, observe)


def _with_re_release(supply: Supply, re_release: ReReleasePolicy) -> Supply:
    terms = {
        ReReleasePolicy.IMMEDIATE: ReReleaseTerms(ReReleaseRule.AT_ONCE),
        # The same 10 to 30 minutes as in Surabaya's catalog.
        ReReleasePolicy.COOLING: ReReleaseTerms(ReReleaseRule.COOLING, 600_000, 1_200_000),
        ReReleasePolicy.NEXT_DRAW: ReReleaseTerms(ReReleaseRule.NEXT_DRAW),
    }[re_release]
    offices = {
        name: dataclasses.replace(view, re_releases=dict.fromkeys(view.re_releases, terms))
        for name, view in supply.catalog.offices.items()
    }
    return dataclasses.replace(supply, catalog=dataclasses.replace(supply.catalog, offices=offices))


def _run(
    scenario: Scenario,
    supply: Supply,
    identities: int,
    history: MarketHistory,
    open_engine: OpenEngine,
    people: People | None = None,
    observe: ProgressObserver | None = None,
) -> AgentResult:
    plan = history.plan_of(identities, supply.capacity)
    people = with_identities(people or draw_people(scenario, supply), scenario, supply, identities)
    clock = ManualClock(0)
    with open_engine(clock, f"{scenario.seed}-{scenario.policy}") as engine:
        opening = AgentOpening(scenario, supply, people, plan, history, re_release_rule(scenario), engine, clock)
        metrics = opening.run(observe)
        findings = [str(finding) for finding in engine.audit().findings]
    if metrics.oversold:
        findings.insert(0, f"{metrics.oversold} places were confirmed above capacity")
    return AgentResult(metrics, history, tuple(findings))


def _run_trials(scenario: Scenario, supply: Supply, open_engine: OpenEngine) -> MarketHistory:
    """Run earlier openings until brokers give up, and return their history."""
    brokers = scenario.population.brokers
    history = MarketHistory(scenario.population, scenario.identity)
    if brokers.entry is BrokerEntry.NEVER:
        return history
    places = supply.capacity
    scale = min(1.0, brokers.trial_applicants / scenario.applicants)
    trial_places = max(round(places * scale), min(TRIAL_PLACES_MIN, places))
    trial_supply = supply.scaled_down([choice_from_booking(booking) for booking in scenario.bookings], trial_places)
    for number in range(brokers.trials):
        share = brokers.identities / places if brokers.identities else history.next_share()
        identities = max(1, round(share * trial_places))
        if not share or (history.has_given_up and brokers.entry is not BrokerEntry.ALWAYS):
            break
        metrics = _run(_trial_scenario(scenario, number), trial_supply, identities, history, open_engine).metrics
        history.trials.append(
            TrialOpening(share, metrics.orders, metrics.delivered, metrics.broker_profit, metrics.success_share)
        )
    return history


def _trial_scenario(scenario: Scenario, number: int) -> Scenario:
    """Return the scenario at the size of an earlier opening, with another seed."""
    text = f"{SEED_PREFIX}/{scenario.seed}/trial/{number}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
    applicants = min(scenario.applicants, scenario.population.brokers.trial_applicants)
    return msgspec.structs.replace(scenario, seed=seed, applicants=applicants)
