"""Scenarios of extensions: more time for a hold, bounded by the office's rules."""

from __future__ import annotations

__all__ = ["EXTENSION_SCENARIOS"]

from typing import Final

from msgspec.structs import replace

from quota_engine.conformance.penalty_scenarios import ABANDONED_HOLDS
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
    CloseDay,
    Confirm,
    Expire,
    Extend,
    OpenDay,
    Release,
    Reschedule,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.outcomes import Status as S

_MINUTE_MS: Final = 60_000
_LATE: Final = HOLD_TTL_MS
_OVER: Final = STARTS_AT_MS - OPENS_AT_MS + 12 * 60 * _MINUTE_MS
_OFFER_MS: Final = 30 * _MINUTE_MS
_MORE_MS: Final = 5 * _MINUTE_MS
_EXTENSIONS: Final = {"extensions_max": 2, "extension_ms": _MORE_MS}

EXTENSION_SCENARIOS: Final[tuple[ConformanceScenario, ...]] = (
    ConformanceScenario(
        "a hold is extended as often as the office allows",
        (
            Step(0, reserve("ani", ONLINE, "ani", "budi"), S.HELD),
            Step(9, Extend("ani", extension=1), S.HELD),
            Step(9, Extend("ani", extension=1), S.HELD, "replayed"),
            Step(9, Extend("ani", extension=3), S.STALE),
            Step(_LATE, reserve("citra", ONLINE), S.SOLD_OUT),
            Step(_LATE + _MORE_MS - 1, Extend("ani", extension=2), S.HELD),
            Step(_LATE + _MORE_MS, Extend("ani", extension=1), S.HELD, "replayed"),
            Step(_LATE + _MORE_MS, Extend("ani", extension=3), S.EXTENSIONS_EXCEEDED),
            Step(_LATE + 2 * _MORE_MS - 1, reserve("citra", ONLINE), S.SOLD_OUT),
            Step(_LATE + 2 * _MORE_MS, Extend("ani", extension=2), S.HOLD_EXPIRED),
            Step(_LATE + 2 * _MORE_MS, reserve("citra", ONLINE), S.HELD),
            Step(_LATE + 2 * _MORE_MS, reserve("ani", ONLINE, "ani", "budi"), S.RESERVATION_ENDED, "replayed"),
        ),
        published(**_EXTENSIONS),
    ),
    ConformanceScenario(
        "an extension checks owner, version, state and day",
        (
            Step(0, reserve("ani", PRIORITY), S.HELD),
            Step(0, reserve("budi", PRIORITY, wait=True), S.WAITING),
            Step(1, Extend("unknown"), S.NOT_FOUND),
            Step(1, Extend("ani", owner=applicant("budi")), S.NOT_OWNER),
            Step(1, Extend("ani", expected_version=2), S.STALE),
            Step(1, Extend("budi"), S.WRONG_STATE),
            Step(1, CloseDay(DAY), S.DONE),
            Step(1, Extend("ani"), S.DAY_CLOSED),
            Step(1, OpenDay(DAY), S.DONE),
            Step(1, Extend("ani", applicant("ani"), 1), S.HELD),
            Step(2, Confirm("ani"), S.CONFIRMED),
            Step(2, Extend("ani", extension=1), S.WRONG_STATE),
            Step(2, Extend("ani", extension=2), S.WRONG_STATE),
            Step(3, reserve("citra", ONLINE), S.HELD),
            Step(4, Release("citra"), S.RELEASED),
            Step(4, Extend("citra"), S.WRONG_STATE),
            Step(_OVER - 1, reserve("dewi", ONLINE), S.HELD),
            Step(_OVER, Extend("dewi"), S.DAY_OVER),
        ),
        published(**_EXTENSIONS),
    ),
    ConformanceScenario(
        "holds expire in the order of their extended deadlines",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(1, reserve("budi", ONLINE), S.HELD),
            Step(2, Extend("ani"), S.HELD),
            Step(_LATE, reserve("citra", ONLINE), S.SOLD_OUT),
            Step(_LATE + 1, reserve("citra", ONLINE), S.HELD),
            Step(_LATE + _MORE_MS - 1, reserve("dewi", ONLINE), S.SOLD_OUT),
            Step(_LATE + _MORE_MS, reserve("dewi", ONLINE), S.HELD),
            Step(_LATE + _MORE_MS, SetCapacity(DAY, "online", 2), S.DONE, "replayed"),
            Step(2 * _LATE + 1, Expire(DAY), S.DONE),
        ),
        published(**_EXTENSIONS),
    ),
    ConformanceScenario(
        "an offer is extended, and a move keeps the count",
        (
            Step(0, reserve("ani", PRIORITY), S.HELD),
            Step(0, reserve("budi", PRIORITY, wait=True), S.WAITING),
            Step(1, Release("ani"), S.RELEASED),
            Step(1, Extend("budi"), S.HELD),
            Step(1, Reschedule("budi", NEXT_DAY, PRIORITY), S.HELD),
            Step(2, Extend("budi", extension=1), S.HELD, "replayed"),
            Step(1 + _OFFER_MS, Extend("budi", extension=2), S.HELD),
            Step(1 + _OFFER_MS, Extend("budi", extension=3), S.EXTENSIONS_EXCEEDED),
            Step(2, replace(move_in("citra", ONLINE, "citra", deadline_ms=_OFFER_MS * 2), extensions=2), S.HELD),
            Step(2, Extend("citra", extension=2), S.HELD, "replayed"),
            Step(2, Extend("citra", extension=3), S.EXTENSIONS_EXCEEDED),
        ),
        published(**_EXTENSIONS),
    ),
    ConformanceScenario(
        "new rules decide about the extensions of existing holds",
        (
            Step(0, reserve("ani", ONLINE), S.HELD),
            Step(1, Extend("ani"), S.HELD),
            Step(2, published()[0], S.DONE),
            Step(3, Extend("ani", extension=2), S.EXTENSIONS_EXCEEDED),
            Step(3, Extend("ani", extension=1), S.HELD, "replayed"),
            Step(4, SetRules(replace(published()[0].rules, extensions_max=3, extension_ms=1)), S.DONE),  # type: ignore[union-attr]
            Step(5, Extend("ani", extension=2), S.HELD),
            Step(_LATE + _MORE_MS, Confirm("ani"), S.CONFIRMED),
            Step(_LATE + _MORE_MS + 1, Confirm("ani"), S.CONFIRMED, "replayed"),
        ),
        published(**_EXTENSIONS),
    ),
    ConformanceScenario(
        "an extended hold counts as abandoned at its deadline",
        (
            Step(0, reserve("a", ONLINE, "ani"), S.HELD),
            Step(1, Release("a"), S.RELEASED),
            Step(2, reserve("b", ONLINE, "ani"), S.HELD),
            Step(3, Extend("b"), S.HELD),
            Step(3, Extend("b"), S.HELD, "replayed"),
            Step(2 + _LATE + _MORE_MS, reserve("c", ONLINE, "ani"), S.HELD),
            Step(3 + _LATE + _MORE_MS, Extend("c"), S.HELD),
            Step(4 + _LATE + _MORE_MS, Release("c"), S.RELEASED),
            Step(5 + _LATE + _MORE_MS, reserve("d", ONLINE, "ani"), S.BLOCKED),
        ),
        published(**_EXTENSIONS, **ABANDONED_HOLDS),
    ),
)
