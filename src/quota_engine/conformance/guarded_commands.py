"""Tests of guarded commands. ``test_backend`` has them for every store."""

from __future__ import annotations

__all__ = ["guarded", "test_guarded_commands", "test_guarded_scenario"]

from random import Random
from typing import Any

import pytest

from quota_engine.admission.guarded_command import (
    AdmissionPass,
    EnteringCommand,
    GuardedCommand,
    GuardedLedger,
    GuardedOutcome,
)
from quota_engine.admission.guarded_command import apply as apply_guarded
from quota_engine.admission.token_bucket import Charge, Limit, at_most, per_minute, per_second
from quota_engine.clocks import ManualClock
from quota_engine.conformance.guarded_scenarios import GUARDED_SCENARIOS, GuardedScenario
from quota_engine.conformance.plugin import OpenStore
from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.world import OFFICE, OPENS_AT_MS, published
from quota_engine.domain.commands import Command, MoveIn, Reserve
from quota_engine.domain.ledger import describe
from quota_engine.domain.outcomes import Status
from quota_engine.ports import ApplyMany, Audit, Describe


@pytest.mark.parametrize("scenario", GUARDED_SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_guarded_scenario(scenario: GuardedScenario, quota_engine_backend: OpenStore) -> None:
    """Statuses are as the scenario states, and outcomes and state equal the reference's."""
    clock = ManualClock(OPENS_AT_MS - 3_600_000)
    store, reference = quota_engine_backend(clock), GuardedLedger(OFFICE)
    for command in published():
        store.apply(OFFICE, command)
        apply_guarded(reference, command, clock.now_ms())
    for step in scenario.steps:
        clock.set_ms(OPENS_AT_MS + step.at_ms)
        found: Any = store.apply(OFFICE, step.command)
        assert found == apply_guarded(reference, step.command, clock.now_ms()), step
        assert getattr(found, "outcome", found).status is step.status, step
    assert store.execute(Describe(OFFICE)) == describe(reference)
    assert store.execute(Audit(OFFICE)) == []


def test_guarded_commands(quota_engine_backend: OpenStore) -> None:
    """Outcomes and state equal the reference's with passes, charges and shadow policies, alone and in batches."""
    random = Random(21)
    clock = ManualClock(OPENS_AT_MS - 3_600_000)
    store, reference = quota_engine_backend(clock), GuardedLedger(OFFICE)
    seen = set()
    commands: list[tuple[int, Any]] = [(clock.now_ms(), command) for command in published()]
    commands += [(now_ms, guarded(random, command, now_ms)) for now_ms, command in random_commands(21, 600)]
    while commands:
        size = random.choice((1, 1, 8)) if len(commands) < 590 else 1
        together, commands = commands[:size], commands[size:]
        now_ms = together[0][0]
        clock.set_ms(now_ms)
        expected = [apply_guarded(reference, command, now_ms) for _, command in together]
        if size == 1:
            found = [store.apply(OFFICE, together[0][1])]
        else:
            found = store.execute(ApplyMany(OFFICE, tuple(command for _, command in together)))
        assert found == expected, together
        assert store.execute(Describe(OFFICE)) == describe(reference)
        seen |= {one.outcome.status for one in found if isinstance(one, GuardedOutcome)}
    assert {Status.NOT_ADMITTED, Status.THROTTLED, Status.HELD, Status.SOLD_OUT, Status.IDENTITY_LIMIT} <= seen
    assert store.execute(Audit(OFFICE)) == []


def guarded(random: Random, command: Command, now_ms: int) -> Command | GuardedCommand:
    if not isinstance(command, EnteringCommand) or random.random() < 0.2:
        return command
    applicants = command.applicants if isinstance(command, Reserve | MoveIn) else ()
    limits = (per_minute(30, 3), per_second(7, 2), Limit(999_983, 1000, 1), at_most(2, per_second))
    names = random.sample(("account", "network", *applicants), random.choice((0, 1, 2)))
    charges = tuple(
        Charge(name, random.choice(limits), 1, random.random() < 0.2, random.random() < 0.2) for name in names
    )
    one = AdmissionPass(
        f"p{random.randrange(40)}", now_ms + random.choice((0, 1, 60_000, 3_600_000)), random.random() < 0.2
    )
    return GuardedCommand(command, charges, one if random.random() < 0.7 else None)
