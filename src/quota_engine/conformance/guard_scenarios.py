"""Scenarios of quotas that appear, vanish or get another name while a day is booked."""

from __future__ import annotations

__all__ = ["GUARD_SCENARIOS"]

from typing import Final

from msgspec.structs import replace

from quota_engine.conformance.scenario_steps import ConformanceScenario, Step, move_in
from quota_engine.conformance.world import (
    COOLING,
    DAY,
    HOLD_TTL_MS,
    MORNING,
    ONLINE,
    PRIORITY,
    choice,
    published,
    reserve,
    terms,
)
from quota_engine.domain.commands import (
    Cancel,
    Confirm,
    Publish,
    Release,
    Reschedule,
    SetCapacity,
)
from quota_engine.domain.model import DayTerms, GuardScope, QuotaTerms
from quota_engine.domain.outcomes import Status as S

_ONLINE_MORNING: Final = choice(("online",), session="morning")
_ONLINE_AFTERNOON: Final = choice(("online",), session="afternoon")
_GUARD: Final = QuotaTerms("guard", 2, guard=GuardScope(session="morning"))


def _with(*quotas: QuotaTerms, without: str = "") -> DayTerms:
    """Return the day's terms with more quotas, and without one. Nothing is reallocated."""
    kept = (replace(one, reallocation=None) for one in terms().quotas if one.name != without)
    return replace(terms(), quotas=(*kept, *quotas))


_RENAMED: Final = _with(QuotaTerms("web", 9, renamed_from="online"), without="online")
_WEB: Final = choice(("web",))
_JOINED: Final = replace(
    _with(without="online"),
    quotas=tuple(
        replace(one, renamed_from="online" if one.name == "morning" else "") for one in _with(without="online").quotas
    ),
)
_WITHOUT_SLOW: Final = _with(without="slow")
_SLOW_JOINED: Final = replace(
    _WITHOUT_SLOW,
    quotas=tuple(replace(one, renamed_from="slow" if one.name == "online" else "") for one in _WITHOUT_SLOW.quotas),
)

