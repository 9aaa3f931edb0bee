"""Scenarios of sessions: each has its own end of booking, and its own end."""

from __future__ import annotations

__all__ = ["SESSION_SCENARIOS"]

from typing import Final

from msgspec.structs import replace

from quota_engine.conformance.scenario_steps import ConformanceScenario, Step, move_in
from quota_engine.conformance.world import (
    AFTERNOON,
    BOOK_UNTIL_MS,
    DAY,
    HOLD_TTL_MS,
    MORNING,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    SESSION_ENDS_AT_MS,
    STARTS_AT_MS,
    choice,
    published,
    reserve,
    terms,
)
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Confirm,
    Extend,
    Publish,
    Release,
    Reschedule,
    SetCapacity,
)
from quota_engine.domain.model import IdentityLimit, SessionTerms
from quota_engine.domain.outcomes import Status as S

_UNTIL: Final = BOOK_UNTIL_MS - OPENS_AT_MS
_ENDS: Final = SESSION_ENDS_AT_MS - OPENS_AT_MS
_OVER: Final = STARTS_AT_MS - OPENS_AT_MS + 12 * 3_600_000
_MORNING_ONLINE: Final = choice(("online",), session="morning")
_AFTERNOON_ONLINE: Final = choice(("online",), session="afternoon")
_UNPLANNED: Final = choice(("online",), session="evening")


