"""The quick answer of sold-out days is the state machine's, and is given whenever nothing else can matter."""

from __future__ import annotations

import pytest

from quota_engine.conformance.random_commands import random_commands
from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.commands import Reserve
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.sold_out import is_certainly_sold_out
from quota_engine.domain.state_machine import apply


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rules", [{"abandoned_holds_max": 0}, {"abandoned_holds_max": 2}])
def test_the_quick_answer_is_that_of_the_machine(seed: int, rules: dict[str, int]) -> None:
    """A reserve that is certainly sold out is refused as such, without an event."""
    ledger = Ledger(OFFICE)
    for command in published(**rules):
        apply(ledger, command, OPENS_AT_MS - 1)
    for now_ms, command in random_commands(seed, 500):
        is_certain = isinstance(command, Reserve) and is_certainly_sold_out(ledger, command, now_ms)
        before = (describe(ledger), len(ledger.events)) if is_certain else None
        outcome = apply(ledger, command, now_ms)
        if is_certain:
            assert outcome == Outcome(Status.SOLD_OUT), command
            assert (describe(ledger), len(ledger.events)) == before


def test_strangers_to_a_sold_out_day_get_the_quick_answer() -> None:
    """Until something is due, or the day is not open."""
    ledger = Ledger(OFFICE)
    for command in published():
        apply(ledger, command, OPENS_AT_MS)
    for key in ("ani", "budi", "citra"):
        apply(ledger, reserve(key, ONLINE), OPENS_AT_MS)
    assert is_certainly_sold_out(ledger, reserve("dewi", ONLINE), OPENS_AT_MS + 1)
    assert not is_certainly_sold_out(ledger, reserve("ani", ONLINE), OPENS_AT_MS + 1)
    assert not is_certainly_sold_out(ledger, reserve("other-key", ONLINE, "ani"), OPENS_AT_MS + 1)
    assert not is_certainly_sold_out(ledger, reserve("dewi", ONLINE, wait=True), OPENS_AT_MS + 1)
    assert not is_certainly_sold_out(ledger, reserve("dewi", ONLINE, day=DAY + 7), OPENS_AT_MS + 1)
    assert not is_certainly_sold_out(ledger, reserve("dewi", ONLINE), OPENS_AT_MS - 1)
    assert not is_certainly_sold_out(ledger, reserve("dewi", ONLINE), OPENS_AT_MS + 3_600_000)
