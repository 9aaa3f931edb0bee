"""The switch that asserts conservation after every event."""

from __future__ import annotations

import pytest

from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, published, reserve
from quota_engine.domain.invariant_checks import set_invariant_checks
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.state_machine import apply


def _damaged_ledger() -> Ledger:
    """An office whose quota ``online`` counts one held unit too many."""
    ledger = Ledger(OFFICE)
    for command in published():
        apply(ledger, command, OPENS_AT_MS)
    ledger.days[DAY].quotas["online"].held += 1
    return ledger


def test_an_event_on_a_damaged_quota_raises() -> None:
    with pytest.raises(AssertionError, match=f"{OFFICE}, day {DAY}, quota online: .*'held': 2"):
        apply(_damaged_ledger(), reserve("ani", ONLINE), OPENS_AT_MS)


def test_nothing_is_checked_when_the_switch_is_off() -> None:
    set_invariant_checks(False)
    assert apply(_damaged_ledger(), reserve("ani", ONLINE), OPENS_AT_MS).ok
