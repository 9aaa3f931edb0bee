"""Plan of a load test: its options, the scenario at its speed, and the days that the target has on sale."""

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
from quota_engine.simulation.supply import OfficeDay, Supply, choice_from_booking

DAYS_LOOKED_AT: Final = 35
_DAY_MS: Final = 86_400_000
_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()


class PlanError(QuotaEngineError):
    """A load test that cannot run; the text gives the reason and the remedy."""


class LoadTestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a replay. ``0`` and ``""`` stand for the scenario's value."""

    scenario: str = "surabaya"
    trace: str = ""
    catalog: str = ""
    applicants: int = 0
    offices: int = 0
    seed: int = -1
    speed: float = 1.0
    """Factor by which forms, pauses, patience and tails are shorter. The second of the opening keeps its length."""
    lead_s: float = 10.0
    """Seconds before the opening at which the test starts."""
    window_s: float = 60.0
    """Seconds after the opening in which people may act. People who still fill in a form send it at the end."""
    grace_s: float = 20.0
    """Seconds to wait for responses after the window."""
    wait_s: float = 900.0
    """Most seconds to wait for an opening that lies ahead; otherwise the test takes days that are open."""
    users_max: int = 400
    """Locust users, and so the most requests at once."""
    rate_max_per_s: float = 5000.0
    """Requests a second, over all processes."""
    timeout_s: float = 30.0
    """Time limit of a request, in seconds."""
    run: str = ""
    """Name of the run; it is part of every reservation id."""
    roles: tuple[str, ...] = ()


class DayOnSale(msgspec.Struct, frozen=True, kw_only=True):
    """A day as the target offers it: its opening, and for each quota the places left and the places taken."""

    office: str
    day: int
    opens_at_ms: int
    available: dict[str, int]
    sold: dict[str, int] = {}


class LoadTestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Plan of a test, the same for all processes except for ``share``, this process's number of ``shares``.

    ``opens_at_ms`` is by the target's clock, ``opens_in_ms`` counts from the moment at which the plan was sent. With
    ``is_open`` the days were open before, and everyone comes after the moment that stands for the opening. ``rooms``
    has
    the waiting room's id of each office that has one.
    """

    options: LoadTestOptions
    days: tuple[DayOnSale, ...]
    opens_at_ms: int
    opens_in_ms: int
    is_open: bool = False
    rooms: dict[str, str] = {}
    draw: str = ""
    """Id of the draw that gives the places away in place of an opening, or ``""``."""
    share: int = 0
    shares: int = 1


def scenario_of(options: LoadTestOptions) -> Scenario:
    """Return the scenario as the test replays it.

    Raises:
        CatalogError: the file is not a valid scenario; the error lists every problem.
    """
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
    """Return the scenario with forms, patience and tails ``speed`` times shorter.

    The opening keeps its pace: people react to the opening, and refreshers try, as fast as before.
    """
    if speed == 1.0:
        return scenario

    def quicker(part: Any, *names: str) -> Any:
        return msgspec.structs.replace(part, **{name: max(getattr(part, name) / speed, 0.001) for name in names})

    population = quicker(scenario.population, "bot_watch_s")
    return msgspec.structs.replace(
        scenario,
        arrivals=quicker(scenario.arrivals, "early_lead_s_mean", "refresher_lead_s", "late_s_mean"),
        agents=quicker(
            scenario.agents,
            "patience_s_mean",
            "form_s_median",
            "relogin_s_median",
            "wait_check_s_mean",
            "wait_list_patience_s_mean",
            "retry_s_median",
        ),
        population=msgspec.structs.replace(
            population,
            brokers=quicker(population.brokers, "form_s", "give_up_s"),
            waiting_room=quicker(population.waiting_room, "turn_s"),
        ),
    )


def days_on_sale(
    scenario: Scenario,
    offices: Sequence[Mapping[str, Any]],
    availability: Callable[[str, datetime.date, datetime.date], Sequence[Mapping[str, Any]]],
    now_ms: int,
    wait_s: float,
) -> tuple[tuple[DayOnSale, ...], bool]:
    """Return the target's days on sale for the scenario's offices, and True if they are open already.

    The next opening within ``wait_s`` seconds wins; without one, the open days with places left.

    Args:
        scenario: names catalog, offices and days.
        offices: body of the target's list of offices.
        availability: returns the target's days for an office, a first and a last day.
        now_ms: current time, in milliseconds since 1970.
        wait_s: see above.

    Raises:
        PlanError: nothing is on sale.
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
    """Return the id that the waiting room of a day's release has: the office and the opening in UTC."""
    opening = datetime.datetime.fromtimestamp(day.opens_at_ms / 1000, datetime.UTC)
    return f"{day.office}-{opening:%Y%m%dT%H%M}"


def _places_for(scenario: Scenario, catalog: Catalog, office: str, view: Mapping[str, Any]) -> int:
    """Return the number of places that a day has for the scenario's applicants."""
    options: list[tuple[str, ...]] = []
    for booking in scenario.bookings:
        with contextlib.suppress(InvalidRequest):  # this office does not offer the service
            options += choice_from_booking(booking).quota_options(catalog, office)
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
    """Return the days of the offices with the most places; of equal offices the first."""
    places: dict[str, int] = {}
    for day in days:
        places[day.office] = places.get(day.office, 0) + sum(day.available.values())
    kept = set(sorted(places, key=lambda office: -places[office])[:offices_max])
    return [day for day in days if day.office in kept]


def supply_of(plan: LoadTestPlan, scenario: Scenario) -> Supply:
    """Return the plan's days as a supply that can be simulated, with the places that the target has left.

    The scenario's catalog must be the catalog of the target.

    Raises:
        CatalogError: the catalog does not know an office or a day.
    """
    catalog = load_catalog(scenario.sale.catalog)
    office_days = tuple(_office_day(catalog, scenario.sale.catalog, each) for each in plan.days)
    taking_part = {each.office for each in office_days}
    days = [datetime.date.fromordinal(each.day) for each in office_days]
    offices = {name: view for name, view in catalog.offices.items() if name in taking_part}
    supply = Supply(dataclasses.replace(catalog, offices=offices), office_days, min(days), max(days))
    return supply.with_reachable_places([choice_from_booking(booking) for booking in scenario.bookings])


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
