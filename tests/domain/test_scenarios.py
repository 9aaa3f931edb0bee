"""The scenarios, run on the pure machine, and what they reach between them."""

from __future__ import annotations

import pytest

from quota_engine.conformance.scenarios import SCENARIOS, Scenario
from quota_engine.conformance.world import OFFICE, OPENS_AT_MS
from quota_engine.domain.audit import audit
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.ledger import Ledger, describe, rebuild
from quota_engine.domain.lifecycle import TRANSITIONS, State, Verb
from quota_engine.domain.outcomes import PRECEDENCE, SUCCESSES, Outcome, Status
from quota_engine.domain.state_machine import apply


def play(scenario: Scenario) -> tuple[Ledger, list[Outcome]]:
    ledger = Ledger(OFFICE)
    for command in scenario.setup:
        apply(ledger, command, OPENS_AT_MS - 3_600_000)
    return ledger, [apply(ledger, step.command, OPENS_AT_MS + step.at_ms) for step in scenario.steps]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_scenario(scenario: Scenario) -> None:
    """Each step comes to its status, the ledger adds up, and its events rebuild it."""
    ledger, outcomes = play(scenario)
    assert [one.status for one in outcomes] == [step.status for step in scenario.steps]
    assert audit(ledger) == []
    assert describe(rebuild(OFFICE, ledger.events)) == describe(ledger)


def test_the_scenarios_reach_every_status() -> None:
    """There is a row for every status that the rules can give, so that no backend can leave one out."""
    reached = {outcome.status for scenario in SCENARIOS for outcome in play(scenario)[1]}
    # Given before the rules are asked (admission: to guarded reserves), or by a flow that asks more than one office.
    elsewhere = {Status.OVERLOADED, Status.NOT_ADMITTED, Status.THROTTLED, Status.MOVING}
    assert set(Status) - reached == elsewhere


def test_the_scenarios_take_every_transition() -> None:
    """There is a row for every permitted step of the life cycle, and none takes another."""
    taken: set[tuple[State | None, Verb]] = set()
    for scenario in SCENARIOS:
        states: dict[str, State] = {}
        for event in play(scenario)[0].events:
            if isinstance(event, ReservationChanged):
                record = event.reservation
                begins = record.version == 1  # an id may come again once its day has been forgotten
                step = (None if begins else states[record.id], event.verb)
                assert TRANSITIONS[step] is record.state
                taken.add(step)
                states[record.id] = record.state
    assert taken == set(TRANSITIONS)


def test_successes_stand_behind_all_refusals() -> None:
    """In the order of precedence a success is what is left when nothing stands in the way."""
    assert [status in SUCCESSES for status in PRECEDENCE] == sorted(status in SUCCESSES for status in PRECEDENCE)
    assert Outcome(Status.HELD).ok
    assert not Outcome(Status.WAIT_LIST_FULL).ok
