"""The conformance scenarios on the pure state machine, and their coverage."""

from __future__ import annotations

import pytest

from quota_engine.conformance.scenarios import SCENARIOS, ConformanceScenario
from quota_engine.conformance.world import OFFICE, OPENS_AT_MS
from quota_engine.domain.audit import audit
from quota_engine.domain.event_handlers import rebuild
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.outcomes import PRECEDENCE, SUCCESSES, Outcome, Status
from quota_engine.domain.state_machine import apply


def run_scenario(scenario: ConformanceScenario) -> tuple[Ledger, list[Outcome]]:
    ledger = Ledger(OFFICE)
    for command in scenario.setup:
        apply(ledger, command, OPENS_AT_MS - 3_600_000)
    return ledger, [apply(ledger, step.command, OPENS_AT_MS + step.at_ms) for step in scenario.steps]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_scenario(scenario: ConformanceScenario) -> None:
    """The statuses are as expected, the audit finds nothing, and the events rebuild the ledger."""
    ledger, outcomes = run_scenario(scenario)
    assert [one.status for one in outcomes] == [step.status for step in scenario.steps]
    assert audit(ledger) == []
    assert describe(rebuild(OFFICE, ledger.events)) == describe(ledger)


def test_the_scenarios_reach_every_status() -> None:
    """Every status that the state machine returns has a row, so that no store can omit one."""
    reached = {outcome.status for scenario in SCENARIOS for outcome in run_scenario(scenario)[1]}
    # Returned by the store client, by guarded reserves, or by moves between offices.
    elsewhere = {Status.OVERLOADED, Status.NOT_ADMITTED, Status.THROTTLED, Status.MOVING}
    assert set(Status) - reached == elsewhere


def test_the_scenarios_take_every_transition() -> None:
    """Every permitted step has a row, and no scenario takes another step."""
    taken: set[tuple[State | None, Verb]] = set()
    for scenario in SCENARIOS:
        states: dict[str, State] = {}
        for event in run_scenario(scenario)[0].events:
            if isinstance(event, ReservationChanged):
                record = event.reservation
                begins = record.version == 1  # an id may come again once its day has been forgotten
                step = (None if begins else states[record.id], event.verb)
                assert TRANSITIONS[step] is record.state
                taken.add(step)
                states[record.id] = record.state
    assert taken == set(TRANSITIONS)


def test_refusals_precede_successes() -> None:
    assert [status in SUCCESSES for status in PRECEDENCE] == sorted(status in SUCCESSES for status in PRECEDENCE)
    assert Outcome(Status.HELD).ok
    assert not Outcome(Status.WAIT_LIST_FULL).ok
