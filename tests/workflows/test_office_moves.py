"""Moves between offices: the old place or the new one exists after any failure and in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, cast

import pytest

from quota_engine import BackendUnavailable, InvalidRequest, Outcome, OutcomeUnknown, State, Status, UnknownName
from quota_engine.domain.commands import MoveIn, MoveOut, UndoMove
from quota_engine.domain.cross_office_registry import Claim, CloseMove, OpenMove, RegistryResult, RegistryStatus
from quota_engine.generators import Request
from quota_engine.ports import Store, StoreRequest
from quota_engine.workflows import office_moves
from quota_engine.workflows.generator_drivers import Workflow, run
from quota_engine.workflows.office_moves import MOVE_LEASE_MS, MovesReport
from tests.support.multi_office import (
    ANI,
    ANY_SELECTION,
    BUDI,
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    NO_ADMISSION,
    Nation,
    SteppedWorkflow,
)

BOTH = pytest.mark.parametrize("national", [False, True], ids=["plain", "national"])
STATES = pytest.mark.parametrize("confirmed", [False, True], ids=["held", "confirmed"])


def booked(nation: Nation, *, confirmed: bool, office: str = "east", key: str = "ani", applicant: str = ANI) -> str:
    outcome = nation.engine.reserve(office, DAY, applicant, idempotency_key=key)
    assert outcome.status is Status.HELD
    if confirmed:
        assert nation.engine.confirm(outcome.reference).ok
    return outcome.reference


def moving(nation: Nation, reference: str, office: str = "west", day: object = DAY) -> SteppedWorkflow:
    workflow = office_moves.reschedule(nation.requests, NO_ADMISSION, reference, day, office, ANY_SELECTION, None, 0)  # type: ignore[arg-type]
    return SteppedWorkflow(workflow, nation.backend)


def steps_of_a_move(*, national: bool, confirmed: bool) -> int:
    nation = Nation(national=national)
    move = moving(nation, booked(nation, confirmed=confirmed))
    assert move.run().ok
    return move.steps


def finish(nation: Nation) -> MovesReport:
    """Let the lease of the move end, and recover it."""
    nation.clock.advance_ms(MOVE_LEASE_MS)
    return nation.engine.recover_moves()


class TestAMove:
    @BOTH
    @STATES
    def test_takes_the_new_place_and_gives_the_old_one_back(self, national: bool, confirmed: bool) -> None:
        """The same party, its state, its deadline and one move more, a number of the new office; the old is free."""
        nation = Nation(national=national)
        source = booked(nation, confirmed=confirmed)
        before = nation.lookup(source)
        outcome = nation.engine.reschedule(source, NEXT_DAY, office="west", owner=ANI)
        assert outcome.ok
        record = outcome.reservation
        assert record is not None
        assert (record.office, record.day, record.state) == ("west", NEXT_DAY.toordinal(), before.state)
        assert (record.applicants, record.moves) == (before.applicants, 1)
        assert record.deadline_at_ms == (0 if confirmed else before.deadline_at_ms)
        assert record.queue_numbers == (range(1, 2) if confirmed else range(0))
        assert nation.lookup(source).state is State.MOVED
        (east,), (west,) = nation.engine.availability("east", DAY), nation.engine.availability("west", NEXT_DAY)
        assert (east.quotas["online"].available, west.quotas["online"].available) == (3, 2)
        assert nation.engine.find_moved(source) == outcome.reference
        assert [one.reference for one in nation.active()] == [outcome.reference]
        assert nation.claimed(ANI) == (outcome.reference if national else "")
        nation.check()

    @BOTH
    def test_a_repeated_move_returns_the_same_place(self, national: bool) -> None:
        """In any later state, with a version or without."""
        nation = Nation(national=national)
        source = booked(nation, confirmed=False)
        first = nation.engine.reschedule(source, DAY, office="west", expected_version=1)
        again = nation.engine.reschedule(source, DAY, office="west", expected_version=1)
        assert (again.status, again.reservation, again.replayed) == (Status.HELD, first.reservation, True)
        nation.engine.confirm(first.reference)
        assert nation.engine.reschedule(source, DAY, office="west").status is Status.CONFIRMED
        nation.engine.cancel(first.reference)
        again = nation.engine.reschedule(source, DAY, office="west")
        assert (again.status, again.reference, again.replayed) == (Status.RESERVATION_ENDED, first.reference, True)
        assert nation.engine.reschedule(source, NEXT_DAY, office="west").status is Status.WRONG_STATE
        assert nation.engine.reschedule(source, DAY, office="west", owner="another").status is Status.NOT_OWNER

    @BOTH
    def test_a_reservation_moves_to_a_third_office_and_back(self, national: bool) -> None:
        """Each reservation has a new reference, and the moves are counted."""
        nation = Nation(national=national)
        reference = booked(nation, confirmed=True)
        for office in ("west", "north", "east"):
            outcome = nation.engine.reschedule(reference, DAY, office=office)
            assert (outcome.status, nation.engine.find_moved(reference)) == (Status.CONFIRMED, outcome.reference)
            reference = outcome.reference
        assert nation.engine.reschedule(reference, DAY, office="west").status is Status.MOVES_EXCEEDED
        assert [one.reference for one in nation.active()] == [reference]
        nation.check()

    def test_to_its_own_office_is_the_one_step_that_it_was(self) -> None:
        """Naming the office where it is changes nothing."""
        nation = Nation(national=False)
        source = booked(nation, confirmed=True)
        outcome = nation.engine.reschedule(source, NEXT_DAY, office="east")
        assert (outcome.reference, outcome.reservation and outcome.reservation.moves) == (source, 1)
        assert nation.moves() == []

    def test_a_move_is_not_a_cancellation(self) -> None:
        """It causes no penalty."""
        nation = Nation(cancellations_max=0, cancellations_block_days=9, identity_limits=[])
        first = nation.engine.reschedule(booked(nation, confirmed=True), DAY, office="west")
        back = nation.engine.reschedule(first.reference, DAY, office="east")
        assert back.status is Status.CONFIRMED

    def test_invalid_arguments_are_rejected_without_a_request(self) -> None:
        nation = Nation()
        source = booked(nation, confirmed=True)
        with pytest.raises(UnknownName, match="unknown office"):
            nation.engine.reschedule(source, DAY, office="south")
        with pytest.raises(InvalidRequest, match="reference"):
            nation.engine.reschedule("east", DAY, office="west")
        with pytest.raises(InvalidRequest, match="reference"):
            nation.engine.find_moved("east")
        with pytest.raises(InvalidRequest, match="older_than_ms: -1"):
            nation.engine.recover_moves(older_than_ms=-1)
        with pytest.raises(InvalidRequest, match="limit: 0"):
            nation.engine.recover_moves(limit=0)
        assert (nation.moves(), nation.engine.find_moved("east~nobody")) == ([], "")


class TestARefusedMove:
    @BOTH
    def test_leaves_the_old_place_and_no_trace(self, national: bool) -> None:
        """The source's rules first, then the target's; the record that comes along is the one that could not move."""
        nation = Nation(national=national, places=1)
        source = booked(nation, confirmed=True)
        before = nation.lookup(source)
        engine = nation.engine
        assert engine.reserve("west", DAY, "somebody else").ok
        assert engine.set_capacity("north", DAY, "online", 5).ok
        assert engine.close_day("north", NEXT_DAY).ok
        refused: dict[Status, Callable[[], Outcome]] = {
            Status.SOLD_OUT: lambda: engine.reschedule(source, DAY, office="west"),
            Status.DAY_CLOSED: lambda: engine.reschedule(source, NEXT_DAY, office="north"),
            Status.UNKNOWN_DAY: lambda: engine.reschedule(source, "2026-12-10", office="north"),
            Status.STALE: lambda: engine.reschedule(source, DAY, office="north", expected_version=1),
            Status.NOT_OWNER: lambda: engine.reschedule(source, DAY, office="north", owner="somebody else"),
            Status.NOT_FOUND: lambda: engine.reschedule("east~nobody", DAY, office="north"),
        }
        for status, call in refused.items():
            outcome = call()
            assert outcome.status is status
            assert outcome.reservation in (before, None)
            assert (nation.moves(), nation.lookup(source)) == ([], before), status
        nation.clock.set_ms(nation.terms.starts_at_ms - 86_400_000 + 1)
        assert engine.reschedule(source, DAY, office="north").status is Status.TOO_LATE
        nation.check()

    def test_the_target_applies_its_limits_and_penalties(self) -> None:
        nation = Nation(national=False, identity_limits=[{"places_max": 1, "span_days": 1}])
        source = booked(nation, confirmed=True)
        assert nation.engine.reserve("west", DAY, ANI).ok
        outcome = nation.engine.reschedule(source, DAY, office="west")
        assert (outcome.status, outcome.reference) == (Status.IDENTITY_LIMIT, source)
        assert nation.moves() == []

    def test_an_expired_hold_does_not_move(self) -> None:
        nation = Nation()
        source = booked(nation, confirmed=False)
        nation.clock.advance_ms(HOLD_TTL_MS)
        assert nation.engine.reschedule(source, DAY, office="west").status is Status.HOLD_EXPIRED

    @BOTH
    def test_a_move_that_takes_too_long_takes_no_place(self, national: bool) -> None:
        nation = Nation(national=national)
        source = booked(nation, confirmed=True)
        move = moving(nation, source)
        move.run(3 if national else 2)
        nation.clock.advance_ms(MOVE_LEASE_MS - 4_999)
        assert move.run().status is Status.COMMAND_EXPIRED
        assert [one.reference for one in nation.active()] == [source]
        assert (nation.moves(), nation.engine.reschedule(source, DAY, office="west").ok) == ([], True)


class TestACallerWhoDies:
    @BOTH
    @STATES
    def test_leaves_the_old_place_or_both_for_a_while_and_then_one(self, national: bool, confirmed: bool) -> None:
        """After each of its steps, and wherever that was: one place, and everything adds up."""
        for steps in range(steps_of_a_move(national=national, confirmed=confirmed) + 1):
            nation = Nation(national=national)
            source = booked(nation, confirmed=confirmed)
            move = moving(nation, source)
            move.run(steps)
            move.abandon()
            assert 1 <= len(nation.active()) <= 2, steps
            assert nation.engine.recover_moves() == MovesReport(0, 0), "somebody may be at work on it"
            finish(nation)
            (record,) = nation.active()
            assert record.state is (State.CONFIRMED if confirmed else State.HELD)
            assert [one for one in nation.moves() if not one.done] == []
            assert finish(nation) == MovesReport(0, 0)
            if national:
                assert nation.claimed(ANI) == record.reference
            nation.check()

    @pytest.mark.slow
    @BOTH
    @STATES
    def test_the_same_call_finishes_a_move_of_a_dead_client(self, national: bool, confirmed: bool) -> None:
        for steps in range(steps_of_a_move(national=national, confirmed=confirmed) + 1):
            for later_ms in (0, MOVE_LEASE_MS - 1, MOVE_LEASE_MS):
                nation = Nation(national=national)
                source = booked(nation, confirmed=confirmed)
                move = moving(nation, source)
                move.run(steps)
                move.abandon()
                nation.clock.advance_ms(later_ms)
                outcome = nation.engine.reschedule(source, DAY, office="west")
                assert outcome.ok
                assert [one.reference for one in nation.active()] == [outcome.reference], (steps, later_ms)
                finish(nation)
                assert [one.reference for one in nation.active()] == [outcome.reference]
                assert nation.engine.find_moved(source) == outcome.reference
                nation.check()

    @BOTH
    def test_a_move_elsewhere_waits_for_the_lease_and_finishes_the_first(self, national: bool) -> None:
        for steps in range(2, steps_of_a_move(national=national, confirmed=True) + 1):
            nation = Nation(national=national)
            source = booked(nation, confirmed=True)
            move = moving(nation, source)
            move.run(steps)
            move.abandon()
            if nation.lookup(source).state is State.MOVED or all(one.done for one in nation.moves()):
                continue
            outcome = nation.engine.reschedule(source, DAY, office="north")
            assert (outcome.status, outcome.reference) == (Status.MOVING, source)
            assert outcome.retry_at_ms == nation.clock.now_ms() + MOVE_LEASE_MS
            nation.clock.set_ms(outcome.retry_at_ms)
            moved_first = len(nation.active()) == 2
            outcome = nation.engine.reschedule(source, DAY, office="north")
            assert outcome.status is (Status.WRONG_STATE if moved_first else Status.CONFIRMED)
            (record,) = nation.active()
            assert record.office == ("west" if moved_first else "north")
            nation.check()

    @BOTH
    def test_a_restarted_move_is_left_to_its_client(self, national: bool) -> None:
        nation = Nation(national=national)
        source = booked(nation, confirmed=True)
        first = moving(nation, source)
        first.run(2)
        first.abandon()
        nation.clock.advance_ms(MOVE_LEASE_MS)
        other = moving(nation, source, "north")
        other.run(2)
        assert nation.engine.recover_moves() == MovesReport(0, 1)
        again = moving(nation, source)
        again.run(2)
        assert other.run().status is Status.MOVING
        assert again.run().ok
        assert [one.office for one in nation.active()] == ["west"]
        nation.check()


def test_a_conflict_over_a_key_does_not_take_the_claim_of_a_move_that_came_to_nothing() -> None:
    """The claim still stands for both places; who comes with the old one's key and another party leaves it alone."""
    nation = Nation()
    source = booked(nation, confirmed=True)
    move = moving(nation, source)
    move.run(steps_of_a_move(national=True, confirmed=True) - 2)
    (new,) = (one for one in nation.active() if one.office == "west")
    nation.backend.apply("west", UndoMove(new.id))
    assert nation.engine.reserve("east", DAY, [ANI, BUDI], idempotency_key="ani").status is Status.CONFLICT
    assert nation.engine.reserve("north", DAY, ANI).status is Status.IDENTITY_LIMIT
    assert nation.claimed(ANI) == source


