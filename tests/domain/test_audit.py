"""The audit finds what it is there to find: each test spoils a sound ledger in one way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from quota_engine.conformance.world import COOLING, DAY, OFFICE, ONLINE, OPENS_AT_MS, PRIORITY, published, reserve
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Cancel, Confirm
from quota_engine.domain.events import ReservationChanged
from quota_engine.domain.ledger import Ledger, evolve
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.state_machine import apply


def sound() -> Ledger:
    ledger = Ledger(OFFICE)
    for command in (
        *published(),
        reserve("ani", ONLINE),
        reserve("budi", ONLINE),
        Confirm("ani"),
        Confirm("budi"),
        reserve("citra", PRIORITY),
        reserve("dewi", PRIORITY, wait=True),
        reserve("eko", COOLING),
        Confirm("eko"),
        Cancel("eko"),
    ):
        assert apply(ledger, command, OPENS_AT_MS).ok
    assert audit(ledger) == []
    return ledger


def spoil_free(ledger: Ledger) -> None:
    ledger.days[DAY].quotas["online"].free += 1


def spoil_counters(ledger: Ledger) -> None:
    ledger.days[DAY].quotas["online"].confirmed -= 1
    ledger.days[DAY].quotas["online"].free += 1


def spoil_cooling(ledger: Ledger) -> None:
    ledger.days[DAY].quotas["slow"].cooling_due.clear()


def spoil_numbers(ledger: Ledger) -> None:
    ledger.reservations["budi"] = replace(ledger.reservations["budi"], queue_number=1)


def spoil_next_number(ledger: Ledger) -> None:
    ledger.days[DAY].last_queue_number = 1


def spoil_wait_list(ledger: Ledger) -> None:
    ledger.days[DAY].waiting.clear()


def spoil_claims(ledger: Ledger) -> None:
    ledger.claims.popitem()


def spoil_events(ledger: Ledger) -> None:
    ledger.events.pop()


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (spoil_free, f"day {DAY}, quota online: free units are not capacity - held"),
        (
            spoil_counters,
            f"day {DAY}, quota online: counts 0 held and 1 confirmed, but the records add up to 0 held and 2 confirmed",
        ),
        (spoil_cooling, f"day {DAY}, quota slow: cooling units are not the sum of parked"),
        (spoil_numbers, f"day {DAY}: queue number 1 was given twice"),
        (spoil_next_number, f"day {DAY}: a reservation has a queue number above the last one given"),
        (spoil_wait_list, f"day {DAY}: the wait list differs from the records"),
        (spoil_claims, "the index of identity claims differs from the records"),
        (spoil_events, "replaying the events leads to a different state"),
    ],
)
def test_a_spoilt_ledger_is_found_out(spoil: Callable[[Ledger], None], finding: str) -> None:
    """The finding names the place and what does not add up."""
    ledger = sound()
    spoil(ledger)
    assert any(one.startswith(f"office {OFFICE}: {finding}") for one in audit(ledger))


def test_an_oversale_is_found_in_the_events() -> None:
    """A place sold beyond the capacity is named with its reservation, though every counter agrees with it."""
    ledger = sound()
    record = ledger.reservations["ani"]
    extra = replace(record, id="extra", applicants=("x",), state=State.HELD, queue_number=0)
    evolve(ledger, ReservationChanged(OPENS_AT_MS, Verb.RESERVE, extra))
    assert audit(ledger) == [f"office {OFFICE}: day {DAY}, quota online: oversold by reservation extra (reserve)"]


def test_without_events_the_rest_is_still_checked() -> None:
    """A ledger whose log has been trimmed can not be rebuilt, and is not blamed for it."""
    ledger = sound()
    ledger.events.clear()
    assert audit(ledger, from_events=False) == []
