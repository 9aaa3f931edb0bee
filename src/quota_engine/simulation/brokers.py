"""What brokers and their customers decide, and what they go by: only what each of them could have seen.

Brokers have tried before: they know what each number of identities brought at the last opening at which they had so
many. Customers know how many of those who ordered got their place, the published ratio of places to applicants, and how
often they have failed themselves. Nobody is told what policy is good for what.
"""

from __future__ import annotations

__all__ = ["Experience", "Plan", "Trial", "attempts_before", "buys", "chance_of"]

import dataclasses
import math

from quota_engine.simulation.population_config import Enters, Identity, Society


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """With how many identities brokers come; 0: they stay away.

    The first ``borrowed`` of them are of people who lend their names, the others are made up. ``cost`` is what all of
    them cost, in rupiah.
    """

    identities: int
    borrowed: int
    cost: int


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What came of one earlier opening. ``share`` is the number of identities as a share of the places.

    ``success_share`` is the share of those who tried by themselves and got a place.
    """

    share: float
    orders: int
    delivered: int
    profit: int
    success_share: float


class Experience:
    """What everybody remembers of earlier openings, the last one last."""

    def __init__(self, society: Society, identity: Identity) -> None:
        self._brokers = society.brokers
        self._optimism_weight = society.optimism_weight
        self._identity = identity
        self.trials: list[Trial] = []

    @property
    def shares(self) -> tuple[float, ...]:
        """The numbers of identities that brokers think of, as shares of the places on sale."""
        if self._identity is Identity.WEAK:
            return self._brokers.identity_shares
        # Only so many people lend their names.
        return tuple(
            sorted({min(share, self._brokers.borrowed_share_max) for share in self._brokers.identity_shares} - {0.0})
        )

    @property
    def has_given_up(self) -> bool:
        """Whether brokers have lost more in a row than they can bear."""
        lost = 0
        for trial in self.trials:
            lost = lost - trial.profit if trial.profit < 0 else 0
            if lost > self._brokers.stop_loss:
                return True
        return False

    @property
    def trust(self) -> float:
        """The share of orders that were delivered. To begin with the promise is believed: one order that was."""
        orders = sum(trial.orders for trial in self.trials)
        return (1 + sum(trial.delivered for trial in self.trials)) / (1 + orders)

    @property
    def success_share(self) -> float:
        """How many of those who tried by themselves got a place, the last time; 1 if nobody has tried yet."""
        return self.trials[-1].success_share if self.trials else 1.0

    def would_buy(self, value: int, luck: float, ratio: float) -> bool:
        """Whether somebody who has just failed orders of a broker.

        Args:
            value: what a place is worth to them, in rupiah.
            luck: 0 to 1; it stands for how often they have failed before.
            ratio: the places for each applicant, as published.
        """
        failures = 1 + attempts_before(luck, self.success_share, self._brokers.trials)
        chance = chance_of(failures, ratio, self._optimism_weight)
        return buys(value, self._brokers.price, self.trust, chance)

    def next_share(self) -> float:
        """What brokers try next: the numbers that they think of, in turn."""
        return self.shares[len(self.trials) % len(self.shares)] if self.shares else 0.0

    def best_share(self) -> float:
        """The number that paid best when they last tried it; 0 if none paid, or if they have given up."""
        if self.has_given_up:
            return 0.0
        profits = {trial.share: trial.profit for trial in self.trials}
        best = max(profits, key=lambda share: profits[share], default=0.0)
        return best if profits.get(best, 0) > 0 else 0.0

    def plan(self, places: int) -> Plan:
        """With how many identities brokers come to an opening of so many places."""
        brokers = self._brokers
        if brokers.enters is Enters.NEVER:
            return self.plan_of(0, places)
        share = self.best_share()
        if brokers.enters is Enters.ALWAYS:
            share = share or max(self.shares, default=0.0)
        if brokers.identities and (share or brokers.enters is Enters.ALWAYS):
            return self.plan_of(brokers.identities, places)
        return self.plan_of(max(1, round(share * places)) if share else 0, places)

    def plan_of(self, identities: int, places: int) -> Plan:
        """A plan with so many identities for so many places.

        Where identities are not checked, all are made up. Where they are, only so many people lend their names.
        """
        brokers = self._brokers
        borrowed = 0
        if self._identity is Identity.VERIFIED:
            borrowed = min(identities, max(1, round(brokers.borrowed_share_max * places)))
        cost = borrowed * brokers.identity_cost_verified + (identities - borrowed) * brokers.identity_cost_weak
        return Plan(identities, borrowed, cost)


def attempts_before(luck: float, success_share: float, attempts_max: int) -> int:
    """How often somebody who is still trying has failed before: geometric in what a try is worth, by their own luck."""
    if success_share >= 1 or luck <= 0:
        return 0
    if success_share <= 0:
        return attempts_max
    return min(attempts_max, int(math.log(luck) / math.log(1 - success_share)))


def chance_of(failures: int, ratio: float, optimism_weight: float) -> float:
    """What somebody thinks their chance is who has failed so often, and has read that there are so many places an
    applicant: the mean of a beta distribution (Laplace's rule, with the published ratio as what was believed before).
    """
    return optimism_weight * min(1.0, ratio) / (optimism_weight + failures)


def buys(value: int, price: int, trust: float, chance: float) -> bool:
    """Whether a customer expects more of a broker than of trying again alone. One pays for a place, not for a try."""
    return trust * (value - price) > chance * value
