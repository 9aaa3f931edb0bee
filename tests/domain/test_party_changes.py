"""Bounds of parties that change: the memory of former applicants, and the demands of a wait list."""

from __future__ import annotations

from quota_engine.conformance.world import DAY, OFFICE, ONLINE, OPENS_AT_MS, applicant, published, reserve
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import RemoveApplicant, ReplaceApplicant, Reserve
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.model import FORMER_APPLICANTS_MAX, Choice
from quota_engine.domain.offers import DEMANDS_MAX
from quota_engine.domain.outcomes import Status
from quota_engine.domain.state_machine import apply


def _ledger(**rules: object) -> Ledger:
    ledger = Ledger(OFFICE)
    for command in published(**rules):
        assert apply(ledger, command, OPENS_AT_MS).ok
    return ledger


def test_a_reservation_remembers_the_last_former_applicants() -> None:
    """A replay of an older change is no replay any more, and changes nothing."""
    ledger = _ledger()
    apply(ledger, reserve("a", ONLINE, "p0"), OPENS_AT_MS)
    for number in range(FORMER_APPLICANTS_MAX + 1):
        command = ReplaceApplicant("a", applicant(f"p{number}"), applicant(f"p{number + 1}"))
        assert apply(ledger, command, OPENS_AT_MS).ok
    record = ledger.reservations["a"]
    assert len(record.former_applicants) == FORMER_APPLICANTS_MAX
    assert record.former_applicants[0] == applicant("p1")
    forgotten = ReplaceApplicant("a", applicant("p0"), applicant("p1"))
    assert apply(ledger, forgotten, OPENS_AT_MS).status is Status.NOT_IN_PARTY
    assert ledger.claims == {applicant(f"p{FORMER_APPLICANTS_MAX + 1}"): "a"}
    assert audit(ledger) == []


def test_a_smaller_party_is_a_demand_that_the_wait_list_must_have_room_for() -> None:
    ledger = _ledger(wait_list_max=DEMANDS_MAX + 9)
    apply(ledger, Reserve("held", DAY, (applicant("held"),), _choice(0)), OPENS_AT_MS)
    for number in range(DEMANDS_MAX):
        party = tuple(applicant(f"{number}-{member}") for member in range(2))
        waiting = apply(ledger, Reserve(f"w{number}", DAY, party, _choice(number), True), OPENS_AT_MS)
        assert waiting.status is Status.WAITING
    leaving = RemoveApplicant("w7", applicant=applicant("7-1"))
    outcome = apply(ledger, leaving, OPENS_AT_MS)
    assert outcome.status is Status.WAIT_LIST_FULL
    assert outcome.reservation == ledger.reservations["w7"]
    assert audit(ledger) == []


def _choice(number: int) -> Choice:
    return Choice(f"service-{number}", "", "", "", "", (("priority",),))
