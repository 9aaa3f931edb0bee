"""Entry point of a simulation without agents: from a scenario to a result."""

from __future__ import annotations

__all__ = ["PreparedSimulation", "SimulationResult", "prepare", "simulate"]

import dataclasses
import datetime
import pathlib
from typing import Any

import msgspec

from quota_engine.clocks import ManualClock
from quota_engine.domain.notebook_tables import html_table
from quota_engine.simulation.arrivals import Population, draw_population
from quota_engine.simulation.baseline import BaselineApplication
from quota_engine.simulation.engine_port import SimulatedEngine
from quota_engine.simulation.event_queue import ProgressObserver
from quota_engine.simulation.metrics import Metrics
from quota_engine.simulation.opening import Opening
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply, build_supply, choice_from_booking
from quota_engine.simulation.trace import read_trace


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedSimulation:
    """A scenario with its supply and its population, which are fixed before the opening."""

    scenario: Scenario
    supply: Supply
    population: Population


@dataclasses.dataclass(frozen=True, slots=True)
class SimulationResult:
    """Metrics of the engine's run and of the baseline's. Each of ``findings`` states a broken guarantee."""

    prepared: PreparedSimulation
    backend: str
    engine: Metrics
    findings: tuple[str, ...]
    baseline: Metrics | None

    @property
    def ok(self) -> bool:
        """True if the engine's run has no findings. The baseline's run does not count."""
        return not self.findings

    def _repr_html_(self) -> str:
        """Return a table of the figures for a notebook."""
        figures = [
            (name.replace("_", " "), value) for name, value in self.as_dict().items() if not isinstance(value, dict)
        ]
        return html_table(self.prepared.scenario.title, (), figures)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON. The same scenario and seed give the same bytes."""
        scenario, supply, engine = self.prepared.scenario, self.prepared.supply, self.engine
        opening = datetime.datetime.fromtimestamp(supply.opening_ms / 1000, datetime.UTC)
        figures: dict[str, Any] = {
            "title": scenario.title,
            "seed": scenario.seed,
            "policy": str(scenario.policy),
            "backend": self.backend,
            "opening_at": opening.isoformat().replace("+00:00", "Z"),
            "offices": supply.offices,
            "office_days": len(supply.office_days),
            **engine.as_dict(),
            "resumed": engine.resumed,
            "waited": engine.waited,
            "holds_expired": engine.holds_expired,
            "findings": list(self.findings),
        }
        if self.baseline is not None:
            baseline = self.baseline
            figures["baseline"] = {
                **baseline.as_dict(),
                "logged_out": baseline.logged_out,
                "applicants_logged_out": baseline.applicants_logged_out,
                "double_booked": baseline.double_booked,
                "booked_unknowingly": baseline.booked_unknowingly,
            }
        return figures


def prepare(scenario: Scenario, file: str, trace: pathlib.Path | None = None) -> PreparedSimulation:
    """Build the supply, and draw the population or read it from ``trace``.

    Args:
        scenario: The scenario.
        file: Name of the scenario in validation issues.
        trace: A CSV file that replaces the arrival model.

    Raises:
        CatalogError: The catalog, the sale or the trace is invalid.
    """
    supply = build_supply(scenario, file)
    if trace is None:
        return PreparedSimulation(scenario, supply, draw_population(scenario, supply))
    population = read_trace(trace, supply, choice_from_booking(scenario.bookings[0]), scenario.seed)
    supply = supply.with_reachable_places(population.choices)
    return PreparedSimulation(msgspec.structs.replace(scenario, applicants=len(population)), supply, population)


def simulate(
    prepared: PreparedSimulation,
    engine: SimulatedEngine,
    clock: ManualClock,
    *,
    backend: str,
    baseline: bool = False,
    observe: ProgressObserver | None = None,
    observe_baseline: ProgressObserver | None = None,
) -> SimulationResult:
    """Run the opening against an engine, and optionally against the baseline.

    Args:
        prepared: Scenario, supply and population.
        engine: A fresh engine that reads ``clock``.
        clock: Clock that the run sets.
        backend: Name of the engine's store in the result, without credentials.
        baseline: Run the baseline application as well.
        observe: Called with the progress of the engine's run.
        observe_baseline: Called with the progress of the baseline's run.

    Raises:
        BackendUnavailable: The store cannot be reached.
    """
    parts = (prepared.scenario, prepared.supply, prepared.population)
    metrics = Opening(*parts, engine, clock).run(observe)
    findings = [str(finding) for finding in engine.audit().findings]
    if metrics.oversold:
        findings.insert(0, f"{metrics.oversold} places were confirmed above capacity")
    if metrics.holds_lost:
        findings.append(f"{metrics.holds_lost} applicants returned after a crash and did not get their hold")
    baseline_metrics = BaselineApplication(*parts).run(observe_baseline) if baseline else None
    return SimulationResult(prepared, backend, metrics, tuple(findings), baseline_metrics)
