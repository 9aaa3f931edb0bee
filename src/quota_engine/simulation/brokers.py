"""Decisions of brokers and their customers, made from observations that each of them could have.

Brokers know the profit of each number of identities at the last opening at which they used it. Customers know how many
orders were delivered, the published ratio of places to applicants, and how often they have failed themselves. Neither
knows how the policies work.
"""

from __future__ import annotations

__all__ = ["BrokerPlan", "MarketHistory", "TrialOpening", "earlier_failures", "expected_chance", "prefers_broker"]

import dataclasses
import math

from quota_engine.simulation.population_config import BrokerEntry, IdentityCheck, PopulationConfig


@dataclasses.dataclass(frozen=True, slots=True)
class BrokerPlan:
    """Identities with which brokers come to an opening; 0 if they stay away.

    The first ``borrowed`` identities belong to people who lend their names, and the rest are fabricated. ``cost`` is
    the cost of all of them, in rupiah.
    """

    identities: int
    borrowed: int
    cost: int


@dataclasses.dataclass(frozen=True, slots=True)
class TrialOpening:
    """Result of an earlier opening.

    Attributes:
        share: Number of identities, as a share of the places.
        orders: Places that customers ordered.
        delivered: Orders that were delivered.
        profit: Profit of the brokers, in rupiah.
        success_share: Share of the people who won a place by themselves.
    """

    share: float
    orders: int
    delivered: int
    profit: int
    success_share: float


class MarketHistory:
    """Results of earlier openings in order, as brokers and customers remember them."""

    def __init__(self, config: PopulationConfig, identity: IdentityCheck) -> None:
        self._brokers = config.brokers
        self._optimism_weight = config.optimism_weight
        self._identity = identity
        self.trials: list[TrialOpening] = []

    @property
    def shares(self) -> tuple[float, ...]:
        """Numbers of identities that brokers consider, as shares of the places on sale."""
        if self._identity is IdentityCheck.WEAK:
            return self._brokers.identity_shares
        # The number of people who lend their names is limited.
        return tuple(
            sorted({min(share, self._brokers.borrowed_share_max) for share in self._brokers.identity_shares} - {0.0})
        )

    @property
    def has_given_up(self) -> bool:
        """True if brokers have lost more than their stop loss in a row."""
        lost = 0
        for trial in self.trials:
            lost = lost - trial.profit if trial.profit < 0 else 0
            if lost > self._brokers.stop_loss:
                return True
        return False

    @property
    def trust(self) -> float:
        """Share of the orders that were delivered. One delivered order is assumed, so new brokers are trusted."""
        orders = sum(trial.orders for trial in self.trials)
        return (1 + sum(trial.delivered for trial in self.trials)) / (1 + orders)

    @property
    def success_share(self) -> float:
        """Share of the people who won a place by themselves at the last opening; 1 before the first."""
        return self.trials[-1].success_share if self.trials else 1.0

    def would_buy(self, value: int, luck: float, ratio: float) -> bool:
        """Return True if a person who has just failed would order from a broker.

        Args:
            value: Value of a place to the person, in rupiah.
            luck: 0 to 1; determines how often the person has failed before.
            ratio: Published ratio of places to applicants.
        """
        failures = 1 + earlier_failures(luck, self.success_share, self._brokers.trials)
        chance = expected_chance(failures, ratio, self._optimism_weight)
        return prefers_broker(value, self._brokers.price, self.trust, chance)

    def next_share(self) -> float:
        """Return the share to try next. Brokers try the shares in turn."""
        return self.shares[len(self.trials) % len(self.shares)] if self.shares else 0.0

    def best_share(self) -> float:
        """Return the share with the highest profit when last tried; 0 if none had a profit or brokers have given up."""
        if self.has_given_up:
            return 0.0
        profits = {trial.share: trial.profit for trial in self.trials}
        best = max(profits, key=lambda share: profits[share], default=0.0)
        return best if profits.get(best, 0) > 0 else 0.0

    def plan(self, places: int) -> BrokerPlan:
        """Return the plan for an opening with this many places."""
        brokers = self._brokers
        if brokers.entry is BrokerEntry.NEVER:
            return self.plan_of(0, places)
        share = self.best_share()
        if brokers.entry is BrokerEntry.ALWAYS:
            share = share or max(self.shares, default=0.0)
        if brokers.identities and (share or brokers.entry is BrokerEntry.ALWAYS):
            return self.plan_of(brokers.identities, places)
        return self.plan_of(max(1, round(share * places)) if share else 0, places)

    def plan_of(self, identities: int, places: int) -> BrokerPlan:
        """Return a plan with a given number of identities.

        All identities are fabricated unless the booking service checks them. Then some are borrowed, as far as people
        lend their names.
        """
        brokers = self._brokers
        borrowed = 0
        if self._identity is IdentityCheck.VERIFIED:
            borrowed = min(identities, max(1, round(brokers.borrowed_share_max * places)))
        cost = borrowed * brokers.identity_cost_verified + (identities - borrowed) * brokers.identity_cost_weak
        return BrokerPlan(identities, borrowed, cost)


def earlier_failures(luck: float, success_share: float, attempts_max: int) -> int:
    """Return how often a person who still tries has failed before.

    The number is geometrically distributed.

    Args:
        luck: 0 to 1; the quantile of this person.
        success_share: Chance of one attempt.
        attempts_max: Bound of the result.
    """
    if success_share >= 1 or luck <= 0:
        return 0
    if success_share <= 0:
        return attempts_max
    return min(attempts_max, int(math.log(luck) / math.log(1 - success_share)))


def expected_chance(failures: int, ratio: float, optimism_weight: float) -> float:
    """Return the chance of the next attempt, as a person estimates it.

    It is the mean of a beta distribution (Laplace's rule of succession) with the published ratio as the prior.

    Args:
        failures: Own failed attempts.
        ratio: Published ratio of places to applicants.
        optimism_weight: Attempts that the ratio counts as.
    """
    return optimism_weight * min(1.0, ratio) / (optimism_weight + failures)


def prefers_broker(value: int, price: int, trust: float, chance: float) -> bool:
    """Return True if the expected gain from a broker exceeds that of another attempt. Payment is due on delivery."""
    return trust * (value - price) > chance * value
