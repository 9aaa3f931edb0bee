"""Random commands that collide in one registry shard: few applicants, few references, times near the deadlines."""

from __future__ import annotations

__all__ = ["registry_questions", "registry_walk"]

from collections.abc import Iterator
from random import Random
from typing import Any

from quota_engine.domain.cross_office_registry import Claim, CloseMove, Drop, FindClaims, FindMove, OpenMove, OpenMoves

APPLICANTS = tuple(f"p{number}" for number in range(30))
REFERENCES = ("a~1", "a~2", "b~1", "c~1")


def registry_walk(random: Random, count: int) -> Iterator[tuple[int, Any]]:
    """Yield ``count`` commands with their times in milliseconds."""
    now_ms = 1_000
    for number in range(1, count + 1):
        now_ms = max(0, now_ms + random.choice((0, 0, 0, 1, 1, 3, 10, 60, -5)))
        yield now_ms, _command(random, now_ms, number)


def _command(random: Random, now_ms: int, number: int) -> Any:
    # A recent number: that of a present entry, or of one that was just replaced.
    recent = max(1, number - random.randrange(1, 12) - number // 3)
    lease_ms, forget_at_ms = random.choice((1, 5, 20)), max(1, now_ms + random.choice((-3, 1, 8, 40, 200)))
    applicant, reference, other = random.choice(APPLICANTS), random.choice(REFERENCES), random.choice(REFERENCES)
    match random.randrange(10):
        case 0 | 1 | 2 | 3:
            secondary = random.choice(("", "", other))
            return Claim(applicant, reference, lease_ms, forget_at_ms, random.choice((0, 0, recent)), secondary)
        case 4 | 5:
            return Drop(applicant, recent) if random.random() < 0.6 else Drop(applicant, reference=reference)
        case 6 | 7:
            return OpenMove(reference, other, random.randint(1, 3), lease_ms, forget_at_ms)
        case 8:
            return CloseMove(reference, other, True, random.choice((0, recent)))
        case _:
            return CloseMove(reference, other, False, random.choice((0, recent)))


def registry_questions(random: Random) -> list[Any]:
    """Return one query of each type."""
    asked = tuple(random.sample(APPLICANTS, 3))
    return [
        FindClaims(asked),
        FindMove(random.choice(REFERENCES)),
        OpenMoves(random.randint(1, 3), random.choice((0, 5))),
    ]
