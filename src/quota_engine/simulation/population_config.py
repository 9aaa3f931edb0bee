"""Who comes to an opening besides honest applicants, and what each of them wants: the tables of a scenario for it.

``docs/fairness.md`` says of each figure what is known and what is a guess. Money is in rupiah.
"""

from __future__ import annotations

__all__ = [
    "Brokers",
    "Bucket",
    "Drawing",
    "Enters",
    "Identity",
    "NetworkClass",
    "ReRelease",
    "Room",
    "Rounds",
    "Society",
]

import enum
from typing import Annotated

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=864_000)]
Interval = Annotated[float, msgspec.Meta(ge=0.001, le=864_000)]
Sigma = Annotated[float, msgspec.Meta(ge=0, le=3)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=60_000)]
Rupiah = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Hours = Annotated[float, msgspec.Meta(gt=0, le=240)]


class ReRelease(enum.StrEnum):
    """Where a place goes that was given back."""

    IMMEDIATE = "immediate"
    """Available again in the same step."""
    COOLING = "cooling"
    """Available again after 10 to 30 minutes, at a moment that nobody outside can foretell."""
    NEXT_DRAW = "next-draw"
    """Kept back until the next draw, or the next opening where there is no draw."""


class Identity(enum.StrEnum):
    """Whether the booking service checks an identity against the national register before it asks the engine."""

    WEAK = "weak"
    """It does not: any 16 digits will do."""
    VERIFIED = "verified"
    """It does: who does not exist is turned away, and a broker needs people who lend their names."""


class Enters(enum.StrEnum):
    """When brokers take part."""

    IF_PROFITABLE = "if-profitable"
    """If the openings that they have tried before let them expect a profit."""
    ALWAYS = "always"
    NEVER = "never"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file; every key has a default, and a key that is not known is a mistake."""


class NetworkClass(_Part, frozen=True, kw_only=True):
    """Citizens with one quality of network."""

    name: str
    share: Share
    """Of the citizens."""
    one_way_ms_median: Milliseconds
    """Over the people of the class; each person has one latency for the whole evening."""
    sigma: Sigma = 0.5


class Brokers(_Part, frozen=True, kw_only=True):
    """Those who book to sell. They decide alike, and ``identities`` are what they have together."""

    enters: Enters = Enters.IF_PROFITABLE
    identity_shares: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1, max_length=10)] = (0.1, 0.2, 0.4)
    """How many identities they try, as shares of the places on sale; they take the number that paid best."""
    identities: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Just so many identities, in place of ``identity_shares``; 0: those."""
    borrowed_share_max: Share = 0.2
    """How many people lend them their names at most, as a share of the places; what ``verified`` leaves them."""
    price: Rupiah = 300_000
    """Paid for a place in the customer's name, when the customer has it."""
    identity_cost_weak: Rupiah = 5_000
    """What a made-up identity with an account costs."""
    identity_cost_verified: Rupiah = 150_000
    """What somebody takes for lending their name."""
    stop_loss: Rupiah = 200_000
    """Who has lost so much in a row stays away from then on."""
    one_way_ms: Milliseconds = 2.0
    clock_error_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 5.0
    """How far from the opening their presses are (a normal distribution's deviation)."""
    form_s: Interval = 3.0
    hand_over_after_h: Hours = 10.0
    """From the opening to the hour at which they hand places over; few look then."""
    hand_over_every_s: Interval = 20.0
    poll_s: Interval = 1.0
    """How often they look for a place to come back that they have cancelled for a customer."""
    give_up_s: Seconds = 2400.0
    """After so long without it the customer is told that it did not work."""
    addresses: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 20
    """Network addresses that they spread their requests over."""
    trials: Annotated[int, msgspec.Meta(ge=0, le=100)] = 6
    """Earlier openings in which they tried, each with the next of the shares; customers saw what came of them."""
    trial_applicants: Annotated[int, msgspec.Meta(ge=10, le=100_000)] = 300
    """The most people at one of those earlier openings."""


class Rounds(_Part, frozen=True, kw_only=True):
    """Further draws or openings for what was given back, with the rule ``next-draw``."""

    count: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    """All of them, the first included."""
    every_h: Hours = 24.0
    return_share: Share = 0.8
    """Of those without a place: who come again to the next."""


class Bucket(_Part, frozen=True, kw_only=True):
    """The token bucket in front of the reserve."""

    requests_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    """For everybody together."""
    requests_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    identity_every_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 2
    identity_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 2
    address_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10
    address_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20


class Room(_Part, frozen=True, kw_only=True):
    """The waiting room."""

    join_before_s: Interval = 1800.0
    """The shuffled room's door opens so long before the opening; a first-come room's at the opening."""
    unaware_share: Share = 0.1
    """Of those who aim at the opening: who do not know of the door, and come at the second all the same."""
    window_s: Interval = 10.0
    """Who comes after the opening is shuffled among those of the same window."""
    per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20
    """How many are let in each second."""
    poll_s: Interval = 5.0
    """How often a waiting client asks for its position."""
    claim_s: Interval = 120.0
    """Who does not come within this loses the turn."""


class Drawing(_Part, frozen=True, kw_only=True):
    """The draw. The first is at the opening."""

    collect_h: Hours = 24.0
    """Applications are collected for so long before it."""
    claim_h: Hours = 6.0
    """How long a winner has to confirm."""
    look_h_median: Hours = 1.0
    look_sigma: Sigma = 0.8
    """When winners look at the result (lognormal)."""


class Society(_Part, frozen=True, kw_only=True):
    """Everybody. With agents, ``arrivals.party_shares`` and the crashes of ``agents`` are left out."""

    networks: Annotated[tuple[NetworkClass, ...], msgspec.Meta(min_length=1, max_length=10)] = (
        NetworkClass(name="good network", share=0.3, one_way_ms_median=15.0),
        NetworkClass(name="mobile network", share=0.5, one_way_ms_median=45.0),
        NetworkClass(name="poor network", share=0.2, one_way_ms_median=180.0),
    )
    round_trips: Annotated[int, msgspec.Meta(ge=1, le=50)] = 4
    """Before a first request is there: name, connection, encryption, page."""
    people_per_address: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 5
    bot_share: Share = 0.02
    """Of the people: who let a program press, for themselves."""
    bot_one_way_ms: Milliseconds = 4.0
    bot_lead_s: Seconds = 1.0
    """A program begins so long before the opening ..."""
    bot_every_s: Interval = 0.25
    """... and presses so often until it is open."""
    bot_watch_s: Interval = 60.0
    """After that it looks for places that come back."""
    value_median: Rupiah = 300_000
    """What a place is worth to a citizen, above what it costs at the counter (lognormal)."""
    value_sigma: Sigma = 0.8
    considers_brokers_share: Share = 0.5
    """Who would buy of a broker at all."""
    optimism_weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 10.0
    """How many own attempts the published ratio of places to applicants weighs as much as."""
    brokers: Brokers = Brokers()
    rounds: Rounds = Rounds()
    bucket: Bucket = Bucket()
    room: Room = Room()
    drawing: Drawing = Drawing()

    def __post_init__(self) -> None:
        if abs(sum(each.share for each in self.networks) - 1) > 1e-6 and all(
            0 <= each.share <= 1 for each in self.networks
        ):
            raise ValueError("networks whose shares add up to 1")
