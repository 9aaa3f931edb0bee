"""What a load test is going to do: its options, the scenario at its speed, and what the host has on sale."""

from __future__ import annotations

__all__ = [
    "DayOnSale",
    "LoadTestOptions",
    "LoadTestPlan",
    "PlanError",
    "accelerated",
    "days_on_sale",
    "room_of",
    "scenario_of",
    "supply_of",
]

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from quota_engine.catalog import Catalog, day_terms, load_catalog, packed_places
from quota_engine.domain.errors import CatalogError, InvalidRequest, QuotaEngineError, ValidationIssue
from quota_engine.domain.model import ReReleaseRule
from quota_engine.simulation.scenario import Scenario, load_scenario
from quota_engine.simulation.supply import Market, OfficeDay, wish_of

DAYS_LOOKED_AT: Final = 35
_DAY_MS: Final = 86_400_000
_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()


class PlanError(QuotaEngineError):
    """The load test is not run, for a reason that its text says."""


class LoadTestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a scenario is replayed. ``0`` and ``""`` leave it to the scenario, or to what there is."""

    scenario: str = "surabaya"
    trace: str = ""
    catalog: str = ""
    applicants: int = 0
    offices: int = 0
    seed: int = -1
    speed: float = 1.0
    """Forms, pauses, patience and tails take so many times less; the second of the opening takes a second."""
    lead_s: float = 10.0
    """How long before the opening the first may press; who would have come earlier comes then."""
    window_s: float = 60.0
    """How long after the opening the last may press. Who still fills in a form then sends it at once."""
    grace_s: float = 20.0
    """How long answers are waited for after that."""
    wait_s: float = 900.0
    """How long an opening may lie ahead to be waited for; otherwise the days that are open are taken."""
    users_max: int = 400
    """Lanes: requests that may be under way at once."""
    rate_max_per_s: float = 5000.0
    """Requests a second, over all processes."""
    timeout_s: float = 30.0
    """How long a request may take."""
    run: str = ""
    """The name of this run; it marks everything that it books."""
    roles: tuple[str, ...] = ()


class DayOnSale(msgspec.Struct, frozen=True, kw_only=True):
    """A day of an office as the host offers it: when it opens, and the places that each quota has left, and has not
    any more, of its capacity.
    """

    office: str
    day: int
    opens_at_ms: int
    available: dict[str, int]
    sold: dict[str, int] = {}


class LoadTestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of the test works from: the same for all but ``share``, the number of this one of ``shares``.

    ``opens_at_ms`` is by the host's clock, ``opens_in_ms`` from the moment at which the plan was sent. With
    ``is_open`` the days have been open before: then everybody comes after the moment that stands for the opening.
    ``rooms`` are the ids of the offices' waiting rooms, by office, as far as they have one.
    """

    options: LoadTestOptions
    days: tuple[DayOnSale, ...]
    opens_at_ms: int
    opens_in_ms: int
    is_open: bool = False
    rooms: dict[str, str] = {}
    draw: str = ""
    """The draw in which places are given away in place of an opening; ``""``: none."""
    share: int = 0
    shares: int = 1


def scenario_of(options: LoadTestOptions) -> Scenario:
    """The scenario as it is replayed. Raises ``CatalogError`` with every mistake of the file."""
    scenario = load_scenario(options.scenario)
    changes: dict[str, Any] = {}
    if options.applicants:
        changes["applicants"] = options.applicants
    if options.seed >= 0:
        changes["seed"] = options.seed
    sale: dict[str, Any] = {}
    if options.offices:
        sale["offices_max"] = options.offices
    if options.catalog:
        sale["catalog"] = options.catalog
    changes["sale"] = msgspec.structs.replace(scenario.sale, **sale)
    return accelerated(msgspec.structs.replace(scenario, **changes), options.speed)


def accelerated(scenario: Scenario, speed: float) -> Scenario:
    """The same people, whose forms, patience and tails are ``speed`` times shorter.

    What makes the rush stays as it is: how fast people react to the opening, and how often refreshers press.
    """
    if speed == 1.0:
        return scenario

    def quicker(part: Any, *names: str) -> Any:
        return msgspec.structs.replace(part, **{name: max(getattr(part, name) / speed, 0.001) for name in names})

    society = quicker(scenario.society, "bot_watch_s")
    return msgspec.structs.replace(
        scenario,
        arrivals=quicker(scenario.arrivals, "early_lead_s_mean", "refresher_lead_s", "late_s_mean"),
        agents=quicker(
            scenario.agents,
            "patience_s_mean",
            "form_s_median",
            "relogin_s_median",
            "wait_look_s_mean",
            "wait_patience_s_mean",
            "look_again_s_median",
        ),
        society=msgspec.structs.replace(
            society, brokers=quicker(society.brokers, "form_s", "give_up_s"), room=quicker(society.room, "claim_s")
        ),
    )


