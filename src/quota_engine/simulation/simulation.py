"""A simulation from its scenario to its result: the one entry that a face calls."""

from __future__ import annotations

__all__ = ["Prepared", "Result", "prepare", "simulate"]

import dataclasses
import datetime
import pathlib
from typing import Any

import msgspec

from quota_engine.clocks import ManualClock
from quota_engine.simulation.arrivals import Population, draw_population
from quota_engine.simulation.baseline import OldApplication
from quota_engine.simulation.engine_port import SimulatedEngine
from quota_engine.simulation.metrics import Measures
from quota_engine.simulation.opening import Observer, Spike
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market, open_market, wish_of
from quota_engine.simulation.trace import read_trace


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A scenario with its market and its population: all that is decided before the opening."""

    scenario: Scenario
    market: Market
    population: Population


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What came of a simulation. ``findings`` say what is wrong with the engine's run, one sentence each."""

    prepared: Prepared
    backend: str
    engine: Measures
    findings: tuple[str, ...]
    old: Measures | None

    @property
    def ok(self) -> bool:
        """Whether the engine kept its promises; what the old application did does not count."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON: the same for the same scenario and seed, byte for byte."""
        scenario, market, engine = self.prepared.scenario, self.prepared.market, self.engine
        opening = datetime.datetime.fromtimestamp(market.opening_ms / 1000, datetime.UTC)
        figures: dict[str, Any] = {
            "title": scenario.title,
            "seed": scenario.seed,
            "policy": str(scenario.policy),
            "backend": self.backend,
            "opening_at": opening.isoformat().replace("+00:00", "Z"),
            "offices": market.offices,
            "office_days": len(market.office_days),
            **engine.as_dict(),
            "resumed": engine.resumed,
            "waited": engine.waited,
            "holds_expired": engine.holds_expired,
            "findings": list(self.findings),
        }
        if self.old is not None:
            old = self.old
            figures["baseline"] = {
                **old.as_dict(),
                "logged_out": old.logged_out,
                "applicants_logged_out": old.applicants_logged_out,
                "double_booked": old.double_booked,
                "booked_unknowingly": old.booked_unknowingly,
            }
        return figures


def prepare(scenario: Scenario, file: str, trace: pathlib.Path | None = None) -> Prepared:
    """Open the market and draw the population, or read it from ``trace``; ``file`` names the scenario in mistakes.

    Raises ``CatalogError`` for a catalog, sale or trace with mistakes.
    """
    market = open_market(scenario, file)
    if trace is None:
        return Prepared(scenario, market, draw_population(scenario, market))
    population = read_trace(trace, market, wish_of(scenario.bookings[0]), scenario.seed)
    market = market.reached_by(population.wishes)
    return Prepared(msgspec.structs.replace(scenario, applicants=len(population)), market, population)


def simulate(
    prepared: Prepared,
    engine: SimulatedEngine,
    clock: ManualClock,
    *,
    backend: str,
    baseline: bool = False,
    observe: Observer | None = None,
    observe_baseline: Observer | None = None,
) -> Result:
    """Run the opening against a fresh engine that tells the time by ``clock``; with ``baseline`` the old one as well.

    ``backend`` is what the result calls the engine's store: no credentials, please. Raises ``BackendUnavailable``.
    """
    parts = (prepared.scenario, prepared.market, prepared.population)
    measures = Spike(*parts, engine, clock).run(observe)
    findings = [str(finding) for finding in engine.audit().findings]
    if measures.oversold:
        findings.insert(0, f"{measures.oversold} places were confirmed above capacity")
    if measures.holds_lost:
        findings.append(f"{measures.holds_lost} applicants came back after a crash and did not get their hold")
    old = OldApplication(*parts).run(observe_baseline) if baseline else None
    return Result(prepared, backend, measures, tuple(findings), old)