@BOTH
def test_a_move_that_was_overtaken_comes_to_nothing(national: bool) -> None:
    """Its caller slept for long; the source has been changed, and moved elsewhere, by others: with its claim."""
    nation = Nation(national=national)
    source = booked(nation, confirmed=True)
    sleeper = moving(nation, source)
    sleeper.run(6 if national else 4)
    assert [one.office for one in nation.active()] == ["east", "west"]
    assert nation.engine.reschedule(source, NEXT_DAY).ok
    assert finish(nation) == MovesReport(0, 1)
    later = moving(nation, source, "north")
    later.run(5 if national else 4)
    assert [one.office for one in nation.active()] == ["east", "north"]
    if national:
        sleeper.step()
    assert later.run().ok
    assert nation.claimed(ANI) == (later.result.reference if national else "")
    # Another step released the source, so the outcome must not claim that this move did.
    assert sleeper.run().status is Status.WRONG_STATE
    assert [one.reference for one in nation.active()] == [later.result.reference]
    assert nation.engine.find_moved(source) == later.result.reference
    nation.check()


STEPS_BETWEEN = ("confirm", "give up", "reschedule", "expire", "reserve elsewhere", "move elsewhere")


class TestInBetween:
    """The applicant does something with the old place while it moves, after each step of the move."""

    @pytest.mark.slow
    @BOTH
    @STATES
    @pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
    @pytest.mark.parametrize("step", STEPS_BETWEEN)
    def test_no_place_is_lost_or_doubled(self, national: bool, confirmed: bool, dies: bool, step: str) -> None:
        """One place in the end; none if they gave it up, or let it expire."""
        for steps in range(steps_of_a_move(national=national, confirmed=confirmed) + 1):
            nation = Nation(national=national)
            source = booked(nation, confirmed=confirmed)
            move = moving(nation, source)
            move.run(steps)
            given_up = self.take(nation, source, step, confirmed)
            if dies:
                move.abandon()
            else:
                move.run()
            finish(nation)
            references = [one.reference for one in nation.active()]
            # Without a national limit, the applicant gets the other place as well.
            extra = step == "reserve elsewhere" and not national
            assert len(references) == (0 if given_up else 1) + extra, (steps, references)
            assert [one for one in nation.moves() if not one.done] == []
            nation.check()
            if given_up:
                nation.clock.advance_ms(nation.requests.national_lease_ms if national else 0)
                assert nation.engine.reserve("north", DAY, ANI).status is Status.HELD

    def take(self, nation: Nation, source: str, step: str, confirmed: bool) -> bool:
        engine = nation.engine
        match step:
            case "confirm":
                engine.confirm(source)
            case "give up":
                return (engine.cancel(source) if confirmed else engine.release(source)).ok
            case "reschedule":
                engine.reschedule(source, NEXT_DAY)
            case "expire":
                nation.clock.advance_ms(HOLD_TTL_MS)
                return not confirmed
            case "reserve elsewhere":
                outcome = engine.reserve("north", DAY, ANI)
                assert outcome.status is (Status.IDENTITY_LIMIT if nation.requests.has_national_limit else Status.HELD)
            case "move elsewhere":
                engine.reschedule(source, DAY, office="north")
        return False

    @BOTH
    def test_a_cancelled_new_place_leaves_the_old_one(self, national: bool) -> None:
        nation = Nation(national=national)
        source = booked(nation, confirmed=True)
        move = moving(nation, source)
        move.run(steps_of_a_move(national=national, confirmed=True) - 2)
        move.abandon()
        (new,) = (one for one in nation.active() if one.office == "west")
        assert nation.engine.cancel(new.reference).ok
        assert finish(nation) == MovesReport(0, 1)
        assert [one.reference for one in nation.active()] == [source]
        assert nation.claimed(ANI) == (source if national else "")
        nation.check()

    @BOTH
    def test_a_new_place_that_moved_is_undone_at_its_present_office(self, national: bool) -> None:
        """The old place was rescheduled, so it stays."""
        nation = Nation(national=national)
        source = booked(nation, confirmed=True)
        move = moving(nation, source)
        move.run(steps_of_a_move(national=national, confirmed=True) - 2)
        move.abandon()
        (new,) = (one for one in nation.active() if one.office == "west")
        onward = nation.engine.reschedule(new.reference, DAY, office="north")
        # The claim covers both places, so this move must finish first.
        assert onward.status is (Status.MOVING if national else Status.CONFIRMED)
        assert nation.engine.reschedule(source, NEXT_DAY).ok
        finish(nation)
        assert [one.reference for one in nation.active()] == [source]
        assert len(nation.active()) == 1
        nation.check()

    def test_a_source_whose_day_is_forgotten_keeps_the_new_place(self) -> None:
        """There is nothing left to give up."""
        nation = Nation(national=False, retention_days=1, identity_limits=[])
        source = booked(nation, confirmed=True)
        move = moving(nation, source, day=NEXT_DAY)
        move.run(4)
        move.abandon()
        nation.clock.set_ms(nation.terms.forget_at_ms)
        assert nation.engine.recover_moves() == MovesReport(1, 0)
        assert [one.office for one in nation.active()] == ["west"]


