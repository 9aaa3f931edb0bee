"""A batch equals its commands, one after the other."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.domain.commands import Command
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.state_machine import apply, apply_batch
from tests.support.command_source import Step, format_steps
from tests.support.oracle_comparison import OFFICE
from tests.support.random_walks import walk

Batch = tuple[int, list[Command]]


def split(steps: list[Step], random: Random) -> list[Batch]:
    """Return the steps in batches of 0 to 12 commands, each at the time of its first command."""
    batches: list[Batch] = []
    start = 0
    while start < len(steps):
        size = random.randint(0, 12)
        batches.append((steps[start][0], [command for _, command in steps[start : start + size]]))
        start += size
    return batches


def check_batches(batches: list[Batch]) -> None:
    together = Ledger(OFFICE)
    apart = Ledger(OFFICE)
    taken: list[Step] = []
    for now_ms, commands in batches:
        taken += [(now_ms, command) for command in commands]
        outcomes = apply_batch(together, commands, now_ms)
        assert outcomes == [apply(apart, command, now_ms) for command in commands], format_steps(taken)
        assert describe(together) == describe(apart), format_steps(taken)
    assert list(together.events) == list(apart.events), format_steps(taken)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_a_seeded_batch_equals_its_commands_one_by_one(seed: int) -> None:
    """Outcomes, ledger and events are the same for every split into batches."""
    random = Random(seed)
    check_batches(split(walk(random), random))


@pytest.mark.slow
@given(random=st.randoms(use_true_random=False), steps_max=st.integers(1, 40))
def test_any_batch_equals_its_commands_one_by_one(random: Random, steps_max: int) -> None:
    """Hypothesis generates the walks."""
    check_batches(split(walk(random, steps_max), random))


def test_an_empty_batch_changes_nothing() -> None:
    ledger = Ledger(OFFICE)
    assert apply_batch(ledger, [], 1) == []
    assert list(ledger.events) == []
