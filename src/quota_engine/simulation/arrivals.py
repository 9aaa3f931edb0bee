"""Applicants of an opening with their choices and first presses: the same population for every run of a scenario."""

from __future__ import annotations

__all__ = ["ArrivalKind", "Population", "draw_population"]

import dataclasses
import enum
import itertools
import math
from array import array
from collections.abc import Mapping

from quota_engine.simulation.rng import stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import BookingChoice, Supply, choice_from_booking


class ArrivalKind(enum.IntEnum):
    """Arrival pattern of an applicant."""

    EARLY = 0
    BURST = 1
    REFRESHER = 2
    LATE = 3
    RECORDED = 4
    """At the times that a trace has recorded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Population:
    """All applicants, as columns: applicant ``i`` is the ``i``-th entry of each.

    Attributes:
        first_identity: First of the generated identities, which are derived from it on demand.
        first_press_us: First press at the client, in microseconds from the opening; negative before it.
        office_day: Index into the office-days of the supply.
        choice: Index into ``choices``.
        party: Number of applicants booked together.
        identities: Identities of a trace; empty for a drawn population.
        later_presses_us: Further presses of an applicant in a trace, ascending.
    """

    seed: int
    first_identity: int
    first_press_us: array[int]
    kind: bytearray
    office_day: array[int]
    choice: bytearray
    party: bytearray
    choices: tuple[BookingChoice, ...]
    identities: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    later_presses_us: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.first_press_us)

    def identity(self, index: int) -> str:
        """Return the raw identity of an applicant: 16 digits, like a national number."""
        if self.identities:
            return self.identities[index]
        return str(self.first_identity + index * 10)

    def party_identities(self, index: int) -> tuple[str, ...]:
        """Return the identities of the whole party. Those of the other members are derived from the first one."""
        first = self.identity(index)
        if self.identities:
            return (first, *(f"{first}+{number}" for number in range(1, self.party[index])))
        return (first, *(str(int(first) + number) for number in range(1, self.party[index])))


def draw_population(scenario: Scenario, supply: Supply) -> Population:
    """Draw ``scenario.applicants`` applicants from the arrival model.

    Office-days are drawn in proportion to their places, because larger offices serve more people. A press is relative
    to the opening of the applicant's own office-day.
    """
    model, seed, count = scenario.arrivals, scenario.seed, scenario.applicants
    kinds = stream(seed, "kind").choices(
        (ArrivalKind.EARLY, ArrivalKind.BURST, ArrivalKind.REFRESHER, ArrivalKind.LATE),
        cum_weights=tuple(
            itertools.accumulate((model.early_share, model.burst_share, model.refresher_share, model.late_share))
        ),
        k=count,
    )
    office_days = supply.office_days
    chosen = array(
        "I",
        stream(seed, "office_day").choices(
            range(len(office_days)), weights=[office_day.places for office_day in office_days], k=count
        ),
    )
    early, burst, refresher, late = (stream(seed, f"press/{kind.name}") for kind in list(ArrivalKind)[:4])
    early_rate, late_rate = 1 / model.early_lead_s_mean, 1 / model.late_s_mean
    reaction_mu = math.log(model.reaction_s_median)
    opens_us = [(office_day.opens_at_ms - supply.opening_ms) * 1000 for office_day in office_days]
    presses = array("q", bytes(8 * count))
    for index, kind in enumerate(kinds):
        if kind is ArrivalKind.BURST:
            press_s = burst.lognormvariate(reaction_mu, model.reaction_sigma)
        elif kind is ArrivalKind.EARLY:
            press_s = -early.expovariate(early_rate)
        elif kind is ArrivalKind.LATE:
            press_s = late.expovariate(late_rate)
        else:
            press_s = -refresher.random() * model.refresher_lead_s
        presses[index] = round(press_s * 1_000_000) + opens_us[chosen[index]]
    parties = stream(seed, "party").choices(range(1, len(model.party_shares) + 1), weights=model.party_shares, k=count)
    bookings = scenario.bookings
    choices = stream(seed, "wish").choices(
        range(len(bookings)), weights=[booking.weight for booking in bookings], k=count
    )
    return Population(
        seed,
        # 16 digits that begin with no province's code. They are ten apart, which leaves room for the party's members.
        9_100_000_000_000_000 + (seed % 1000) * 10_000_000_000,
        presses,
        bytearray(kinds),
        chosen,
        bytearray(choices),
        bytearray(parties),
        tuple(choice_from_booking(booking) for booking in bookings),
    )
