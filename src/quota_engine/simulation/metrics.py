"""Metrics of a run, the same for the engine and for the baseline."""

from __future__ import annotations

__all__ = ["Metrics", "oversold_places", "series_start_s"]

import dataclasses
from collections.abc import Mapping
from typing import Any

from quota_engine.reporting.statistics import Histogram, Series
from quota_engine.simulation.supply import OfficeDay


@dataclasses.dataclass(slots=True)
class Metrics:
    """Counts and measurements of one run. ``capacity``, ``confirmed``, ``oversold`` and the series count places.

    Attributes:
        start_s: First second of the series, relative to the opening.
        bookings: Applicants with a place.
        errors: Requests without an answer (refused connections, time-outs, lost answers), and once more each applicant
            who gave up over them.
        overloaded: Requests that were deferred because the queue was full. They have an answer.
        sold_out_us: Moment of the first sold-out answer, from the opening; ``None`` if there was none.
        answer_us: Time from the press to the first yes or no, retries included. The press is the first one at or after
            the opening, or the last one before it that was not deferred.
        final_us: Time from the same press to the end: the place confirmed, or the refusal accepted.
        taken: Changes of the places held or confirmed, by the second.
        sold: Changes of the places confirmed, by the second.
    """

    applicants: int
    capacity: int
    start_s: int
    confirmed: int = 0
    oversold: int = 0
    bookings: int = 0
    refused: int = 0
    abandoned: int = 0
    gave_up: int = 0
    requests: int = 0
    errors: int = 0
    overloaded: int = 0
    logged_out: int = 0
    applicants_logged_out: int = 0
    double_booked: int = 0
    booked_unknowingly: int = 0
    resumed: int = 0
    holds_lost: int = 0
    waited: int = 0
    offers_seen: int = 0
    offers_declined: int = 0
    holds_expired: int = 0
    queue_max: int = 0
    last_final_us: int = 0
    sold_out_us: int | None = None
    answers_by_status: dict[str, int] = dataclasses.field(default_factory=dict)
    answer_us: Histogram = dataclasses.field(default_factory=Histogram)
    final_us: Histogram = dataclasses.field(default_factory=Histogram)
    arrivals: Series = dataclasses.field(init=False)
    answers: Series = dataclasses.field(init=False)
    taken: Series = dataclasses.field(init=False)
    sold: Series = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        for name in ("arrivals", "answers", "taken", "sold"):
            setattr(self, name, Series(self.start_s))

    @property
    def unsold(self) -> int:
        """Places on sale that are not confirmed in the end."""
        return max(0, self.capacity + self.oversold - self.confirmed)

    @property
    def answered(self) -> int:
        """Applicants with a final answer."""
        return self.bookings + self.refused + self.abandoned

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics for JSON. ``elapsed_s`` is simulated time, from the opening to the last final answer."""
        return {
            "applicants": self.applicants,
            "capacity": self.capacity,
            "confirmed": self.confirmed,
            "oversold": self.oversold,
            "unsold": self.unsold,
            "refused": self.refused,
            "abandoned": self.abandoned,
            "gave_up": self.gave_up,
            "errors": self.errors,
            "answered": self.answered,
            "answer_ms": _milliseconds(self.answer_us),
            "final_ms": _milliseconds(self.final_us),
            "elapsed_s": round(self.last_final_us / 1_000_000, 3),
            "requests": self.requests,
            "overloaded": self.overloaded,
            "requests_by_answer": dict(sorted(self.answers_by_status.items())),
            "answers_per_s_max": self.answers.peak,
            "queue_max": self.queue_max,
        }


def _milliseconds(histogram: Histogram) -> dict[str, float]:
    points = {"p50": histogram.percentile(0.5), "p99": histogram.percentile(0.99), "max": histogram.max}
    return {name: round(value / 1000, 1) for name, value in points.items()}


def series_start_s(first_press_us: int) -> int:
    """Return the first second of a run's series: that of the first press, but at most an hour before the opening."""
    return max(min(first_press_us // 1_000_000, 0), -3600)


def oversold_places(office_day: OfficeDay, confirmed: Mapping[str, int]) -> int:
    """Return the places confirmed above capacity on one office-day, counted from the answers to applicants.

    Quotas that reallocate unused places count together, since capacity has moved between them. A place that consumes
    several quotas counts once.

    Args:
        office_day: The office-day.
        confirmed: Confirmed places by quota.
    """
    together: dict[str, str] = {}
    for quota in office_day.quotas:
        last, hops = quota, 0
        while last in office_day.reallocation_targets and hops < len(office_day.quotas):
            last, hops = office_day.reallocation_targets[last], hops + 1
        together[quota] = last
    above = dict.fromkeys(together.values(), 0)
    for quota, capacity in office_day.quotas.items():
        above[together[quota]] += confirmed.get(quota, 0) - capacity
    return max(0, *above.values()) if above else 0
