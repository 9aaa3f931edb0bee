"""Scenarios of guarded commands: each command that takes units, with a pass or a charge, in every case of the rules."""

from __future__ import annotations

__all__ = ["GUARDED_SCENARIOS", "GuardedScenario", "GuardedStep"]

from typing import Final, NamedTuple

from quota_engine.admission.guarded_command import AdmissionPass, EnteringCommand, GuardedCommand
from quota_engine.admission.token_bucket import Charge, per_minute
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    applicant,
    choice,
    reserve,
)
from quota_engine.domain.commands import Command, Confirm, MoveIn, Release, Reschedule
from quota_engine.domain.outcomes import Status as S

_PASS_MS: Final = 3_600_000
_LATE: Final = HOLD_TTL_MS


class GuardedStep(NamedTuple):
    """A plain or guarded command at ``at_ms`` after the opening, with the status of its outcome."""

    at_ms: int
    command: Command | GuardedCommand
    status: S


class GuardedScenario(NamedTuple):
    """Steps that are applied to a new office."""

    name: str
    steps: tuple[GuardedStep, ...]


def _with_pass(command: EnteringCommand, pass_id: str) -> GuardedCommand:
    """Return the command with a pass that is valid for an hour after the opening."""
    return GuardedCommand(command, (), AdmissionPass(pass_id, OPENS_AT_MS + _PASS_MS))


def _charged(command: EnteringCommand, bucket: str) -> GuardedCommand:
    """Return the command with a charge on a bucket of one token a minute."""
    return GuardedCommand(command, (Charge(bucket, per_minute(1)),))


def _move_in(key: str) -> MoveIn:
    return MoveIn(key, DAY, (applicant(key),), ONLINE, 0, 1)


GUARDED_SCENARIOS: Final[tuple[GuardedScenario, ...]] = (
    GuardedScenario(
        "a pass makes one reservation",
        (
            GuardedStep(0, _with_pass(reserve("ani", ONLINE), "p1"), S.HELD),
            GuardedStep(0, _with_pass(reserve("budi", ONLINE), "p1"), S.NOT_ADMITTED),
            GuardedStep(0, _with_pass(reserve("ani", ONLINE), "p1"), S.HELD),
            GuardedStep(_PASS_MS, _with_pass(reserve("budi", ONLINE), "p2"), S.NOT_ADMITTED),
        ),
    ),
    GuardedScenario(
        "a hold of a day without a pass needs one for another day",
        (
            GuardedStep(0, reserve("ani", ONLINE, day=NEXT_DAY), S.HELD),
            GuardedStep(0, _with_pass(reserve("budi", ONLINE), "p1"), S.HELD),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, ONLINE), "p1"), S.NOT_ADMITTED),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, ONLINE, applicant("budi")), "p1"), S.NOT_OWNER),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, ONLINE, "", 7), "p1"), S.STALE),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, ONLINE), "p2"), S.HELD),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, ONLINE), "p2"), S.HELD),
            GuardedStep(0, _with_pass(reserve("citra", choice(("slow",))), "p2"), S.NOT_ADMITTED),
            GuardedStep(0, _with_pass(Reschedule("nobody", DAY, ONLINE), "p1"), S.NOT_FOUND),
        ),
    ),
    GuardedScenario(
        "a reschedule that finds no place keeps its pass",
        (
            GuardedStep(0, reserve("full", ONLINE, "a", "b"), S.HELD),
            GuardedStep(0, reserve("ani", ONLINE, day=NEXT_DAY), S.HELD),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, ONLINE), "p1"), S.SOLD_OUT),
            GuardedStep(0, _with_pass(Reschedule("ani", DAY, choice(("fast",))), "p1"), S.HELD),
        ),
    ),
    GuardedScenario(
        "an attempt to reschedule is charged",
        (
            GuardedStep(0, reserve("full", ONLINE, "a", "b"), S.HELD),
            GuardedStep(0, reserve("ani", ONLINE, day=NEXT_DAY), S.HELD),
            GuardedStep(0, _charged(Reschedule("ani", DAY, ONLINE), "acc"), S.SOLD_OUT),
            GuardedStep(0, _charged(Reschedule("ani", DAY, choice(("fast",))), "acc"), S.THROTTLED),
            GuardedStep(60_000, _charged(Reschedule("ani", DAY, choice(("fast",))), "acc"), S.HELD),
            GuardedStep(60_000, _charged(Reschedule("ani", DAY, choice(("fast",))), "acc"), S.HELD),
        ),
    ),
    GuardedScenario(
        "a party that waits needs a pass to reschedule",
        (
            GuardedStep(0, reserve("first", PRIORITY), S.HELD),
            GuardedStep(0, reserve("ani", PRIORITY, wait=True), S.WAITING),
            GuardedStep(0, _with_pass(reserve("budi", ONLINE), "p1"), S.HELD),
            GuardedStep(_LATE, _with_pass(Reschedule("ani", NEXT_DAY, ONLINE), "p1"), S.NOT_ADMITTED),
            GuardedStep(_LATE, _with_pass(Reschedule("ani", NEXT_DAY, ONLINE), "p2"), S.HELD),
        ),
    ),
    GuardedScenario(
        "a late confirm needs a pass and a live hold does not",
        (
            GuardedStep(0, _with_pass(reserve("ani", ONLINE), "p1"), S.HELD),
            GuardedStep(0, _with_pass(reserve("budi", ONLINE), "p2"), S.HELD),
            GuardedStep(0, _with_pass(Confirm("budi", reacquire=True), "p2"), S.CONFIRMED),
            GuardedStep(_LATE, _with_pass(Confirm("ani", reacquire=True), "p1"), S.NOT_ADMITTED),
            GuardedStep(_LATE, _with_pass(Confirm("ani"), "p1"), S.HOLD_EXPIRED),
            GuardedStep(_LATE, _with_pass(Confirm("ani", applicant("budi"), 0, True), "p1"), S.NOT_OWNER),
            GuardedStep(_LATE, _with_pass(Confirm("ani", "", 0, True, OPENS_AT_MS), "p3"), S.COMMAND_EXPIRED),
            GuardedStep(_LATE, _with_pass(Confirm("ani", "", 0, True, OPENS_AT_MS + _LATE), "p3"), S.CONFIRMED),
            GuardedStep(_LATE, _with_pass(Confirm("ani", reacquire=True), "p3"), S.CONFIRMED),
            GuardedStep(_LATE, _with_pass(reserve("citra", choice(("slow",))), "p3"), S.NOT_ADMITTED),
        ),
    ),
    GuardedScenario(
        "a move from another office needs a pass",
        (
            GuardedStep(0, _with_pass(_move_in("ani"), "p1"), S.CONFIRMED),
            GuardedStep(0, _with_pass(_move_in("ani"), "p1"), S.CONFIRMED),
            GuardedStep(0, _with_pass(_move_in("budi"), "p1"), S.NOT_ADMITTED),
            GuardedStep(0, _charged(_move_in("budi"), "acc"), S.CONFIRMED),
            GuardedStep(0, _charged(_move_in("citra"), "acc"), S.THROTTLED),
        ),
    ),
    GuardedScenario(
        "an ended reservation asks nothing",
        (
            GuardedStep(0, _with_pass(reserve("ani", ONLINE), "p1"), S.HELD),
            GuardedStep(0, Release("ani"), S.RELEASED),
            GuardedStep(0, _with_pass(Reschedule("ani", NEXT_DAY, ONLINE), "p1"), S.WRONG_STATE),
            GuardedStep(0, _with_pass(Confirm("ani", reacquire=True), "p1"), S.WRONG_STATE),
        ),
    ),
)
