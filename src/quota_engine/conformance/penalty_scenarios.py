"""Scenarios of penalties: cancellations, no-shows, and holds that end without a confirm."""

from __future__ import annotations

__all__ = ["ABANDONED_HOLDS", "PENALTY_SCENARIOS"]

from typing import Any, Final

from quota_engine.conformance.scenario_steps import ConformanceScenario, Step, move_in
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    STARTS_AT_MS,
    applicant,
    published,
    reserve,
)
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Confirm,
    Expire,
    MarkNoShow,
    MoveOut,
    Release,
    RemoveApplicant,
    Reschedule,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.outcomes import Status as S

_DAY_MS = 86_400_000
_LATE = HOLD_TTL_MS
_START = STARTS_AT_MS - OPENS_AT_MS
_OVER = _START + _DAY_MS // 2
_UNDO_MS = 10 * 60_000

ABANDONED_HOLDS: Final[dict[str, Any]] = {
    "abandoned_holds_max": 2,
    "abandoned_holds_window_ms": 2 * _DAY_MS,
    "abandoned_holds_block_ms": _DAY_MS,
}
"""Rules: the third hold that ends without a confirm within two days blocks for a day."""

PENALTY_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "cancellations and no-shows block an applicant",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, Cancel("a"), S.CANCELLED),
            Step(2, reserve("b", ONLINE, "ani"), S.HELD),
            Step(2, Confirm("b"), S.CONFIRMED),
            Step(3, Cancel("b"), S.CANCELLED),
            Step(4, reserve("c", ONLINE, "ani"), S.BLOCKED),
            Step(5, reserve("d", ONLINE, "budi"), S.HELD),
            Step(5, Confirm("d"), S.CONFIRMED),
            Step(_START - 1, MarkNoShow("d"), S.TOO_EARLY),
            Step(_START, MarkNoShow("d"), S.NO_SHOW),
            Step(_START, MarkNoShow("d"), S.NO_SHOW, "replayed"),
            Step(_START, reserve("e", ONLINE, "budi", day=NEXT_DAY), S.BLOCKED),
            Step(_START, reserve("f", ONLINE, "citra", "budi", day=NEXT_DAY), S.BLOCKED),
            Step(_OVER, Cancel("d"), S.WRONG_STATE),
        ),
    ),
    ConformanceScenario(
        "a check-in can be undone within the window",
        (
            Step(0, reserve("a", ONLINE, "ani", "budi"), S.HELD),
            Step(0, UndoAttendance("a"), S.WRONG_STATE),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, UndoAttendance("a"), S.CONFIRMED, "replayed"),
            Step(_START, CheckIn("a"), S.ATTENDED),
            Step(_START, UndoAttendance("b"), S.NOT_FOUND),
            Step(_START, UndoAttendance("a", owner=applicant("nobody")), S.NOT_OWNER),
            Step(_START, UndoAttendance("a", expected_version=2), S.STALE),
            Step(_START, RemoveApplicant("a", applicant=applicant("budi")), S.WRONG_STATE),
            Step(_START + _UNDO_MS - 1, UndoAttendance("a", expected_version=3), S.CONFIRMED),
            Step(_START + _UNDO_MS, UndoAttendance("a", expected_version=3), S.CONFIRMED, "replayed"),
            Step(_START + _UNDO_MS, CheckIn("a"), S.ATTENDED),
            Step(_START + _UNDO_MS, UndoAttendance("a", expected_version=3), S.STALE),
            Step(_START + 2 * _UNDO_MS, UndoAttendance("a"), S.TOO_LATE),
        ),
    ),
    ConformanceScenario(
        "an undone no-show blocks nobody, also on a closed day",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("b", ONLINE, "budi"), S.HELD),
            Step(0, Confirm("b"), S.CONFIRMED),
            Step(_OVER, MarkNoShow("a"), S.NO_SHOW),
            Step(_OVER, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.BLOCKED),
            Step(_OVER + 1, UndoAttendance("a"), S.CONFIRMED),  # the day is over: no check-in, but an undo
            Step(_OVER + 1, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(_OVER + 1, CheckIn("a"), S.DAY_OVER),
            Step(_OVER + 1, MarkNoShow("b"), S.NO_SHOW),
            Step(_OVER + 1, CloseDay(DAY), S.DONE),
            Step(_OVER + 2, UndoAttendance("b"), S.CONFIRMED),
            Step(_OVER + 2, reserve("d", ONLINE, "budi", day=NEXT_DAY), S.HELD),
        ),
    ),
    ConformanceScenario(
        "the undo of one no-show leaves the block of another",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("b", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(0, Confirm("b"), S.CONFIRMED),
            Step(_START + _DAY_MS, MarkNoShow("a"), S.NO_SHOW),
            Step(_START + _DAY_MS + 1, MarkNoShow("b"), S.NO_SHOW),
            Step(_START + _DAY_MS + 2, UndoAttendance("b"), S.CONFIRMED),
            Step(_START + _DAY_MS + 2, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.BLOCKED),
            Step(_START + _DAY_MS + 2, UndoAttendance("a"), S.CONFIRMED),
            Step(_START + _DAY_MS + 3, MarkNoShow("b"), S.NO_SHOW),
            Step(_START + _DAY_MS + _UNDO_MS, MarkNoShow("a"), S.NO_SHOW),
            Step(_START + _DAY_MS + _UNDO_MS + 3, UndoAttendance("b"), S.TOO_LATE),
            Step(_START + _DAY_MS + _UNDO_MS + 3, UndoAttendance("a"), S.CONFIRMED),
            Step(_START + _DAY_MS + _UNDO_MS + 3, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.BLOCKED),
        ),
    ),
    ConformanceScenario(
        "abandoned holds block an applicant",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(1, Release("a"), S.RELEASED),
            Step(2, reserve("b", ONLINE, "ani"), S.HELD),
            Step(2 + _LATE, reserve("c", ONLINE, "ani"), S.HELD),  # "b" has expired, the second of two allowed ends
            Step(3 + _LATE, Release("c"), S.RELEASED),
            Step(4 + _LATE, reserve("d", ONLINE, "ani"), S.BLOCKED),
            Step(4 + _LATE, reserve("e", ONLINE, "budi", "ani"), S.BLOCKED),
            Step(4 + _LATE, move_in("f", ONLINE, "ani"), S.BLOCKED),
            Step(4 + _LATE, reserve("g", ONLINE, "budi"), S.HELD),
            Step(2 + _LATE + _DAY_MS, reserve("d", ONLINE, "ani"), S.BLOCKED),
            Step(3 + _LATE + _DAY_MS, reserve("d", ONLINE, "ani"), S.HELD),
        ),
        published(**ABANDONED_HOLDS),
    ),
    ConformanceScenario(
        "an overdue hold on another day counts in the applicant's next command",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(1, Release("a"), S.RELEASED),
            Step(2, reserve("b", ONLINE, "ani"), S.HELD),
            Step(3, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(3 + _LATE, reserve("d", ONLINE, "ani", "budi", day=NEXT_DAY), S.BLOCKED),
            Step(3 + _LATE, Expire(DAY), S.DONE),
            Step(3 + _LATE, Confirm("b"), S.HOLD_EXPIRED),
        ),
        published(**ABANDONED_HOLDS),
    ),
    ConformanceScenario(
        "moves, confirms and the wait list abandon nothing",
        (
            Step(0, reserve("a", PRIORITY, "ani"), S.HELD),
            Step(0, reserve("b", PRIORITY, "budi", wait=True), S.WAITING),
            Step(0, Release("b"), S.RELEASED),
            Step(0, Reschedule("a", NEXT_DAY, PRIORITY), S.HELD),
            Step(1, MoveOut("a"), S.MOVED),
            Step(1, reserve("c", ONLINE, "ani"), S.HELD),
            Step(1, Confirm("c"), S.CONFIRMED),
            Step(2, Cancel("c"), S.CANCELLED),
            Step(2, move_in("d", ONLINE, "ani", deadline_ms=9), S.HELD),
            Step(3, UndoMove("d"), S.RELEASED),
            Step(3, reserve("e", ONLINE, "ani"), S.HELD),
            Step(3 + _LATE, Confirm("e", reacquire=True), S.CONFIRMED),
            Step(4 + _LATE, reserve("f", ONLINE, "budi"), S.HELD),
            Step(5 + _LATE, Release("f"), S.RELEASED),
            Step(5 + _LATE, reserve("g", ONLINE, "budi"), S.HELD),  # leaving the wait list did not count
            Step(6 + _LATE, Release("g"), S.RELEASED),
            Step(6 + _LATE, reserve("h", ONLINE, "budi"), S.BLOCKED),
            Step(7 + _LATE, reserve("i", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(7 + _LATE, Release("i"), S.RELEASED),
            Step(8 + _LATE, reserve("j", ONLINE, "ani", day=NEXT_DAY), S.HELD),  # nothing before "i" counted
            Step(8 + _LATE, Release("j"), S.RELEASED),
            Step(9 + _LATE, reserve("k", ONLINE, "ani", day=NEXT_DAY), S.BLOCKED),
        ),
        published(**{**ABANDONED_HOLDS, "abandoned_holds_max": 1, "reschedules_max": 9, "cancellations_max": 0}),
    ),
)
