"""Who comes to a load test: the scenario's applicants, and programs, brokers and kiosks beside them, as one population.

The simulation is given the same population, so that both replay the same opening.
"""

from __future__ import annotations

__all__ = ["IDENTITY_PREFIX", "LoadPopulation", "PersonRole", "identity_of", "key_of", "key_prefix", "load_population"]

import dataclasses
import enum
import hashlib
import itertools
import pathlib
from array import array
from typing import Final, NamedTuple

from quota_engine.domain.errors import InvalidRequest
from quota_engine.loadtest.plan import LoadTestPlan
from quota_engine.simulation.arrivals import Kind, Population, draw_population
from quota_engine.simulation.rng import stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Market, Wish, open_market, wish_of
from quota_engine.simulation.trace import read_trace

IDENTITY_PREFIX: Final = "loadtest-"
"""Every idempotency key begins with it, and so does every reservation's id: that is how a purge knows its own."""

_PRESSES_MAX: Final = 400
_ONE_S: Final = 1_000_000


class PersonRole(enum.IntEnum):
    """What somebody is; each has a user class of its own."""

    CITIZEN = 0
    """Waits for the opening, presses, fills in the form; some crash and come back, some walk away."""
    REFRESHER = 1
    """Presses every few seconds, from before the opening until there is an answer to be content with."""
    BOT = 2
    """A program: presses four times a second until it is open, and watches for places that come back."""
    BROKER = 3
    """Presses to the millisecond with many identities, and hands places over by cancelling and booking again."""
    KIOSK = 4
    """A computer in the office, used by one person after the other, with places of its own."""
    OPERATOR = 5
    """Changes capacities while people press."""


class LoadPopulation(NamedTuple):
    """The people, their roles (one a person of the population), and the market with what all of them can reach."""

    population: Population
    roles: bytearray
    market: Market


def key_prefix(run: str) -> str:
    """What the ids of a run's reservations begin with."""
    return f"{IDENTITY_PREFIX}{run}-"


def key_of(run: str, index: int, number: int) -> str:
    """The idempotency key of a person's wish: ``number`` counts their wishes."""
    return f"{key_prefix(run)}{index}-{number}"


def identity_of(run: str, index: int, companion: int = 0) -> str:
    """A national number that nobody has: 16 digits, the first two 00, which no province has; other runs have others.

    ``index`` is below 10 million, ``companion`` below 10.
    """
    number = int.from_bytes(hashlib.blake2b(run.encode(), digest_size=4).digest(), "big") % 1_000_000
    return f"00{number:06d}{index:07d}{companion}"


def load_population(plan: LoadTestPlan, scenario: Scenario, market: Market) -> LoadPopulation:
    """Everybody who comes. Raises ``CatalogError`` for a trace with mistakes."""
    people = _recorded(plan, scenario, market) if plan.options.trace else draw_population(scenario, market)
    roles = bytearray(
        PersonRole.REFRESHER if kind == Kind.REFRESHER and not plan.options.trace else PersonRole.CITIZEN
        for kind in people.kind
    )
    extras = _Extras(people, roles, market)
    if not plan.options.trace:
        _add_bots(extras, scenario, market)
        _add_brokers(extras, scenario, market)
        _add_kiosks(extras, scenario, market, plan.options.window_s)
    cast = extras.cast()
    return cast._replace(population=_within(cast.population, scenario, plan))


def _recorded(plan: LoadTestPlan, scenario: Scenario, market: Market) -> Population:
    """A trace's people, at the plan's speed: the n-th recorded day of an office is its n-th day on sale."""
    recorded = open_market(scenario, plan.options.scenario)
    path = pathlib.Path(plan.options.trace)
    people = read_trace(path, recorded, wish_of(scenario.bookings[0]), scenario.seed)
    numbers = {each: number for number, each in enumerate(_by_office(market))}
    try:
        to_sale = [numbers[each] for each in _by_office(recorded)]
    except KeyError as error:
        office, number = error.args[0]
        raise InvalidRequest("trace", f"day {number + 1} of {office}", "days that the host has on sale") from None
    speed = plan.options.speed
    return dataclasses.replace(
        people,
        first_press_us=array("q", [round(at_us / speed) for at_us in people.first_press_us]),
        office_day=array("I", [to_sale[index] for index in people.office_day]),
        later_presses_us={
            index: tuple(round(at_us / speed) for at_us in presses)
            for index, presses in people.later_presses_us.items()
        },
        # What was recorded are identities of people: they are counted, and nothing else.
        identities=tuple(str(index) for index in range(len(people))),
    )


def _by_office(market: Market) -> list[tuple[str, int]]:
    """Each office-day as its office, and the how many-th day of it that is."""
    seen: dict[str, int] = {}
    found = []
    for each in market.office_days:
        number = seen.get(each.office, 0)
        seen[each.office] = number + 1
        found.append((each.office, number))
    return found


