"""Population of a load test: the scenario's applicants, and the bots, brokers and kiosks beside them.

The simulation receives the same population, so that both replay the same opening.
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
from quota_engine.simulation.arrivals import ArrivalKind, Population, draw_population
from quota_engine.simulation.rng import stream
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import BookingChoice, Supply, build_supply, choice_from_booking
from quota_engine.simulation.trace import read_trace

IDENTITY_PREFIX: Final = "loadtest-"
"""Prefix of every idempotency key, and so of every reservation id: the cleanup finds its reservations by it."""

_PRESSES_MAX: Final = 400
_ONE_S: Final = 1_000_000


class PersonRole(enum.IntEnum):
    """Role of a person; each has its own Locust user class."""

    CITIZEN = 0
    """Waits for the opening, reserves, fills in the form; some crash and come back, some abandon the form."""
    REFRESHER = 1
    """Tries every few seconds, from before the opening until there is an answer to accept."""
    BOT = 2
    """Tries four times a second until the quota opens, then watches for places that come back."""
    BROKER = 3
    """Tries at the exact opening with many identities, and hands places over by cancelling and booking again."""
    KIOSK = 4
    """A computer in the office, used by one person after the other, with its own allotment."""
    OPERATOR = 5
    """Changes capacities during the test."""


class LoadPopulation(NamedTuple):
    """The people, one role for each of them, and the supply of all days that they can reach."""

    population: Population
    roles: bytearray
    supply: Supply


def key_prefix(run: str) -> str:
    """Return the prefix of the reservation ids of a run."""
    return f"{IDENTITY_PREFIX}{run}-"


def key_of(run: str, index: int, number: int) -> str:
    """Return the idempotency key of a person's request; ``number`` counts the person's requests."""
    return f"{key_prefix(run)}{index}-{number}"


def identity_of(run: str, index: int, companion: int = 0) -> str:
    """Return an identity that no person has: 16 digits that begin with 00, which no province uses.

    Identities of different runs differ.

    Args:
        run: name of the run.
        index: index of the person, below 10 million.
        companion: index within the party, below 10.
    """
    number = int.from_bytes(hashlib.blake2b(run.encode(), digest_size=4).digest(), "big") % 1_000_000
    return f"00{number:06d}{index:07d}{companion}"


def load_population(plan: LoadTestPlan, scenario: Scenario, supply: Supply) -> LoadPopulation:
    """Return everyone who takes part in the test.

    Raises:
        CatalogError: the plan's trace is not valid.
    """
    people = _recorded(plan, scenario, supply) if plan.options.trace else draw_population(scenario, supply)
    roles = bytearray(
        PersonRole.REFRESHER if kind == ArrivalKind.REFRESHER and not plan.options.trace else PersonRole.CITIZEN
        for kind in people.kind
    )
    extras = _Extras(people, roles, supply)
    if not plan.options.trace:
        _add_bots(extras, scenario, supply)
        _add_brokers(extras, scenario, supply)
        _add_kiosks(extras, scenario, supply, plan.options.window_s)
    participants = extras.cast()
    return participants._replace(population=_within(participants.population, scenario, plan))


def _recorded(plan: LoadTestPlan, scenario: Scenario, supply: Supply) -> Population:
    """Return the people of a trace at the plan's speed: an office's n-th recorded day is its n-th day on sale."""
    recorded = build_supply(scenario, plan.options.scenario)
    path = pathlib.Path(plan.options.trace)
    people = read_trace(path, recorded, choice_from_booking(scenario.bookings[0]), scenario.seed)
    numbers = {each: number for number, each in enumerate(_by_office(supply))}
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
        # Recorded identities belong to real people: replace them with numbers.
        identities=tuple(str(index) for index in range(len(people))),
    )


def _by_office(supply: Supply) -> list[tuple[str, int]]:
    """Return each office-day as its office and its number among that office's days, from 0."""
    seen: dict[str, int] = {}
    found = []
    for each in supply.office_days:
        number = seen.get(each.office, 0)
        seen[each.office] = number + 1
        found.append((each.office, number))
    return found


