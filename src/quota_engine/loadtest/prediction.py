"""Prediction for a load test: the simulation of the same people, catalog and places under a virtual clock."""

from __future__ import annotations

__all__ = ["predict"]

import dataclasses
import hashlib
import itertools

from quota_engine.clocks import ManualClock
from quota_engine.domain.identity_format import ANY_FORM
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.loadtest.population import LoadPopulation
from quota_engine.simulation.metrics import Metrics
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.simulation import PreparedSimulation, simulate


def predict(scenario: Scenario, participants: LoadPopulation) -> Metrics:
    """Return the metrics of a simulated run on the store in memory.

    Bots, brokers and kiosks act at the same moments as in the test; between them they behave as applicants do.
    """
    numbers = itertools.count(1)
    clock = ManualClock(0)
    key = hashlib.sha256(f"load test {scenario.seed}".encode()).digest()
    with QuotaEngine.open(
        "memory://", identity_key=key, clock=clock, id_factory=lambda: f"sim-{next(numbers)}"
    ) as engine:
        # The people of a trace may have pseudonyms, which the catalog's form of identities does not admit.
        catalog = dataclasses.replace(participants.supply.catalog, identity_format=ANY_FORM)
        supply = dataclasses.replace(participants.supply, catalog=catalog)
        prepared = PreparedSimulation(scenario, supply, participants.population)
        return simulate(prepared, engine, clock, backend="memory://").engine
