"""Scenarios of wait lists: their order, units that are withheld for a party, and offers that are declined."""

from __future__ import annotations

__all__ = ["WAIT_LIST_SCENARIOS"]

from typing import Final

from msgspec.structs import replace

from quota_engine.conformance.scenario_steps import ConformanceScenario, Step, move_in
from quota_engine.conformance.world import (
    DAY,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    RULES,
    STARTS_AT_MS,
    applicant,
    choice,
    published,
    reserve,
    terms,
)
from quota_engine.domain.commands import (
    Cancel,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    OpenDay,
    Publish,
    Release,
    Reschedule,
    SetCapacity,
)
from quota_engine.domain.model import Choice, IdentityLimit
from quota_engine.domain.outcomes import Status as S

_MINUTE_MS = 60_000
_OFFER = RULES.offer_ttl_ms
_PAUSE = RULES.decline_pause_ms
_BLOCKS = 120 * _MINUTE_MS
_OVER = STARTS_AT_MS - OPENS_AT_MS + 86_400_000 // 2
_FAMILY = choice(("priority", "morning"))
_MORNING = choice(("morning",))


def _strict(**rules: object) -> tuple[Command, ...]:
    """Return the setup with the order ``strict`` for the quota ``priority``."""
    return (*published(**rules)[:1], Publish(DAY, terms(blocks_ms=_BLOCKS)), Publish(NEXT_DAY, terms(1)))


def _service(number: int) -> Choice:
    """Return a choice of another service on the same quota."""
    return Choice(f"service{number}", "", "", "online", "", (("priority",),))


def _with_list(*joins: Command) -> tuple[Command, ...]:
    """Return the setup with a day that is open already, without units of ``priority``, and with parties that wait.

    They are in the setup, because the state is compared after each step, and a long list makes that slow.
    """
    opened = replace(terms(), opens_at_ms=OPENS_AT_MS - 2 * 3_600_000)
    return (*published(wait_list_max=1000), Publish(DAY, opened), SetCapacity(DAY, "priority", 0), *joins)


