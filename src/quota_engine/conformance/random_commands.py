"""Seeded random commands that collide: few ids, few applicants, small quotas, times near the deadlines.

Uniformly random commands hardly ever reach an interesting state; these nearly always stand near one.
"""

from __future__ import annotations

__all__ = ["random_commands"]

import random
from collections.abc import Callable, Iterator
from typing import Final

from quota_engine.conformance.world import (
    DAY,
    DRAW,
    HOLD_TTL_MS,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PASS_ON_AT_MS,
    PRIORITY,
    PUBLIC,
    SLOW,
    STARTS_AT_MS,
    applicant,
    choice,
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
    OpenDay,
    PassOnUnused,
    Publish,
    Release,
    Reschedule,
    Reserve,
    ReturnParked,
    SetCapacity,
)

_CHOICES: Final = (
    ONLINE,
    PRIORITY,
    PRIORITY,
    SLOW,
    DRAW,
    PUBLIC,
    choice(("fast",)),
    choice(("priority",), ("online",)),
)
_QUOTAS: Final = ("online", "priority", "slow", "draw", "fast", "morning")
_DAYS: Final = (DAY, DAY, DAY, NEXT_DAY, NEXT_DAY, DAY + 9)
_HOUR_MS: Final = 3_600_000


def random_commands(seed: int, count: int) -> Iterator[tuple[int, Command]]:
    """``count`` pairs of a time (milliseconds since 1970) and a command, the same for the same seed."""
    rng = random.Random(seed)
    makers: list[tuple[int, Callable[[random.Random], Command]]] = [
        (40, _reserve),
        (16, lambda r: Confirm(_id(r), _owner(r), r.choice((0, 0, 0, 1, 2)), r.random() < 0.3)),
        (10, lambda r: Release(_id(r), _owner(r))),
        (8, lambda r: Cancel(_id(r))),
        (6, lambda r: Reschedule(_id(r), r.choice(_DAYS), r.choice(_CHOICES))),
        (2, lambda r: CheckIn(_id(r))),
        (2, lambda r: MarkNoShow(_id(r))),
        (3, lambda r: Expire(r.choice(_DAYS), r.randint(1, 3))),
        (4, lambda r: SetCapacity(r.choice(_DAYS), r.choice(_QUOTAS), r.randint(0, 4))),
        (1, lambda r: CloseDay(r.choice(_DAYS))),
        (3, lambda r: OpenDay(r.choice(_DAYS))),
        (1, lambda r: PassOnUnused(r.choice(_DAYS), r.choice(_QUOTAS))),
        (2, lambda r: ReturnParked(r.choice(_DAYS), "draw")),
        (1, lambda r: Publish(r.choice((DAY, NEXT_DAY)), terms(r.randint(0, 2)))),
    ]
    weights = [weight for weight, _ in makers]
    now_ms = OPENS_AT_MS - 2
    for _ in range(count):
        now_ms = _next_time(rng, now_ms)
        yield now_ms, rng.choices(makers, weights)[0][1](rng)


def _next_time(rng: random.Random, now_ms: int) -> int:
    """Mostly moments, sometimes as long as a hold, seldom to a day's turning point, and at times backwards."""
    lot = rng.random()
    if lot < 0.70:
        return now_ms + rng.choice((0, 0, 1, 1000))
    if lot < 0.93:
        return now_ms + rng.choice((HOLD_TTL_MS - 1, HOLD_TTL_MS, HOLD_TTL_MS // 2, _HOUR_MS))
    if lot < 0.97:
        return now_ms - rng.choice((1, 1000, HOLD_TTL_MS))
    return max(
        now_ms, rng.choice((now_ms, now_ms, now_ms + 24 * _HOUR_MS, PASS_ON_AT_MS, STARTS_AT_MS - 24 * _HOUR_MS))
    )


def _id(rng: random.Random) -> str:
    return f"r{rng.randrange(24)}"


def _applicant(rng: random.Random) -> str:
    return applicant(f"p{rng.randrange(14)}")


def _owner(rng: random.Random) -> str:
    return _applicant(rng) if rng.random() < 0.1 else ""


def _reserve(rng: random.Random) -> Reserve:
    size = rng.choice((1, 1, 1, 1, 2, 2, 3, 4))
    party = tuple(dict.fromkeys(_applicant(rng) for _ in range(size)))
    ttl_ms = rng.choice((0, 0, 0, 1000, 10))
    return Reserve(_id(rng), rng.choice(_DAYS), party, rng.choice(_CHOICES), rng.random() < 0.5, ttl_ms)
