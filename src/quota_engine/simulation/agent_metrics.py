"""Metrics of an opening with agents: places by class, load, and the profit of brokers."""

from __future__ import annotations

__all__ = ["AgentMetrics", "ClassMetrics", "CurvePoint", "correlation"]

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

from quota_engine.reporting.statistics import Histogram, Series
from quota_engine.simulation.brokers import BrokerPlan
from quota_engine.simulation.people import People
from quota_engine.simulation.population_config import ReReleasePolicy
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.supply import Supply

CURVE_POINTS: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Metrics of one class of people, or of the brokers' identities.

    Attributes:
        people: Size of the class.
        won: Places that the class won by itself.
        bought: Places that it bought from brokers.
        wait_s: Median time from the first request to the first yes or no, in seconds.
    """

    name: str
    people: int
    share_of_people: float
    won: int
    bought: int
    share_of_places: float
    success_share: float
    wait_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics for JSON."""
        return {
            "class": self.name,
            "people": self.people,
            "share_of_people": round(self.share_of_people, 6),
            "places_won": self.won,
            "places_bought": self.bought,
            "share_of_places": round(self.share_of_places, 6),
            "success_share": round(self.success_share, 6),
            "wait_s": round(self.wait_s, 3),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class CurvePoint:
    """A tenth of the people by latency: their highest latency, and the share of them who won a place."""

    latency_ms: float
    people: int
    success_share: float


class AgentMetrics:
    """Counts of one run. A place that a broker hands over counts for the broker and for the customer."""

    def __init__(
        self, scenario: Scenario, supply: Supply, people: People, plan: BrokerPlan, re_release: ReReleasePolicy
    ) -> None:
        self.scenario, self.supply, self.people, self.plan, self.re_release = scenario, supply, people, plan, re_release
        classes = len(people.classes)
        self.requests = self.polls = self.overloaded = self.throttled = 0
        self.store_calls = 0
        self.store_calls_per_s = Series(-3600)
        """Requests that reached the engine in each second."""
        self.oversold = 0
        self.sold_out_us = 0
        self.orders = self.places_held = self.delivered = 0
        self.answered = 0
        self.attended = self.no_shows = 0
        self._own = [0] * classes
        self._bought = [0] * classes
        self.wait_us = Histogram()
        self._waits = [Histogram() for _ in range(classes)]
        self._won = bytearray(len(people))

    def count_store_call(self, at_us: int) -> None:
        """Count a request that reached the engine."""
        self.store_calls += 1
        self.store_calls_per_s.add(at_us)

    def record_answer(self, index: int, wait_us: int) -> None:
        """Record the first yes or no of an agent, and the time since its first request."""
        self.answered += 1
        self.wait_us.record(wait_us)
        self._waits[self.people.class_of[index]].record(wait_us)

    def record_booking(self, index: int, at_us: int, *, by_broker: bool) -> None:
        """Record a confirmed place."""
        number = self.people.class_of[index]
        if index >= self.people.people_count:
            self.places_held += 1
        if by_broker:
            self._bought[number] += 1
            self.delivered += 1
        else:
            self._own[number] += 1
            self._won[index] = 1

    def record_attendance(self, index: int, attended: bool) -> None:
        """Record that the applicant attended, or did not."""
        if attended:
            self.attended += 1
        else:
            self.no_shows += 1

    @property
    def confirmed(self) -> int:
        """Places that were confirmed on the service day."""
        return self.attended + self.no_shows

    @property
    def capacity(self) -> int:
        """Places on sale."""
        return self.supply.capacity

    @property
    def idle_places(self) -> int:
        """Places without attendance: unsold, or confirmed for an identity of a broker."""
        return self.capacity - self.attended

    @property
    def broker_profit(self) -> int:
        """Revenue of the delivered places minus the cost of the identities, in rupiah."""
        return self.delivered * self.scenario.population.brokers.price - self.plan.cost

    @property
    def success_share(self) -> float:
        """Share of the people who won a place by themselves."""
        return sum(self._own[:-1]) / self.people.people_count

    @property
    def requests_per_place(self) -> float:
        """Requests to the servers for each place on sale. Polls do not count: one cached number answers them."""
        return self.requests / self.capacity

    @property
    def store_calls_per_s_max(self) -> int:
        """Most requests that reached the engine in one second."""
        return self.store_calls_per_s.peak

    def classes(self) -> list[ClassMetrics]:
        """Return the metrics of all classes that are not empty. Shares of people include the brokers' identities."""
        sizes = [0] * len(self.people.classes)
        for number in self.people.class_of:
            sizes[number] += 1
        everybody = len(self.people)
        figures = []
        for number, name in enumerate(self.people.classes):
            if not sizes[number]:
                continue
            own, bought = self._own[number], self._bought[number]
            figures.append(
                ClassMetrics(
                    name,
                    sizes[number],
                    sizes[number] / everybody,
                    own,
                    bought,
                    (own + bought) / self.capacity,
                    (own + bought) / sizes[number],
                    self._waits[number].percentile(0.5) / 1e6,
                )
            )
        return figures

    @property
    def correlation(self) -> float:
        """Correlation of a person's rank by latency with winning a place (Pearson's r of ranks and zeros and ones).

        It is 0 if all people won, or none. Brokers' identities and bought places do not count.
        """
        order = self._by_latency()
        ranks = _ranks([self.people.one_way_us[index] for index in order])
        return correlation(ranks, [self._won[index] for index in order])

    def latency_curve(self) -> list[CurvePoint]:
        """Return the success of the people in ten equal parts by latency."""
        order = self._by_latency()
        points = []
        parts = min(CURVE_POINTS, len(order))
        for part in range(parts):
            members = order[part * len(order) // parts : (part + 1) * len(order) // parts]
            won = sum(self._won[index] for index in members)
            points.append(CurvePoint(self.people.one_way_us[members[-1]] / 1000, len(members), won / len(members)))
        return points

    def _by_latency(self) -> list[int]:
        one_way_us = self.people.one_way_us
        return sorted(range(self.people.people_count), key=one_way_us.__getitem__)

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics for JSON. The same scenario and seed give the same bytes. Money is in rupiah."""
        brokers = self.scenario.population.brokers
        return {
            "policy": str(self.scenario.policy),
            "re_release": str(self.re_release),
            "identity": str(self.scenario.identity),
            "applicants": self.people.people_count,
            "capacity": self.capacity,
            "confirmed": self.confirmed,
            "oversold": self.oversold,
            "unsold": max(0, self.capacity - self.confirmed),
            "attended": self.attended,
            "idle_places": self.idle_places,
            "idle_places_of_brokers": self.no_shows,
            "latency_success_correlation": round(self.correlation, 6),
            "latency_curve": [
                {
                    "latency_ms_max": round(point.latency_ms, 3),
                    "people": point.people,
                    "success_share": round(point.success_share, 6),
                }
                for point in self.latency_curve()
            ],
            "classes": [figures.as_dict() for figures in self.classes()],
            "broker_identities": self.plan.identities,
            "broker_places_held": self.places_held,
            "broker_orders": self.orders,
            "broker_places_delivered": self.delivered,
            "broker_price": brokers.price,
            "broker_cost": self.plan.cost,
            "broker_profit": self.broker_profit,
            "requests": self.requests,
            "requests_per_place": round(self.requests_per_place, 3),
            "polls": self.polls,
            "store_calls": self.store_calls,
            "store_calls_per_s_max": self.store_calls_per_s_max,
            "throttled": self.throttled,
            "overloaded": self.overloaded,
            "sold_out_s": round(self.sold_out_us / 1e6, 3) if self.sold_out_us else None,
        }


def _ranks(values: Sequence[int]) -> list[float]:
    """Return the ranks of ascending values. Equal values share their mean rank."""
    ranks: list[float] = []
    start = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[start]:
            ranks.extend([(start + end - 1) / 2] * (end - start))
            start = end
    return ranks


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Pearson's r, or 0 if one of the sequences is constant."""
    count = len(first)
    if not count:
        return 0.0
    mean_first, mean_second = sum(first) / count, sum(second) / count
    first_sq = sum((value - mean_first) ** 2 for value in first)
    second_sq = sum((value - mean_second) ** 2 for value in second)
    if not first_sq or not second_sq:
        return 0.0
    both = sum((one - mean_first) * (other - mean_second) for one, other in zip(first, second, strict=True))
    return both / math.sqrt(first_sq * second_sq)
