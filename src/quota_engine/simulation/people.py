"""The people of an opening with agents, and the identities that brokers bring: the same people for every policy."""

from __future__ import annotations

__all__ = ["BROKERS", "People", "draw_people", "with_identities"]

import dataclasses
import itertools
import math
from array import array
from typing import Final

from quota_engine.simulation.arrivals import Kind, Population, draw_population
from quota_engine.simulation.rng import stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market

BROKERS: Final = "brokers' identities"


@dataclasses.dataclass(frozen=True, slots=True)
class People:
    """Everybody, as columns: the people of ``population`` first, then the identities of the brokers.

    ``classes`` names the classes and ``class_of`` is an index into it; the brokers' is the last. ``one_way_us`` is what
    a request of this person takes to the servers, all evening, and ``address`` where it seems to come from.
    ``aims`` are those who aim at the second of the opening. ``door`` is a number from 0 to 1 that says when somebody
    who may come any time within some hours comes. ``value`` is what a place is worth to a person, in rupiah, above its
    price at the counter; 0 for a broker's identity. ``considers`` says who would buy of a broker, and ``luck`` (0 to 1)
    stands for how often somebody has tried before.
    """

    population: Population
    classes: tuple[str, ...]
    class_of: bytearray
    one_way_us: array[int]
    address: array[int]
    office_day: array[int]
    wish: bytearray
    press_us: array[int]
    is_bot: bytearray
    aims: bytearray
    door: array[float]
    value: array[int]
    considers: bytearray
    luck: array[float]

    def __len__(self) -> int:
        return len(self.class_of)

    @property
    def people(self) -> int:
        """How many people there are; whoever stands behind them is a broker's identity."""
        return len(self.population)

    def identity(self, index: int) -> str:
        """The raw identity that it registers with: 16 digits."""
        people = len(self.population)
        if index < people:
            return self.population.identity(index)
        return str(9_800_000_000_000_000 + (self.population.seed % 1000) * 10_000_000_000 + (index - people) * 10)


def draw_people(scenario: Scenario, market: Market) -> People:
    """Draw ``scenario.applicants`` people, whatever the policy, and no brokers."""
    society, seed = scenario.society, scenario.seed
    population = draw_population(scenario, market)
    count = len(population)
    names = [*(network.name for network in society.networks), "refreshers", "bots", BROKERS]
    refreshers, bots = len(names) - 3, len(names) - 2
    networks = stream(seed, "people/network").choices(
        range(len(society.networks)),
        cum_weights=list(itertools.accumulate(network.share for network in society.networks)),
        k=count,
    )
    latency, bot = stream(seed, "people/latency").lognormvariate, stream(seed, "people/bot").random
    presses, reaction = array("q", population.first_press_us), stream(seed, "people/clock").gauss
    opens_us = [(each.opens_at_ms - market.opening_ms) * 1000 for each in market.office_days]
    mus = [math.log(network.one_way_ms_median * 1000) for network in society.networks]
    class_of, one_way_us = bytearray(count), array("q", bytes(8 * count))
    is_bot, aims = bytearray(count), bytearray(count)
    kinds, office_days = population.kind, population.office_day
    for index, network in enumerate(networks):
        way_us = latency(mus[network], society.networks[network].sigma)
        kind = kinds[index]
        class_of[index] = refreshers if kind == Kind.REFRESHER else network
        aims[index] = kind != Kind.LATE
        if bot() < society.bot_share:
            class_of[index], is_bot[index], aims[index] = bots, 1, 1
            way_us = society.bot_one_way_ms * 1000
            lead_s = society.bot_lead_s * reaction(1.0, 0.1)
            presses[index] = opens_us[office_days[index]] - round(lead_s * 1e6)
        one_way_us[index] = max(1, round(way_us))
    address = array("q", (index // society.people_per_address for index in range(count)))
    worth, door = stream(seed, "people/value").lognormvariate, stream(seed, "people/door").random
    considers, luck = stream(seed, "people/considers").random, stream(seed, "people/luck").random
    value_mu = math.log(max(society.value_median, 1))
    value = array("q", (round(worth(value_mu, society.value_sigma)) for _ in range(count)))
    return People(
        population,
        tuple(names),
        class_of,
        one_way_us,
        address,
        array("I", office_days),
        bytearray(population.wish),
        presses,
        is_bot,
        aims,
        array("d", (door() for _ in range(count))),
        value,
        bytearray(considers() < society.considers_brokers_share for _ in range(count)),
        array("d", (luck() for _ in range(count))),
    )


def with_identities(people: People, scenario: Scenario, market: Market, identities: int) -> People:
    """The same people, and behind them so many identities of brokers.

    They are spread over the office-days by their places, and over the brokers' addresses.
    """
    brokers, seed = scenario.society.brokers, scenario.seed
    place, clock = stream(seed, "brokers/place"), stream(seed, "brokers/clock").gauss
    wish, door = stream(seed, "brokers/wish"), stream(seed, "brokers/door").random
    opens_us = [(each.opens_at_ms - market.opening_ms) * 1000 for each in market.office_days]
    office_days = place.choices(
        range(len(opens_us)), weights=[office_day.places for office_day in market.office_days], k=identities
    )
    wishes = wish.choices(
        range(len(scenario.bookings)), weights=[booking.weight for booking in scenario.bookings], k=identities
    )
    presses = [opens_us[each] + round(abs(clock(0.0, brokers.clock_error_ms * 1000))) for each in office_days]
    first_address = len(people.population) + 1
    ones, zeros = bytes([1]) * identities, bytes(identities)
    return People(
        population=people.population,
        classes=people.classes,
        class_of=people.class_of + bytes([len(people.classes) - 1]) * identities,
        one_way_us=people.one_way_us + array("q", [round(brokers.one_way_ms * 1000)]) * identities,
        address=people.address + array("q", (first_address + each % brokers.addresses for each in range(identities))),
        office_day=people.office_day + array("I", office_days),
        wish=people.wish + bytes(wishes),
        press_us=people.press_us + array("q", presses),
        is_bot=people.is_bot + ones,
        aims=people.aims + ones,
        door=people.door + array("d", (door() for _ in range(identities))),
        value=people.value + array("q", bytes(8 * identities)),
        considers=people.considers + zeros,
        luck=people.luck + array("d", bytes(8 * identities)),
    )
