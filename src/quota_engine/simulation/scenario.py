"""Parameters of a simulated opening, as one file. ``docs/simulation.md`` names the source of each default.

Durations end in their unit. A ``median`` comes with a ``sigma``: the two parameters of a lognormal distribution, whose
95th percentile is ``median * exp(1.645 * sigma)``.
"""

from __future__ import annotations

__all__ = [
    "APPLICANTS_MAX",
    "BUILT_IN",
    "AgentTraits",
    "Arrivals",
    "BaselineConfig",
    "Booking",
    "CapacityChange",
    "FrontEnd",
    "LoadTestLimits",
    "LoadTestShares",
    "Network",
    "PolicyName",
    "Sale",
    "Scenario",
    "load_scenario",
]

import datetime
import enum
import importlib.resources
import pathlib
import tomllib
from typing import Annotated, Final

import msgspec

from quota_engine.catalog import IssueCollector, convert, read_raw
from quota_engine.domain.errors import CatalogError
from quota_engine.simulation.config_types import (
    ConfigTable,
    Count,
    Interval,
    Milliseconds,
    Seconds,
    Share,
    Sigma,
    Workers,
    add_up_to_1,
)
from quota_engine.simulation.population_config import IdentityCheck, PopulationConfig, ReReleasePolicy

APPLICANTS_MAX: Final = 10_000_000
BUILT_IN: Final = ("surabaya", "indonesia")


class PolicyName(enum.StrEnum):
    """Policies that decide who may try to reserve."""

    IMMEDIATE = "immediate"
    """None: every request goes to the engine in the order of arrival."""
    BUCKET = "bucket"
    """Token buckets limit the rate of all requests, and of the requests of one identity and one address."""
    FIFO = "fifo"
    """A waiting room in the order of arrival."""
    SHUFFLE = "shuffle"
    """A waiting room in an order drawn among all who join before the opening."""
    DRAW = "draw"
    """Applications are collected for a day, and places are drawn among them."""


class Sale(ConfigTable, frozen=True, kw_only=True):
    """Places on sale: the catalog, and a selection of its offices and days."""

    catalog: str = "surabaya"
    """Name of a built-in catalog, or a file, relative to the scenario's file."""
    offices: tuple[str, ...] = ()
    """Office ids; empty selects all offices of the catalog."""
    offices_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of offices to keep, those with the most places first; 0 keeps all."""
    first_day: datetime.date = datetime.date(2026, 12, 7)
    """First service day. The opening follows from it by the catalog's release schedule."""
    schedule: str = ""
    """Release schedule of the catalog that opens every office; empty uses each office's own."""
    days: Annotated[int, msgspec.Meta(ge=1, le=31)] = 1
    """Service days of each office, counted from ``first_day``. Days without service do not count."""
    capacity: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Places of an office-day that the bookings can reach; 0 uses the catalog's."""


class Booking(ConfigTable, frozen=True, kw_only=True):
    """A selection that applicants of the arrival model ask for. A trace names its own channels.

    A key that is left out is left to the catalog, which decides if there is only one possibility.
    """

    weight: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    """Frequency relative to the other bookings of the scenario."""
    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = "online"
    group: str = ""


class Arrivals(ConfigTable, frozen=True, kw_only=True):
    """Moments at which applicants first press the button. The four shares add up to 1."""

    early_share: Share = 0.2
    """Applicants who press before the opening, learn when it is, and press again then."""
    burst_share: Share = 0.5
    """Applicants who wait for the second of the opening, and press when their clock shows it."""
    refresher_share: Share = 0.1
    """Applicants who press every few seconds, from before the opening until they accept an answer."""
    late_share: Share = 0.2
    """Applicants who come later, with an exponential tail."""
    early_lead_s_mean: Interval = 120.0
    reaction_s_median: Interval = 0.5
    """Time from the opening (or the moment that ``NOT_OPEN`` names) to the press."""
    reaction_sigma: Sigma = 0.8
    refresher_lead_s: Seconds = 30.0
    """Refreshers begin at a random time within this many seconds before the opening."""
    late_s_mean: Interval = 300.0
    party_shares: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=5)] = (1.0,)
    """Shares of parties of 1, 2, ... applicants, which one of them books together."""

    def __post_init__(self) -> None:
        if not add_up_to_1(*self.party_shares):
            raise ValueError("party_shares that add up to 1")
        if not add_up_to_1(self.early_share, self.burst_share, self.refresher_share, self.late_share):
            raise ValueError("early_share, burst_share, refresher_share and late_share that add up to 1")