SESSION_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "a session that is over cannot be booked",
        (
            Step(_UNTIL - 1, reserve("a", _MORNING_ONLINE), S.HELD),
            Step(_UNTIL, reserve("b", _MORNING_ONLINE), S.SESSION_OVER),
            Step(_UNTIL, reserve("b", choice(("nowhere",), session="morning")), S.UNKNOWN_QUOTA),
            Step(_UNTIL, reserve("b", _AFTERNOON_ONLINE), S.HELD),
            Step(_UNTIL, reserve("c", choice(("morning",))), S.HELD),
            Step(_UNTIL, reserve("d", choice(("morning",), session="evening")), S.HELD),
            Step(_UNTIL, reserve("e", choice(("fast",), session="afternoon")), S.SOLD_OUT),
            Step(_UNTIL, reserve("a", _MORNING_ONLINE), S.HELD, "replayed"),
            Step(_OVER, reserve("b2", _MORNING_ONLINE), S.DAY_OVER),
            Step(_OVER, CloseDay(DAY), S.DONE),
            Step(_OVER, reserve("b2", _MORNING_ONLINE), S.DAY_CLOSED),
        ),
    ),
    ConformanceScenario(
        "a hold is confirmed until its session ends",
        (
            Step(_UNTIL - 1, replace(reserve("a", _MORNING_ONLINE), hold_ttl_ms=3 * 3_600_000), S.HELD),
            Step(_UNTIL - 1, replace(reserve("b", _MORNING_ONLINE), hold_ttl_ms=3 * 3_600_000), S.HELD),
            Step(_ENDS - 1, Confirm("a"), S.CONFIRMED),
            Step(_ENDS, Confirm("b"), S.SESSION_OVER),
            Step(_ENDS, Extend("b", extension=1), S.SESSION_OVER),
            Step(_ENDS, Confirm("a"), S.CONFIRMED, "replayed"),
            Step(_ENDS, CheckIn("a"), S.ATTENDED),
            Step(_ENDS, Reschedule("b", DAY, _AFTERNOON_ONLINE), S.HELD),
            Step(_ENDS, Confirm("b"), S.CONFIRMED),
            Step(_ENDS, Cancel("b"), S.CANCELLED),
        ),
    ),
    ConformanceScenario(
        "no other call takes units of a session that is over",
        (
            Step(_UNTIL - HOLD_TTL_MS, reserve("late", _MORNING_ONLINE), S.HELD),
            Step(_UNTIL - 1, reserve("a", _AFTERNOON_ONLINE), S.HELD),
            Step(_UNTIL - 1, Reschedule("a", DAY, _MORNING_ONLINE), S.HELD),
            Step(_UNTIL - 1, reserve("b", choice(("morning",))), S.HELD),
            Step(_UNTIL, Confirm("late", reacquire=True), S.HOLD_EXPIRED),
            Step(_UNTIL, Reschedule("b", DAY, _MORNING_ONLINE), S.SESSION_OVER),
            Step(_UNTIL, move_in("m", _MORNING_ONLINE, "m"), S.SESSION_OVER),
            Step(_UNTIL, move_in("m", _UNPLANNED, "m"), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "the wait list of a session ends with its booking",
        (
            Step(0, reserve("a", PRIORITY), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("w", MORNING, "budi", wait=True), S.WAITING),
            Step(0, reserve("x", AFTERNOON, "citra", wait=True), S.WAITING),
            Step(_UNTIL - 1, reserve("y", _AFTERNOON_ONLINE, "budi"), S.WAITING, "resumed"),
            Step(_UNTIL, reserve("y", _AFTERNOON_ONLINE, "budi"), S.HELD),
            Step(_UNTIL, SetCapacity(DAY, "priority", 2), S.DONE),
            Step(_UNTIL, reserve("w", MORNING, "budi", wait=True), S.WAITING, "replayed"),
            Step(_UNTIL, Confirm("x"), S.CONFIRMED),
            Step(_UNTIL, Release("w"), S.RELEASED),
        ),
        published(identity_limits=(IdentityLimit(1, 1),), reschedule_before_ms=0),
    ),
    ConformanceScenario(
        "a long wait list of a session that is over holds up no other session",
        (
            Step(0, reserve("a", PRIORITY), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            *(Step(0, reserve(f"w{number}", MORNING, wait=True), S.WAITING) for number in range(70)),
            Step(0, reserve("x", AFTERNOON, wait=True), S.WAITING),
            Step(_UNTIL - 1, SetCapacity(DAY, "priority", 2), S.DONE),
            Step(_UNTIL - 1, Release("w0"), S.RELEASED),
            Step(_UNTIL, SetCapacity(DAY, "priority", 3), S.DONE),
            Step(_UNTIL, Confirm("x"), S.CONFIRMED),
            Step(_UNTIL, Confirm("w1"), S.CONFIRMED),
        ),
        published(wait_list_max=100),
    ),
    ConformanceScenario(
        "a publication moves the end of a session's booking",
        (
            Step(_UNTIL, reserve("a", _MORNING_ONLINE), S.SESSION_OVER),
            Step(_UNTIL, Publish(DAY, replace(terms(), sessions=())), S.DONE),
            Step(_UNTIL, reserve("a", _MORNING_ONLINE), S.HELD),
            Step(_UNTIL, Publish(DAY, replace(terms(), sessions=(SessionTerms("morning", 1, 0),))), S.DONE),
            Step(_UNTIL, reserve("b", _MORNING_ONLINE), S.SESSION_OVER),
            Step(_UNTIL, Confirm("a"), S.SESSION_OVER),
            Step(_UNTIL, Publish(DAY, terms()), S.DONE),
            Step(_UNTIL, Publish(DAY, terms()), S.DONE, "replayed"),
            Step(_UNTIL, Confirm("a"), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "a session that ends its booking before the day opens",
        (
            Step(
                -1,
                Publish(DAY, replace(terms(), sessions=(SessionTerms("morning", SESSION_ENDS_AT_MS, 0),))),
                S.DONE,
            ),
            Step(-1, reserve("a", _MORNING_ONLINE), S.SESSION_OVER),
            Step(-1, reserve("a", _AFTERNOON_ONLINE), S.NOT_OPEN),
            Step(0, reserve("a", _MORNING_ONLINE), S.SESSION_OVER),
            Step(0, reserve("a", ONLINE), S.HELD),
        ),
    ),
)
