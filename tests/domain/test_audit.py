"""The audit finds each kind of inconsistency. Each test damages a consistent ledger in one way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from quota_engine.conformance.world import COOLING, DAY, OFFICE, ONLINE, OPENS_AT_MS, PRIORITY, published, reserve
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Cancel, Confirm
from quota_engine.domain.event_handlers import evolve
from quota_engine.domain.events import DayClosed, ReservationChanged
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.model import GuardScope
from quota_engine.domain.state_machine import apply


def consistent_ledger() -> Ledger:
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


def damage_free(ledger: Ledger) -> None:
    ledger.days[DAY].quotas["online"].free += 1


def damage_counters(ledger: Ledger) -> None:
    ledger.days[DAY].quotas["online"].confirmed -= 1
    ledger.days[DAY].quotas["online"].free += 1


def damage_cooling(ledger: Ledger) -> None:
    ledger.days[DAY].quotas["slow"].cooling_due.clear()


def damage_numbers(ledger: Ledger) -> None:
    ledger.reservations["budi"] = replace(ledger.reservations["budi"], queue_number=1)


def damage_next_number(ledger: Ledger) -> None:
    ledger.days[DAY].last_queue_number = 1


def damage_wait_list(ledger: Ledger) -> None:
    ledger.days[DAY].waiting.clear()


def damage_wait_list_number(ledger: Ledger) -> None:
    ledger.days[DAY].last_wait_list_number = 0


def damage_claims(ledger: Ledger) -> None:
    ledger.claims.popitem()


def damage_guards(ledger: Ledger) -> None:
    ledger.days[DAY].guards = {"slow": GuardScope()}


def damage_record(ledger: Ledger) -> None:
    ledger.reservations["eko"] = replace(ledger.reservations["eko"], version=9)


def damage_order_of_events(ledger: Ledger) -> None:
    ledger.events.insert(0, DayClosed(OPENS_AT_MS, DAY))


def damage_events(ledger: Ledger) -> None:
    ledger.events.pop()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (damage_free, f"day {DAY}, quota online: free units are not capacity - held"),
        (
            damage_counters,
            f"day {DAY}, quota online: counts 0 held and 1 confirmed, but the records add up to 0 held and 2 confirmed",
        ),
        (damage_cooling, f"day {DAY}, quota slow: cooling units are not the sum of parked"),
        (damage_numbers, f"day {DAY}: queue number 1 was given twice"),
        (damage_next_number, f"day {DAY}: a reservation has a queue number above the last one given"),
        (damage_wait_list, f"day {DAY}: the wait list differs from the records"),
        (damage_wait_list_number, f"day {DAY}: a reservation has a wait-list number above the last one given"),
        (damage_claims, "the index of identity claims differs from the records"),
        (damage_guards, f"day {DAY}: reservation ani does not consume all guards that count it"),
        (damage_record, "replaying the events leads to a different state"),
        (damage_order_of_events, "event 1 does not fit the events before it"),
        (damage_events, "replaying the events leads to a different state"),
    ],
)
def test_a_damaged_ledger_has_a_finding(damage: Callable[[Ledger], None], finding: str) -> None:
    ledger = consistent_ledger()
    damage(ledger)
    assert any(one.startswith(f"office {OFFICE}: {finding}") for one in audit(ledger))


def test_an_oversale_is_found_in_the_events() -> None:
    """The finding names the reservation, even though every counter agrees with it."""
    ledger = consistent_ledger()
    record = ledger.reservations["ani"]
    extra = replace(record, id="extra", applicants=("x",), state=State.HELD, queue_number=0)
    evolve(ledger, ReservationChanged(OPENS_AT_MS, Verb.RESERVE, extra))
    assert audit(ledger) == [f"office {OFFICE}: day {DAY}, quota online: oversold by reservation extra (reserve)"]


def test_a_trimmed_ledger_is_audited_from_its_records() -> None:
    """A ledger with trimmed events cannot be rebuilt. The audit does not report that."""
    ledger = consistent_ledger()
    ledger.events.clear()
    assert audit(ledger, from_events=False) == []
