"""Scenarios: commands at given times with their expected statuses, one row per command.

Together they reach every transition of the life cycle and every status. A new rule gets its row here first, and then
runs on every store.
"""

from __future__ import annotations

__all__ = ["SCENARIOS", "ConformanceScenario", "Step"]

from typing import Final, NamedTuple

from msgspec.structs import replace

from quota_engine.conformance.world import (
    COOLING,
    DAY,
    DRAW,
    FORGET_AT_MS,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    PUBLIC,
    REALLOCATE_AT_MS,
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
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Expire,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    UndoMove,
)
from quota_engine.domain.model import Choice, IdentityLimit, Rules
from quota_engine.domain.outcomes import Status as S


class Step(NamedTuple):
    """A command at ``at_ms`` after the opening, with the status and the flag, such as ``replayed``, of its outcome."""

    at_ms: int
    command: Command
    status: S
    flag: str = ""


class ConformanceScenario(NamedTuple):
    """Steps that are applied to a new office."""

    name: str
    steps: tuple[Step, ...]
    setup: tuple[Command, ...] = published()


_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
_LATE = HOLD_TTL_MS
_START = STARTS_AT_MS - OPENS_AT_MS
_FORGET = FORGET_AT_MS - OPENS_AT_MS
_REALLOCATE = REALLOCATE_AT_MS - OPENS_AT_MS
_OVER = _START + _DAY_MS // 2


def _move_in(key: str, wanted: Choice, *names: str, deadline_ms: int | None = None, day: int = DAY) -> MoveIn:
    """Return a first move: of a hold until ``deadline_ms`` after the opening, or of a confirmed reservation."""
    party = tuple(applicant(name) for name in names)
    return MoveIn(key, day, party, wanted, 0 if deadline_ms is None else OPENS_AT_MS + deadline_ms, 1)


def _valid_until(command: Reserve, until_ms: int) -> Reserve:
    """Return the same command, valid until ``until_ms`` after the opening."""
    return replace(command, valid_until_ms=OPENS_AT_MS + until_ms)


SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "a reservation from hold to check-in",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(1, Confirm("ani"), S.CONFIRMED),
            Step(_START - 1, CheckIn("ani"), S.TOO_EARLY),
            Step(_START, CheckIn("ani"), S.ATTENDED),
            Step(_START, CheckIn("ani"), S.ATTENDED, "replayed"),
            Step(_START, Cancel("ani"), S.WRONG_STATE),
        ),
    ),
    ConformanceScenario(
        "a day opens and ends by the clock",
        (
            Step(-1, reserve("ani", ONLINE), S.NOT_OPEN),
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(_OVER - 1, reserve("budi", ONLINE), S.HELD),
            Step(_OVER, reserve("citra", ONLINE), S.DAY_OVER),
            Step(_OVER, Confirm("budi"), S.DAY_OVER),
        ),
    ),
    ConformanceScenario(
        "released units can be reserved again",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(0, reserve("citra", ONLINE), S.SOLD_OUT),
            Step(1, Release("ani"), S.RELEASED),
            Step(1, reserve("citra", ONLINE), S.HELD),
            Step(1, reserve("dewi", ONLINE), S.SOLD_OUT),
        ),
    ),
    ConformanceScenario(
        "a hold ends at its deadline without a sweep",
        (
            Step(0, reserve("ani", ONLINE, "ani", "budi"), S.HELD),
            Step(_LATE - 1, reserve("citra", ONLINE), S.SOLD_OUT),
            Step(_LATE, Confirm("ani"), S.HOLD_EXPIRED),
            Step(_LATE, Release("ani"), S.HOLD_EXPIRED),
            Step(_LATE, reserve("citra", ONLINE), S.HELD),
        ),
    ),
    ConformanceScenario(
        "a sweep keeps confirmed reservations",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(_LATE - 1, Confirm("ani"), S.CONFIRMED),
            Step(_LATE, Expire(DAY, 1), S.DONE),
            Step(_LATE, Expire(DAY), S.DONE),
            Step(_LATE, Confirm("ani"), S.CONFIRMED, "replayed"),
            Step(_LATE, Expire(NEXT_DAY + 1), S.UNKNOWN_DAY),
        ),
    ),
    ConformanceScenario(
        "a late confirm can reacquire units",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(_LATE, Confirm("ani", reacquire=True), S.CONFIRMED),
            Step(_LATE, reserve("budi", PUBLIC), S.HELD),
            Step(2 * _LATE, SetCapacity(DAY, "fast", 0), S.DONE),
            Step(2 * _LATE, SetCapacity(DAY, "online", 1), S.DONE),
            Step(2 * _LATE, Confirm("budi", reacquire=True), S.HOLD_EXPIRED),
            Step(2 * _LATE, SetCapacity(DAY, "online", 2), S.DONE),
            Step(2 * _LATE, CloseDay(DAY), S.DONE),
            Step(2 * _LATE, Confirm("budi", reacquire=True), S.HOLD_EXPIRED),
            Step(2 * _LATE, OpenDay(DAY), S.DONE),
            Step(2 * _LATE, Confirm("budi", reacquire=True), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "an idempotency key has one effect",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, reserve("ani", ONLINE), S.HELD, "replayed"),
            Step(0, reserve("ani", ONLINE, "budi"), S.CONFLICT),
            Step(0, reserve("ani", COOLING), S.CONFLICT),
            Step(0, reserve("ani", ONLINE, day=NEXT_DAY), S.CONFLICT),
            Step(1, Confirm("ani"), S.CONFIRMED),
            Step(1, Confirm("ani"), S.CONFIRMED, "replayed"),
            Step(1, reserve("ani", ONLINE), S.CONFIRMED, "replayed"),
            Step(2, Cancel("ani"), S.CANCELLED),
            Step(2, Cancel("ani"), S.CANCELLED, "replayed"),
            Step(2, reserve("ani", ONLINE), S.RESERVATION_ENDED, "replayed"),
            Step(2, reserve("ani2", ONLINE, "ani"), S.HELD),
            Step(2 + _LATE, reserve("ani2", ONLINE, "ani"), S.RESERVATION_ENDED, "replayed"),
        ),
    ),
    ConformanceScenario(
        "a returning party resumes its hold",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(9, reserve("other", PUBLIC, "ani"), S.HELD, "resumed"),
            Step(9, reserve("party", ONLINE, "ani", "budi"), S.IDENTITY_LIMIT),
            Step(9, Confirm("ani"), S.CONFIRMED),
            Step(9, reserve("other", ONLINE, "ani"), S.IDENTITY_LIMIT),
            Step(10, reserve("two", PUBLIC, "citra", "dewi"), S.HELD),
            Step(10, reserve("owt", PUBLIC, "dewi", "citra"), S.HELD, "resumed"),
            Step(10, reserve("two", PUBLIC, "dewi", "citra"), S.HELD, "replayed"),
        ),
    ),
    ConformanceScenario(
        "identity limits for a day and for all days",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("b", COOLING, "ani"), S.IDENTITY_LIMIT),
            Step(0, reserve("c", ONLINE, "budi", "ani"), S.IDENTITY_LIMIT),
            Step(0, reserve("d", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(0, Publish(NEXT_DAY + 1, terms(2)), S.DONE),
            Step(0, reserve("e", ONLINE, "ani", day=NEXT_DAY + 1), S.IDENTITY_LIMIT),
            Step(1, Release("d"), S.RELEASED),
            Step(1, reserve("e", ONLINE, "ani", day=NEXT_DAY + 1), S.HELD),
            Step(_LATE, reserve("f", ONLINE, "ani", day=NEXT_DAY), S.IDENTITY_LIMIT),
            Step(1 + _LATE, reserve("f", ONLINE, "ani", day=NEXT_DAY), S.HELD),
        ),
    ),
    ConformanceScenario(
        "an identity limit over a span of days",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("b", ONLINE, "ani", day=NEXT_DAY), S.IDENTITY_LIMIT),
            Step(0, Publish(NEXT_DAY + 1, terms(2)), S.DONE),
            Step(0, reserve("b", ONLINE, "ani", day=NEXT_DAY + 1), S.HELD),
        ),
        published(identity_limits=(IdentityLimit(1, 2),)),
    ),
    ConformanceScenario(
        "owner and version are checked",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, Confirm("ani", owner=applicant("budi")), S.NOT_OWNER),
            Step(0, Confirm("ani", owner=applicant("ani"), expected_version=2), S.STALE),
            Step(0, Confirm("ani", owner=applicant("ani"), expected_version=1), S.CONFIRMED),
            Step(0, Cancel("ani", expected_version=1), S.STALE),
            Step(0, Confirm("unknown"), S.NOT_FOUND),
            Step(0, Reschedule("unknown", DAY, ONLINE), S.NOT_FOUND),
            Step(0, Release("ani"), S.WRONG_STATE),
        ),
    ),
    ConformanceScenario(
        "unknown days, quotas and oversized parties are refused",
        (
            Step(0, reserve("ani", ONLINE, day=DAY - 1), S.UNKNOWN_DAY),
            Step(0, reserve("ani", choice(("online",), ("nowhere",))), S.UNKNOWN_QUOTA),
            Step(0, reserve("ani", ONLINE, "a", "b", "c", "d"), S.PARTY_TOO_LARGE),
            Step(0, SetCapacity(DAY - 1, "online", 1), S.UNKNOWN_DAY),
            Step(0, SetCapacity(DAY, "nowhere", 1), S.UNKNOWN_QUOTA),
            Step(0, CloseDay(DAY - 1), S.UNKNOWN_DAY),
            Step(0, OpenDay(DAY - 1), S.UNKNOWN_DAY),
            Step(0, ReallocateUnused(DAY, "nowhere"), S.UNKNOWN_QUOTA),
            Step(0, ReallocateUnused(DAY, "online"), S.WRONG_STATE),
            Step(0, ReleaseParked(DAY - 1, "draw"), S.UNKNOWN_DAY),
        ),
    ),
    ConformanceScenario(
        "a booking consumes several quotas and falls back",
        (
            Step(0, reserve("a", PUBLIC, "a1", "a2"), S.HELD),
            Step(0, reserve("b", PUBLIC, "b1", "b2"), S.SOLD_OUT),
            Step(0, reserve("b", PUBLIC, "b1"), S.HELD),
            Step(0, reserve("c", PUBLIC), S.SOLD_OUT),
            Step(0, reserve("c", ONLINE), S.HELD),
            Step(1, Release("a"), S.RELEASED),
            Step(1, reserve("d", PUBLIC, "d1", "d2"), S.HELD),
        ),
    ),
    ConformanceScenario(
        "returned units cool",
        (
            Step(0, reserve("ani", COOLING), S.HELD),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(1, Cancel("ani"), S.CANCELLED),
            Step(2, reserve("budi", COOLING), S.SOLD_OUT),
            Step(60 * _MINUTE_MS, reserve("budi", COOLING), S.SOLD_OUT),
            Step(90 * _MINUTE_MS + 2, reserve("budi", COOLING), S.HELD),
            Step(_DAY_MS, reserve("citra", COOLING), S.HELD),
        ),
    ),
    ConformanceScenario(
        "returned units are parked for the next draw",
        (
            Step(0, reserve("ani", DRAW), S.HELD),
            Step(1, Release("ani"), S.RELEASED),
            Step(_DAY_MS, reserve("budi", DRAW), S.SOLD_OUT),
            Step(_DAY_MS, ReleaseParked(DAY, "draw"), S.DONE),
            Step(_DAY_MS, ReleaseParked(DAY, "draw"), S.DONE),
            Step(_DAY_MS, reserve("budi", DRAW), S.HELD),
        ),
    ),
    ConformanceScenario(
        "the wait list is offered returned units in order",
        (
            Step(0, reserve("ani", PRIORITY), S.HELD),
            Step(0, reserve("budi", PRIORITY), S.SOLD_OUT),
            Step(0, reserve("budi", PRIORITY, wait=True), S.WAITING),
            Step(0, reserve("budi", PRIORITY, wait=True), S.WAITING, "replayed"),
            Step(0, reserve("budi2", PRIORITY, "budi"), S.WAITING, "resumed"),
            Step(0, reserve("citra", PRIORITY, wait=True), S.WAITING),
            Step(0, reserve("dewi", PRIORITY, wait=True), S.WAIT_LIST_FULL),
            Step(0, reserve("eko", ONLINE, "e1", "e2", "e3", wait=True), S.SOLD_OUT),
            Step(1, Release("ani"), S.RELEASED),
            Step(1, reserve("eko", PRIORITY), S.SOLD_OUT),
            Step(1, reserve("budi", PRIORITY), S.HELD, "replayed"),
            Step(1, Confirm("citra"), S.WRONG_STATE),
            Step(1 + 30 * _MINUTE_MS, Confirm("budi"), S.HOLD_EXPIRED),
            Step(1 + 30 * _MINUTE_MS, Confirm("citra"), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "a party keeps its wait-list position until it fits",
        (
            Step(0, SetCapacity(DAY, "priority", 2), S.DONE),
            Step(0, reserve("a", PRIORITY, "a1", "a2"), S.HELD),
            Step(0, reserve("b", PRIORITY, "b1", "b2", "b3", wait=True), S.WAITING),
            Step(0, reserve("c", PRIORITY, wait=True), S.WAITING),
            Step(1, Release("c"), S.RELEASED),
            Step(1, reserve("d", PRIORITY, wait=True), S.WAITING),
            Step(2, Release("a"), S.RELEASED),
            Step(2, Confirm("d"), S.CONFIRMED),
            Step(3, SetCapacity(DAY, "priority", 4), S.DONE),
            Step(3, Confirm("b"), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "a closed or overbooked day makes no offers",
        (
            Step(0, reserve("ani", PRIORITY), S.HELD),
            Step(0, reserve("budi", PRIORITY, wait=True), S.WAITING),
            Step(1, CloseDay(DAY), S.DONE),
            Step(1, CloseDay(DAY), S.DONE, "replayed"),
            Step(1, reserve("citra", ONLINE), S.DAY_CLOSED),
            Step(1, Confirm("ani"), S.DAY_CLOSED),
            Step(1, Release("ani"), S.RELEASED),
            Step(1, reserve("budi", PRIORITY), S.WAITING, "replayed"),
            Step(2, SetCapacity(DAY, "priority", 0), S.DONE),
            Step(2, OpenDay(DAY), S.DONE),
            Step(2, OpenDay(DAY), S.DONE, "replayed"),
            Step(2, reserve("budi", PRIORITY), S.WAITING, "replayed"),
            Step(3, SetCapacity(DAY, "priority", 1), S.DONE),
            Step(3, SetCapacity(DAY, "priority", 1), S.DONE, "replayed"),
            Step(3, reserve("budi", PRIORITY), S.HELD, "replayed"),
        ),
    ),
    ConformanceScenario(
        "unused units are reallocated at their time",
        (
            Step(0, reserve("a", ONLINE, "a1", "a2"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, reserve("f", choice(("fast",))), S.HELD),
            Step(0, Confirm("f"), S.CONFIRMED),
            Step(_REALLOCATE - 1, reserve("b", ONLINE), S.SOLD_OUT),
            Step(_REALLOCATE, reserve("b", ONLINE), S.HELD),
            Step(_REALLOCATE, reserve("c", ONLINE), S.SOLD_OUT),
            Step(_REALLOCATE + 1, Cancel("f"), S.CANCELLED),
            Step(_REALLOCATE + 1, reserve("c", ONLINE), S.HELD),
            Step(_REALLOCATE + 1, reserve("d", choice(("fast",))), S.SOLD_OUT),
            Step(_REALLOCATE + 1, SetCapacity(DAY, "fast", 3), S.WRONG_STATE),
        ),
    ),
    ConformanceScenario(
        "a wait-list entry stops counting when its day is over",
        (
            Step(0, reserve("ani", PRIORITY), S.HELD),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(0, reserve("w", PRIORITY, "budi", wait=True), S.WAITING),
            Step(0, reserve("x", PRIORITY, "citra", day=NEXT_DAY), S.HELD),
            Step(0, Confirm("x"), S.CONFIRMED),
            Step(0, reserve("y", ONLINE, "budi", day=NEXT_DAY), S.IDENTITY_LIMIT),
            Step(_OVER, reserve("y", ONLINE, "budi", day=NEXT_DAY), S.HELD),
        ),
        published(identity_limits=(IdentityLimit(1, 0),)),
    ),
    ConformanceScenario(
        "another jitter seed is refused",
        (
            Step(0, SetRules(replace(RULES, jitter_seed="another", party_max=2)), S.CONFLICT),
            Step(0, reserve("three", PUBLIC, "a", "b", "c"), S.SOLD_OUT),
            Step(0, SetRules(replace(RULES, jitter_seed="", party_max=2)), S.DONE),
            Step(0, reserve("three", PUBLIC, "a", "b", "c"), S.PARTY_TOO_LARGE),
        ),
    ),
    ConformanceScenario(
        "new rules apply from the next command",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, SetRules(replace(RULES, hold_ttl_ms=5)), S.DONE),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(5, Confirm("budi"), S.HOLD_EXPIRED),
            Step(5, Confirm("ani"), S.CONFIRMED),
        ),
    ),
    ConformanceScenario(
        "an operator reallocates units early",
        (
            Step(0, reserve("a", ONLINE, "a1", "a2"), S.HELD),
            Step(0, ReallocateUnused(DAY, "fast"), S.DONE),
            Step(0, ReallocateUnused(DAY, "fast"), S.DONE),
            Step(0, reserve("b", ONLINE, "b1", "b2"), S.HELD),
        ),
    ),
    ConformanceScenario(
        "an overbooking is reduced before units are available",
        (
            Step(0, reserve("a", ONLINE), S.HELD),
            Step(0, reserve("b", ONLINE), S.HELD),
            Step(1, SetCapacity(DAY, "online", 1), S.DONE),
            Step(1, Release("a"), S.RELEASED),
            Step(1, reserve("c", ONLINE), S.SOLD_OUT),
            Step(2, Release("b"), S.RELEASED),
            Step(2, reserve("c", ONLINE), S.HELD),
            Step(3, SetCapacity(DAY, "slow", 2), S.DONE),
            Step(3, reserve("d", COOLING, "d1", "d2"), S.HELD),
            Step(3, SetCapacity(DAY, "slow", 1), S.DONE),
            Step(4, Release("d"), S.RELEASED),
            Step(4, reserve("e", COOLING), S.SOLD_OUT),
            Step(2 * 60 * _MINUTE_MS, reserve("e", COOLING), S.HELD),
        ),
    ),
    ConformanceScenario(
        "a reschedule takes new units and returns the old ones",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(0, reserve("citra", ONLINE, day=NEXT_DAY), S.HELD),
            Step(0, reserve("dewi", ONLINE, day=NEXT_DAY), S.HELD),
            Step(1, Reschedule("ani", NEXT_DAY, ONLINE), S.SOLD_OUT),
            Step(1, Reschedule("ani", NEXT_DAY + 5, ONLINE), S.UNKNOWN_DAY),
            Step(1, Reschedule("ani", NEXT_DAY, choice(("nowhere",))), S.UNKNOWN_QUOTA),
            Step(1, Reschedule("ani", NEXT_DAY, COOLING, owner=applicant("budi")), S.NOT_OWNER),
            Step(1, Reschedule("ani", NEXT_DAY, COOLING, expected_version=1), S.STALE),
            Step(1, Reschedule("ani", NEXT_DAY, COOLING, expected_version=2), S.CONFIRMED),
            Step(1, Reschedule("ani", NEXT_DAY, COOLING, expected_version=2), S.CONFIRMED, "replayed"),
            Step(1, reserve("ani", ONLINE), S.CONFIRMED, "replayed"),
            Step(1, reserve("eko", ONLINE), S.HELD),
            Step(2, Reschedule("ani", DAY, ONLINE), S.MOVES_EXCEEDED),
            Step(2, Reschedule("budi", DAY, PUBLIC), S.HELD),
            Step(2, reserve("fitri", ONLINE), S.HELD),
            Step(3, Cancel("ani"), S.CANCELLED),
            Step(3, Reschedule("ani", DAY, ONLINE), S.WRONG_STATE),
        ),
    ),
    ConformanceScenario(
        "a reschedule respects deadline, limits and closed days",
        (
            Step(0, reserve("ani", PUBLIC), S.HELD),
            Step(0, reserve("ani2", ONLINE, "ani", day=NEXT_DAY), S.HELD),
            Step(0, Reschedule("ani", NEXT_DAY, PUBLIC), S.IDENTITY_LIMIT),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(_LATE, Reschedule("ani2", DAY, ONLINE), S.HOLD_EXPIRED),
            Step(_LATE, CloseDay(NEXT_DAY), S.DONE),
            Step(_LATE, Reschedule("ani", NEXT_DAY, PUBLIC), S.DAY_CLOSED),
            Step(_LATE, OpenDay(NEXT_DAY), S.DONE),
            Step(_START - _DAY_MS + 1, Reschedule("ani", NEXT_DAY, PUBLIC), S.TOO_LATE),
            Step(_START - _DAY_MS + 1, Reschedule("ani", DAY, ONLINE), S.TOO_LATE),
        ),
    ),
    ConformanceScenario(
        "a reschedule within a sold-out day keeps shared units",
        (
            Step(0, reserve("a", choice(("online", "morning"))), S.HELD),
            Step(0, reserve("b", ONLINE), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(1, Reschedule("a", DAY, ONLINE), S.CONFIRMED),
            Step(1, reserve("c", ONLINE), S.SOLD_OUT),
        ),
    ),
    ConformanceScenario(
        "moving out ends a hold or a reservation",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(0, PrepareMove("unknown"), S.NOT_FOUND),
            Step(0, PrepareMove("ani", owner=applicant("budi")), S.NOT_OWNER),
            Step(0, PrepareMove("ani", expected_version=2), S.STALE),
            Step(0, PrepareMove("ani"), S.HELD),
            Step(0, reserve("citra", ONLINE), S.SOLD_OUT),
            Step(1, MoveOut("ani", expected_version=2), S.STALE),
            Step(1, MoveOut("ani", expected_version=1), S.MOVED),
            Step(1, MoveOut("ani", expected_version=1), S.MOVED, "replayed"),
            Step(1, PrepareMove("ani"), S.WRONG_STATE),
            Step(1, reserve("ani", ONLINE), S.RESERVATION_ENDED, "replayed"),
            Step(1, Cancel("ani"), S.WRONG_STATE),
            Step(1, reserve("citra", ONLINE), S.HELD),
            Step(1, reserve("ani2", PRIORITY, "ani"), S.HELD),
            Step(2, Confirm("budi"), S.CONFIRMED),
            Step(2, PrepareMove("budi", owner=applicant("budi"), expected_version=2), S.CONFIRMED),
            Step(2, MoveOut("budi", owner=applicant("ani")), S.NOT_OWNER),
            Step(2, MoveOut("budi", owner=applicant("budi")), S.MOVED),
            Step(2, reserve("dewi", ONLINE), S.HELD),
            Step(_LATE, PrepareMove("ani2"), S.HELD),
            Step(_LATE + 1, PrepareMove("ani2"), S.HOLD_EXPIRED),
            Step(_LATE + 1, MoveOut("ani2"), S.HOLD_EXPIRED),
            Step(_LATE + 2, MoveOut("unknown"), S.NOT_FOUND),
        ),
    ),
    ConformanceScenario(
        "moving out is no cancellation and has the limits of a reschedule",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(0, Confirm("a"), S.CONFIRMED),
            Step(0, MoveOut("a"), S.MOVED),
            Step(1, reserve("b", ONLINE, "ani"), S.HELD),
            Step(1, Confirm("b"), S.CONFIRMED),
            Step(1, MoveOut("b"), S.MOVED),
            Step(2, reserve("c", ONLINE, "ani"), S.HELD),
            Step(2, Confirm("c"), S.CONFIRMED),
            Step(2, Reschedule("c", DAY, PUBLIC), S.CONFIRMED),
            Step(2, PrepareMove("c"), S.MOVES_EXCEEDED),
            Step(2, reserve("d", ONLINE, "budi"), S.HELD),
            Step(2, Confirm("d"), S.CONFIRMED),
            Step(_START - _DAY_MS, PrepareMove("d"), S.CONFIRMED),
            Step(_START - _DAY_MS + 1, PrepareMove("d"), S.TOO_LATE),
            Step(_START - _DAY_MS + 1, MoveOut("d"), S.MOVED),
        ),
    ),
    ConformanceScenario(
        "moving in keeps the deadline or assigns a queue number",
        (
            Step(0, _move_in("x", ONLINE, "ani", deadline_ms=7), S.HELD),
            Step(0, _move_in("x", ONLINE, "ani", deadline_ms=7), S.HELD, "replayed"),
            Step(0, _move_in("x", ONLINE, "budi", deadline_ms=7), S.CONFLICT),
            Step(1, _move_in("y", ONLINE, "budi", deadline_ms=1), S.HOLD_EXPIRED),
            Step(1, _move_in("y", ONLINE, "budi"), S.CONFIRMED),
            Step(1, _move_in("z", ONLINE, "citra"), S.SOLD_OUT),
            Step(1, _move_in("z", COOLING, "budi"), S.IDENTITY_LIMIT),
            Step(1, _move_in("z", COOLING, "citra", "ani", deadline_ms=9), S.IDENTITY_LIMIT),
            Step(1, _move_in("z", choice(("nowhere",)), "citra", deadline_ms=0), S.UNKNOWN_QUOTA),
            Step(1, _move_in("z", ONLINE, "citra", deadline_ms=9, day=DAY - 1), S.UNKNOWN_DAY),
            Step(1, _move_in("z", PUBLIC, "a", "b", "c", "d", deadline_ms=9), S.PARTY_TOO_LARGE),
            Step(7, _move_in("x", ONLINE, "ani", deadline_ms=7), S.RESERVATION_ENDED, "replayed"),
            Step(7, _move_in("z", ONLINE, "citra"), S.CONFIRMED),
            Step(7, PrepareMove("z"), S.MOVES_EXCEEDED),
            Step(7, CloseDay(DAY), S.DONE),
            Step(7, _move_in("w", COOLING, "dewi"), S.DAY_CLOSED),
            Step(7, OpenDay(DAY), S.DONE),
            Step(8, Cancel("z"), S.CANCELLED),
            Step(8, reserve("v", ONLINE, "citra"), S.HELD),
            Step(8, Confirm("v"), S.CONFIRMED),
            Step(8, Cancel("v"), S.CANCELLED),
            Step(8, _move_in("u", ONLINE, "citra"), S.BLOCKED),
            Step(_OVER, _move_in("w", COOLING, "dewi"), S.DAY_OVER),
        ),
    ),
    ConformanceScenario(
        "a failed move is undone once",
        (
            Step(0, _move_in("x", ONLINE, "ani", deadline_ms=99), S.HELD),
            Step(0, _move_in("y", ONLINE, "budi"), S.CONFIRMED),
            Step(1, UndoMove("x", expected_version=2), S.STALE),
            Step(1, UndoMove("x"), S.RELEASED),
            Step(1, UndoMove("x"), S.RELEASED, "replayed"),
            Step(1, MoveOut("x"), S.WRONG_STATE),
            Step(1, UndoMove("y", owner=applicant("ani")), S.NOT_OWNER),
            Step(1, UndoMove("y"), S.RELEASED),
            Step(1, MoveOut("y", expected_version=1), S.STALE),
            Step(1, reserve("budi", ONLINE, "budi", "ani"), S.HELD),
            Step(2, MoveOut("budi"), S.MOVED),
            Step(2, UndoMove("budi"), S.WRONG_STATE),
            Step(2, UndoMove("unknown"), S.NOT_FOUND),
            Step(3, _move_in("z", ONLINE, "ani", deadline_ms=9), S.HELD),
            Step(9, UndoMove("z"), S.HOLD_EXPIRED),
        ),
    ),
    ConformanceScenario(
        "moving in needs an open day",
        (
            Step(-1, _move_in("x", ONLINE, "ani"), S.NOT_OPEN),
            Step(0, _move_in("x", ONLINE, "ani"), S.CONFIRMED),
            Step(_FORGET, _move_in("x", ONLINE, "ani"), S.UNKNOWN_DAY),
            Step(_FORGET, _move_in("x", ONLINE, "ani", day=NEXT_DAY), S.DAY_OVER),
        ),
    ),
    ConformanceScenario(
        "an expired command changes nothing",
        (
            Step(5, _valid_until(reserve("ani", ONLINE), 4), S.COMMAND_EXPIRED),
            Step(5, _valid_until(reserve("ani", ONLINE), 5), S.HELD),
            Step(6, _valid_until(reserve("ani", ONLINE), 5), S.HELD, "replayed"),
            Step(6, _valid_until(reserve("budi", ONLINE, day=DAY - 1), 5), S.COMMAND_EXPIRED),
            Step(6, replace(_move_in("x", ONLINE, "budi"), valid_until_ms=OPENS_AT_MS + 5), S.COMMAND_EXPIRED),
            Step(6, replace(_move_in("x", ONLINE, "budi"), valid_until_ms=OPENS_AT_MS + 6), S.CONFIRMED),
            Step(7, replace(_move_in("x", ONLINE, "budi"), valid_until_ms=1), S.CONFIRMED, "replayed"),
            Step(_LATE + 5, Confirm("ani", reacquire=True, valid_until_ms=OPENS_AT_MS + _LATE + 4), S.COMMAND_EXPIRED),
            Step(_LATE + 5, Confirm("ani", valid_until_ms=OPENS_AT_MS + _LATE + 4), S.HOLD_EXPIRED),
            Step(_LATE + 5, Confirm("ani", reacquire=True, valid_until_ms=OPENS_AT_MS + _LATE + 5), S.CONFIRMED),
            Step(_LATE + 6, Confirm("ani", reacquire=True, valid_until_ms=1), S.CONFIRMED, "replayed"),
        ),
    ),
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
        "a day that is over takes no cancellation and no check-in",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(_OVER, Cancel("ani"), S.DAY_OVER),
            Step(_OVER, CheckIn("ani"), S.DAY_OVER),
            Step(_OVER, MarkNoShow("ani"), S.NO_SHOW),
        ),
    ),
    ConformanceScenario(
        "a forgotten day stays unknown",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(0, reserve("budi", PRIORITY), S.HELD),
            Step(0, reserve("citra", PRIORITY, wait=True), S.WAITING),
            Step(_FORGET, Confirm("ani"), S.NOT_FOUND),
            Step(_FORGET, reserve("dewi", ONLINE), S.UNKNOWN_DAY),
            Step(_FORGET, Publish(DAY, terms()), S.DAY_OVER),
            Step(_FORGET, Publish(DAY, terms(60)), S.DAY_OVER),
            Step(_FORGET, Publish(NEXT_DAY + 60, terms(60)), S.DONE),
            Step(_FORGET, reserve("ani", ONLINE, day=NEXT_DAY + 60), S.HELD),
        ),
    ),
    ConformanceScenario(
        "publishing again keeps capacities",
        (
            Step(0, SetCapacity(DAY, "online", 1), S.DONE),
            Step(0, Publish(DAY, terms()), S.DONE, "replayed"),
            Step(0, reserve("a", ONLINE, "a1", "a2"), S.SOLD_OUT),
            Step(0, Publish(DAY, terms(1)), S.DONE),
            Step(0, SetRules(RULES), S.DONE, "replayed"),
            Step(0, SetRules(Rules(party_max=1)), S.DONE),
            Step(0, reserve("b", PUBLIC, "b1", "b2"), S.PARTY_TOO_LARGE),
        ),
    ),
    ConformanceScenario(
        "a clock that jumps back undoes nothing",
        (
            Step(_LATE, reserve("ani", ONLINE), S.HELD),
            Step(0, reserve("budi", ONLINE), S.HELD),
            Step(2 * _LATE - 1, Confirm("budi"), S.CONFIRMED),
            Step(0, Confirm("ani"), S.CONFIRMED),
            Step(-_DAY_MS, reserve("citra", COOLING), S.HELD),
        ),
    ),
)
