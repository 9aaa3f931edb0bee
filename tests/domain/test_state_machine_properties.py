"""Random walks: the state machine and the oracle have the same outcomes and the same state.

Plain seeds drive the walks, which is fast, and Hypothesis does, which recombines parts of earlier walks. ``shrink``
leaves out commands and reduces a failure in a second; Hypothesis' own shrinking takes minutes.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from quota_engine.domain.commands import Command, Confirm, Publish, Release, Reschedule, Reserve, SetCapacity, SetRules
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.model import DayTerms, IdentityLimit, QuotaTerms, Rules
from quota_engine.domain.queries import lookup, view
from quota_engine.domain.state_machine import apply
from tests.support.command_source import Step, shrink
from tests.support.effort import PROFILE, seeds
from tests.support.oracle import Oracle
from tests.support.oracle_comparison import OFFICE, failure_report
from tests.support.random_walks import choice_of, walk

pytestmark = pytest.mark.slow

WALKS_PER_TEST = 10
TESTS = 1_500 if PROFILE == "long" else len(seeds(10, 30))


def check(steps: list[Step]) -> None:
    """Fail with the fewest steps, printed as a test."""
    if failure_report(steps):
        fewest = shrink(steps, lambda fewer: bool(failure_report(fewer)))
        pytest.fail(failure_report(fewest))


@pytest.mark.parametrize("first_seed", range(0, TESTS * WALKS_PER_TEST, WALKS_PER_TEST))
def test_seeded_walks_have_the_outcomes_of_the_oracle(first_seed: int) -> None:
    """Outcomes, records, counters, audit and rebuilt ledger agree after every command."""
    for seed in range(first_seed, first_seed + WALKS_PER_TEST):
        check(walk(Random(seed)))


@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(random=st.randoms(use_true_random=False), steps_max=st.integers(1, 50))
def test_any_walk_has_the_outcomes_of_the_oracle(random: Random, steps_max: int) -> None:
    """Hypothesis generates the walks."""
    check(walk(random, steps_max))


@pytest.mark.parametrize("seed", seeds(2, 5))
def test_more_overdue_holds_than_a_sweep_handles_change_no_outcome(seed: int) -> None:
    """Hundreds of holds expire together. Every outcome is as if all had expired at once (G5)."""
    random = Random(seed)
    ledger = Ledger(OFFICE)
    oracle = Oracle(OFFICE, swept_max=10_000)
    choices = [choice_of(("a",)), choice_of(("b",)), choice_of(("c",), ("a",)), choice_of(("a", "b"), ("b", "c"))]
    terms = DayTerms(0, 500, 600, 700, tuple(QuotaTerms(name, 150) for name in "abc"))
    rules = Rules(hold_ttl_ms=20, identity_limits=(IdentityLimit(1, 0),), reschedules_max=9)
    opening: list[Command] = [SetRules(rules), Publish(1, terms), Publish(2, terms)]

    def reserve(number: int) -> Command:
        return Reserve(f"r{number}", random.choice((1, 1, 1, 2)), (f"a{number % 450}",), random.choice(choices))

    def asked_later() -> Command:
        id = f"r{random.randrange(900)}"  # noqa: A001  (the contract's own word)
        match random.randrange(8):
            case 0:
                return Confirm(id, reacquire=random.random() < 0.5)
            case 1:
                return Release(id)
            case 2:
                return Reschedule(id, random.choice((1, 2)), random.choice(choices))
            case 3:
                return SetCapacity(1, random.choice("abc"), random.choice((150, 100, 20)))
            case _:
                return reserve(random.randrange(900))

    steps = [(0, command) for command in opening]
    steps += [(number // 100, reserve(number)) for number in range(450)]
    steps += [(19 + number // 20, asked_later()) for number in range(200)]
    for now_ms, command in steps:
        objection = oracle.apply(command, now_ms).difference_from(apply(ledger, command, now_ms))
        assert not objection, (objection, now_ms, command)
        for day in (1, 2) if now_ms >= 19 else ():
            assert view(ledger, day, now_ms) == oracle.view(day, now_ms), (now_ms, command)
    for number in range(900):
        assert lookup(ledger, f"r{number}", 30) == oracle.lookup(f"r{number}", 30)
