"""Everything that a simulated opening depends on, as one file; ``docs/simulation.md`` gives each parameter's source.

Durations end in their unit. A ``median`` comes with a ``sigma``: the two parameters of a lognormal distribution, whose
95th percentile is ``median * exp(1.645 * sigma)``.
"""

from __future__ import annotations

__all__ = [
    "BUILT_IN",
    "AgentTraits",
    "Arrivals",
    "Booking",
    "CapacityChange",
    "FrontEnd",
    "Limits",
    "LoadTest",
    "Network",
    "OldApplication",
    "Policy",
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
from quota_engine.simulation.population_config import Identity, ReRelease, Society

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=864_000)]
Interval = Annotated[float, msgspec.Meta(ge=0.001, le=864_000)]
"""Seconds that are waited again and again, and so cannot be 0."""
Sigma = Annotated[float, msgspec.Meta(ge=0, le=3)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Workers = Annotated[int, msgspec.Meta(ge=1, le=10_000)]

APPLICANTS_MAX: Final = 10_000_000
BUILT_IN: Final = ("surabaya", "indonesia")


class Policy(enum.StrEnum):
    """How it is decided who may try for a place."""

    IMMEDIATE = "immediate"
    """Whoever is served first: every press goes to the engine in the order of arrival."""
    BUCKET = "bucket"
    """The same, but only so many requests a second, and so many of one identity and one address."""
    FIFO = "fifo"
    """A waiting room in the order of arrival."""
    SHUFFLE = "shuffle"
    """A waiting room whose order is drawn among all who came before the opening."""
    DRAW = "draw"
    """Applications are collected for a day, and places drawn among them."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file; every key has a default, and a key that is not known is a mistake."""


def _add_up_to_1(*shares: float) -> bool:
    """Whether they do; a share that is out of bounds has been complained about already."""
    return abs(sum(shares) - 1) < 1e-6 or not all(0 <= share <= 1 for share in shares)


class Sale(_Part, frozen=True, kw_only=True):
    """What is on sale: the catalog, and which of its offices and days."""

    catalog: str = "surabaya"
    """A built-in catalog's name, or a file, relative to the scenario's."""
    offices: tuple[str, ...] = ()
    """Office ids; empty: all of the catalog."""
    offices_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Only this many offices, those with the most places first; 0: all."""
    first_day: datetime.date = datetime.date(2026, 12, 7)
    """The first service day. The opening follows from it by the catalog's release schedule."""
    schedule: str = ""
    """Open every office by this release schedule of the catalog; empty: each by its own."""
    days: Annotated[int, msgspec.Meta(ge=1, le=31)] = 1
    """How many service days of each office, counted from ``first_day``; days without service are skipped."""
    capacity: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Places an office-day for what is asked for; 0: the catalog's."""


class Booking(_Part, frozen=True, kw_only=True):
    """Something that applicants of the model ask for (a trace names channels of its own).

    What is left out is left to the catalog, which decides only if there is nothing to choose.
    """

    weight: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    """How often it is asked for, relative to the other bookings of the scenario."""
    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = "online"
    group: str = ""


class Arrivals(_Part, frozen=True, kw_only=True):
    """When applicants first press the button. The four shares add up to 1."""

    early_share: Share = 0.2
    """Early birds: press before the opening, are told when it is, and press again then."""
    burst_share: Share = 0.5
    """Those who wait for the second of the opening, and press when their clock shows it."""
    refresher_share: Share = 0.1
    """Those who press every few seconds, from before the opening until they have an answer that they accept."""
    late_share: Share = 0.2
    """Latecomers, with an exponential tail."""
    early_lead_s_mean: Interval = 120.0
    reaction_s_median: Interval = 0.5
    """From the opening (or the moment named by ``NOT_OPEN``) to the press."""
    reaction_sigma: Sigma = 0.8
    refresher_lead_s: Seconds = 30.0
    """Refreshers start at any time in this many seconds before the opening."""
    late_s_mean: Interval = 300.0
    party_shares: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=5)] = (1.0,)
    """The shares of parties of 1, 2, ... applicants, booked together by one of them."""

    def __post_init__(self) -> None:
        if not _add_up_to_1(*self.party_shares):
            raise ValueError("party_shares that add up to 1")
        if not _add_up_to_1(self.early_share, self.burst_share, self.refresher_share, self.late_share):
            raise ValueError("early_share, burst_share, refresher_share and late_share that add up to 1")


class Network(_Part, frozen=True, kw_only=True):
    """One-way latency between the applicants of a region and the servers."""

    region: str = "*"
    """A province or a time zone of the catalog; ``*`` is everywhere else."""
    one_way_ms_median: Annotated[float, msgspec.Meta(gt=0, le=60_000)] = 40.0
    sigma: Sigma = 0.6