GUARD_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "a guard that is added later counts those who have booked",
        (
            Step(0, SetCapacity(DAY, "online", 9), S.DONE),
            Step(0, reserve("a", _ONLINE_MORNING), S.HELD),
            Step(0, reserve("b", _ONLINE_MORNING), S.HELD),
            Step(0, reserve("c", _ONLINE_MORNING), S.HELD),
            Step(0, reserve("d", _ONLINE_AFTERNOON), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, Publish(DAY, _with(_GUARD)), S.DONE),
            Step(1, Publish(DAY, _with(_GUARD)), S.DONE, "replayed"),
            Step(1, reserve("a", _ONLINE_MORNING), S.CONFIRMED, "replayed"),
            Step(1, reserve("e", _ONLINE_MORNING), S.SOLD_OUT),
            Step(1, reserve("e", _ONLINE_AFTERNOON), S.HELD),
            Step(2, Cancel("a"), S.CANCELLED),
            Step(2, reserve("f", _ONLINE_MORNING), S.SOLD_OUT),
            Step(3, Release("b"), S.RELEASED),
            Step(3, reserve("f", choice(("guard", "online"), session="morning")), S.HELD),
            Step(3, reserve("f", _ONLINE_MORNING), S.HELD, "replayed"),
            Step(3, Reschedule("e", DAY, _ONLINE_MORNING), S.SOLD_OUT),
            Step(3, move_in("m", _ONLINE_MORNING, "m"), S.SOLD_OUT),
            Step(3 + HOLD_TTL_MS, Confirm("c", reacquire=True), S.CONFIRMED),
            Step(3 + HOLD_TTL_MS, Reschedule("c", DAY, _ONLINE_MORNING), S.CONFIRMED, "replayed"),
        ),
    ),
    ConformanceScenario(
        "a guard counts a booking whose caller does not know it",
        (
            Step(0, SetCapacity(DAY, "priority", 9), S.DONE),
            Step(0, Publish(DAY, _with(_GUARD)), S.DONE),
            Step(0, reserve("a", MORNING, "a1", "a2"), S.HELD),
            Step(0, reserve("b", MORNING, wait=True), S.WAITING),
            Step(0, reserve("c", PRIORITY), S.HELD),
            Step(1, Release("a"), S.RELEASED),
            Step(1, Confirm("b"), S.CONFIRMED),
            Step(1, reserve("d", MORNING, "d1", "d2"), S.SOLD_OUT),
        ),
    ),
    ConformanceScenario(
        "a guard with people is not removed, and counts until they have gone",
        (
            Step(0, Publish(DAY, _with(_GUARD)), S.DONE),
            Step(0, reserve("a", _ONLINE_MORNING), S.HELD),
            Step(1, Publish(DAY, terms()), S.QUOTA_IN_USE),
            Step(1, reserve("b", _ONLINE_MORNING, "b1", "b2"), S.SOLD_OUT),
            Step(1, Release("a"), S.RELEASED),
            Step(2, Publish(DAY, terms()), S.DONE),
            Step(2, SetCapacity(DAY, "guard", 3), S.UNKNOWN_QUOTA),
            Step(2, reserve("b", _ONLINE_MORNING, "b1", "b2"), S.HELD),
            Step(3, Publish(DAY, _with(_GUARD)), S.DONE),
            Step(3, SetCapacity(DAY, "online", 9), S.DONE),
            Step(3, reserve("c", _ONLINE_MORNING), S.SOLD_OUT),
        ),
    ),
    ConformanceScenario(
        "a quota that people wait for is not removed",
        (
            Step(0, reserve("a", PRIORITY), S.HELD),
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(1, SetCapacity(DAY, "priority", 0), S.DONE),
            Step(1, Release("a"), S.RELEASED),
            Step(1, Publish(DAY, _with(without="priority")), S.QUOTA_IN_USE),
            Step(1, Release("b"), S.RELEASED),
            Step(1, Publish(DAY, _with(without="priority")), S.DONE),
            Step(1, reserve("c", PRIORITY), S.UNKNOWN_QUOTA),
        ),
    ),
    ConformanceScenario(
        "a quota without people vanishes with its cooling units",
        (
            Step(0, reserve("a", COOLING), S.HELD),
            Step(1, Publish(DAY, _WITHOUT_SLOW), S.QUOTA_IN_USE),
            Step(1, Release("a"), S.RELEASED),
            Step(1, Publish(DAY, _WITHOUT_SLOW), S.DONE),
            Step(1, reserve("b", COOLING), S.UNKNOWN_QUOTA),
            Step(2, Publish(DAY, terms()), S.DONE),
            Step(2, reserve("b", COOLING), S.HELD),
        ),
    ),
    ConformanceScenario(
        "cooling units of a renamed quota join the other quota",
        (
            Step(0, reserve("a", COOLING), S.HELD),
            Step(1, Release("a"), S.RELEASED),
            Step(2, Publish(DAY, _SLOW_JOINED), S.DONE),
            Step(2, reserve("c", COOLING), S.UNKNOWN_QUOTA),
            Step(3 + HOLD_TTL_MS, reserve("c", ONLINE), S.HELD),
            Step(3 + HOLD_TTL_MS, Publish(DAY, _SLOW_JOINED), S.DONE, "replayed"),
        ),
    ),
    ConformanceScenario(
        "a renamed quota keeps its people and its capacity",
        (
            Step(0, reserve("a", ONLINE), S.HELD),
            Step(0, reserve("x", choice(("slow",), ("online",))), S.HELD),
            Step(1, Publish(DAY, _RENAMED), S.DONE),
            Step(1, Publish(DAY, _RENAMED), S.DONE, "replayed"),
            Step(1, reserve("b", ONLINE), S.UNKNOWN_QUOTA),
            Step(1, reserve("b", _WEB), S.HELD),
            Step(1, reserve("c", _WEB), S.SOLD_OUT),
            Step(1, reserve("a", _WEB), S.HELD, "replayed"),
            Step(1, Confirm("a"), S.CONFIRMED),
            Step(1, Cancel("a"), S.CANCELLED),
            Step(1, reserve("c", _WEB), S.HELD),
            Step(1 + HOLD_TTL_MS, Confirm("x", reacquire=True), S.CONFIRMED),
            Step(1 + HOLD_TTL_MS, Confirm("b", reacquire=True), S.CONFIRMED),
            Step(1 + HOLD_TTL_MS, Confirm("c", reacquire=True), S.HOLD_EXPIRED),
        ),
    ),
    ConformanceScenario(
        "the people of a quota join another one",
        (
            Step(0, reserve("a", ONLINE, "a1", "a2"), S.HELD),
            Step(0, reserve("b", choice(("morning",))), S.HELD),
            Step(0, reserve("c", choice(("fast", "morning"))), S.HELD),
            Step(1, Publish(DAY, _JOINED), S.DONE),
            Step(1, reserve("d", choice(("morning",))), S.SOLD_OUT),
            Step(1, Release("b"), S.RELEASED),
            Step(1, reserve("d", choice(("morning",))), S.SOLD_OUT),
            Step(1, Release("a"), S.RELEASED),
            Step(1, reserve("d", choice(("morning",)), "d1", "d2"), S.HELD),
        ),
        published(cancellations_max=0),
    ),
)
