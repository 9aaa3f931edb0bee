"""Random commands to a draw: applicants who apply, change their application and withdraw, and an early operator."""

from __future__ import annotations

__all__ = [
    "CLOSES_AT_MS",
    "DAY",
    "DRAW",
    "FORGET_AT_MS",
    "OPENS_AT_MS",
    "PREFERENCES",
    "QUESTIONS",
    "SEED",
    "TERMS",
    "preference",
    "walk",
]

from collections.abc import Iterator
from random import Random

import msgspec

from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.domain.model import Choice
from quota_engine.draws.commands import (
    CloseDraw,
    CreateDraw,
    DrawCommand,
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.lottery import Preference, commitment_of
from quota_engine.draws.queries import (
    DrawQuery,
    FindApplication,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
)

DRAW = "dec-2026"
SEED = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DAY = 739_951
OPENS_AT_MS, CLOSES_AT_MS, FORGET_AT_MS = 100, 400, 700
APPLICANTS = ("a" * 22, "5e" * 16, "b2", "c3", "d4", "e5", "f6")
"""They include a keyed hash, and a name as long as its short form."""
TERMS = DrawConfig(
    OPENS_AT_MS,
    CLOSES_AT_MS,
    FORGET_AT_MS,
    DAY,
    DAY + 1,
    commitment_of(DRAW, SEED),
    party_max=3,
    choices_max=3,
    applications_max=4,
)
DIGESTS = ("0" * 64, "f" * 64)
QUESTIONS: tuple[DrawQuery, ...] = (
    ReadDraw(),
    *(FindApplication(person) for person in APPLICANTS),
    ReadApplications(0),
    ReadApplications(1, 2),
    ReadPreferences(0),
    ReadPreferences(1, 1),
    ReadOfferedDays(0),
    ReadOfferedDays(1, 1),
)


def preference(office: str, day: int, session: str = "am") -> Preference:
    """Return a preference for a session, or for the general quota."""
    return Preference(office, day, Choice("new", "", session, "online", "", (("online", session), ("general",))))


PREFERENCES = (
    *(preference(office, DAY + offset) for office in ("sby", "mlg") for offset in (0, 1)),
    preference("sby", DAY + 2),
)


def one_command(random: Random) -> DrawCommand:
    """Return a random command. Most are applications."""
    kind = random.randrange(20)
    if kind < 11:
        party = tuple(random.sample(APPLICANTS, random.choice((1, 1, 2, 3, 4))))
        return SubmitApplication(
            party,
            tuple(random.sample(PREFERENCES, random.choice((1, 2, 3, 4)))),
            random.choice((0, 0, 0, 1, 2, 3)),
            random.choice((0, 0, 1, 2)),
        )
    if kind < 14:
        return WithdrawApplication(random.choice(APPLICANTS), random.choice((1, 1, 2, 3)), random.choice((0, 0, 1, 2)))
    if kind == 14:
        return CloseDraw()
    if kind < 17:
        quotas = tuple((name, random.randrange(3)) for name in random.sample(("online", "am"), random.randrange(3)))
        return OfferDay(random.choice(("sby", "mlg")), DAY + random.randrange(3), quotas)
    if kind == 17:
        return FreezeDraw(random.randrange(5), random.choice(DIGESTS), DIGESTS[0], random.choice((0, 0, 1, 2, 3)))
    if kind == 18:
        seed, entropy = random.choice((SEED, SEED, "1" * 64)), random.choice(("", "7,123.45"))
        return RevealSeed(DRAW, seed, entropy, random.choice((0, 0, 1, 2, 3)))
    if random.random() < 0.3:
        return AdvanceEpoch(random.choice((0, 0, 3)))
    source = random.choice(("", "", "an index"))
    return CreateDraw(msgspec.structs.replace(TERMS, entropy_source=source, party_max=random.choice((3, 3, 2))))


def walk(random: Random, length: int = 60) -> Iterator[tuple[int, DrawCommand]]:
    """Yield times and commands from before the draw opens until it is forgotten. The clock sometimes jumps back."""
    yield 0, CreateDraw(TERMS)
    now_ms = random.choice((0, OPENS_AT_MS))
    for _ in range(length):
        now_ms += random.choice((0, 1, 5, 10, 30)) if random.random() < 0.9 else -random.randrange(60)
        now_ms = max(now_ms, 0)
        if random.random() < 0.02:
            now_ms = random.choice((OPENS_AT_MS, CLOSES_AT_MS, FORGET_AT_MS)) - random.randrange(2)
        yield now_ms, one_command(random)
