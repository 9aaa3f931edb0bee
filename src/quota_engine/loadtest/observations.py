"""Observations of a load test: the responses that people got, in messages of bounded size."""

from __future__ import annotations

__all__ = ["BATCH_MAX", "ApplicationReceipt", "BookedPlace", "Observations", "UnansweredPerson"]

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from quota_engine import typed_data
from quota_engine.reporting.statistics import Histogram, Series
from quota_engine.simulation.metrics import Metrics

BATCH_MAX: Final = 1000
"""Most places in one message from a worker to the master."""
_SAMPLES_MAX: Final = 20

_COUNTS: Final = (
    "confirmed",
    "bookings",
    "refused",
    "abandoned",
    "gave_up",
    "requests",
    "errors",
    "overloaded",
    "resumed",
    "holds_lost",
    "waited",
    "holds_expired",
)
_HISTOGRAMS: Final = ("answer_us", "final_us")
_SERIES: Final = ("arrivals", "answers", "taken", "sold")


class BookedPlace(msgspec.Struct, array_like=True):
    """A reservation as its applicant knows it.

    ``state`` is the last state in a response: ``HELD``, ``CONFIRMED``, ``CANCELLED``, ``RELEASED`` or ``EXPIRED``.
    ``at_us`` is the moment of that response, in microseconds from the opening.
    """

    person: int
    office_day: int
    reference: str
    state: str
    at_us: int
    units: int
    quotas: tuple[str, ...]
    queue_numbers: tuple[int, ...] = ()


class ApplicationReceipt(msgspec.Struct, array_like=True):
    """An application in a draw as its applicants know it.

    ``tokens`` name its applicants in the published list. ``version`` counts its changes.
    """

    person: int
    number: int
    version: int
    tokens: tuple[str, ...]
    choices: tuple[dict[str, str], ...]
    is_withdrawn: bool = False


class UnansweredPerson(msgspec.Struct, array_like=True):
    """A person without a final answer, and the request or wait that was pending."""

    person: int
    office_day: int
    waiting_for: str