class Network(ConfigTable, frozen=True, kw_only=True):
    """One-way latency between the applicants of a region and the servers."""

    region: str = "*"
    """A province or a time zone of the catalog; ``*`` stands for all other regions."""
    one_way_ms_median: Milliseconds = 40.0
    sigma: Sigma = 0.6


class AgentTraits(ConfigTable, frozen=True, kw_only=True):
    """Behavior of applicants between and after answers, with the engine and with the baseline."""

    refresh_s_mean: Interval = 5.0
    """A refresher presses again after half to one and a half times this."""
    patience_s_mean: Seconds = 40.0
    """Time for which a refresher continues to press after a sold-out answer (exponential)."""
    form_s_median: Interval = 150.0
    form_sigma: Sigma = 0.5
    crash_share: Share = 0.1
    """Share of the forms during which the client crashes once. The applicant logs in again and continues."""
    relogin_s_median: Interval = 45.0
    abandon_share: Share = 0.06
    """Share of the holds that are never confirmed."""
    wait_list_share: Share = 0.2
    """Share of the refused applicants who join the wait list, if there is one."""
    wait_check_s_mean: Interval = 300.0
    """Interval at which an applicant on the wait list checks for an offer."""
    wait_list_patience_s_mean: Seconds = 7200.0
    decline_share: Share = 0.0
    """Share of the offers of the wait list that an applicant declines, to wait for another one."""
    retry_share: Share = 0.15
    """Share of the refused applicants, other than those on a wait list, who come back later."""
    retry_s_median: Interval = 1200.0
    retries_max: Annotated[int, msgspec.Meta(ge=0, le=100)] = 2
    attempts_max: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20
    """An applicant gives up after this many requests in a row without an answer (overload, error, time-out), this many
    late forms, or this many logouts."""

    def __post_init__(self) -> None:
        if self.wait_list_share <= 1 and self.retry_share <= 1 < self.wait_list_share + self.retry_share:
            raise ValueError("wait_list_share and retry_share that add up to 1 at most")


class FrontEnd(ConfigTable, frozen=True, kw_only=True):
    """Servers in front of the engine: one first-come, first-served queue for all workers."""

    workers: Workers = 2
    service_us: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 150
    """Service time of every request: HTTP, JSON and the engine's step. It is constant."""
    queue_max: Count = 20_000
    """Requests that may wait. The next one is answered with ``OVERLOADED`` at once."""
    retry_after_s: Interval = 1.0
    """``Retry-After`` of that answer. Clients add up to the same time again at random."""
    sweep_s: Interval = 15.0
    """Interval of the sweeps, which serve the wait list when no other request arrives."""


class BaselineConfig(ConfigTable, frozen=True, kw_only=True):
    """The application before: one request at a time for each worker; the quota is read first and written later."""

    workers: Workers = 25
    queue_max: Count = 511
    """Connections that may wait for a worker. The next one is refused."""
    page_s_median: Interval = 0.12
    """Service time of a login, or of the page with the form."""
    submit_s_median: Interval = 0.4
    """Service time of a submitted form: the quota is read at its start and the booking is written at its end."""
    service_sigma: Sigma = 0.5
    client_timeout_s: Interval = 30.0
    """Time after which the client stops waiting. The server finishes the request all the same."""
    session_s: Interval = 1440.0
    """Time after which an idle session expires. The next request is answered with the login page."""
    session_loss_share: Share = 0.3
    """Share of the timed-out or refused requests that end the session."""
    retry_s_mean: Interval = 4.0
    """An applicant without an answer presses again after half to one and a half times this."""


class CapacityChange(ConfigTable, frozen=True, kw_only=True):
    """A change of a capacity by an operator during the opening."""

    at_s: Annotated[float, msgspec.Meta(ge=-86_400, le=86_400)] = 1.0
    """Seconds from the opening."""
    quota: str = "online"
    factor: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.1
    """The new capacity, as a multiple of the one at the opening."""


