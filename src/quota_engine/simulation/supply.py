"""Office-days on sale in a simulated opening, with their quotas and the places that applicants can reach."""

from __future__ import annotations

__all__ = ["BookingChoice", "OfficeDay", "Supply", "build_supply", "choice_from_booking", "scaled_quotas"]

import contextlib
import dataclasses
import datetime
import itertools
from collections.abc import Mapping, Sequence

from quota_engine.catalog import Catalog, ResolvedOffice, Selection, choice_of, day_terms, load_catalog, packed_places
from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue
from quota_engine.domain.identity_format import ANY_FORM
from quota_engine.domain.model import DayTerms, ReReleaseRule
from quota_engine.simulation.scenario import Booking, Sale, Scenario


@dataclasses.dataclass(frozen=True, slots=True)
class BookingChoice:
    """Selection that an applicant asks for, in the catalog's names; ``""`` leaves the decision to the catalog."""

    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = "online"
    group: str = ""

    def as_arguments(self) -> dict[str, str]:
        """Return the keyword arguments of ``reserve``, without those left to the catalog."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    def quota_options(self, catalog: Catalog, office: str) -> tuple[tuple[str, ...], ...]:
        """Return the alternatives that can serve the choice at an office, each a tuple of quotas.

        Raises:
            InvalidRequest: The office has none.
        """
        return choice_of(
            catalog,
            office,
            Selection(
                service=self.service,
                service_unit=self.service_unit,
                session=self.session,
                channel=self.channel,
                group=self.group,
            ),
        ).options


@dataclasses.dataclass(frozen=True, slots=True)
class OfficeDay:
    """One day of one office, as the run publishes it.

    Attributes:
        day: Ordinal of the date.
        quotas: Capacities of all quotas, in places.
        overrides: Capacities that differ from the catalog's.
        reallocation_targets: Quota that receives the unused places of an allotment.
        places: Places that the applicants' choices can reach.
        has_wait_list: True if applicants can wait for a place to come back.
    """

    office: str
    day: int
    province: str
    time_zone: str
    opens_at_ms: int
    quotas: Mapping[str, int]
    overrides: Mapping[str, int]
    reallocation_targets: Mapping[str, str]
    places: int
    has_wait_list: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Supply:
    """Office-days of a run, in the order of the catalog and of the days."""

    catalog: Catalog
    office_days: tuple[OfficeDay, ...]
    first_day: datetime.date
    last_day: datetime.date

    @property
    def opening_ms(self) -> int:
        """First moment at which anything is on sale, in milliseconds since 1970. It is second 0 of the run."""
        return min(office_day.opens_at_ms for office_day in self.office_days)

    @property
    def capacity(self) -> int:
        """Places on sale."""
        return sum(office_day.places for office_day in self.office_days)

    @property
    def offices(self) -> int:
        """Number of offices."""
        return len({office_day.office for office_day in self.office_days})

    def scaled_down(self, choices: Sequence[BookingChoice], places: int) -> Supply:
        """Return a supply of one office-day, the largest one, with ``places`` places for these choices."""
        largest = max(self.office_days, key=lambda each: each.places)
        options = [option for choice in choices for option in choice.quota_options(self.catalog, largest.office)]
        overrides = scaled_quotas(list(dict.fromkeys(options)), largest.quotas, places)
        quotas = {**largest.quotas, **overrides}
        day = dataclasses.replace(
            largest,
            quotas=quotas,
            overrides={**largest.overrides, **overrides},
            places=packed_places(list(dict.fromkeys(options)), quotas),
        )
        date = datetime.date.fromordinal(day.day)
        offices = {largest.office: self.catalog.offices[largest.office]}
        return Supply(dataclasses.replace(self.catalog, offices=offices), (day,), date, date)

    def with_reachable_places(self, choices: Sequence[BookingChoice]) -> Supply:
        """Return the same supply with the places that these choices can reach. A trace has its own choices."""
        options: dict[str, list[tuple[str, ...]]] = {}
        for office in self.catalog.offices:
            found = options[office] = []
            for choice in choices:
                with contextlib.suppress(InvalidRequest):
                    found.extend(each for each in choice.quota_options(self.catalog, office) if each not in found)
        return dataclasses.replace(
            self,
            office_days=tuple(
                dataclasses.replace(each, places=packed_places(options[each.office], each.quotas))
                for each in self.office_days
            ),
        )


def scaled_quotas(options: Sequence[Sequence[str]], quotas: Mapping[str, int], places: int) -> dict[str, int]:
    """Return capacities of the options' quotas that admit exactly ``places`` applicants.

    Quotas keep their proportions. Each is rounded up, and the surplus is taken from the smallest quota of the last
    option.
    """
    names = list(dict.fromkeys(name for option in options for name in option))
    now = packed_places(options, quotas)
    scaled = {name: -(-quotas[name] * places // now) if now else places for name in names}
    surplus = packed_places(options, scaled) - places
    for option in reversed(options):
        if surplus <= 0:
            break
        name = min(option, key=lambda each: scaled[each])
        taken = min(surplus, scaled[name])
        scaled[name] -= taken
        surplus = packed_places(options, scaled) - places
    return scaled


def build_supply(scenario: Scenario, file: str) -> Supply:
    """Select the office-days that the scenario puts on sale.

    Args:
        scenario: The scenario.
        file: Name of the scenario in validation issues.

    Raises:
        CatalogError: The catalog or the sale is invalid.
    """
    sale = scenario.sale
    catalog = _with_schedule(load_catalog(sale.catalog), sale, file)
    choices = tuple(choice_from_booking(booking) for booking in scenario.bookings)
    offices = _offices_on_sale(catalog, sale, file)
    options = {office: _options(catalog, office, choices, file) for office in offices}
    office_days: list[OfficeDay] = []
    for office in offices:
        first = sale.first_day.toordinal()
        # Weekends, holidays and closures lie between service days. An office that is closed for longer is left out.
        dates = map(datetime.date.fromordinal, range(first, first + 2 * sale.days + 14))
        serving = ((date, day_terms(catalog, office, date)) for date in dates)
        for date, terms in itertools.islice(((date, terms) for date, terms in serving if terms), sale.days):
            office_days.append(_office_day(catalog.offices[office], date, terms, options[office], sale.capacity))
    if sale.offices_max:
        office_days = _largest(office_days, sale.offices_max)
    if not sum(office_day.places for office_day in office_days):
        raise CatalogError(
            (ValidationIssue(file, "sale.first_day", str(sale.first_day), "a time with places on sale"),)
        )
    taking_part = {office_day.office for office_day in office_days}
    days = [datetime.date.fromordinal(office_day.day) for office_day in office_days]
    catalog = dataclasses.replace(
        catalog,
        offices={name: view for name, view in catalog.offices.items() if name in taking_part},
        # Simulated people have numbers that no register knows, and those of a trace may be pseudonyms.
        identity_format=ANY_FORM,
    )
    return Supply(catalog, tuple(office_days), min(days), max(days))


def _with_schedule(catalog: Catalog, sale: Sale, file: str) -> Catalog:
    if not sale.schedule:
        return catalog
    offices = {}
    for name, view in catalog.offices.items():
        if sale.schedule not in view.schedules:
            expected = f"one of {', '.join(view.schedules)}"
            raise CatalogError((ValidationIssue(file, "sale.schedule", repr(sale.schedule), expected),))
        offices[name] = dataclasses.replace(view, schedule=view.schedules[sale.schedule])
    return dataclasses.replace(catalog, offices=offices)


def choice_from_booking(booking: Booking) -> BookingChoice:
    """Return the choice that a booking of the scenario describes."""
    return BookingChoice(booking.service, booking.service_unit, booking.session, booking.channel, booking.group)


def _offices_on_sale(catalog: Catalog, sale: Sale, file: str) -> list[str]:
    unknown = [office for office in sale.offices if office not in catalog.offices]
    if unknown:
        expected = f"offices of the catalog {sale.catalog!r}"
        raise CatalogError(tuple(ValidationIssue(file, "sale.offices", repr(office), expected) for office in unknown))
    return [office for office in catalog.offices if not sale.offices or office in sale.offices]


def _options(catalog: Catalog, office: str, choices: tuple[BookingChoice, ...], file: str) -> list[tuple[str, ...]]:
    options: list[tuple[str, ...]] = []
    for index, choice in enumerate(choices):
        try:
            options.extend(choice.quota_options(catalog, office))
        except InvalidRequest as error:
            where = f"bookings[{index}].{error.where}, for {office}"
            raise CatalogError((ValidationIssue(file, where, error.problem, error.expected),)) from None
    return list(dict.fromkeys(options))


def _office_day(
    office: ResolvedOffice, date: datetime.date, terms: DayTerms, options: Sequence[Sequence[str]], capacity: int
) -> OfficeDay:
    quotas = {quota.name: quota.capacity for quota in terms.quotas}
    reallocation_targets = {quota.name: quota.reallocation.to for quota in terms.quotas if quota.reallocation}
    overrides: dict[str, int] = {}
    for quota in terms.quotas:
        # Places reallocated before the opening are on sale in their new quota.
        if quota.reallocation and quota.reallocation.at_ms <= terms.opens_at_ms:
            quotas[quota.reallocation.to] += quotas[quota.name]
            quotas[quota.name] = overrides[quota.name] = 0
    overrides = overrides | scaled_quotas(options, quotas, capacity) if capacity else {}
    quotas.update(overrides)
    return OfficeDay(
        office=office.id,
        day=date.toordinal(),
        province=office.province,
        time_zone=office.zone.key,
        opens_at_ms=terms.opens_at_ms,
        quotas=quotas,
        overrides=overrides,
        reallocation_targets=reallocation_targets,
        places=packed_places(options, quotas),
        has_wait_list=any(quota.re_release.rule is ReReleaseRule.WAIT_LIST for quota in terms.quotas),
    )


def _largest(office_days: list[OfficeDay], offices_max: int) -> list[OfficeDay]:
    """Return the offices with the most places. Of two equal ones, the first in the catalog wins."""
    places: dict[str, int] = {}
    for office_day in office_days:
        places[office_day.office] = places.get(office_day.office, 0) + office_day.places
    kept = set(sorted(places, key=lambda office: -places[office])[:offices_max])
    return [office_day for office_day in office_days if office_day.office in kept]
