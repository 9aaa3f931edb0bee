"""Seeded random commands that collide: few ids, few applicants, small quotas, times near the deadlines.

Uniformly random commands rarely reach a state in which several rules apply; these mostly do.
"""

from __future__ import annotations

__all__ = ["random_commands"]

import random
from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from quota_engine.conformance.world import (
    AFTERNOON,
    BOOK_UNTIL_MS,
    COOLING,
    DAY,
    DRAW,
    FORGET_AT_MS,
    HOLD_TTL_MS,
    MORNING,
    NEXT_DAY,
    ONLINE,
    OPENS_AT_MS,
    PRIORITY,
    PUBLIC,
    REALLOCATE_AT_MS,
    RULES,
    SESSION_ENDS_AT_MS,
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
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.model import GuardScope, QuotaTerms

_CHOICES: Final = (
    ONLINE,
    PRIORITY,
    PRIORITY,
    COOLING,
    DRAW,
    PUBLIC,
    choice(("fast",)),
    choice(("priority",), ("online",)),
    MORNING,
    AFTERNOON,
)
_QUOTAS: Final = ("online", "priority", "slow", "draw", "fast", "morning")
_DAYS: Final = (DAY, DAY, DAY, NEXT_DAY, NEXT_DAY, DAY + 9)
_APPLICANTS: Final = tuple(applicant(f"p{number}") for number in range(14))
_HOUR_MS: Final = 3_600_000


class _Ids:
    """Reservation ids: new ones, or one of the last few, so that reservations go through their whole life cycle."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._newest = 0

    def any(self) -> str:
        return f"r{max(0, self._newest - self._rng.randrange(16))}"

    def maybe_new(self) -> str:
        if self._rng.random() < 0.3:
            return self.any()
        self._newest += 1
        return f"r{self._newest}"


def random_commands(
    seed: int, count: int, make_random: Callable[[int | str], random.Random] = random.Random
) -> Iterator[tuple[int, Command]]:
    """Yield ``count`` pairs of a time (milliseconds since 1970) and a command. A seed gives the same pairs.

    Args:
        seed: decides everything.
        count: the number of pairs.
        make_random: makes a generator of random numbers from a seed.
    """
    rng = make_random(seed)
    ids = _Ids(rng)
    now_ms = OPENS_AT_MS - 2
    makers: list[tuple[int, Callable[[random.Random], Command]]] = [
        (40, lambda r: _reserve(r, ids.maybe_new(), now_ms)),
        (
            18,
            lambda r: Confirm(
                ids.any(), _owner(r), r.choice((0, 0, 0, 1, 2)), r.random() < 0.3, _valid_until_ms(r, now_ms)
            ),
        ),
        (8, lambda r: Extend(ids.any(), _owner(r), r.choice((0, 0, 0, 1, 2)), r.choice((1, 1, 2, 3)))),
        (12, lambda r: RemoveApplicant(ids.any(), _owner(r), r.choice((0, 0, 1, 2)), _applicant(r))),
        (12, lambda r: _replace_applicant(r, ids.any(), now_ms)),
        (10, lambda r: Release(ids.any(), _owner(r))),
        (8, lambda r: Decline(ids.any(), _owner(r), r.choice((0, 0, 0, 2)))),
        (8, lambda r: Cancel(ids.any())),
        (7, lambda r: Reschedule(ids.any(), r.choice(_DAYS), r.choice(_CHOICES))),
        (2, lambda r: Stay(ids.any(), _owner(r), r.choice((0, 0, 1, 2)))),
        (2, lambda r: PrepareMove(ids.any(), _owner(r), r.choice((0, 0, 1, 2)))),
        (5, lambda r: _move_in(r, ids.maybe_new(), now_ms)),
        (4, lambda r: MoveOut(ids.any(), expected_version=r.choice((0, 0, 1, 2)))),
        (2, lambda r: UndoMove(ids.any(), expected_version=r.choice((0, 0, 1, 2)))),
        (2, lambda r: CheckIn(ids.any())),
        (2, lambda r: MarkNoShow(ids.any())),
        (3, lambda r: Expire(r.choice(_DAYS), r.randint(1, 3))),
        (4, lambda r: SetCapacity(r.choice(_DAYS), r.choice(_QUOTAS), r.randint(0, 4), r.choice((0, 0, 1, 2)))),
        (1, lambda r: CloseDay(r.choice(_DAYS))),
        (3, lambda r: OpenDay(r.choice(_DAYS), r.choice((0, 0, 2)))),
        (1, lambda r: ReallocateUnused(r.choice(_DAYS), r.choice(_QUOTAS))),
        (2, lambda r: ReleaseParked(r.choice(_DAYS), "draw")),
        (1, _set_rules),
        (4, _publish),
    ]
    by_weight = [make for weight, make in makers for _ in range(weight)]
    attendance = _Attendance(make_random(f"attendance {seed}"))
    for _ in range(count):
        now_ms = _next_time(rng, now_ms)
        make = by_weight[int(rng.random() * len(by_weight))]  # as choices() with weights, at half the cost
        yield now_ms, attendance.change(make(rng))


class _Attendance:
    """Puts check-ins, no-shows and their undo in the place of some commands.

    They concern the reservations that were confirmed last, and half of the published days have begun. It draws from
    a separate stream, so that the other commands of a seed do not depend on it.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._confirmed = ["r1"]

    def change(self, command: Command) -> Command:
        rng = self._rng
        if type(command) is Publish and rng.random() < 0.5:
            return Publish(command.day, replace(command.terms, starts_at_ms=OPENS_AT_MS))
        if type(command) is SetRules:
            return SetRules(replace(command.rules, undo_window_ms=rng.choice((0, 1000, HOLD_TTL_MS))))
        if type(command) is Confirm:
            self._confirmed = [command.id, *self._confirmed[:2]]
        elif rng.random() < 0.1:
            kind = rng.choice((CheckIn, MarkNoShow, UndoAttendance, UndoAttendance))
            return kind(rng.choice(self._confirmed), expected_version=rng.choice((0, 0, 0, 3)))
        return command


def _next_time(rng: random.Random, now_ms: int) -> int:
    """Return a time: mostly a little later, sometimes by a hold's length, rarely a day's time or an earlier one."""
    lot = rng.random()
    if lot < 0.88:
        return now_ms + rng.choice((0, 0, 1, 1000))
    if lot < 0.95:
        return now_ms + rng.choice((HOLD_TTL_MS - 1, HOLD_TTL_MS, HOLD_TTL_MS // 2, _HOUR_MS))
    if lot < 0.98:
        return now_ms - rng.choice((1, 1000, HOLD_TTL_MS))
    day_times_ms: tuple[int, ...] = (REALLOCATE_AT_MS, STARTS_AT_MS - 24 * _HOUR_MS, STARTS_AT_MS)
    day_times_ms += (BOOK_UNTIL_MS - HOLD_TTL_MS, BOOK_UNTIL_MS, SESSION_ENDS_AT_MS, FORGET_AT_MS)
    # Nearer times come more often, because nothing happens after the last one.
    ahead = [one for one in day_times_ms if one > now_ms] or [now_ms]
    return rng.choice((now_ms, now_ms, now_ms, now_ms + 24 * _HOUR_MS, ahead[0]))


def _applicant(rng: random.Random) -> str:
    return _APPLICANTS[rng.randrange(len(_APPLICANTS))]


def _owner(rng: random.Random) -> str:
    return _applicant(rng) if rng.random() < 0.1 else ""


def _replace_applicant(rng: random.Random, reservation_id: str, now_ms: int) -> ReplaceApplicant:
    applicant_, newcomer = rng.sample(_APPLICANTS, 2)
    return ReplaceApplicant(
        reservation_id, applicant_, newcomer, rng.choice((0, 0, 1, 2)), _valid_until_ms(rng, now_ms)
    )


def _valid_until_ms(rng: random.Random, now_ms: int) -> int:
    """Return 0, or rarely a time near ``now_ms``."""
    return now_ms + rng.choice((-1, 0, 1000)) if rng.random() < 0.1 else 0


def _party(rng: random.Random) -> tuple[str, ...]:
    size = rng.choice((1, 1, 1, 1, 2, 2, 3, 4))
    return tuple(dict.fromkeys(_applicant(rng) for _ in range(size)))


def _reserve(rng: random.Random, reservation_id: str, now_ms: int) -> Reserve:
    party, ttl_ms = _party(rng), rng.choice((0, 0, 0, 1000, 10))
    wait, until_ms = rng.random() < 0.5, _valid_until_ms(rng, now_ms)
    return Reserve(reservation_id, rng.choice(_DAYS), party, rng.choice(_CHOICES), wait, ttl_ms, until_ms)


def _set_rules(rng: random.Random) -> SetRules:
    return SetRules(
        replace(
            RULES,
            hold_ttl_ms=rng.choice((HOLD_TTL_MS, 1000)),
            extensions_max=rng.choice((0, 1, 2)),
            extension_ms=rng.choice((1000, HOLD_TTL_MS // 3)),
            party_max=rng.choice((3, 4)),
            abandoned_holds_max=rng.choice((0, 1, 2, 3)),
            abandoned_holds_window_ms=24 * _HOUR_MS,
            abandoned_holds_block_ms=rng.choice((0, HOLD_TTL_MS, 24 * _HOUR_MS)),
            wait_list_max=rng.choice((2, 4, 8)),
            declines_max=rng.choice((0, 1, 3)),
            decline_pause_ms=rng.choice((1, 1000, HOLD_TTL_MS)),
        )
    )


def _publish(rng: random.Random) -> Publish:
    """Return a publication: often with a guard more, without a quota, or with another name of one."""
    base = terms(rng.randint(0, 2), rng.choice((0, 1000, HOLD_TTL_MS)))
    quotas = list(base.quotas)
    if rng.random() < 0.4:
        scope = GuardScope(session=rng.choice(("", "morning")))
        quotas.insert(rng.choice((0, len(quotas))), QuotaTerms("guard", rng.randint(0, 4), guard=scope))
    lot = rng.random()
    if lot < 0.3:
        index = next(index for index, one in enumerate(quotas) if one.name == "slow")
        quotas[index] = replace(quotas[index], name="slower", renamed_from="slow")
    elif lot < 0.5:
        index = next(index for index, one in enumerate(quotas) if one.name == "slow")
        quotas[index] = replace(quotas[index], renamed_from="slower")
    elif lot < 0.65:
        joined = rng.choice(("priority", "draw"))
        quotas = [replace(one, renamed_from=joined if one.name == "slow" else "") for one in quotas]
        quotas = [one for one in quotas if one.name != joined]
    elif lot < 0.8:
        gone = rng.choice(("priority", "slow", "draw", "fast"))
        quotas = [one for one in quotas if one.name != gone]
    return Publish(rng.choice((DAY, NEXT_DAY)), replace(base, quotas=tuple(quotas)))


def _move_in(rng: random.Random, reservation_id: str, now_ms: int) -> MoveIn:
    deadline_ms = now_ms + rng.choice((-1, 0, 1000, HOLD_TTL_MS)) if rng.random() < 0.5 else 0
    moves, until_ms, choice = rng.choice((1, 1, 2)), _valid_until_ms(rng, now_ms), rng.choice(_CHOICES)
    forced_moves, extensions = rng.choice((0, 0, 1)), rng.choice((0, 0, 1))
    party, day = _party(rng), rng.choice(_DAYS)
    return MoveIn(reservation_id, day, party, choice, deadline_ms, moves, until_ms, forced_moves, extensions)