class _Extras:
    """A population that is added to: people who press at moments that are known beforehand."""

    def __init__(self, people: Population, roles: bytearray, market: Market) -> None:
        self._people, self._market = people, market
        self._first, self._kinds = array("q", people.first_press_us), bytearray(people.kind)
        self._days, self._wish_of = array("I", people.office_day), bytearray(people.wish)
        self._parties, self._roles = bytearray(people.party), roles
        self._later = dict(people.later_presses_us)
        self.wishes = list(people.wishes)

    def add(self, role: PersonRole, office_day: int, wish: int, presses_us: list[int]) -> None:
        """Somebody who presses at each of these moments, until they have a place."""
        index = len(self._first)
        self._first.append(presses_us[0])
        self._kinds.append(Kind.RECORDED)
        self._days.append(office_day)
        self._wish_of.append(wish)
        self._parties.append(1)
        self._roles.append(role)
        if len(presses_us) > 1:
            self._later[index] = tuple(presses_us[1:])

    def cast(self) -> LoadPopulation:
        """Everybody."""
        people = dataclasses.replace(
            self._people,
            first_press_us=self._first,
            kind=self._kinds,
            office_day=self._days,
            wish=self._wish_of,
            party=self._parties,
            wishes=tuple(self.wishes),
            identities=tuple(str(index) for index in range(len(self._first))) if self._people.identities else (),
            later_presses_us=self._later,
        )
        return LoadPopulation(people, self._roles, self._market.reached_by(people.wishes))


def _add_bots(extras: _Extras, scenario: Scenario, market: Market) -> None:
    """Programs: press from before the opening, quickly until it is open, then now and then while they watch."""
    society, chance = scenario.society, stream(scenario.seed, "load/bots")
    count = round(scenario.load_test.bot_share * scenario.applicants)
    weights = list(itertools.accumulate(each.places for each in market.office_days))
    opens = _opens_us(market)
    for _ in range(count):
        (office_day,) = chance.choices(range(len(weights)), cum_weights=weights)
        (wish,) = chance.choices(range(len(scenario.bookings)), weights=[each.weight for each in scenario.bookings])
        start_s = -society.bot_lead_s + chance.random() * society.bot_every_s
        times_s = [start_s]
        while len(times_s) < _PRESSES_MAX and times_s[-1] < society.bot_watch_s:
            times_s.append(times_s[-1] + (society.bot_every_s if times_s[-1] < 1 else society.brokers.poll_s))
        presses_us = [opens[office_day] + round(at_s * _ONE_S) for at_s in times_s]
        extras.add(PersonRole.BOT, office_day, wish, presses_us)


def _add_brokers(extras: _Extras, scenario: Scenario, market: Market) -> None:
    """Brokers' identities: all press at the opening, as nearly as their clocks allow, and once again a moment later."""
    brokers, chance = scenario.society.brokers, stream(scenario.seed, "load/brokers")
    opens = _opens_us(market)
    for office_day, each in enumerate(market.office_days):
        for _ in range(round(scenario.load_test.broker_share * each.places)):
            at_us = opens[office_day] + round(chance.gauss(0, brokers.clock_error_ms) * 1000)
            wish = chance.randrange(len(scenario.bookings))
            extras.add(PersonRole.BROKER, office_day, wish, [at_us, at_us + 100_000, at_us + 1_000_000])


def _add_kiosks(extras: _Extras, scenario: Scenario, market: Market, window_s: float) -> None:
    """People at the computers of an office: at each of them one after the other, as long as the form takes."""
    load, chance = scenario.load_test, stream(scenario.seed, "load/kiosks")
    first = scenario.bookings[0]
    wish = Wish(first.service, first.service_unit, first.session, load.kiosk_channel)
    opens = _opens_us(market)
    number = -1
    for office_day, each in enumerate(market.office_days):
        try:
            wish.options(market.catalog, each.office)
        except InvalidRequest:  # an office without computers
            continue
        if number < 0:
            extras.wishes.append(wish)
            number = len(extras.wishes) - 1
        for _ in range(load.kiosks):
            at_s = chance.random()
            while at_s < window_s / 2:
                extras.add(PersonRole.KIOSK, office_day, number, [opens[office_day] + round(at_s * _ONE_S)])
                at_s += scenario.agents.form_s_median * (1 + chance.random())


def _opens_us(market: Market) -> list[int]:
    return [(each.opens_at_ms - market.opening_ms) * 1000 for each in market.office_days]


def _within(people: Population, scenario: Scenario, plan: LoadTestPlan) -> Population:
    """The people with nobody before the start of the test, or after its window.

    Who would have come earlier comes at the start, within a second; where it is open already, that is second 0. Who
    would have come later comes at any time in the window.
    """
    lead_us, window_us = round(plan.options.lead_s * _ONE_S), round(plan.options.window_s * _ONE_S)
    first_us = 0 if plan.is_open else -lead_us
    chance = stream(scenario.seed, "load/reaction")
    presses = array("q", people.first_press_us)
    for index, at_us in enumerate(presses):
        if at_us < first_us:
            presses[index] = first_us + round(chance.random() * min(lead_us, _ONE_S))
        elif at_us > window_us:
            presses[index] = round(chance.random() * window_us)
    later = {
        index: tuple(at_us for at_us in further if presses[index] < at_us <= window_us)
        for index, further in people.later_presses_us.items()
    }
    return dataclasses.replace(people, first_press_us=presses, later_presses_us={i: p for i, p in later.items() if p})