class FailingStore:
    """A store that fails at the commands of one type."""

    def __init__(self, nation: Nation, kind: type, failure: Callable[[], object]) -> None:
        self.backend = nation.backend
        self.kind = kind
        self.failure = failure

    def apply(self, address: str, command: Any) -> object:
        if isinstance(command, self.kind):
            return self.failure()
        return self.backend.apply(address, command)

    def execute(self, request: StoreRequest[object]) -> object:
        return self.backend.execute(request)


def away() -> object:
    raise BackendUnavailable("away")


class TestAStoreThatFails:
    @BOTH
    def test_an_unreachable_target_changes_nothing(self, national: bool) -> None:
        """No move stays open."""
        nation = Nation(national=national)
        source = booked(nation, confirmed=True)
        workflow = office_moves.reschedule(nation.requests, NO_ADMISSION, source, DAY, "west", ANY_SELECTION, None, 0)
        with pytest.raises(BackendUnavailable):
            _run_on(FailingStore(nation, MoveIn, away), workflow)
        assert (nation.moves(), [one.reference for one in nation.active()]) == ([], [source])

    @BOTH
    @pytest.mark.parametrize("overloaded", [False, True])
    def test_an_unfinished_move_is_an_unknown_outcome(self, national: bool, overloaded: bool) -> None:
        """Both places exist, and a repeated call finishes the move."""
        nation = Nation(national=national)
        source = booked(nation, confirmed=True)
        workflow = office_moves.reschedule(nation.requests, NO_ADMISSION, source, DAY, "west", ANY_SELECTION, None, 0)
        failure = _overloaded_outcome if overloaded else away
        with pytest.raises(OutcomeUnknown, match="repeat the call"):
            _run_on(FailingStore(nation, MoveOut, failure), workflow)
        assert len(nation.active()) == 2
        outcome = nation.engine.reschedule(source, DAY, office="west")
        assert [one.reference for one in nation.active()] == [outcome.reference]
        nation.check()

    def test_an_unclosed_move_is_closed_by_the_next_recovery(self) -> None:
        nation = Nation()
        source = booked(nation, confirmed=True)
        workflow = office_moves.reschedule(nation.requests, NO_ADMISSION, source, DAY, "west", ANY_SELECTION, None, 0)
        assert _run_on(FailingStore(nation, CloseMove, away), workflow).ok
        assert finish(nation) == MovesReport(1, 0)
        nation.check()

    def test_a_registry_that_has_too_many_callers_refuses_the_move(self) -> None:
        """Before anything has been done."""
        nation = Nation()
        source = booked(nation, confirmed=True)
        for kind in (OpenMove, Claim):
            workflow = office_moves.reschedule(
                nation.requests, NO_ADMISSION, source, DAY, "west", ANY_SELECTION, None, 0
            )
            failing = FailingStore(nation, kind, lambda: RegistryResult(RegistryStatus.OVERLOADED))
            assert _run_on(failing, workflow).status is Status.OVERLOADED
            assert (nation.moves(), [one.reference for one in nation.active()]) == ([], [source])