def days_on_sale(
    scenario: Scenario,
    offices: Sequence[Mapping[str, Any]],
    availability: Callable[[str, datetime.date, datetime.date], Sequence[Mapping[str, Any]]],
    now_ms: int,
    wait_s: float,
) -> tuple[tuple[DayOnSale, ...], bool]:
    """What the host has on sale of the scenario's offices, and whether it is open already.

    ``offices`` and ``availability`` (office, first day, last day) are the bodies of the host's answers. The next
    opening within ``wait_s`` is taken; without one, the days that are open and have places. Raises :class:`Refused` if
    there is nothing.
    """
    wanted = scenario.sale.offices
    known = [office for office in offices if not wanted or office["id"] in wanted]
    missing = sorted(set(wanted) - {office["id"] for office in known})
    if missing:
        raise PlanError(f"the host does not have the scenario's office {missing[0]!r}")
    today = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date()
    last_day = today + datetime.timedelta(days=DAYS_LOOKED_AT)
    openings = [office["next_opening_at_ms"] for office in known if office["next_opening_at_ms"]]
    soon = [at_ms for at_ms in openings if at_ms <= now_ms + wait_s * 1000]
    found: list[DayOnSale] = []
    catalog = load_catalog(scenario.sale.catalog)
    for office in known:
        if soon:
            opens_at_ms = office["next_opening_at_ms"]
            if not opens_at_ms or opens_at_ms > max(soon):
                continue
            days = [datetime.date.fromisoformat(day) for day in office["next_opening_days"]][: scenario.sale.days]
            views = availability(office["id"], days[0], days[-1])
        else:
            views = [
                view
                for view in availability(office["id"], today, last_day)
                if view["opens_at_ms"] <= now_ms < view["starts_at_ms"] and not view["closed"]
                if _places_for(scenario, catalog, office["id"], view)
            ][: scenario.sale.days]
        found += [_day_on_sale(office["id"], view) for view in views]
    if not found:
        raise PlanError(f"the host has nothing on sale, and opens nothing within {wait_s:g} s")
    if scenario.sale.offices_max:
        found = _largest(found, scenario.sale.offices_max)
    return tuple(found), not soon


def room_of(day: DayOnSale) -> str:
    """The id that the waiting room of a day's release has, if it has one: the office, and the opening in UTC."""
    opening = datetime.datetime.fromtimestamp(day.opens_at_ms / 1000, datetime.UTC)
    return f"{day.office}-{opening:%Y%m%dT%H%M}"


def _places_for(scenario: Scenario, catalog: Catalog, office: str, view: Mapping[str, Any]) -> int:
    """How many of the scenario's applicants a day has places for."""
    options: list[tuple[str, ...]] = []
    for booking in scenario.bookings:
        with contextlib.suppress(InvalidRequest):  # an office without such a service
            options += wish_of(booking).options(catalog, office)
    available = {quota["name"]: quota["available"] for quota in view["quotas"]}
    none = {name: 0 for option in options for name in option}
    return packed_places(list(dict.fromkeys(options)), none | available)


def _day_on_sale(office: str, view: Mapping[str, Any]) -> DayOnSale:
    return DayOnSale(
        office=office,
        day=datetime.date.fromisoformat(view["day"]).toordinal(),
        opens_at_ms=view["opens_at_ms"],
        available={quota["name"]: quota["available"] for quota in view["quotas"]},
        sold={quota["name"]: quota["capacity"] - quota["available"] for quota in view["quotas"]},
    )


def _largest(days: Sequence[DayOnSale], offices_max: int) -> list[DayOnSale]:
    """The days of the offices with the most places; of two equal ones the one that comes first."""
    places: dict[str, int] = {}
    for day in days:
        places[day.office] = places.get(day.office, 0) + sum(day.available.values())
    kept = set(sorted(places, key=lambda office: -places[office])[:offices_max])
    return [day for day in days if day.office in kept]


def supply_of(plan: LoadTestPlan, scenario: Scenario) -> Market:
    """The plan's days as a market that can be simulated, with the places that the host has left.

    The catalog is the scenario's: it has to be the one that the host runs with. Raises ``CatalogError`` if it does not
    know an office or a day.
    """
    catalog = load_catalog(scenario.sale.catalog)
    office_days = tuple(_office_day(catalog, scenario.sale.catalog, each) for each in plan.days)
    taking_part = {each.office for each in office_days}
    days = [datetime.date.fromordinal(each.day) for each in office_days]
    offices = {name: view for name, view in catalog.offices.items() if name in taking_part}
    market = Market(dataclasses.replace(catalog, offices=offices), office_days, min(days), max(days))
    return market.reached_by([wish_of(booking) for booking in scenario.bookings])


def _office_day(catalog: Catalog, file: str, on_sale: DayOnSale) -> OfficeDay:
    view = catalog.offices.get(on_sale.office)
    date = datetime.date.fromordinal(on_sale.day)
    terms = day_terms(catalog, on_sale.office, date) if view is not None else None
    if view is None or terms is None:
        what = f"{on_sale.office} on {date}"
        raise CatalogError(
            (ValidationIssue(file, "offices", f"not with {what}", "the catalog that the host runs with"),)
        )
    capacities = {quota.name: quota.capacity for quota in terms.quotas}
    quotas = {name: on_sale.available.get(name, 0) for name in capacities}
    return OfficeDay(
        office=on_sale.office,
        day=on_sale.day,
        province=view.province,
        time_zone=view.zone.key,
        opens_at_ms=on_sale.opens_at_ms,
        quotas=quotas,
        overrides={name: places for name, places in quotas.items() if places != capacities[name]},
        reallocation_targets={quota.name: quota.reallocation.to for quota in terms.quotas if quota.reallocation},
        places=0,
        has_wait_list=any(quota.re_release.rule is ReReleaseRule.WAIT_LIST for quota in terms.quotas),
    )
