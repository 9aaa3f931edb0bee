"""Scenarios of parties that change: one applicant leaves, or an operator puts another one in their place."""

from __future__ import annotations

__all__ = ["PARTY_SCENARIOS"]

from typing import Final

from quota_engine.conformance.penalty_scenarios import ABANDONED_HOLDS
from quota_engine.conformance.scenario_steps import ConformanceScenario, Step
from quota_engine.conformance.world import (
    COOLING,
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    STARTS_AT_MS,
    applicant,
    choice,
    published,
    reserve,
)
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Confirm,
    Expire,
    Extend,
    OpenDay,
    Release,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    SetCapacity,
)
from quota_engine.domain.outcomes import Status as S

_DAY_MS: Final = 86_400_000
_LATE: Final = HOLD_TTL_MS
_START: Final = STARTS_AT_MS - OPENS_AT_MS
_OVER: Final = _START + _DAY_MS // 2
_MORNING: Final = choice(("morning",))


def _remove(key: str, name: str, *, owner: str = "", version: int = 0) -> RemoveApplicant:
    return RemoveApplicant(key, applicant(owner) if owner else "", version, applicant(name))


def _replace(key: str, name: str, newcomer: str, *, version: int = 0, until_ms: int = 0) -> ReplaceApplicant:
    return ReplaceApplicant(key, applicant(name), applicant(newcomer), version, until_ms)


