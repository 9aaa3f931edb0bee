"""What a policy is worth: an opening with agents, after earlier openings from which they have learned; or all policies.

Earlier openings are smaller, have other seeds and the same rules. They are run against engines of their own.
"""

from __future__ import annotations

__all__ = ["Comparison", "OpenEngine", "Opened", "compare", "contest", "rerelease_of"]

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
from quota_engine.simulation.agent_metrics import ContestMeasures
from quota_engine.simulation.agent_opening import Contest
from quota_engine.simulation.brokers import Experience, Trial
from quota_engine.simulation.engine_port import SimulatedEngine
from quota_engine.simulation.opening import Observer
from quota_engine.simulation.people import People, draw_people, with_identities
from quota_engine.simulation.population_config import Enters, ReRelease
from quota_engine.simulation.rng import SEED_PREFIX
from quota_engine.simulation.scenario import Policy, Scenario
from quota_engine.simulation.supply import Market, open_market, wish_of

TRIAL_PLACES_MIN = 10
"""The fewest places at an earlier opening, if there are so many at this one."""

OpenEngine = Callable[[ManualClock, str], contextlib.AbstractContextManager[SimulatedEngine]]
"""Opens a fresh engine that tells the time by the clock; the text goes into the ids that it makes up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """An opening with agents under one policy. ``findings`` say what is wrong with the engine's run."""

    measures: ContestMeasures
    experience: Experience
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {**self.measures.as_dict(), "findings": list(self.findings)}


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """The same people before several policies."""

    scenario: Scenario
    market: Market
    backend: str
    policies: tuple[Opened, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong with the engine's runs, and under which policy."""
        return tuple(
            f"{opened.measures.scenario.policy}: {finding}" for opened in self.policies for finding in opened.findings
        )

    @property
    def ok(self) -> bool:
        """Whether the engine kept its promises under every policy."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON: the same for the same scenario and seed, byte for byte."""
        opening = datetime.datetime.fromtimestamp(self.market.opening_ms / 1000, datetime.UTC)
        return {
            "title": self.scenario.title,
            "seed": self.scenario.seed,
            "backend": self.backend,
            "opening_at": opening.isoformat().replace("+00:00", "Z"),
            "offices": self.market.offices,
            "office_days": len(self.market.office_days),
            "applicants": self.scenario.applicants,
            "capacity": self.market.capacity,
            "policies": [opened.as_dict() for opened in self.policies],
            "findings": list(self.findings),
        }


def rerelease_of(scenario: Scenario) -> ReRelease:
    """Where places go that are given back: as the scenario says, or as goes with the policy."""
    if scenario.rerelease is not None:
        return scenario.rerelease
    return ReRelease.NEXT_DRAW if scenario.policy is Policy.DRAW else ReRelease.IMMEDIATE


def compare(
    scenario: Scenario,
    file: str,
    open_engine: OpenEngine,
    *,
    backend: str,
    open_trial: OpenEngine | None = None,
    policies: tuple[Policy, ...] = tuple(Policy),
    observe: Callable[[Policy], Observer | None] | None = None,
) -> Comparison:
    """Let the same people come to an opening under each policy; ``file`` names the scenario in mistakes.

    Raises ``CatalogError`` for a catalog or a sale with mistakes.
    """
    market = open_market(scenario, file)
    people = draw_people(scenario, market)
    opened = []
    for policy in policies:
        one = msgspec.structs.replace(scenario, policy=policy)
        watched = observe(policy) if observe else None
        opened.append(contest(one, market, open_engine, open_trial=open_trial, people=people, observe=watched))
    return Comparison(scenario, market, backend, tuple(opened))


def contest(
    scenario: Scenario,
    market: Market,
    open_engine: OpenEngine,
    *,
    open_trial: OpenEngine | None = None,
    people: People | None = None,
    observe: Observer | None = None,
) -> Opened:
    """One opening under the scenario's policy, after the earlier ones; those are run on engines of ``open_trial``.

    ``people`` are those whom :func:`~quota_engine.simulation.people.draw_people` draws for the scenario, if they are
    there.
    """
    market = _with_rerelease(market, rerelease_of(scenario))
    experience = _learn(scenario, market, open_trial or open_engine)
    plan = experience.plan(market.capacity)
    return _open(scenario, market, plan.identities, experience, open_engine, people, observe)


def _with_rerelease(market: Market, rerelease: ReRelease) -> Market:
    terms = {
        ReRelease.IMMEDIATE: ReReleaseTerms(ReReleaseRule.AT_ONCE),
        # What Surabaya's catalog has: 10 to 30 minutes.
        ReRelease.COOLING: ReReleaseTerms(ReReleaseRule.COOLING, 600_000, 1_200_000),
        ReRelease.NEXT_DRAW: ReReleaseTerms(ReReleaseRule.NEXT_DRAW),
    }[rerelease]
    offices = {
        name: dataclasses.replace(view, re_releases=dict.fromkeys(view.re_releases, terms))
        for name, view in market.catalog.offices.items()
    }
    return dataclasses.replace(market, catalog=dataclasses.replace(market.catalog, offices=offices))


def _open(
    scenario: Scenario,
    market: Market,
    identities: int,
    experience: Experience,
    open_engine: OpenEngine,
    people: People | None = None,
    observe: Observer | None = None,
) -> Opened:
    plan = experience.plan_of(identities, market.capacity)
    people = with_identities(people or draw_people(scenario, market), scenario, market, identities)
    clock = ManualClock(0)
    with open_engine(clock, f"{scenario.seed}-{scenario.policy}") as engine:
        run = Contest(scenario, market, people, plan, experience, rerelease_of(scenario), engine, clock)
        measures = run.run(observe)
        findings = [str(finding) for finding in engine.audit().findings]
    if measures.oversold:
        findings.insert(0, f"{measures.oversold} places were confirmed above capacity")
    return Opened(measures, experience, tuple(findings))


def _learn(scenario: Scenario, market: Market, open_engine: OpenEngine) -> Experience:
    """The openings before this one, for as long as brokers try."""
    brokers = scenario.society.brokers
    experience = Experience(scenario.society, scenario.identity)
    if brokers.enters is Enters.NEVER:
        return experience
    places = market.capacity
    scale = min(1.0, brokers.trial_applicants / scenario.applicants)
    trial_places = max(round(places * scale), min(TRIAL_PLACES_MIN, places))
    smaller = market.smaller([wish_of(booking) for booking in scenario.bookings], trial_places)
    for number in range(brokers.trials):
        share = brokers.identities / places if brokers.identities else experience.next_share()
        identities = max(1, round(share * trial_places))
        if not share or (experience.has_given_up and brokers.enters is not Enters.ALWAYS):
            break
        measures = _open(_smaller(scenario, number), smaller, identities, experience, open_engine).measures
        experience.trials.append(
            Trial(share, measures.orders, measures.delivered, measures.broker_profit, measures.own_success_share)
        )
    return experience


def _smaller(scenario: Scenario, number: int) -> Scenario:
    """The scenario at the size of an earlier opening, with a seed of its own."""
    text = f"{SEED_PREFIX}/{scenario.seed}/trial/{number}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
    applicants = min(scenario.applicants, scenario.society.brokers.trial_applicants)
    return msgspec.structs.replace(scenario, seed=seed, applicants=applicants)
