"""Tables of a scenario file that describe agents: citizens, bots and brokers, and the policies' settings.

``docs/fairness.md`` names the source of each default, or says that it is a guess. Money is in rupiah.
"""

from __future__ import annotations

__all__ = [
    "BrokerConfig",
    "BrokerEntry",
    "BucketConfig",
    "DrawRules",
    "IdentityCheck",
    "NetworkClass",
    "PopulationConfig",
    "ReReleasePolicy",
    "RoundConfig",
    "WaitingRoomConfig",
]

import enum
from typing import Annotated

import msgspec

from quota_engine.simulation.config_types import (
    ConfigTable,
    Hours,
    Interval,
    Milliseconds,
    Rupiah,
    Seconds,
    Share,
    Sigma,
    add_up_to_1,
)


class ReReleasePolicy(enum.StrEnum):
    """Rule that makes a released place available again."""

    IMMEDIATE = "immediate"
    """In the same step."""
    COOLING = "cooling"
    """After 10 to 30 minutes, at an unpredictable moment."""
    NEXT_DRAW = "next-draw"
    """At the next draw, or at the next opening where there is no draw."""


class IdentityCheck(enum.StrEnum):
    """Check of an identity by the booking service, before it calls the engine."""

    WEAK = "weak"
    """It accepts any 16 digits."""
    VERIFIED = "verified"
    """It looks the identity up in the national register, so brokers need people who lend their names."""


class BrokerEntry(enum.StrEnum):
    """Condition under which brokers take part."""

    IF_PROFITABLE = "if-profitable"
    """If the results of earlier openings let them expect a profit."""
    ALWAYS = "always"
    NEVER = "never"


class NetworkClass(ConfigTable, frozen=True, kw_only=True):
    """Citizens with the same quality of network."""

    name: str
    share: Share
    """Share of the citizens."""
    one_way_ms_median: Milliseconds
    """Median over the people of the class. Each person keeps one latency for the whole run."""
    sigma: Sigma = 0.5


class BrokerConfig(ConfigTable, frozen=True, kw_only=True):
    """Agents who book in order to sell. All brokers decide alike, and share their identities."""

    entry: BrokerEntry = BrokerEntry.IF_PROFITABLE
    identity_shares: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=10)] = (0.1, 0.2, 0.4)
    """Numbers of identities to try, as shares of the places on sale. Brokers return with the most profitable one."""
    identities: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """A fixed number of identities in place of ``identity_shares``; 0 uses the shares."""
    borrowed_share_max: Share = 0.2
    """Most people who lend their names, as a share of the places. With ``verified`` there are no others."""
    price: Rupiah = 300_000
    """Price of a place in the customer's name, paid on delivery."""
    identity_cost_weak: Rupiah = 5_000
    """Cost of a fabricated identity with an account."""
    identity_cost_verified: Rupiah = 150_000
    """Pay of a person who lends the name."""
    stop_loss: Rupiah = 200_000
    """Losses in a row after which brokers stay away permanently."""
    one_way_ms: Milliseconds = 2.0
    clock_error_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 5.0
    """Standard deviation of their presses from the opening."""
    form_s: Interval = 3.0
    hand_over_after_h: Hours = 10.0
    """Time from the opening to the hand-over, when few others look for places."""
    hand_over_every_s: Interval = 20.0
    poll_s: Interval = 1.0
    """Interval at which brokers look for a place that they have cancelled for a customer."""
    give_up_s: Seconds = 2400.0
    """Time after which they stop looking, and the delivery has failed."""
    addresses: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 20
    """Network addresses that they spread their requests over."""
    trials: Annotated[int, msgspec.Meta(ge=0, le=100)] = 6
    """Earlier openings at which brokers tried one of the shares each. Customers know the results."""
    trial_applicants: Annotated[int, msgspec.Meta(ge=10, le=100_000)] = 300
    """Most people at an earlier opening."""


class RoundConfig(ConfigTable, frozen=True, kw_only=True):
    """Further draws or openings for released places, with the rule ``next-draw``."""

    count: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    """All rounds, the first included."""
    every_h: Hours = 24.0
    return_share: Share = 0.8
    """Share of the people without a place who come to the next round."""


class BucketConfig(ConfigTable, frozen=True, kw_only=True):
    """Token buckets in front of the reserve."""

    requests_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    """Rate of all requests together."""
    requests_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    identity_every_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 2
    identity_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 2
    address_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10
    address_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20


class WaitingRoomConfig(ConfigTable, frozen=True, kw_only=True):
    """The waiting room."""

    join_before_s: Interval = 1800.0
    """Time before the opening at which a shuffled room accepts joins. A first-come room accepts them at the opening."""
    unaware_share: Share = 0.1
    """Share of the people aiming at the opening who do not know of the early joins."""
    window_s: Interval = 10.0
    """Joins after the opening are shuffled within windows of this length."""
    per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20
    """Most tickets called in a second."""
    poll_s: Interval = 5.0
    """Interval at which a waiting client asks for its position."""
    turn_s: Interval = 120.0
    """Length of a turn."""


class DrawRules(ConfigTable, frozen=True, kw_only=True):
    """The draw. The first one takes place at the opening."""

    collect_h: Hours = 24.0
    """Time before a draw in which applications are collected."""
    confirm_within_h: Hours = 6.0
    """Time in which a winner can confirm."""
    check_h_median: Hours = 1.0
    check_sigma: Sigma = 0.8
    """Time until winners look at the result (lognormal)."""


class PopulationConfig(ConfigTable, frozen=True, kw_only=True):
    """People, bots and brokers. With them, ``arrivals.party_shares`` and ``agents.crash_share`` have no effect."""

    networks: Annotated[tuple[NetworkClass, ...], msgspec.Meta(min_length=1, max_length=10)] = (
        NetworkClass(name="good network", share=0.3, one_way_ms_median=15.0),
        NetworkClass(name="mobile network", share=0.5, one_way_ms_median=45.0),
        NetworkClass(name="poor network", share=0.2, one_way_ms_median=180.0),
    )
    round_trips: Annotated[int, msgspec.Meta(ge=1, le=50)] = 4
    """Round trips before a first request arrives: name, connection, encryption, page."""
    people_per_address: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 5
    bot_share: Share = 0.02
    """Share of the people who let a program press for themselves."""
    bot_one_way_ms: Milliseconds = 4.0
    bot_lead_s: Seconds = 1.0
    """Time before the opening at which a bot begins to press."""
    bot_every_s: Interval = 0.25
    """Interval of a bot's presses until the opening."""
    bot_watch_s: Interval = 60.0
    """Interval at which a bot looks for released places."""
    value_median: Rupiah = 300_000
    """Value of a place to a citizen, above its official price (lognormal)."""
    value_sigma: Sigma = 0.8
    considers_brokers_share: Share = 0.5
    """Share of the people who would buy from a broker."""
    optimism_weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 10.0
    """Own attempts that the published ratio of places to applicants counts as."""
    brokers: BrokerConfig = BrokerConfig()
    rounds: RoundConfig = RoundConfig()
    bucket: BucketConfig = BucketConfig()
    waiting_room: WaitingRoomConfig = WaitingRoomConfig()
    draw: DrawRules = DrawRules()

    def __post_init__(self) -> None:
        if not add_up_to_1(*(each.share for each in self.networks)):
            raise ValueError("networks whose shares add up to 1")
