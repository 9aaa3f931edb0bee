"""Small and random draws for tests."""

from __future__ import annotations

__all__ = ["COMMITMENT", "DAY", "DRAW", "SEED", "make_preference", "random_applications", "random_capacities"]

from random import Random

from quota_engine.conformance.random_draws import DAY, DRAW, SEED
from quota_engine.domain.model import Choice
from quota_engine.draws.lottery import Application, Capacities, Preference, commitment_of

COMMITMENT = commitment_of(DRAW, SEED)


def make_preference(office: str, *options: tuple[str, ...], day: int = DAY) -> Preference:
    """Return a preference with the given options."""
    return Preference(office, day, Choice("new", "", "", "online", "", options))


def random_capacities(random: Random) -> Capacities:
    """Return one or two offices and days, each with a total quota, two sessions and choices of them."""
    days = {
        (office, DAY + offset): {
            "all": random.randint(0, 6),
            "am": random.randint(0, 4),
            "pm": random.randint(0, 4),
        }
        for office in ("sby", "mlg")[: random.randint(1, 2)]
        for offset in range(random.randint(1, 2))
    }
    preferences: dict[str, Preference] = {}
    for office, day in days:
        for options in ((("all", "am"),), (("all", "pm"),), (("all", "pm"), ("all", "am"))):
            preferences[f"c{len(preferences) + 1}"] = make_preference(office, *options, day=day)
    return Capacities(DRAW, days, preferences)


def random_applications(random: Random, capacities: Capacities, count: int) -> list[Application]:
    """Return applications of 1 to 3 applicants and 1 to 4 choices, under numbers with gaps."""
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
