"""The people of an opening with agents, and the identities that brokers bring: drawn once, the same for every policy."""

from __future__ import annotations

__all__ = ["BROKERS", "People", "draw_people"]

import dataclasses
import itertools
import math
from array import array
from typing import Final

from quota_engine.sim.arrivals import Kind, Population, draw_population
from quota_engine.sim.market import Market
from quota_engine.sim.scenario import Scenario
from quota_engine.sim.streams import stream

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


def draw_people(scenario: Scenario, market: Market, identities: int) -> People:
    """Draw ``scenario.applicants`` people, and ``identities`` of brokers beside them.

    The people are the same whatever the number of the brokers' identities, and whatever the policy.
    """
    society, seed = scenario.society, scenario.seed
    population = draw_population(scenario, market)
    count = len(population)
    names = [*(network.name for network in society.networks), "refreshers", "bots", BROKERS]
    refreshers, bots, brokers = range(len(names) - 3, len(names))
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
    people = People(
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
    _add_brokers(people, scenario, market, identities, opens_us)
    return people


def _add_brokers(people: People, scenario: Scenario, market: Market, identities: int, opens_us: list[int]) -> None:
    """Brokers spread their identities over the office-days by their places, and over their addresses."""
    brokers, seed = scenario.society.brokers, scenario.seed
    draws, clock = stream(seed, "brokers/place"), stream(seed, "brokers/clock").gauss
    wishes = stream(seed, "brokers/wish")
    weights = [office_day.places for office_day in market.office_days]
    addresses_from = len(people.population) + 1
    for number in range(identities):
        office_day = draws.choices(range(len(weights)), weights=weights)[0]
        people.class_of.append(len(people.classes) - 1)
        people.one_way_us.append(round(brokers.one_way_ms * 1000))
        people.address.append(addresses_from + number % brokers.addresses)
        people.office_day.append(office_day)
        people.wish.append(
            wishes.choices(range(len(scenario.bookings)), weights=[booking.weight for booking in scenario.bookings])[0]
        )
        error_us = abs(clock(0.0, brokers.clock_error_ms * 1000))
        people.press_us.append(opens_us[office_day] + round(error_us))
        people.is_bot.append(1)
        people.aims.append(1)
        people.door.append(draws.random())
        people.value.append(0)
        people.considers.append(0)
        people.luck.append(0.0)