def _overloaded_outcome() -> object:
    return Outcome(Status.OVERLOADED)


def _run_on(backend: FailingStore, workflow: Workflow[Outcome] | Request[Outcome]) -> Outcome:
    return run(workflow, cast("Store", backend))


def interleavings(random: Random, count: int) -> Iterator[list[int]]:
    for _ in range(count):
        yield [random.randrange(2) for _ in range(30)]


@pytest.mark.slow
@BOTH
@STATES
@pytest.mark.parametrize("other", ["west", "north"], ids=["same-target", "other-target"])
def test_concurrent_moves_leave_one_place(national: bool, confirmed: bool, other: str) -> None:
    """In hundreds of random orders, and if either client dies."""
    random = Random(17)
    for turns in interleavings(random, 60):
        nation = Nation(national=national)
        source = booked(nation, confirmed=confirmed)
        callers = [moving(nation, source), moving(nation, source, other)]
        dies = random.choice((None, None, 0, 1))
        for turn in turns:
            if not callers[turn].is_done and not (turn == dies and callers[turn].steps >= random.randrange(8)):
                callers[turn].step()
            if random.random() < 0.06:
                finish(nation)
            if random.random() < 0.04:  # within the office: a version that neither of them knows
                nation.engine.reschedule(source, random.choice((DAY, NEXT_DAY)))
        for number, caller in enumerate(callers):
            if number == dies:
                caller.abandon()
            else:
                caller.run()
        finish(nation)
        (record,) = nation.active()
        succeeded = [one.result for one in callers if one.is_done and one.result.ok]
        assert all(one.reference == record.reference for one in succeeded), turns
        assert [one for one in nation.moves() if not one.done] == []
        nation.check()
