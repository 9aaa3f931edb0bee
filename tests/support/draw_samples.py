"""Draws to try things with: small ones by hand, and random ones."""

from __future__ import annotations

__all__ = ["COMMITMENT", "DAY", "DRAW", "SEED", "random_applications", "random_capacities", "wish"]

from random import Random

from quota_engine.conformance.random_draws import DAY, DRAW, SEED
from quota_engine.domain.model import Choice
from quota_engine.draws.lottery import Application, Capacities, Preference, commitment_of

COMMITMENT = commitment_of(DRAW, SEED)


def wish(office: str, *options: tuple[str, ...], day: int = DAY) -> Preference:
    """A wish with these alternatives of quotas."""
    return Preference(office, day, Choice("new", "", "", "online", "", options))


def random_capacities(random: Random) -> Capacities:
    """A few offices and days, each with a total and two sessions, one of which the wish can leave open."""
    days = {
        (office, DAY + offset): {
            "all": random.randint(0, 6),
            "am": random.randint(0, 4),
            "pm": random.randint(0, 4),
        }
        for office in ("sby", "mlg")[: random.randint(1, 2)]
        for offset in range(random.randint(1, 2))
    }
    wishes: dict[str, Preference] = {}
    for office, day in days:
        for options in ((("all", "am"),), (("all", "pm"),), (("all", "pm"), ("all", "am"))):
            wishes[f"c{len(wishes) + 1}"] = wish(office, *options, day=day)
    return Capacities(DRAW, days, wishes)


def random_applications(random: Random, capacities: Capacities, count: int) -> list[Application]:
    """Parties of 1 to 3 under numbers with gaps, each with a few choices."""
    names = sorted(capacities.preferences)
    numbers = random.sample(range(1, 10 * count + 1), count)
    return [
        Application(
            number,
            tuple(f"{number:08d}{index}" for index in range(random.choice((1, 1, 2, 3)))),
            tuple(random.sample(names, random.randint(1, min(4, len(names))))),
        )
        for number in numbers
    ]