class LoadTestShares(ConfigTable, frozen=True, kw_only=True):
    """Load that a load test adds to the scenario's applicants at every office. ``simulate`` leaves it out."""

    bot_share: Share = 0.02
    """Bots, as a share of the applicants. They behave as ``population`` says."""
    broker_share: Share = 0.1
    """Identities of brokers, as a share of the places. They behave as ``population.brokers`` says."""
    kiosks: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3
    """Computers in each office that has the channel ``kiosk``, used by one person after the other."""
    kiosk_channel: str = "kiosk"
    capacity_changes: Annotated[tuple[CapacityChange, ...], msgspec.Meta(max_length=100)] = ()
    """Changes by operators, at every office that has the quota."""


_LatencyMax = Annotated[float, msgspec.Meta(gt=0, le=864_000_000)]


class LoadTestLimits(ConfigTable, frozen=True, kw_only=True):
    """Limits of a load test. A limit that is ``None`` is measured and not checked."""

    p99_ms_max: _LatencyMax | None = None
    """99th percentile of the time to the first yes or no, from the moment at which the applicant means to press."""
    max_ms_max: _LatencyMax | None = None
    """Maximum of the same time."""
    error_ratio_max: Share | None = None
    """Requests without an answer, of all requests."""
    come_back_ratio_max: Share | None = None
    """Requests that were deferred (overload, throttling), of all requests."""
    sold_out_s_max: Seconds | None = None
    """Seconds from the opening to the first sold-out answer, if there are more applicants than places."""


class Scenario(ConfigTable, frozen=True, kw_only=True):
    """An opening. The defaults are Surabaya's."""

    title: str = "The opening at Surabaya"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 2020
    policy: PolicyName = PolicyName.IMMEDIATE
    """Any policy other than ``immediate`` adds the agents of ``population``."""
    re_release: ReReleasePolicy | None = None
    """With agents, when released places become available. ``None``: ``next-draw`` with a draw, else ``immediate``."""
    identity: IdentityCheck = IdentityCheck.WEAK
    applicants: Annotated[int, msgspec.Meta(ge=1, le=APPLICANTS_MAX)] = 5_000
    sale: Sale = Sale()
    bookings: Annotated[tuple[Booking, ...], msgspec.Meta(min_length=1, max_length=100)] = (
        Booking(weight=0.6, service="new", session="morning"),
        Booking(weight=0.4, service="new", session="afternoon"),
    )
    arrivals: Arrivals = Arrivals()
    network: tuple[Network, ...] = (Network(),)
    agents: AgentTraits = AgentTraits()
    front_end: FrontEnd = FrontEnd()
    baseline: BaselineConfig = BaselineConfig()
    population: PopulationConfig = PopulationConfig()
    load_test: LoadTestShares = LoadTestShares()
    limits: LoadTestLimits = LoadTestLimits()


def load_scenario(source: str | pathlib.Path) -> Scenario:
    """Read a built-in scenario by its name, or a TOML, JSON or YAML file by its path.

    A path to a catalog in the file is relative to the file.

    Raises:
        CatalogError: The file cannot be read or has invalid keys; it lists every one.
    """
    name = str(source)
    collector = IssueCollector(name)
    if name in BUILT_IN:
        text = (
            importlib.resources.files("quota_engine.simulation")
            .joinpath("scenarios", f"{name}.toml")
            .read_text("utf-8")
        )
        raw = tomllib.loads(text)
    else:
        raw = read_raw(name, collector)
    if mistakes := collector.issues():
        raise CatalogError(tuple(mistakes))
    scenario, mistakes = convert(raw, Scenario, name)
    if scenario is None:
        raise CatalogError(tuple(mistakes))
    return scenario if name in BUILT_IN else _with_catalog_beside(scenario, pathlib.Path(name))


def _with_catalog_beside(scenario: Scenario, file: pathlib.Path) -> Scenario:
    beside = file.parent / scenario.sale.catalog
    if not beside.is_file():
        return scenario
    return msgspec.structs.replace(scenario, sale=msgspec.structs.replace(scenario.sale, catalog=str(beside)))