WAIT_LIST_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "first fit serves everyone who fits before a newcomer, however long the list is",
        (
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(1, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(1, reserve("n", PRIORITY), S.SOLD_OUT),
            Step(1, Confirm("b"), S.CONFIRMED),
        ),
        _with_list(*(reserve(f"c{one}", PRIORITY, f"c{one}a", f"c{one}b", wait=True) for one in range(70))),
    ),
    ConformanceScenario(
        "units stay with the list while a command could not make all offers",
        (
            Step(1, SetCapacity(DAY, "priority", 71), S.DONE),  # 64 offers
            Step(1, reserve("w64", PRIORITY, wait=True), S.HELD, "replayed"),  # the replay makes the rest
            Step(1, reserve("n", PRIORITY), S.HELD),
            Step(1, reserve("o", PRIORITY), S.SOLD_OUT),
            Step(1, Confirm("w70"), S.CONFIRMED),
        ),
        _with_list(*(reserve(f"w{one}", PRIORITY, wait=True) for one in range(1, 71))),
    ),
    ConformanceScenario(
        "a newcomer gets nothing while more offers are due than one command makes",
        (
            Step(1, SetCapacity(DAY, "priority", 131), S.DONE),  # 64 offers
            Step(1, reserve("n", PRIORITY), S.SOLD_OUT),  # 64 more
            Step(1, reserve("n", PRIORITY), S.HELD),  # the last 2, and then the newcomer
            Step(1, reserve("o", PRIORITY), S.SOLD_OUT),
            Step(1, Confirm("w130"), S.CONFIRMED),
        ),
        _with_list(*(reserve(f"w{one}", PRIORITY, wait=True) for one in range(1, 131))),
    ),
    ConformanceScenario(
        "strict withholds units for the first party that does not fit",
        (
            Step(0, SetCapacity(DAY, "priority", 3), S.DONE),
            Step(0, reserve("a", PRIORITY), S.HELD),
            Step(0, reserve("b", PRIORITY), S.HELD),
            Step(0, reserve("c", PRIORITY), S.HELD),
            Step(0, reserve("d", PRIORITY, "d1", "d2", wait=True), S.WAITING),
            Step(0, reserve("e", PRIORITY, wait=True), S.WAITING),
            Step(1, Release("a"), S.RELEASED),
            Step(1, reserve("n", PRIORITY), S.SOLD_OUT),
            Step(1, move_in("m", PRIORITY, "mia"), S.SOLD_OUT),
            Step(1, reserve("f", ONLINE, "fitri"), S.HELD),
            Step(1, Reschedule("f", DAY, PRIORITY), S.SOLD_OUT),
            Step(1, Confirm("e"), S.WRONG_STATE),
            Step(2, Release("b"), S.RELEASED),
            Step(2, Confirm("d"), S.CONFIRMED),
            Step(3, Release("c"), S.RELEASED),
            Step(3, Confirm("e"), S.CONFIRMED),
        ),
        _strict(),
    ),
    ConformanceScenario(
        "strict withholds a free unit for a limited time",
        (
            Step(0, reserve("a", PRIORITY), S.HELD),
            Step(0, reserve("d", PRIORITY, "d1", "d2", wait=True), S.WAITING),
            Step(0, reserve("e", PRIORITY, wait=True), S.WAITING),
            Step(1, Release("a"), S.RELEASED),
            Step(_BLOCKS, reserve("e2", PRIORITY, "e"), S.WAITING, "resumed"),
            Step(_BLOCKS, reserve("n", PRIORITY), S.SOLD_OUT),
            Step(1 + _BLOCKS, reserve("n", PRIORITY), S.SOLD_OUT),  # the party behind is served first
            Step(1 + _BLOCKS, Confirm("e"), S.CONFIRMED),
            Step(2 + _BLOCKS, Cancel("e"), S.CANCELLED),
            Step(2 + _BLOCKS, reserve("n", PRIORITY), S.SOLD_OUT),  # another free unit is withheld again
            Step(2 + 2 * _BLOCKS, reserve("n", PRIORITY), S.HELD),
        ),
        _strict(),
    ),
    ConformanceScenario(
        "one party at a time blocks a quota",
        (
            Step(0, SetCapacity(DAY, "morning", 8), S.DONE),
            Step(0, SetCapacity(DAY, "priority", 8), S.DONE),
            Step(0, reserve("a", PRIORITY, "a1", "a2", "a3"), S.HELD),
            Step(0, reserve("b", PRIORITY, "b1", "b2", "b3"), S.HELD),
            Step(0, reserve("c", PRIORITY, "c1", "c2"), S.HELD),
            Step(0, reserve("d", _FAMILY, "d1", "d2", "d3", wait=True), S.WAITING),
            Step(0, reserve("e", _FAMILY, "e1", "e2", "e3", wait=True), S.WAITING),
            Step(1, Release("c"), S.RELEASED),  # two units: too few for "d"
            Step(1, reserve("n", PRIORITY), S.SOLD_OUT),
            Step(1, reserve("o", _MORNING, "o1", "o2", "o3"), S.HELD),  # the quota morning is first fit
            Step(2, Release("a"), S.RELEASED),  # five: "d" is served, and two are left for "e"
            Step(2, Confirm("d"), S.CONFIRMED),
            Step(2, reserve("n", PRIORITY), S.SOLD_OUT),
            Step(3, Release("b"), S.RELEASED),  # "e" lacks the quota morning now
            Step(3, reserve("n", PRIORITY, "n1", "n2"), S.HELD),  # three of the five units stay for "e"
            Step(3, reserve("p", PRIORITY), S.SOLD_OUT),
            Step(4, SetCapacity(DAY, "morning", 9), S.DONE),
            Step(4, Confirm("e"), S.CONFIRMED),
        ),
        _strict(),
    ),
    ConformanceScenario(
        "a declined offer goes to the next party, and the party keeps its place",
        (
            Step(0, reserve("a", PRIORITY), S.HELD),
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(0, reserve("c", PRIORITY, wait=True), S.WAITING),
            Step(0, Decline("b"), S.WAITING, "replayed"),
            Step(0, Decline("a"), S.WRONG_STATE),
            Step(0, Decline("z"), S.NOT_FOUND),
            Step(1, Release("a"), S.RELEASED),
            Step(1, Decline("b", owner=applicant("c")), S.NOT_OWNER),
            Step(1, Decline("b", expected_version=1), S.STALE),
            Step(1, Decline("b"), S.WAITING),
            Step(1, Decline("b"), S.WAITING, "replayed"),
            Step(2, Release("c"), S.RELEASED),
            Step(2, reserve("n", PRIORITY), S.HELD),  # the list passes over "b" for a while
            Step(3, reserve("d", PRIORITY, wait=True), S.WAITING),
            Step(_PAUSE, Release("n"), S.HOLD_EXPIRED),
            Step(_PAUSE, Decline("d"), S.WAITING),
            Step(_PAUSE + 1, Expire(DAY), S.DONE),
            Step(_PAUSE + 1, Confirm("b"), S.CONFIRMED),  # in front of "d", as before
            Step(2 * _PAUSE, Decline("b"), S.WRONG_STATE),
        ),
        published(wait_list_max=5),
    ),
    ConformanceScenario(
        "a party may decline a few offers",
        (
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(0, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(1, Decline("b"), S.WAITING),
            Step(_PAUSE, reserve("b2", PRIORITY, "b"), S.WAITING, "resumed"),
            Step(1 + _PAUSE, reserve("b2", PRIORITY, "b"), S.HELD, "resumed"),
            Step(1 + _PAUSE, Decline("b"), S.DECLINES_EXCEEDED),
            Step(1 + _PAUSE, CloseDay(DAY), S.DONE),
            Step(1 + _PAUSE, Decline("b"), S.DAY_CLOSED),
            Step(1 + _PAUSE, OpenDay(DAY), S.DONE),
            Step(1 + _PAUSE + _OFFER, Decline("b"), S.HOLD_EXPIRED),
        ),
        (*published(declines_max=1), SetCapacity(DAY, "priority", 0)),
    ),
    ConformanceScenario(
        "a declined offer is no abandoned hold",
        (
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(0, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(1, Decline("b"), S.WAITING),
            Step(1 + _PAUSE, Expire(DAY), S.DONE),
            Step(1 + _PAUSE, Decline("b"), S.WAITING),
            Step(2 + _PAUSE, Release("b"), S.RELEASED),
            Step(2 + _PAUSE, reserve("c", ONLINE, "b"), S.HELD),
            Step(3 + _PAUSE, Release("c"), S.RELEASED),
            Step(3 + _PAUSE, reserve("d", ONLINE, "b"), S.HELD),
            Step(4 + _PAUSE, Release("d"), S.RELEASED),
            Step(4 + _PAUSE, reserve("e", ONLINE, "b"), S.BLOCKED),
        ),
        (
            *published(abandoned_holds_max=1, abandoned_holds_block_ms=_PAUSE),
            SetCapacity(DAY, "priority", 0),
        ),
    ),
    ConformanceScenario(
        "an offer that was rescheduled cannot be declined",
        (
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(0, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(1, Reschedule("b", NEXT_DAY, ONLINE), S.HELD),
            Step(1, Decline("b"), S.WRONG_STATE),
            Step(1, reserve("c", PRIORITY), S.HELD),
        ),
        (*published(identity_limits=(IdentityLimit(1, 1),)), SetCapacity(DAY, "priority", 0)),
    ),
    ConformanceScenario(
        "an offer of a day that is over cannot be declined",
        (
            Step(0, reserve("b", PRIORITY, wait=True), S.WAITING),
            Step(_OVER - 1, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(_OVER, Decline("b"), S.DAY_OVER),
            Step(_OVER, Release("b"), S.RELEASED),
        ),
        (*published(offer_ttl_ms=HOLD_TTL_MS), SetCapacity(DAY, "priority", 0)),
    ),
    ConformanceScenario(
        "the number of different demands on a wait list is bounded",
        (
            Step(0, reserve("n", PRIORITY, wait=True), S.WAIT_LIST_FULL),
            Step(0, reserve("o", _service(7), wait=True), S.WAITING),
            Step(1, Release("w7"), S.RELEASED),
            Step(1, reserve("n", PRIORITY, wait=True), S.WAIT_LIST_FULL),
            Step(1, Release("o"), S.RELEASED),
            Step(1, reserve("n", PRIORITY, wait=True), S.WAITING),
            Step(2, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(2, Confirm("w0"), S.CONFIRMED),
        ),
        _with_list(*(reserve(f"w{one}", _service(one), wait=True) for one in range(256))),
    ),
)