class AgentTraits(_Part, frozen=True, kw_only=True):
    """What applicants do between and after answers, whatever application they face."""

    refresh_s_mean: Interval = 5.0
    """A refresher presses again after half to one and a half times this."""
    patience_s_mean: Seconds = 40.0
    """How long a refresher goes on pressing after the opening when told that all is gone (exponential)."""
    form_s_median: Interval = 150.0
    form_sigma: Sigma = 0.5
    crash_share: Share = 0.1
    """Forms during which the client crashes once; the applicant logs in again and goes on."""
    relogin_s_median: Interval = 45.0
    abandon_share: Share = 0.06
    """Winners of a hold who never confirm it."""
    wait_share: Share = 0.2
    """Of those told that all is gone: the ones who join the wait list, if there is one."""
    wait_look_s_mean: Interval = 300.0
    """How often somebody on the wait list looks whether there is an offer."""
    wait_patience_s_mean: Seconds = 7200.0
    look_again_share: Share = 0.15
    """Of those told that all is gone, and not on a wait list: the ones who come back to look again."""
    look_again_s_median: Interval = 1200.0
    look_again_max: Annotated[int, msgspec.Meta(ge=0, le=100)] = 2
    attempts_max: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20
    """An applicant gives up after so many requests in a row without an answer (overload, error, time-out), so many
    forms that came too late, or so many times of being logged out."""

    def __post_init__(self) -> None:
        if self.wait_share <= 1 and self.look_again_share <= 1 < self.wait_share + self.look_again_share:
            raise ValueError("wait_share and look_again_share that add up to 1 at most")


class FrontEnd(_Part, frozen=True, kw_only=True):
    """The servers in front of the engine: one first-come, first-served queue for all workers."""

    workers: Workers = 2
    service_us: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 150
    """Constant, all of it: HTTP, JSON, and the engine's step."""
    queue_max: Count = 20_000
    """Requests that may wait; the next one is answered ``OVERLOADED`` at once."""
    retry_after_s: Interval = 1.0
    """The ``Retry-After`` of that answer; clients add up to as much again at random."""
    sweep_s: Interval = 15.0
    """How often overdue holds are swept, so that the wait list is served when nobody else comes."""


class OldApplication(_Part, frozen=True, kw_only=True):
    """The application before: one request at a time per worker, and the quota is checked first and written later."""

    workers: Workers = 25
    queue_max: Count = 511
    """Connections that may wait for a worker; the next one is refused."""
    page_s_median: Interval = 0.12
    """Service time of a login or of the form's page."""
    submit_s_median: Interval = 0.4
    """Service time of a submitted form: the quota is read at its start and the booking is written at its end."""
    service_sigma: Sigma = 0.5
    client_timeout_s: Interval = 30.0
    """The client stops waiting; the server does not know, and finishes the work."""
    session_s: Interval = 1440.0
    """An idle session ends; the next request is answered by the login page."""
    session_loss_share: Share = 0.3
    """Timed-out or refused requests after which the app has closed and its session is gone."""
    retry_s_mean: Interval = 4.0
    """An applicant without an answer presses again after half to one and a half times this."""


class CapacityChange(_Part, frozen=True, kw_only=True):
    """An operator sets a capacity while people press."""

    at_s: Annotated[float, msgspec.Meta(ge=-86_400, le=86_400)] = 1.0
    """Seconds from the opening."""
    quota: str = "online"
    factor: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.1
    """The new capacity, as a multiple of the one at the opening."""


class LoadTest(_Part, frozen=True, kw_only=True):
    """Who comes to a load test besides the scenario's applicants, at every office; ``simulate`` leaves them out."""

    bot_share: Share = 0.02
    """Programs that press for somebody, as a share of the applicants; how they go about it stands in ``society``."""
    broker_share: Share = 0.1
    """Identities of brokers, as a share of the places; how they go about it stands in ``society.brokers``."""
    kiosks: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3
    """Computers in each office that has the channel ``kiosk``, used by one person after the other."""
    kiosk_channel: str = "kiosk"
    capacity_changes: Annotated[tuple[CapacityChange, ...], msgspec.Meta(max_length=100)] = ()
    """What operators do meanwhile, at every office that has the quota."""


class Limits(_Part, frozen=True, kw_only=True):
    """What a load test must not exceed; none: it is measured, and judged by nobody."""

    p99_ms_max: Annotated[float, msgspec.Meta(gt=0, le=864_000_000)] | None = None
    """99 of 100 applicants know yes or no within this, from the moment at which they mean to press."""
    max_ms_max: Annotated[float, msgspec.Meta(gt=0, le=864_000_000)] | None = None
    """All of them do."""
    error_ratio_max: Share | None = None
    """Requests without an answer, of all requests."""
    come_back_ratio_max: Share | None = None
    """Requests that were told to come back (overload, throttling), of all requests."""
    sold_out_s_max: Seconds | None = None
    """Seconds from the opening until the first is told that all is gone, if more people came than there are places."""


class Scenario(_Part, frozen=True, kw_only=True):
    """A whole opening. With all defaults it is Surabaya's."""

    title: str = "The opening at Surabaya"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 2020
    policy: Policy = Policy.IMMEDIATE
    """Any other than ``immediate`` brings the agents of ``society`` with it."""
    rerelease: ReRelease | None = None
    """With agents: where places go that are given back; none: ``next-draw`` with a draw, else ``immediate``."""
    identity: Identity = Identity.WEAK
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
    old_application: OldApplication = OldApplication()
    society: Society = Society()
    load_test: LoadTest = LoadTest()
    limits: Limits = Limits()


def load_scenario(source: str | pathlib.Path) -> Scenario:
    """Read a built-in scenario by its name, or a TOML, JSON or YAML file by its path.

    A path to a catalog in the file is taken relative to the file. Raises ``CatalogError`` with every mistake.
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
