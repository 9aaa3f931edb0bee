"""People of an opening with agents, and the identities of brokers. The people are the same for every policy."""

from __future__ import annotations

__all__ = ["BROKERS", "People", "draw_people", "with_identities"]

import dataclasses
import itertools
import math
from array import array
from typing import Final

from quota_engine.simulation.arrivals import ArrivalKind, Population, draw_population
from quota_engine.simulation.rng import stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply

BROKERS: Final = "brokers' identities"
"""Name of the class of the brokers' identities."""


@dataclasses.dataclass(frozen=True, slots=True)
class People:
    """All agents, as columns: the people of ``population`` first, then the identities of the brokers.

    Attributes:
        classes: Names of the classes; the brokers' class is the last one.
        class_of: Index into ``classes``.
        one_way_us: One-way latency to the servers, in microseconds. It stays the same during the run.
        address: Number of the network address.
        office_day: Index into the office-days of the supply.
        choice: Index into the choices of ``population``.
        press_us: First press of the arrival model, in microseconds from the opening.
        is_bot: 1 if a program sends the requests.
        aims_at_opening: 1 if the agent comes at the second of the opening.
        arrival_fraction: Moment, from 0 to 1, within a period in which the agent may come at any time.
        value: Value of a place in rupiah, above its official price; 0 for a broker's identity.
        considers_brokers: 1 if the person would buy from a broker.
        luck: 0 to 1; determines how often the person has failed before.
    """

    population: Population
    classes: tuple[str, ...]
    class_of: bytearray
    one_way_us: array[int]
    address: array[int]
    office_day: array[int]
    choice: bytearray
    press_us: array[int]
    is_bot: bytearray
    aims_at_opening: bytearray
    arrival_fraction: array[float]
    value: array[int]
    considers_brokers: bytearray
    luck: array[float]

    def __len__(self) -> int:
        return len(self.class_of)

    @property
    def people_count(self) -> int:
        """Number of people. Agents from this index on are identities of brokers."""
        return len(self.population)

    def identity(self, index: int) -> str:
        """Return the raw identity of an agent: 16 digits."""
        people = len(self.population)
        if index < people:
            return self.population.identity(index)
        return str(9_800_000_000_000_000 + (self.population.seed % 1000) * 10_000_000_000 + (index - people) * 10)


def draw_people(scenario: Scenario, supply: Supply) -> People:
    """Draw ``scenario.applicants`` people, independently of the policy, and no brokers."""
    config, seed = scenario.population, scenario.seed
    population = draw_population(scenario, supply)
    count = len(population)
    names = [*(network.name for network in config.networks), "refreshers", "bots", BROKERS]
    refreshers, bots = len(names) - 3, len(names) - 2
    networks = stream(seed, "people/network").choices(
        range(len(config.networks)),
        cum_weights=list(itertools.accumulate(network.share for network in config.networks)),
        k=count,
    )
    latency_draw, bot_draw = stream(seed, "people/latency").lognormvariate, stream(seed, "people/bot").random
    presses, reaction_draw = array("q", population.first_press_us), stream(seed, "people/clock").gauss
    opens_us = [(each.opens_at_ms - supply.opening_ms) * 1000 for each in supply.office_days]
    mus = [math.log(network.one_way_ms_median * 1000) for network in config.networks]
    class_of, one_way_us = bytearray(count), array("q", bytes(8 * count))
    is_bot, aims = bytearray(count), bytearray(count)
    kinds, office_days = population.kind, population.office_day
    for index, network in enumerate(networks):
        latency_us = latency_draw(mus[network], config.networks[network].sigma)
        kind = kinds[index]
        class_of[index] = refreshers if kind == ArrivalKind.REFRESHER else network
        aims[index] = kind != ArrivalKind.LATE
        if bot_draw() < config.bot_share:
            class_of[index], is_bot[index], aims[index] = bots, 1, 1
            latency_us = config.bot_one_way_ms * 1000
            lead_s = config.bot_lead_s * reaction_draw(1.0, 0.1)
            presses[index] = opens_us[office_days[index]] - round(lead_s * 1e6)
        one_way_us[index] = max(1, round(latency_us))
    address = array("q", (index // config.people_per_address for index in range(count)))
    value_draw, arrival_fraction = stream(seed, "people/value").lognormvariate, stream(seed, "people/door").random
    considers_draw, luck_draw = stream(seed, "people/considers").random, stream(seed, "people/luck").random
    value_mu = math.log(max(config.value_median, 1))
    value = array("q", (round(value_draw(value_mu, config.value_sigma)) for _ in range(count)))
    return People(
        population,
        tuple(names),
        class_of,
        one_way_us,
        address,
        array("I", office_days),
        bytearray(population.choice),
        presses,
        is_bot,
        aims,
        array("d", (arrival_fraction() for _ in range(count))),
        value,
        bytearray(considers_draw() < config.considers_brokers_share for _ in range(count)),
        array("d", (luck_draw() for _ in range(count))),
    )


def with_identities(people: People, scenario: Scenario, supply: Supply, identities: int) -> People:
    """Return the same people, followed by identities of brokers.

    The identities are spread over the office-days in proportion to their places, and over the brokers' addresses.

    Args:
        people: People without brokers.
        scenario: The scenario.
        supply: Office-days on sale.
        identities: Number of identities.
    """
    brokers, seed = scenario.population.brokers, scenario.seed
    place, clock = stream(seed, "brokers/place"), stream(seed, "brokers/clock").gauss
    choice, arrival_fraction = stream(seed, "brokers/wish"), stream(seed, "brokers/door").random
    opens_us = [(each.opens_at_ms - supply.opening_ms) * 1000 for each in supply.office_days]
    office_days = place.choices(
        range(len(opens_us)), weights=[office_day.places for office_day in supply.office_days], k=identities
    )
    choices = choice.choices(
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
        choice=people.choice + bytes(choices),
        press_us=people.press_us + array("q", presses),
        is_bot=people.is_bot + ones,
        aims_at_opening=people.aims_at_opening + ones,
        arrival_fraction=people.arrival_fraction + array("d", (arrival_fraction() for _ in range(identities))),
        value=people.value + array("q", bytes(8 * identities)),
        considers_brokers=people.considers_brokers + zeros,
        luck=people.luck + array("d", bytes(8 * identities)),
    )
