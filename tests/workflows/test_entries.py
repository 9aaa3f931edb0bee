"""Entries step by step: what changes between the decision of the policies and the command."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.admission import AdmissionPass, PassRequiredPolicy, PolicyRequest, ScopedPolicy
from quota_engine.admission.guarded_command import GuardedCommand
from quota_engine.domain.commands import Confirm, MoveIn, Reschedule
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.workflows import entries, office_moves
from quota_engine.workflows.admission_gate import AdmissionGate, CallAdmission
from quota_engine.workflows.generator_drivers import Apply
from quota_engine.workflows.office_moves import MOVE_LEASE_MS, MovesReport
from tests.support.multi_office import ANI, ANY_SELECTION, BUDI, DAY, HOLD_TTL_MS, NEXT_DAY, Nation, SteppedWorkflow

NATIONAL = pytest.mark.parametrize("national", [False, True], ids=["plain", "national"])
PASS_MS = 3_600_000


def admission(nation: Nation, admission_pass: str = "", *, office: str = "") -> CallAdmission:
    """Return the admission of a call to an engine that requires a pass for the second day, or for an office."""

    def check(text: str, request: PolicyRequest) -> AdmissionPass:
        return AdmissionPass(text, request.now_ms + PASS_MS)

    days = None if office else (NEXT_DAY.toordinal(), NEXT_DAY.toordinal())
    policy = ScopedPolicy(PassRequiredPolicy("room", check), offices=frozenset({office} if office else ()), days=days)
    return CallAdmission(AdmissionGate(policy, None, nation.clock), ("", "", ""), admission_pass)


def held(nation: Nation, office: str = "east") -> Outcome:
    outcome = nation.engine.reserve(office, DAY, ANI)
    assert outcome.status is Status.HELD
    return outcome


def rescheduling(nation: Nation, reference: str, day: Any, shown: str = "", *, version: int = 0) -> SteppedWorkflow:
    office, command = nation.requests.reschedule(reference, day, ANY_SELECTION, None, version)
    return SteppedWorkflow(
        entries.reschedule(nation.requests, admission(nation, shown), office, command), nation.backend
    )


def moving(nation: Nation, reference: str, shown: str = "") -> SteppedWorkflow:
    allowed = admission(nation, shown, office="west")
    workflow = office_moves.reschedule(nation.requests, allowed, reference, DAY, "west", ANY_SELECTION, None, 0)
    return SteppedWorkflow(workflow, nation.backend)


class TestAReschedule:
    @NATIONAL
    def test_a_reservation_that_changes_meanwhile_needs_a_pass(self, national: bool) -> None:
        """It has the wanted day when the policies decide, and so asks nothing. Then it leaves that day."""
        nation = Nation(national=national, places=1)
        reference = held(nation).reference
        assert rescheduling(nation, reference, NEXT_DAY, "p1").run().ok
        again = rescheduling(nation, reference, NEXT_DAY)
        again.run(1)
        assert rescheduling(nation, reference, DAY).run().ok
        refused = again.run()
        assert (refused.status, refused.reason) == (Status.NOT_ADMITTED, "no_pass")
        assert nation.lookup(reference).day == DAY.toordinal()
        nation.check()

    def test_an_unknown_reservation_is_not_sent(self) -> None:
        """Its key could be used in between, for a day that asks nothing."""
        nation = Nation(national=False)
        late = rescheduling(nation, "east~mine", NEXT_DAY)
        late.run(1)
        nation.engine.reserve("east", DAY, ANI, idempotency_key="mine")
        assert late.run().status is Status.NOT_FOUND
        assert nation.lookup("east~mine").day == DAY.toordinal()

    def test_a_version_that_comes_later_does_not_pass(self) -> None:
        """The caller expects the version that the reservation will have on another day."""
        nation = Nation(national=False)
        reference = held(nation).reference
        assert rescheduling(nation, reference, NEXT_DAY, "p1").run().ok
        late = rescheduling(nation, reference, NEXT_DAY, version=3)
        late.run(1)
        assert rescheduling(nation, reference, DAY).run().ok
        assert nation.lookup(reference).version == 3
        assert late.run().status is Status.STALE
        assert nation.lookup(reference).day == DAY.toordinal()

    def test_a_reservation_that_keeps_changing_is_stale(self) -> None:
        nation = Nation(national=False, reschedules_max=100)
        reference = held(nation).reference
        workflow = rescheduling(nation, reference, DAY)
        while not workflow.is_done:
            workflow.run(1)
            assert nation.engine.reschedule(reference, NEXT_DAY).ok
            workflow.run(1)
            assert nation.engine.reschedule(reference, DAY).ok
        assert workflow.result.status is Status.STALE
        assert workflow.steps == 2 * entries.ATTEMPTS_MAX

    def test_without_policies_it_is_one_command(self) -> None:
        nation = Nation(national=False)
        none = CallAdmission(None, ("", "", ""), "")
        office, command = nation.requests.reschedule(held(nation).reference, NEXT_DAY, ANY_SELECTION, None, 0)
        assert entries.reschedule(nation.requests, none, office, command) == Apply("east", command)
        confirm = Confirm("x", reacquire=True)
        assert entries.confirm(nation.requests, none, "east", confirm) == Apply("east", confirm)


class TestALateConfirm:
    @NATIONAL
    def test_a_live_hold_uses_no_pass(self, national: bool) -> None:
        """The pass of a confirm whose hold has not expired can take another place."""
        nation = Nation(national=national)
        reference = held(nation).reference
        allowed = admission(nation, "p1", office="east")
        command = Confirm(reference.partition("~")[2], reacquire=True)
        workflow = SteppedWorkflow(entries.confirm(nation.requests, allowed, "east", command), nation.backend)
        assert workflow.run().status is Status.CONFIRMED
        other = nation.requests.reserve("east", DAY, BUDI, ANY_SELECTION, "k", False, 0)
        reserving = entries._reserve(nation.requests, allowed, "east", other)
        assert SteppedWorkflow(reserving, nation.backend).run().status is Status.HELD

    @NATIONAL
    def test_the_pass_travels_with_the_confirm(self, national: bool) -> None:
        """A place that another client re-acquired in between costs nothing."""
        nation = Nation(national=national)
        reference = held(nation).reference
        nation.clock.advance_ms(HOLD_TTL_MS)
        command = Confirm(reference.partition("~")[2], reacquire=True)

        def confirming(shown: str) -> SteppedWorkflow:
            allowed = admission(nation, shown, office="east")
            return SteppedWorkflow(entries.confirm(nation.requests, allowed, "east", command), nation.backend)

        first, second = confirming("p1"), confirming("p2")
        first.run(1)
        assert second.run().status is Status.CONFIRMED
        answer = first.run()
        assert (answer.status, answer.replayed) == (Status.CONFIRMED, True)
        assert len(nation.active()) == 1
        nation.check()


class TestAMove:
    @NATIONAL
    def test_a_refused_move_records_nothing(self, national: bool) -> None:
        nation = Nation(national=national)
        reference = held(nation).reference
        for shown in ("", "used"):
            if shown:
                guarded = GuardedCommand(
                    nation.requests.reserve("west", DAY, BUDI, ANY_SELECTION, "k", False, 0),
                    (),
                    AdmissionPass("used", nation.clock.now_ms() + PASS_MS),
                )
                assert nation.backend.apply("west", guarded).ok
            refused = moving(nation, reference, shown).run()
            assert refused.status is Status.NOT_ADMITTED
            assert refused.reservation == nation.lookup(reference)
            assert nation.moves() == []
        assert nation.lookup(reference).day == DAY.toordinal()

    @NATIONAL
    def test_a_move_that_took_its_place_needs_no_pass_to_finish(self, national: bool) -> None:
        """The same call without the pass, and a recovery by another client, finish it."""
        for recovers in (False, True):
            nation = Nation(national=national)
            reference = held(nation).reference
            move = moving(nation, reference, "p1")
            while len(nation.active()) < 2:
                move.step()
            move.abandon()
            if recovers:
                nation.clock.advance_ms(MOVE_LEASE_MS)
                assert nation.engine.recover_moves() == MovesReport(1, 0)
            else:
                assert moving(nation, reference).run().ok
            assert [one.office for one in nation.active()] == ["west"]
            nation.check()

    @NATIONAL
    def test_a_recovery_gives_no_place(self, national: bool) -> None:
        """A move whose client died before it took the place is undone, because a recovery has no pass."""
        nation = Nation(national=national)
        reference = held(nation).reference
        move = moving(nation, reference, "p1")
        while not nation.moves():
            move.step()
        move.abandon()
        nation.clock.advance_ms(MOVE_LEASE_MS)
        assert nation.engine.recover_moves() == MovesReport(0, 1)
        assert [one.reference for one in nation.active()] == [reference]
        nation.check()

    def test_the_place_is_taken_with_the_pass(self) -> None:
        nation = Nation(national=False)
        move = moving(nation, held(nation).reference, "p1")
        sent: list[object] = []
        while not move.is_done:
            if isinstance(move._request, Apply):
                sent.append(move._request.command)
            move.step()
        (guarded,) = [one for one in sent if isinstance(one, GuardedCommand)]
        assert isinstance(guarded.command, MoveIn)
        assert guarded.admission_pass is not None
        assert guarded.admission_pass.id == "p1"
        assert not any(isinstance(one, Reschedule | MoveIn) for one in sent)
