"""Who comes, what for, and when they first press the button: the same population for every run of a scenario."""

from __future__ import annotations

__all__ = ["Kind", "Population", "draw_population"]

import dataclasses
import enum
import itertools
import math
from array import array
from collections.abc import Mapping

from quota_engine.simulation.rng import stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market, Wish, wish_of


class Kind(enum.IntEnum):
    """How an applicant goes about the opening."""

    EARLY = 0
    BURST = 1
    REFRESHER = 2
    LATE = 3
    RECORDED = 4
    """Comes from a trace, and presses when the trace says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Population:
    """All applicants, as columns: applicant ``i`` is the ``i``-th entry of each.

    ``first_press_us`` is the first press at the client, in microseconds from the opening of the run (before it:
    negative). ``office_day`` and ``wish`` are indexes into the market's office-days and ``wishes``. ``party`` is the
    number of applicants booked together. ``identities`` is empty for a drawn population, whose identities are made
    from ``first_identity`` when they are needed. ``later_presses_us`` are the further presses that a trace has of an
    applicant, ascending.
    """

    seed: int
    first_identity: int
    first_press_us: array[int]
    kind: bytearray
    office_day: array[int]
    wish: bytearray
    party: bytearray
    wishes: tuple[Wish, ...]
    identities: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    later_presses_us: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.first_press_us)

    def identity(self, index: int) -> str:
        """The raw identity that the applicant registers with: 16 digits, as a national number has."""
        if self.identities:
            return self.identities[index]
        return str(self.first_identity + index * 10)

    def party_identities(self, index: int) -> tuple[str, ...]:
        """The identities of the whole party; those who come along have one of their own, made from the first one's."""
        first = self.identity(index)
        if self.identities:
            return (first, *(f"{first}+{number}" for number in range(1, self.party[index])))
        return (first, *(str(int(first) + number) for number in range(1, self.party[index])))


def draw_population(scenario: Scenario, market: Market) -> Population:
    """Draw ``scenario.applicants`` applicants from the arrival model.

    Office-days are drawn in proportion to their places: where more is offered, more people live. A press is relative
    to the opening of the applicant's own office-day.
    """
    model, seed, count = scenario.arrivals, scenario.seed, scenario.applicants
    kinds = stream(seed, "kind").choices(
        (Kind.EARLY, Kind.BURST, Kind.REFRESHER, Kind.LATE),
        cum_weights=tuple(
            itertools.accumulate((model.early_share, model.burst_share, model.refresher_share, model.late_share))
        ),
        k=count,
    )
    office_days = market.office_days
    chosen = array(
        "I",
        stream(seed, "office_day").choices(
            range(len(office_days)), weights=[office_day.places for office_day in office_days], k=count
        ),
    )
    early, burst, refresher, late = (stream(seed, f"press/{kind.name}") for kind in list(Kind)[:4])
    early_rate, late_rate = 1 / model.early_lead_s_mean, 1 / model.late_s_mean
    reaction_mu = math.log(model.reaction_s_median)
    opens_us = [(office_day.opens_at_ms - market.opening_ms) * 1000 for office_day in office_days]
    presses = array("q", bytes(8 * count))
    for index, kind in enumerate(kinds):
        if kind is Kind.BURST:
            press_s = burst.lognormvariate(reaction_mu, model.reaction_sigma)
        elif kind is Kind.EARLY:
            press_s = -early.expovariate(early_rate)
        elif kind is Kind.LATE:
            press_s = late.expovariate(late_rate)
        else:
            press_s = -refresher.random() * model.refresher_lead_s
        presses[index] = round(press_s * 1_000_000) + opens_us[chosen[index]]
    parties = stream(seed, "party").choices(range(1, len(model.party_shares) + 1), weights=model.party_shares, k=count)
    bookings = scenario.bookings
    wishes = stream(seed, "wish").choices(
        range(len(bookings)), weights=[booking.weight for booking in bookings], k=count
    )
    return Population(
        seed,
        # 16 digits, with a first pair that no province has; ten apart, so that whoever comes along has one as well.
        9_100_000_000_000_000 + (seed % 1000) * 10_000_000_000,
        presses,
        bytearray(kinds),
        chosen,
        bytearray(wishes),
        bytearray(parties),
        tuple(wish_of(booking) for booking in bookings),
    )