@dataclasses.dataclass(slots=True)
class Observations:
    """Observations of one process, or of all processes together.

    ``metrics`` are the simulation's own class, so that both can be compared. ``request_us`` are durations of requests.
    ``lag_us`` is the time from the due moment to the queue of the Locust users: the fault of the load generator.
    ``user_wait_us`` is the time in that queue.
    """

    metrics: Metrics
    places: dict[str, BookedPlace] = dataclasses.field(default_factory=dict)
    receipts: dict[int, ApplicationReceipt] = dataclasses.field(default_factory=dict)
    receipts_changed: int = 0
    """People whose application had another number when they came back."""
    unanswered: list[UnansweredPerson] = dataclasses.field(default_factory=list)
    unanswered_count: int = 0
    passes_refused: int = 0
    """People who entered through a waiting room, but whose pass was refused."""
    ends_by_role: Counter[str] = dataclasses.field(default_factory=Counter)
    requests_by_name: Counter[str] = dataclasses.field(default_factory=Counter)
    lost_by_reason: Counter[str] = dataclasses.field(default_factory=Counter)
    request_us: Histogram = dataclasses.field(default_factory=Histogram)
    lag_us: Histogram = dataclasses.field(default_factory=Histogram)
    user_wait_us: Histogram = dataclasses.field(default_factory=Histogram)
    capacities: dict[str, int] = dataclasses.field(default_factory=dict)
    """The largest capacity that an operator of the test set, by ``office_day/quota``."""

    @classmethod
    def empty(cls, people: int, capacity: int, start_s: int) -> Observations:
        """Return empty observations of ``people`` and ``capacity``; series start at second ``start_s``."""
        return cls(Metrics(people, capacity, start_s))

    def record_place(self, place: BookedPlace) -> None:
        """Record a new place, or a new state of a known one."""
        self.places[place.reference] = place

    def record_unanswered(self, person: int, office_day: int, waiting_for: str) -> None:
        """Record a person who still waited for an answer when the test ended."""
        self.unanswered_count += 1
        if len(self.unanswered) < _SAMPLES_MAX:
            self.unanswered.append(UnansweredPerson(person, office_day, waiting_for))

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the observations as messages of bounded size; the last one has ``last`` set."""
        places = list(self.places.values())
        for start in range(0, len(places), BATCH_MAX):
            yield {"places": msgspec.to_builtins(places[start : start + BATCH_MAX])}
        receipts = list(self.receipts.values())
        for start in range(0, len(receipts), BATCH_MAX):
            yield {"receipts": msgspec.to_builtins(receipts[start : start + BATCH_MAX])}
        metrics = self.metrics
        yield {
            "last": True,
            "counts": {name: getattr(metrics, name) for name in _COUNTS},
            "last_final_us": metrics.last_final_us,
            "sold_out_us": metrics.sold_out_us,
            "answers_by_status": dict(metrics.answers_by_status),
            "histograms": {name: getattr(metrics, name).to_builtins() for name in _HISTOGRAMS},
            "series": {name: getattr(metrics, name).to_builtins() for name in _SERIES},
            "request_us": self.request_us.to_builtins(),
            "lag_us": self.lag_us.to_builtins(),
            "user_wait_us": self.user_wait_us.to_builtins(),
            "ends_by_role": dict(self.ends_by_role),
            "requests_by_name": dict(self.requests_by_name),
            "lost_by_reason": dict(self.lost_by_reason),
            "capacities": self.capacities,
            "unanswered": msgspec.to_builtins(self.unanswered),
            "unanswered_count": self.unanswered_count,
            "passes_refused": self.passes_refused,
            "receipts_changed": self.receipts_changed,
        }

    def add_message(self, page: Mapping[str, Any]) -> None:
        """Add a message of another process."""
        for place in typed_data.convert(page.get("places", ()), list[BookedPlace]):
            if place.reference in self.places:
                # Two people got the same reservation. Keep both, so that the checks find it.
                place.reference += f" (person {place.person})"
            self.places[place.reference] = place
        for receipt in typed_data.convert(page.get("receipts", ()), list[ApplicationReceipt]):
            self.receipts_changed += receipt.number in self.receipts
            self.receipts[receipt.number] = receipt
        if not page.get("last"):
            return
        metrics = self.metrics
        for name, count in page["counts"].items():
            setattr(metrics, name, getattr(metrics, name) + count)
        metrics.last_final_us = max(metrics.last_final_us, page["last_final_us"])
        if page["sold_out_us"] is not None:
            metrics.sold_out_us = min(page["sold_out_us"], metrics.sold_out_us or page["sold_out_us"])
        for status, count in page["answers_by_status"].items():
            metrics.answers_by_status[status] = metrics.answers_by_status.get(status, 0) + count
        for name, values in page["histograms"].items():
            getattr(metrics, name).merge(Histogram.from_builtins(values))
        for name, values in page["series"].items():
            getattr(metrics, name).merge(Series.from_builtins(values))
        self.request_us.merge(Histogram.from_builtins(page["request_us"]))
        self.lag_us.merge(Histogram.from_builtins(page["lag_us"]))
        self.user_wait_us.merge(Histogram.from_builtins(page["user_wait_us"]))
        self.ends_by_role.update(page["ends_by_role"])
        self.requests_by_name.update(page["requests_by_name"])
        self.lost_by_reason.update(page["lost_by_reason"])
        for name, capacity in page["capacities"].items():
            self.capacities[name] = max(capacity, self.capacities.get(name, 0))
        found = typed_data.convert(page["unanswered"], list[UnansweredPerson])
        self.unanswered = (self.unanswered + found)[:_SAMPLES_MAX]
        self.unanswered_count += page["unanswered_count"]
        self.passes_refused += page["passes_refused"]
        self.receipts_changed += page["receipts_changed"]