class _Extras:
    """Adds people with known moments of action to a population."""

    def __init__(self, people: Population, roles: bytearray, supply: Supply) -> None:
        self._people, self._supply = people, supply
        self._first, self._kinds = array("q", people.first_press_us), bytearray(people.kind)
        self._days, self._wish_of = array("I", people.office_day), bytearray(people.choice)
        self._parties, self._roles = bytearray(people.party), roles
        self._later = dict(people.later_presses_us)
        self.choices = list(people.choices)

    def add(self, role: PersonRole, office_day: int, selection: int, presses_us: list[int]) -> None:
        """Add a person who tries at each of ``presses_us``, microseconds from the opening, until there is a place."""
        index = len(self._first)
        self._first.append(presses_us[0])
        self._kinds.append(ArrivalKind.RECORDED)
        self._days.append(office_day)
        self._wish_of.append(selection)
        self._parties.append(1)
        self._roles.append(role)
        if len(presses_us) > 1:
            self._later[index] = tuple(presses_us[1:])

    def cast(self) -> LoadPopulation:
        """Return the extended population."""
        people = dataclasses.replace(
            self._people,
            first_press_us=self._first,
            kind=self._kinds,
            office_day=self._days,
            choice=self._wish_of,
            party=self._parties,
            choices=tuple(self.choices),
            identities=tuple(str(index) for index in range(len(self._first))) if self._people.identities else (),
            later_presses_us=self._later,
        )
        return LoadPopulation(people, self._roles, self._supply.with_reachable_places(people.choices))


def _add_bots(extras: _Extras, scenario: Scenario, supply: Supply) -> None:
    """Add bots: they try from before the opening, quickly until it opens, then at intervals while they watch."""
    population, chance = scenario.population, stream(scenario.seed, "load/bots")
    count = round(scenario.load_test.bot_share * scenario.applicants)
    weights = list(itertools.accumulate(each.places for each in supply.office_days))
    opens = _opens_us(supply)
    for _ in range(count):
        (office_day,) = chance.choices(range(len(weights)), cum_weights=weights)
        (selection,) = chance.choices(
            range(len(scenario.bookings)), weights=[each.weight for each in scenario.bookings]
        )
        start_s = -population.bot_lead_s + chance.random() * population.bot_every_s
        times_s = [start_s]
        while len(times_s) < _PRESSES_MAX and times_s[-1] < population.bot_watch_s:
            times_s.append(times_s[-1] + (population.bot_every_s if times_s[-1] < 1 else population.brokers.poll_s))
        presses_us = [opens[office_day] + round(at_s * _ONE_S) for at_s in times_s]
        extras.add(PersonRole.BOT, office_day, selection, presses_us)


def _add_brokers(extras: _Extras, scenario: Scenario, supply: Supply) -> None:
    """Add brokers: all their identities try at the opening, up to their clock's error, and twice more soon after."""
    brokers, chance = scenario.population.brokers, stream(scenario.seed, "load/brokers")
    opens = _opens_us(supply)
    for office_day, each in enumerate(supply.office_days):
        for _ in range(round(scenario.load_test.broker_share * each.places)):
            at_us = opens[office_day] + round(chance.gauss(0, brokers.clock_error_ms) * 1000)
            selection = chance.randrange(len(scenario.bookings))
            extras.add(PersonRole.BROKER, office_day, selection, [at_us, at_us + 100_000, at_us + 1_000_000])


def _add_kiosks(extras: _Extras, scenario: Scenario, supply: Supply, window_s: float) -> None:
    """Add people at the kiosks of each office, one after the other, each for the time of a form."""
    load, chance = scenario.load_test, stream(scenario.seed, "load/kiosks")
    first = scenario.bookings[0]
    selection = BookingChoice(first.service, first.service_unit, first.session, load.kiosk_channel)
    opens = _opens_us(supply)
    number = -1
    for office_day, each in enumerate(supply.office_days):
        try:
            selection.quota_options(supply.catalog, each.office)
        except InvalidRequest:  # this office has no kiosks
            continue
        if number < 0:
            extras.choices.append(selection)
            number = len(extras.choices) - 1
        for _ in range(load.kiosks):
            at_s = chance.random()
            while at_s < window_s / 2:
                extras.add(PersonRole.KIOSK, office_day, number, [opens[office_day] + round(at_s * _ONE_S)])
                at_s += scenario.agents.form_s_median * (1 + chance.random())


def _opens_us(supply: Supply) -> list[int]:
    return [(each.opens_at_ms - supply.opening_ms) * 1000 for each in supply.office_days]


def _within(people: Population, scenario: Scenario, plan: LoadTestPlan) -> Population:
    """Return the people with all first actions between the start of the test and the end of its window.

    Earlier arrivals move into the first second of the test; where days are open already, that second starts at 0. Later
    arrivals move to a random moment of the window.
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
