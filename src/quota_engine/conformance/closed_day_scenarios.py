"""Scenarios of closed days: people leave them, and nothing that they do there counts against them."""

from __future__ import annotations

__all__ = ["CLOSED_DAY_SCENARIOS"]

from typing import Final

from quota_engine.conformance.scenario_steps import ConformanceScenario, Step, move_in
from quota_engine.conformance.world import (
    COOLING,
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PUBLIC,
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
    OpenDay,
    PrepareMove,
    Release,
    Reschedule,
    Stay,
)
from quota_engine.domain.model import IdentityLimit
from quota_engine.domain.outcomes import Status as S

_DAY_MS = 86_400_000
_LATE = HOLD_TTL_MS
_START = STARTS_AT_MS - OPENS_AT_MS
_OVER = _START + _DAY_MS // 2

CLOSED_DAY_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "people of a closed day cancel and move even when it is over",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(0, Confirm("budi"), S.CONFIRMED),
            Step(0, reserve("citra", COOLING), S.HELD),
            Step(0, Confirm("citra"), S.CONFIRMED),
            Step(0, reserve("dewi", PUBLIC), S.HELD),
            Step(0, Confirm("dewi"), S.CONFIRMED),
            Step(1, CloseDay(DAY), S.DONE),
            Step(_START, Reschedule("ani", NEXT_DAY, ONLINE), S.CONFIRMED),  # TOO_LATE on an open day
            Step(_START, Reschedule("ani", NEXT_DAY, PUBLIC), S.CONFIRMED),  # the first move that counts
            Step(_START, Reschedule("ani", NEXT_DAY, ONLINE), S.MOVES_EXCEEDED),
            Step(_OVER, Cancel("budi"), S.CANCELLED),
            Step(_OVER, Cancel("budi"), S.CANCELLED, "replayed"),
            Step(_OVER, PrepareMove("dewi"), S.CONFIRMED),
            Step(_OVER, MoveOut("dewi"), S.MOVED),
            Step(_OVER, OpenDay(DAY), S.DONE),
            Step(_OVER, Cancel("citra"), S.DAY_OVER),
            Step(_OVER, PrepareMove("citra"), S.TOO_LATE),
            Step(_OVER, CloseDay(DAY), S.DONE),
            Step(_OVER, OpenDay(DAY), S.DONE),
        ),
    ),
    ConformanceScenario(
        "a cancellation or an absence on a closed day blocks no applicant",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("b", ONLINE, "budi"), S.HELD),
            Step(0, Confirm("b"), S.CONFIRMED),
            Step(1, CloseDay(DAY), S.DONE),
            Step(2, MarkNoShow("b"), S.DAY_CLOSED),
            Step(2, Cancel("a"), S.CANCELLED),
            Step(3, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(3, Confirm("c"), S.CONFIRMED),
            Step(3, Cancel("c"), S.CANCELLED),
            Step(4, reserve("d", ONLINE, "ani", day=NEXT_DAY), S.HELD),  # only "c" counts, and one is allowed
            Step(4, Confirm("d"), S.CONFIRMED),
            Step(4, Cancel("d"), S.CANCELLED),
            Step(5, reserve("e", ONLINE, "ani", day=NEXT_DAY), S.BLOCKED),
            Step(_START, MarkNoShow("b"), S.DAY_CLOSED),
            Step(_START, CheckIn("b"), S.ATTENDED),  # served before the office closed
        ),
    ),
    ConformanceScenario(
        "a hold that ends on a closed day is not abandoned",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, reserve("b", ONLINE, "budi"), S.HELD),
            Step(1, CloseDay(DAY), S.DONE),
            Step(2, Release("a"), S.RELEASED),
            Step(_LATE, Expire(DAY), S.DONE),
            Step(_LATE, reserve("c", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(1 + _LATE, Release("c"), S.RELEASED),
            Step(2 + _LATE, reserve("d", ONLINE, "ani", day=NEXT_DAY), S.HELD),  # only "c" counts, and one is allowed
            Step(3 + _LATE, Release("d"), S.RELEASED),
            Step(4 + _LATE, reserve("e", ONLINE, "ani", day=NEXT_DAY), S.BLOCKED),
            Step(4 + _LATE, reserve("f", ONLINE, "budi", day=NEXT_DAY), S.HELD),
        ),
        published(abandoned_holds_max=1, abandoned_holds_window_ms=_DAY_MS, abandoned_holds_block_ms=_DAY_MS),
    ),
    ConformanceScenario(
        "a party without a place elsewhere stays on its closed day",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Stay("a"), S.WRONG_STATE),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, Stay("a"), S.WRONG_STATE),
            Step(1, Stay("unknown"), S.NOT_FOUND),
            Step(2, CloseDay(DAY), S.DONE),
            Step(3, Stay("a", owner=applicant("budi")), S.NOT_OWNER),
            Step(3, Stay("a", expected_version=2), S.CONFIRMED),
            Step(3, Stay("a", expected_version=2), S.STALE),
            Step(4, Cancel("a"), S.CANCELLED),
            Step(4, Stay("a"), S.WRONG_STATE),
            Step(4, OpenDay(DAY), S.DONE),
            Step(5, reserve("b", ONLINE, "budi"), S.HELD),
            Step(5 + _LATE, Stay("b"), S.HOLD_EXPIRED),
        ),
    ),
    ConformanceScenario(
        "claims on a closed day do not count until it opens again",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("b", ONLINE, "ani", day=NEXT_DAY), S.IDENTITY_LIMIT),
            Step(1, CloseDay(DAY), S.DONE),
            Step(1, reserve("b", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(2, OpenDay(DAY), S.DONE),
            Step(2, Confirm("b"), S.CONFIRMED),
            Step(2, move_in("c", COOLING, "ani"), S.IDENTITY_LIMIT),
            Step(3, Cancel("b"), S.CANCELLED),
            Step(3, reserve("d", COOLING, "ani", day=NEXT_DAY), S.IDENTITY_LIMIT),
            Step(_START, CheckIn("a"), S.ATTENDED),
        ),
        published(identity_limits=(IdentityLimit(1, 0),)),
    ),
)