PARTY_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "an applicant leaves a hold, and another takes the place",
        (
            Step(0, reserve("a", ONLINE, "ani", "budi"), S.HELD),
            Step(1, reserve("c", ONLINE, "citra"), S.SOLD_OUT),
            Step(1, _remove("a", "citra"), S.NOT_IN_PARTY),
            Step(1, _remove("a", "budi", owner="citra"), S.NOT_OWNER),
            Step(1, _remove("a", "budi", version=2), S.STALE),
            Step(1, _remove("a", "budi", owner="budi"), S.HELD),
            Step(1, _remove("a", "budi", owner="budi"), S.HELD, "replayed"),
            Step(1, _remove("a", "budi", owner="ani"), S.HELD, "replayed"),
            Step(1, _remove("a", "ani", owner="budi"), S.NOT_OWNER),
            Step(2, reserve("c", ONLINE, "citra"), S.HELD),
            Step(2, reserve("b", COOLING, "budi"), S.HELD),
            Step(2, reserve("a", ONLINE, "ani", "budi"), S.HELD, "replayed"),
            Step(2, reserve("a", ONLINE, "ani", "dewi"), S.CONFLICT),
            Step(2, reserve("d", ONLINE, "ani"), S.HELD, "resumed"),
            Step(2, _remove("a", "ani"), S.PARTY_TOO_SMALL),
            Step(2, _remove("unknown", "ani"), S.NOT_FOUND),
            Step(3, Release("a"), S.RELEASED),
            Step(3, _remove("a", "budi"), S.NOT_IN_PARTY),
            Step(3, _remove("a", "ani"), S.WRONG_STATE),
            Step(2 + _LATE, _remove("c", "citra"), S.HOLD_EXPIRED),
        ),
    ),
    ConformanceScenario(
        "those who stay keep their queue numbers",
        (
            Step(0, reserve("a", _MORNING, "ani", "budi", "citra"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, _remove("a", "budi"), S.CONFIRMED),
            Step(1, reserve("d", _MORNING, "dewi"), S.HELD),
            Step(1, Confirm("d"), S.CONFIRMED),
            Step(2, _remove("a", "ani", owner="citra"), S.CONFIRMED),
            Step(2, reserve("e", _MORNING, "eka", "fajar"), S.SOLD_OUT),
            Step(2, reserve("e", _MORNING, "eka"), S.HELD),
            Step(2, Confirm("e"), S.CONFIRMED),
            Step(3, _remove("a", "citra"), S.PARTY_TOO_SMALL),
            Step(3, Reschedule("a", NEXT_DAY, _MORNING), S.CONFIRMED),
            Step(_START, CheckIn("e"), S.ATTENDED),
            Step(_START, _remove("e", "eka"), S.WRONG_STATE),
            Step(_OVER, _remove("d", "dewi"), S.DAY_OVER),
        ),
    ),
    ConformanceScenario(
        "a gap in the queue numbers stays until the party moves to another day",
        (
            Step(0, reserve("a", _MORNING, "ani", "budi", "citra"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, _remove("a", "budi"), S.CONFIRMED),
            Step(1, reserve("a", _MORNING, "citra", "budi", "ani"), S.CONFIRMED, "replayed"),
            Step(2, _replace("a", "ani", "dewi"), S.CONFIRMED),
            Step(2, reserve("b", _MORNING, "eka"), S.HELD),
            Step(2, Confirm("b"), S.CONFIRMED),
            Step(3, Reschedule("a", DAY, choice(("online", "morning"))), S.CONFIRMED),
            Step(4, reserve("c", _MORNING, "fajar", day=NEXT_DAY), S.HELD),
            Step(4, Confirm("c"), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "a smaller party is served by the wait list at once",
        (
            Step(0, SetCapacity(DAY, "priority", 2), S.DONE),
            Step(0, reserve("a", PRIORITY, "ani"), S.HELD),
            Step(0, reserve("b", PRIORITY, "budi", "citra", wait=True), S.WAITING),
            Step(0, reserve("c", PRIORITY, "dewi", "eka", wait=True), S.WAITING),
            Step(1, _replace("c", "eka", "fajar"), S.WAITING),
            Step(1, _remove("b", "citra"), S.HELD),
            Step(1, _remove("b", "citra"), S.HELD, "replayed"),
            Step(2, _remove("c", "dewi"), S.WAITING),
            Step(3, Release("a"), S.RELEASED),
            Step(3, Confirm("c"), S.CONFIRMED),
            Step(3, Expire(DAY), S.DONE),
        ),
    ),
    ConformanceScenario(
        "an operator replaces an applicant",
        (
            Step(0, reserve("a", ONLINE, "ani", "budi"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, reserve("c", COOLING, "citra"), S.HELD),
            Step(1, _replace("a", "budi", "citra"), S.IDENTITY_LIMIT),
            Step(1, _replace("a", "budi", "ani"), S.IDENTITY_LIMIT),
            Step(1, _replace("a", "citra", "dewi"), S.NOT_IN_PARTY),
            Step(1, _replace("a", "budi", "dewi", version=1), S.STALE),
            Step(1, _replace("a", "budi", "dewi", until_ms=OPENS_AT_MS), S.COMMAND_EXPIRED),
            Step(1, _replace("a", "budi", "dewi", version=2, until_ms=OPENS_AT_MS + 1), S.CONFIRMED),
            Step(2, _replace("a", "budi", "dewi", version=2, until_ms=OPENS_AT_MS + 1), S.CONFIRMED, "replayed"),
            Step(2, _replace("unknown", "budi", "dewi"), S.NOT_FOUND),
            Step(2, reserve("b", choice(("fast",)), "budi"), S.HELD),
            Step(2, reserve("d", choice(("fast",)), "dewi"), S.IDENTITY_LIMIT),
            Step(2, Confirm("a", owner=applicant("budi")), S.NOT_OWNER),
            Step(2, reserve("a", ONLINE, "ani", "budi"), S.CONFIRMED, "replayed"),
            Step(2, Cancel("c"), S.WRONG_STATE),
            Step(2, Release("c"), S.RELEASED),
            Step(3, _replace("c", "citra", "eka"), S.WRONG_STATE),
            Step(3, Release("b"), S.RELEASED),
            Step(4, _replace("a", "dewi", "budi"), S.CONFIRMED),
            Step(4, _replace("a", "budi", "dewi"), S.CONFIRMED),
            Step(5, CloseDay(DAY), S.DONE),
            Step(5, _replace("a", "ani", "eka"), S.DAY_CLOSED),
            Step(5, OpenDay(DAY), S.DONE),
            Step(_OVER, _replace("a", "ani", "eka"), S.DAY_OVER),
        ),
    ),
    ConformanceScenario(
        "a replaced applicant loses a hold to no other",
        (
            Step(0, reserve("a", ONLINE, "ani", "budi"), S.HELD),
            Step(1, _replace("a", "ani", "citra"), S.HELD),
            Step(1, reserve("d", ONLINE, "dewi"), S.SOLD_OUT),
            Step(_LATE - 1, Confirm("a", owner=applicant("citra")), S.CONFIRMED),
            Step(_LATE, reserve("e", COOLING, "ani"), S.HELD),
            Step(2 * _LATE, _replace("e", "ani", "eka"), S.HOLD_EXPIRED),
        ),
    ),
    ConformanceScenario(
        "leaving a confirmed party counts as a cancellation",
        (
            Step(0, reserve("a", _MORNING, "ani", "budi", "citra"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, _remove("a", "budi"), S.CONFIRMED),
            Step(2, reserve("b", ONLINE, "budi"), S.HELD),
            Step(2, Confirm("b"), S.CONFIRMED),
            Step(3, Cancel("b"), S.CANCELLED),
            Step(4, reserve("c", ONLINE, "budi"), S.BLOCKED),
            Step(4, _replace("a", "ani", "budi"), S.BLOCKED),
            Step(5, CloseDay(DAY), S.DONE),
            Step(5, _remove("a", "citra"), S.CONFIRMED),
            Step(5, OpenDay(DAY), S.DONE),
            Step(6, reserve("d", ONLINE, "citra"), S.HELD),
            Step(6, Confirm("d"), S.CONFIRMED),
            Step(7, Cancel("d"), S.CANCELLED),
            Step(8, reserve("e", ONLINE, "citra"), S.HELD),
        ),
    ),
    ConformanceScenario(
        "leaving a hold abandons it, and a closed day abandons nothing",
        (
            Step(0, reserve("a", ONLINE, "ani", "budi"), S.HELD),
            Step(1, _remove("a", "budi"), S.HELD),
            Step(1, reserve("b", COOLING, "budi"), S.HELD),
            Step(2, Release("b"), S.RELEASED),
            Step(3, reserve("c", ONLINE, "budi"), S.HELD),
            Step(3, _replace("c", "budi", "citra"), S.HELD),
            Step(4, reserve("d", choice(("fast",)), "budi", "dewi"), S.HELD),
            Step(5, CloseDay(DAY), S.DONE),
            Step(5, _remove("d", "dewi"), S.HELD),
            Step(5, OpenDay(DAY), S.DONE),
            Step(4 + _LATE, _replace("a", "ani", "budi"), S.HOLD_EXPIRED),
            Step(4 + _LATE, reserve("e", ONLINE, "budi"), S.BLOCKED),
            Step(4 + _LATE, reserve("f", ONLINE, "dewi", "eka"), S.HELD),
            Step(4 + _LATE, _replace("f", "eka", "budi"), S.BLOCKED),
            Step(5 + _LATE, Extend("f"), S.EXTENSIONS_EXCEEDED),
        ),
        published(**ABANDONED_HOLDS),
    ),
    ConformanceScenario(
        "a replacement expires the newcomer's own overdue holds first",
        (
            Step(0, reserve("a", PRIORITY, "ani"), S.HELD),
            Step(1, reserve("b", PRIORITY, "budi", wait=True), S.WAITING),
            Step(_LATE, _replace("b", "budi", "ani"), S.HELD),
            Step(_LATE + 1, _remove("b", "ani"), S.PARTY_TOO_SMALL),
        ),
        published(**ABANDONED_HOLDS),
    ),
    ConformanceScenario(
        "units of one who leaves cool, and a lowered capacity is worked off first",
        (
            Step(0, SetCapacity(DAY, "slow", 3), S.DONE),
            Step(0, reserve("a", COOLING, "ani", "budi", "citra"), S.HELD),
            Step(1, _remove("a", "budi"), S.HELD),
            Step(1, reserve("d", COOLING, "dewi"), S.SOLD_OUT),
            Step(1, SetCapacity(DAY, "slow", 2), S.DONE),
            Step(2, _remove("a", "citra"), S.HELD),
            Step(2, reserve("d", COOLING, "dewi"), S.SOLD_OUT),
        ),
    ),
)
