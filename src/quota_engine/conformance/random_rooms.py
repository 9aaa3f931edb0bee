"""Random histories of waiting rooms from a seed: valid and invalid commands, at times that may jump back."""

from __future__ import annotations

__all__ = ["CLOSING_SEED", "OPENS_AT_MS", "QUESTIONS", "SEED", "terms", "walk"]

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import msgspec

from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.waiting_room.commands import (
    CallTickets,
    CloseRoom,
    CreateRoom,
    FindTicket,
    JoinRoom,
    OpenRoom,
    RoomCommand,
    RoomConfig,
    RoomQuery,
    SetPace,
    ViewRoom,
)
from quota_engine.waiting_room.order import commitment_of, seed_of

OPENS_AT_MS: Final = 1_000_000
CLOSING_SEED: Final = "5e" * 32
SEED: Final = seed_of(CLOSING_SEED)
QUESTIONS: Final[tuple[RoomQuery, ...]] = (ViewRoom(), *(FindTicket(f"{number:032x}") for number in range(5)))


def terms(**changes: Any) -> RoomConfig:
    """Return the configuration of a small room that opens at ``OPENS_AT_MS``, with changes."""
    known = RoomConfig(
        office="surabaya",
        first_day=739_000,
        last_day=739_004,
        join_opens_at_ms=OPENS_AT_MS - 600_000,
        opens_at_ms=OPENS_AT_MS,
        closes_at_ms=OPENS_AT_MS + 3_600_000,
        forget_at_ms=OPENS_AT_MS + 3_600_000 + 5_000_000,
        commitment=commitment_of(SEED),
        key_id="k1",
        nonce="n1",
    )
    changed = msgspec.structs.replace(known, **changes)
    changed.__post_init__()
    return changed


def _room(random: Random) -> RoomConfig:
    step_ms = random.choice((500, 1_000, 3_000))
    per_minute_max = random.choice((60, 600, 60_000))
    burst_min = -(-per_minute_max * step_ms // 60_000)
    return terms(
        entropy_source=random.choice(("", "", "the national lottery's numbers")),
        join_opens_at_ms=OPENS_AT_MS - random.choice((0, 100_000)),
        closes_at_ms=OPENS_AT_MS + random.choice((50_000, 400_000)),
        forget_at_ms=OPENS_AT_MS + 400_000 + 60_000 + random.choice((0, 30_000)),
        tickets_max=random.choice((5, 100, 100_000)),
        window_ms=random.choice((1_000, 10_000)),
        step_ms=step_ms,
        turn_ms=step_ms * random.choice((1, 4, 18)),
        pass_grace_ms=random.choice((1_000, 6_000)),
        per_minute_min=random.choice((1, 60)),
        per_minute_max=per_minute_max,
        burst=burst_min + random.choice((0, 3)),
    )


def walk(seed: int, steps_max: int = 80) -> Iterator[tuple[RoomCommand, int]]:
    """Yield commands with their times."""
    random = Random(seed)
    room, other = _room(random), _room(random)
    now_ms = OPENS_AT_MS - 120_000
    applicants = [f"{number:032x}" for number in range(random.choice((4, 12)))]
    for _ in range(random.randint(10, steps_max)):
        now_ms += random.choice((0, 0, 1, 499, 500, 1_000, 9_999, 40_000))
        if random.random() < 0.03:
            now_ms += random.choice((-5_000, 300_000))
        if random.random() < 0.1:
            now_ms = max(now_ms, OPENS_AT_MS + random.choice((-1, 0)))
        entropy = random.choice(("", "7 13 21", "7 13 22")) if random.random() < 0.2 else "7 13 21"
        yield (
            random.choices(
                (
                    CreateRoom(room),
                    CreateRoom(other),
                    JoinRoom(random.choice(applicants)),
                    JoinRoom(random.choice(applicants), random.randrange(20), random.choice((1, 1, 2, 3))),
                    OpenRoom(
                        SEED,
                        entropy if room.entropy_source or random.random() < 0.1 else "",
                        random.choice((0, 0, 1, 2, 3)),
                    ),
                    OpenRoom("00" * 32, entropy),
                    CallTickets(random.choice((0, 1, 100, 6_000_000)), random.choice((0, 1, 5, 1_000_000))),
                    CallTickets(random.choice((60, 7_000)), 1_000_000, random.choice((-1, 0, 17))),
                    CloseRoom(CLOSING_SEED),
                    CloseRoom("11" * 32),
                    SetPace(random.choice((1, 60)), random.choice((60, 7_000, 6_000_000))),
                    AdvanceEpoch(random.choice((0, 0, 3))),
                ),
                (4, 0.3, 20, 6, 6, 0.5, 10, 10, 0.4, 0.3, 3, 1.5),
            )[0],
            now_ms,
        )
